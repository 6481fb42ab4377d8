"""The statements of the paper as measurements: one module per statement, `python -m theorems` runs them all.

The paper: "Implicit Regularization in Feedback Alignment Learning Mechanisms for Neural Networks" (Zachary Robertson,
Sanmi Koyejo). The mathematics, in the project's own words: README.md beside this file.
"""
