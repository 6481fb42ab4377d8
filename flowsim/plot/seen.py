"""A run at the times that are drawn."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from matplotlib import pyplot
from matplotlib.axes import Axes
from torch import Tensor

from flowsim.errors import UndefinedError
from flowsim.flow import Flow
from flowsim.plot import theme
from flowsim.rules import FeedbackAlignment
from flowsim.solution import Solution
from flowsim.solving import load
from flowsim.times import log_times
from flowsim.validation import shown
from flowsim.weights import NetworkWeights

TIMES = 300
CHUNK = 2**24
"""Numbers of weights that are evaluated at once."""

EARLY = 10
"""The longest of so many first steps says from when on time is drawn logarithmically: an event may cut one short."""

NAMES = {
    "GradientDescent": "GD",
    "FeedbackAlignment": "FA",
    "SignFeedbackAlignment": "sign-FA",
    "DirectFeedbackAlignment": "DFA",
}

Observable = Callable[[Flow, NetworkWeights], Sequence[Tensor]]


class Seen:
    """A run, with its weights at the times that are drawn, which several plots of it share.

    Trajectories are those of the flattened ensemble. One that stopped early is seen up to the time that it reached, and
    there at all later times.
    """

    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.reached = solution.path.reached.cpu()
        self.count = len(self.reached)
        self.stopped = [reason is not None for reason in solution.path.reasons]
        self.symbol = solution.settings.symbol

    @cached_property
    def first(self) -> float | None:
        """The power of ten from which on time is drawn logarithmically; None if it is not at all."""
        solution = self.solution
        if solution.settings.logarithmic:
            return None
        whose, start, end = (column.cpu() for column in solution.pieces)
        begins = torch.searchsorted(whose, torch.arange(self.count))
        early = torch.arange(len(whose)) - begins[whose] < EARLY
        longest = start.new_zeros(self.count).scatter_reduce(0, whose[early], (end - start)[early], "amax")
        typical = longest.median().item()
        first = 10.0 ** math.floor(math.log10(typical)) if typical > 0 else math.inf
        return first if solution.t_final > 10 * first else None

    @cached_property
    def times(self) -> Float[Tensor, " times"]:
        """From 0 to t_final, about as dense as they are drawn."""
        last, first = self.solution.t_final, self.first
        if first is None:
            return torch.linspace(0, last, TIMES, dtype=torch.float64)
        before = math.ceil(TIMES * theme.LINEAR / (theme.LINEAR + math.log10(last / first)))
        linear = torch.linspace(0, first, before, dtype=torch.float64)
        return torch.cat([linear[:-1], log_times(first, last, TIMES + 2 - before)[1:]])

    @cached_property
    def at(self) -> Float[Tensor, "times ensemble"]:
        """The time at which each trajectory is seen."""
        return torch.minimum(self.times.unsqueeze(-1), self.reached)

    @cached_property
    def beyond(self) -> Tensor:
        """Whether the trajectory had stopped before, `times x ensemble`."""
        return self.times.unsqueeze(-1) > self.reached

    @cached_property
    def parts(self) -> tuple[Int[Tensor, " some"], ...]:
        """Trajectories that are evaluated together."""
        one = TIMES * sum(layer.shape[-2:].numel() for layer in self.solution.start.layers)
        return torch.arange(self.count).split(max(1, CHUNK // one))

    @cached_property
    def _first_part(self) -> NetworkWeights:
        return self._evaluated(self.parts[0])

    def _evaluated(self, part: Tensor) -> NetworkWeights:
        at = self.at[:, part]
        return self.solution.evaluate(at, part.expand_as(at))

    def observe(self, observable: Observable) -> tuple[Float[Tensor, "times ensemble *some"], ...]:
        """What a function of flow and weights gives along every trajectory."""
        found = []
        for place, part in enumerate(self.parts):
            weights = self._evaluated(part) if place else self._first_part
            found.append(observable(self.solution.flow_of(part), weights))
        return tuple(torch.cat([value.cpu() for value in values], 1) for values in zip(*found, strict=True))

    def errors(self, part: Int[Tensor, " some"]) -> NetworkWeights:
        """`Solution.error` of some trajectories at the times."""
        at = self.at[:, part]
        return self.solution.error(at, part.expand_as(at))

    @property
    def everyone(self) -> Flow:
        """The flow of the flattened ensemble."""
        return self.solution.flow_of(torch.arange(self.count))

    @cached_property
    def start(self) -> NetworkWeights:
        """The weights of the flattened ensemble at 0."""
        zeros = torch.zeros(self.count, dtype=torch.float64)
        return self.solution.evaluate(zeros, torch.arange(self.count))

    @property
    def layers_with_law(self) -> list[int]:
        """The hidden layers at which the rule conserves something, l = 1 .. H.

        Raises:
            UndefinedError: if it does nowhere.
        """
        rule = self.solution.flow.rule
        found = rule.layers_with_law(self.start)
        if not found:
            raise UndefinedError(f"rule {type(rule).__name__} conserves nothing: it has no potentials")
        return found

    @cached_property
    def rule(self) -> str:
        """The name of the rule; adaFA is FA whose feedback is W(0)."""
        rule, start = self.solution.flow.rule, self.start
        if type(rule) is FeedbackAlignment:
            pairs = zip(start.layers[1:], self.everyone.rule.feedback_matrices(start), strict=True)
            if all(torch.equal(layer, matrix.expand_as(layer)) for layer, matrix in pairs):
                return "adaFA"
        return NAMES.get(type(rule).__name__, type(rule).__name__)

    def time_axis(self, axes: Axes) -> None:
        """The axis of time from 0 to the end of the longest run on it."""
        last = max(self.solution.t_final, axes.dataLim.x1)
        if self.first is not None:
            theme.time_axis(axes, self.first, last)
        else:
            axes.set_xlim(0, last)
            axes.set_xlabel("time $t$" if self.symbol == "t" else r"time $s = \log(1 + t)$")


Run: TypeAlias = Solution | str | os.PathLike[str] | Seen
"""What can be drawn: a solution, the path of a saved one, or what is seen of one."""


def see(run: Run) -> Seen:
    """What is seen of a run.

    Raises:
        ValueError: if it is neither a solution nor the path of a file with one.
    """
    if isinstance(run, Seen):
        return run
    if isinstance(run, (str, os.PathLike)):
        return Seen(load(run))
    if not isinstance(run, Solution):
        raise ValueError(f"run must be a flowsim.Solution or the path of a saved one, got {shown(run)}")
    return Seen(run)


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure of pyplot.

    Raises:
        ValueError: if they are something else.
    """
    if ax is None:
        return pyplot.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise ValueError(f"ax must be axes of matplotlib, or None for new ones, got {shown(ax)}")
    return ax
