"""Rigorous enclosures: runs of small two-layer networks in ball arithmetic, through crossings and slides.

    exact       the problem in rational numbers          start      the exact start
    losses      losses of the margin                     modes      sides of kinks, and which come next
    series      Taylor coefficients within a mode        tails      proved bounds of the rest of the series
    curve       polynomial with such a bound             roots      the first zero of one
    events      what ends a mode                         steps      one step
    run         all steps                                enclosure  what they enclose
    points      the solution at a time or around it      infimum    branch and bound over time
    comparison  the true error of a float solution
    certificate all that proves a run once more       checker    verifies it, and stands alone

flowsim/README.md, section 11, proves that the method is right. Importing this package does not import python-flint.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from flowsim.flow import Flow
from flowsim.weights import Weights

if TYPE_CHECKING:
    from flowsim.enclosure.enclosure import Enclosure


def enclose(flow: Flow, weights: Weights, t_final: float, *, bits: int = 256) -> Enclosure:
    """Enclose the solution of a flow on [0, t_final] with proof: every number is a ball that contains the true one.

    Data, weights, slope and feedback are taken exactly, as the rational numbers that floats are. Two layers, scalar
    output, one trajectory; GD, FA, adaFA and sign-FA; exponential, logistic and squared loss; any slope.

    Args:
        flow: data, rule, loss and slope, without decay.
        weights: initial weights `m x d` and `m`.
        t_final: end of the time interval, above 0.
        bits: precision of the balls. Where it does not suffice to decide what comes next, it is doubled, up to 1024.

    Raises:
        ImportError: without python-flint.
        ValueError: for a flow that cannot be enclosed: deep, with vector output, batched, or with a rule or loss of
            another kind.
        Undecided: where what comes next cannot be proved: a start with several solutions, a kink that is grazed, or
            two events at one time. Never a guess.

    >>> import torch
    >>> from flowsim import Dataset, FeedbackAlignment
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> enclosure = enclose(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), 2.0)
    >>> at_end = enclosure.at(2.0)
    >>> gap = at_end.output[0] - at_end.hidden[0][0] ** 2 / 2  # Theorem 5.2: stays 0
    >>> gap.contains(0), bool(gap.rad() < 1e-14)
    (True, True)
    """
    if importlib.util.find_spec("flint") is None:
        raise ImportError('enclose needs python-flint: pip install ".[rigorous]"')
    from flowsim.enclosure.exact import problem_of  # noqa: PLC0415, optional
    from flowsim.enclosure.run import enclose_problem  # noqa: PLC0415, optional

    return enclose_problem(problem_of(flow, weights), t_final, bits=bits)
