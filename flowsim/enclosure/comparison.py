"""The true error of a float solution, proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flint import arb, ctx

from flowsim.enclosure.points import Point
from flowsim.solution import Solution
from flowsim.weights import Weights


@dataclass(frozen=True, repr=False)
class Comparison:
    """The largest error of a float solution's weights at each time: between `lower` and `upper`, with proof.

    `estimate` is what the solution itself says about it.
    """

    times: tuple[float, ...]
    lower: tuple[arb, ...]
    upper: tuple[arb, ...]
    estimate: tuple[float, ...]

    def __repr__(self) -> str:
        largest = self.largest.upper().str(3, radius=False)
        return f"Comparison(error <= {largest}, estimate {max(self.estimate):.3g}, {len(self.times)} times)"

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


def compare(
    at: Callable[[float], Point[arb]],
    t_final: arb,
    bits: int,
    solution: Solution[Weights],
    times: Sequence[float] | None = None,
) -> Comparison:
    """Return the proved errors at the times given; else where the solution's pieces start, end and have their middles.

    `at` encloses the weights at a time up to `t_final`; later times of pieces are left out. Differences are taken at
    the precision of the enclosure.

    Raises:
        ValueError: for a solution of more than one trajectory, or in logarithmic time.
    """
    if solution.settings.logarithmic:
        raise ValueError("solution must be in the time t to be compared, got one in log(1 + t): solve with time='t'")
    if tuple(solution.batch_shape):
        raise ValueError(f"solution must be of one trajectory, got batch shape {tuple(solution.batch_shape)}")
    if times is None:
        pieces = solution.pieces
        asked = torch.cat([pieces.start, pieces.end, (pieces.start + pieces.end) / 2]).unique().tolist()
        times = [time for time in asked if arb(time) <= t_final]
    found, error = solution.evaluate(list(times)), solution.error(list(times))
    estimates = torch.maximum(error.hidden.flatten(1).amax(1), error.output.amax(1)).tolist()
    with ctx.workprec(bits):
        bounds = [
            _bound_distance(at(time), hidden, output)
            for time, hidden, output in zip(times, found.hidden.tolist(), found.output.tolist(), strict=True)
        ]
    lower, upper = zip(*bounds, strict=True)
    return Comparison(tuple(times), lower, upper, tuple(estimates))


def _bound_distance(true: Point[arb], hidden: list[list[float]], output: list[float]) -> tuple[arb, arb]:
    """Bounds of the largest difference of a weight."""
    pairs = [*zip(true.output, output, strict=True)]
    for row, floats in zip(true.hidden, hidden, strict=True):
        pairs += zip(row, floats, strict=True)
    distances = [abs(ball - number) for ball, number in pairs]
    return max(d.abs_lower() for d in distances), max(d.abs_upper() for d in distances)
