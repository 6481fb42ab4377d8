"""The deep networks of the paper's section 6.2 (appendices A and B.2): `python -m figures deep_networks`.

networks   LeNet and ResNet-18                training   one run, an epoch at a time, with the law's ledger
protocol   settings, and the parts of a run   results    the table, tables 1 and 2, the paper's sentences, predictions
alignment, accuracy, conservation             the figures, drawn from the table, with captions as docstrings
experiment all runs, from images to tables and figures
"""
