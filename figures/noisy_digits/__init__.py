"""The paper's two-layer experiment (section 6.1, appendices A and B.1): `python -m figures noisy_digits`.

images       the pictures                      training   all runs at once, saved as it goes
protocol     settings, and the problem         results    tables, and the paper's claims
conservation, alignment, losses, flow_limit    the figures, with captions as docstrings
"""
