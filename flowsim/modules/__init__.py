"""Feedback in torch modules, and what training conserves there: convolution, pooling, residual streams, batch norm.

layers      linear and convolutional layers whose errors go back through feedback weights
reading     the law, read off a network: which layers write each channel, and which read it
signals     what happens to channels in each module and function
channels    which channels are one, who writes and reads them, what breaks the law
groups      what is read: groups of channels
law         the conserved quantities, and the rates of their two sides
ledger      what steps of SGD with momentum, decay and mini-batches add to them

The mathematics is section 13 of theorems/README.md.
"""

from flowsim.modules.groups import Group, Reading, Term
from flowsim.modules.law import conserved, rates
from flowsim.modules.layers import FeedbackConv2d, FeedbackLinear, feedback_alignment, feedback_layers
from flowsim.modules.ledger import Ledger
from flowsim.modules.reading import read

__all__ = [
    "FeedbackConv2d",
    "FeedbackLinear",
    "Group",
    "Ledger",
    "Reading",
    "Term",
    "conserved",
    "feedback_alignment",
    "feedback_layers",
    "rates",
    "read",
]
