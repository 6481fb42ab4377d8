"""flowsim: feedback alignment as an exact flow.

Data flows one way: data, flow, solve, solution, observables. See the README for an example, and theorems/README.md
for the mathematics.
"""

import importlib.metadata

from flowsim import data
from flowsim.data import Dataset
from flowsim.enclosure import enclose
from flowsim.errors import IntegrationError, IntegrationInterrupt, Undecided
from flowsim.flow import Flow
from flowsim.integrators.event.crawl import CrawlingWarning
from flowsim.rules import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
)
from flowsim.solution import Solution
from flowsim.solve import load, solve
from flowsim.weights import DeepWeights, Weights

__version__ = importlib.metadata.version("flowsim")

__all__ = [
    "CrawlingWarning",
    "Dataset",
    "DeepWeights",
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "Flow",
    "GradientDescent",
    "IntegrationError",
    "IntegrationInterrupt",
    "Rule",
    "SignFeedbackAlignment",
    "Solution",
    "Undecided",
    "Weights",
    "__version__",
    "data",
    "enclose",
    "load",
    "solve",
]
