"""The infimum of an observable over time, by branch and bound in exact order.

On a piece of time about m, f(m + s) = f(m) + f'(m) s + c s^2 with c in the enclosure C of f''/2 on the piece. Where
f' keeps its sign on a piece, the infimum sits at one of its ends. Where C > 0, it is at least f(m) - f'(m)^2 / (4 C),
and sits in m - f'(m) / (2 C): what is outside is dropped. Else the piece is halved. No bound passes through a float.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from flint import arb

from flowsim.enclosure.exact import Problem
from flowsim.enclosure.points import Point, around, at_local
from flowsim.enclosure.steps import Step

MOST_PIECES = 20_000

Observable = Callable[[Point[Any]], Any]


@dataclass(frozen=True)
class Infimum:
    """The infimum lies in `value`, [lower, upper]; wherever it is attained, or approached, is within `time`."""

    lower: arb
    upper: arb
    time: arb

    @property
    def value(self) -> arb:
        """A ball with the infimum in it."""
        return self.lower.union(self.upper)


@dataclass(frozen=True)
class _Piece:
    """The times [low, high] since the start of a step, a lower bound there, and whether it is final."""

    step: Step
    low: arb
    high: arb
    lower: arb
    attained: arb
    """The observable at some time of the piece."""
    newton: arb | None = None
    """Where in the piece the infimum must sit if it sits inside of it."""
    settled: bool = False


def infimum(
    problem: Problem, steps: Sequence[Step], observable: Observable, digits: int = 36, pieces: int = MOST_PIECES
) -> Infimum:
    """Enclose the infimum of an observable over all steps to so many digits, or as well as balls and pieces allow.

    At an event where the observable jumps both limits count.

    `observable` takes a `Point` of `arb` or `arb_series` and returns one: see `flowsim.enclosure.points`, which has
    `risk`, `descent_product`, `alignment` and `conserved`.
    """
    order = count()
    queue: list[tuple[arb, int, _Piece]] = []
    best = arb.pos_inf()

    def put(piece: _Piece) -> None:
        nonlocal best
        upper = piece.attained.upper()
        if upper < best:
            best = upper
        heapq.heappush(queue, (piece.lower, next(order), piece))

    for step in steps:
        put(_bounded(problem, observable, step, arb(0), step.length.upper()))
    for _ in range(pieces):
        lower, _, piece = queue[0]
        if piece.settled or best - lower <= abs(best) * arb(10) ** -digits or _finest(piece):
            break
        heapq.heappop(queue)
        for low, high in _parts(piece):
            put(_bounded(problem, observable, step=piece.step, low=low, high=high))
    times = [_when(piece) for lower, _, piece in queue if not lower > best]
    time = times[0]
    for other in times[1:]:
        time = time.union(other)
    return Infimum(queue[0][0], best, time)


def _bounded(problem: Problem, observable: Observable, step: Step, low: arb, high: arb) -> _Piece:
    middle = ((low + high) / 2).mid()
    radius = ((high - low) / 2).upper() + abs((low + high) / 2 - middle).upper()
    wide = _coefficients(observable(around(problem, step, middle, radius, 3)), 3)
    inside = middle < step.length
    close = _coefficients(observable(around(problem, step, middle, arb(0), 2)), 2)
    attained = close[0] if inside and close[0].is_finite() else arb.pos_inf()
    piece = _Piece(step, low, high, arb.neg_inf(), attained)
    if not all(entry.is_finite() for entry in (*wide, *close)):
        return piece
    if wide[1] > 0 or wide[1] < 0:
        end = low if wide[1] > 0 else step.length if high.overlaps(step.length) else high
        value = observable(at_local(problem, step, end))
        return replace(piece, lower=value.lower(), attained=value, settled=True, newton=end)
    swing = close[1] * arb(0, radius) + wide[2] * arb(0, radius) ** 2
    lower = max((close[0] + swing).lower(), wide[0].lower())
    if not wide[2] > 0:
        return replace(piece, lower=lower)
    lower = max(lower, (close[0] - close[1] ** 2 / (4 * wide[2])).lower())
    return replace(piece, lower=lower, newton=middle - close[1] / (2 * wide[2]))


def _coefficients(series: Any, number: int) -> list[arb]:
    """The first coefficients of a series, or of a constant."""
    given = series.coeffs() if hasattr(series, "coeffs") else [arb(series)]
    return [*given[:number], *[arb(0)] * (number - len(given))]


def _parts(piece: _Piece) -> list[tuple[arb, arb]]:
    """What is looked at next: the halves, or the part to which Newton's method confines a minimum inside."""
    low, high = piece.low, piece.high
    half = ((low + high) / 2).mid()
    if piece.newton is None or not piece.newton.rad() * 4 < high - low:
        return [(low, half), (half, high)]
    inner = (max(low, piece.newton.lower()), min(high, piece.newton.upper()))
    ends = [(low, low), (high, high)]  # an infimum at an end is not confined
    return [inner, *ends] if inner[0] <= inner[1] else ends


def _finest(piece: _Piece) -> bool:
    """Whether a piece cannot be cut further."""
    return not (piece.high - piece.low).mid() > (abs(piece.high) * arb(2) ** -300).mid()


def _when(piece: _Piece) -> arb:
    if piece.settled and piece.newton is not None:
        return piece.step.start + piece.newton
    return piece.step.start + piece.low.union(piece.high)
