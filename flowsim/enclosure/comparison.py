"""The true error of a float solution, proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from flint import arb, ctx

from flowsim.solution import Solution
from flowsim.weights import Weights

if TYPE_CHECKING:
    from flowsim.enclosure.enclosure import Enclosure


@dataclass(frozen=True)
class Comparison:
    """The largest error of a float solution's weights at each time: between `lower` and `upper`, with proof.

    `estimate` is what the solution itself says about it.
    """

    times: tuple[float, ...]
    lower: tuple[arb, ...]
    upper: tuple[arb, ...]
    estimate: tuple[float, ...]

    @property
    def largest(self) -> arb:
        """An upper bound of the error at all times."""
        return max(self.upper)

    @property
    def within(self) -> bool:
        """Whether the error is proved to stay within the estimate at all times."""
        return all(bound <= estimate for bound, estimate in zip(self.upper, self.estimate, strict=True))

    @property
    def understated(self) -> bool:
        """Whether the error is proved to exceed the estimate at some time."""
        return any(bound > estimate for bound, estimate in zip(self.lower, self.estimate, strict=True))


def compare(enclosure: Enclosure, solution: Solution[Weights], times: Sequence[float] | None = None) -> Comparison:
    """Return the proved errors at the times given; else where the solution's pieces start, end and have their middles.

    Times where it ends earlier or later than the enclosure are left out.

    Raises:
        ValueError: for a solution of more than one trajectory.
    """
    if tuple(solution.batch_shape):
        raise ValueError(f"solution must be of one trajectory, got batch shape {tuple(solution.batch_shape)}")
    if times is None:
        pieces = solution.pieces
        asked = torch.cat([pieces.start, pieces.end, (pieces.start + pieces.end) / 2]).unique().tolist()
        times = [time for time in asked if arb(time) <= enclosure.t_final]
    at, error = solution.evaluate(list(times)), solution.error(list(times))
    estimates = torch.maximum(error.hidden.flatten(1).amax(1), error.output.amax(1)).tolist()
    bounds = [
        _distance(enclosure, time, hidden, output)
        for time, hidden, output in zip(times, at.hidden.tolist(), at.output.tolist(), strict=True)
    ]
    lower, upper = zip(*bounds, strict=True)
    return Comparison(tuple(times), lower, upper, tuple(estimates))


def _distance(enclosure: Enclosure, time: float, hidden: list[list[float]], output: list[float]) -> tuple[arb, arb]:
    """Bounds of the largest difference of a weight."""
    with ctx.workprec(enclosure.bits):
        true = enclosure.at(time)
        pairs = [*zip(true.output, output, strict=True)]
        for row, floats in zip(true.hidden, hidden, strict=True):
            pairs += zip(row, floats, strict=True)
        distances = [abs(ball - number) for ball, number in pairs]
        return max(d.abs_lower() for d in distances), max(d.abs_upper() for d in distances)
