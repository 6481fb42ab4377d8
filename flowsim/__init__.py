"""flowsim: feedback alignment as an exact flow.

Data flows one way: data, flow, solve, solution, observables. See the README for an example, and theorems/README.md
for the mathematics.
"""

from flowsim import data
from flowsim.data import Dataset
from flowsim.flow import Flow
from flowsim.rules import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
)
from flowsim.solution import IntegrationError, Solution
from flowsim.solve import solve
from flowsim.weights import DeepWeights, Weights

__all__ = [
    "Dataset",
    "DeepWeights",
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "Flow",
    "GradientDescent",
    "IntegrationError",
    "Rule",
    "SignFeedbackAlignment",
    "Solution",
    "Weights",
    "data",
    "solve",
]
