"""flowsim: feedback alignment as an exact flow.

Data flows one way: data, flow, observables, solution, solve. See the README for an example, and theorems/README.md
for the mathematics.

What is named here is loaded when it is asked for, torch with it: `flowsim --help` needs neither.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from flowsim.solving import load, solve
    from flowsim.sweeps import sweep as sweep
    from flowsim.weights import DeepWeights, Weights

HOMES = {
    "CrawlingWarning": "integrators.event.crawl",
    "Dataset": "data",
    "DeepWeights": "weights",
    "DirectFeedbackAlignment": "rules",
    "FeedbackAlignment": "rules",
    "Flow": "flow",
    "GradientDescent": "rules",
    "IntegrationError": "errors",
    "IntegrationInterrupt": "errors",
    "Rule": "rules",
    "SignFeedbackAlignment": "rules",
    "Solution": "solution",
    "Undecided": "errors",
    "Weights": "weights",
    "enclose": "enclosure",
    "load": "solving",
    "solve": "solving",
    "sweep": "sweeps",
}
"""The module of each name; `sweep`, which an extra brings, is not among those of `import *`."""

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


if not TYPE_CHECKING:  # else every name, misspelt ones too, would be there for a type checker

    def __getattr__(name: str) -> Any:
        """A name from its module, or a module."""
        if name in HOMES:
            value = getattr(importlib.import_module(f"flowsim.{HOMES[name]}"), name)
        else:
            try:
                value = importlib.import_module(f"flowsim.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"flowsim.{name}":
                    raise
                raise AttributeError(f"module 'flowsim' has no attribute {name!r}") from None
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
