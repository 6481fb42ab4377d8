"""The two-layer experiment of the paper's section 6.1 (appendices A and B.1): `python -m figures noisy_digits`.

protocol     settings, and the problem         training   all runs at once, saved as it goes
small_steps  the limit of small steps          results    tables, and the paper's claims
conservation, alignment, losses, flow_limit    the figures, drawn from the tables, with captions as docstrings
experiment   from images to tables and figures
"""
