"""The infimum of an observable over time, by branch and bound in exact order.

On a piece of time about m, f and its derivatives are enclosed by Taylor's formula with the coefficients at m, and the
last one enclosed on all of the piece. Where f' keeps its sign, the infimum sits at an end. Where f'' > 0, it is at
least f(m) - f'(m)^2 / (2 min f''), and if it sits inside, it does so in m - f'(m) / f''. Else the piece is halved. No
bound passes through a float.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from math import comb
from typing import Any

from flint import arb, ctx

from flowsim.enclosure.curve import around_zero
from flowsim.enclosure.exact import ExactProblem
from flowsim.enclosure.points import Point, around, at_local
from flowsim.enclosure.steps import Step
from flowsim.validation import require_count

MOST_PIECES = 20_000

TERMS = 4
"""Taylor coefficients on a piece, and so many more each time it is halved."""

MOST_TERMS = 40

FEWEST_TERMS = 3
"""f, f' and f''."""

FINEST = 300
"""Pieces are not halved below 2^-300 of their time."""

KEPT = 512
"""Steps that are kept as they are looked at first, as a whole: most observables need no more, and ask for the same."""

Observable = Callable[[Point[Any]], Any]


@dataclass(frozen=True)
class Infimum:
    """The infimum lies in [lower, upper], exact numbers; wherever it is attained, or approached, is within `time`."""

    lower: arb
    upper: arb
    time: arb

    @property
    def value(self) -> arb:
        """A ball with the infimum in it."""
        return self.lower.union(self.upper)


@dataclass(frozen=True)
class _Piece:
    """The times [low, high] since the start of a step, halved `depth` times, and what is known about them.

    `attained` is the observable at one of them. An infimum inside sits in `inside`, if that is known; it sits there
    for certain, and is `attained`, if the piece is settled.
    """

    step: Step
    low: arb
    high: arb
    depth: int
    lower: arb
    attained: arb
    inside: arb | None = None
    settled: bool = False


def infimum(
    problem: ExactProblem, steps: Sequence[Step], observable: Observable, digits: int = 36, pieces: int = MOST_PIECES
) -> Infimum:
    """Enclose the infimum of an observable over all steps to so many digits, or as well as balls and pieces allow.

    At an event where the observable jumps both limits count. What `pieces` do not suffice for shows as a wide
    enclosure, which is right all the same.

    `observable` takes a `Point` of `arb` or `arb_series` and returns one: see `flowsim.enclosure.points`, which has
    `risk`, `descent_product`, `alignment` and `conserved`. (Write x * x: a ball around 0 to the power 2 is not known.)
    """
    order, queue, best = count(), [], arb.pos_inf()
    waiting = [(step, arb(0), step.length.upper(), 0) for step in steps]
    for searched in range(1, require_count("pieces", pieces) + 1):
        for step, low, high, depth in waiting:
            piece = _bounded(problem, observable, _Piece(step, low, high, depth, arb.neg_inf(), arb.pos_inf()))
            best = _smaller(best, piece.attained)
            heapq.heappush(queue, (piece.lower, next(order), piece))
        lower, _, piece = queue[0]
        close = best - lower <= abs(best) * arb(10) ** -digits
        if close or piece.settled or _is_finest(piece) or _is_blurred(piece) or searched == pieces:
            break  # with all pieces in the queue
        heapq.heappop(queue)
        waiting = [(piece.step, low, high, piece.depth + 1) for low, high in _parts(piece)]
    time, *others = [_when(piece) for lower, _, piece in queue if not lower > best]
    for other in others:
        time = time.union(other)
    return Infimum(queue[0][0], best, time)


def _bounded(problem: ExactProblem, observable: Observable, piece: _Piece) -> _Piece:
    step, low, high = piece.step, piece.low, piece.high
    middle = ((low + high) / 2).mid()
    radius = (abs(high - middle).upper()).union(abs(low - middle).upper()).upper()
    terms = min(TERMS * (1 + piece.depth), MOST_TERMS, step.disc.order // 2)  # to more a `Disc` gives no bounds there
    look = around if piece.depth else _around_whole
    with _series_of(terms):
        at_middle, anywhere = look(problem, step, middle, (arb(0), radius), terms)
        close = _coefficients(observable(at_middle), terms)
        try:
            wide = _coefficients(observable(anywhere), terms)
        except ValueError:  # of python-flint, where a series is divided by one that may begin with 0
            wide = []
    known = min(len(close), len(wide))
    close, wide = close[:known], wide[:known]
    if known < FEWEST_TERMS or not all(entry.is_finite() for entry in (*wide, *close)):
        return piece
    if middle < step.length:
        piece = replace(piece, attained=close[0])
    value, slope, curvature = (_range(close, wide, radius, k) for k in range(3))
    if slope > 0 or slope < 0:
        end = low if slope > 0 else high
        end = end if end < step.length else step.length.union(end)  # the step may end before
        there = arb(observable(at_local(problem, step, end)))
        if there.is_finite():
            return replace(piece, lower=there.lower(), attained=there, inside=end, settled=True)
    if not curvature > 0:
        return replace(piece, lower=value.lower())
    valley = close[0] - close[1] * close[1] / (4 * curvature)
    lower = max(value.lower(), valley.lower())
    return replace(piece, lower=lower, inside=middle - close[1] / (2 * curvature))


_around_whole = lru_cache(maxsize=KEPT)(around)


def _range(close: list[arb], wide: list[arb], radius: arb, k: int) -> arb:
    """Enclose f^(k) / k! on a piece, by its coefficients at the middle and the last one on all of it."""
    spread, total = around_zero(radius), comb(len(wide) - 1, k) * wide[-1]
    for order in range(len(wide) - 2, k - 1, -1):
        total = total * spread + comb(order, k) * close[order]
    return total.intersection(wide[k])


@contextmanager
def _series_of(terms: int) -> Iterator[None]:
    """Let operations on series keep so many terms, whatever the context of flint says: 10, if nothing."""
    before, ctx.cap = ctx.cap, terms
    try:
        yield
    finally:
        ctx.cap = before


def _coefficients(series: Any, number: int) -> list[arb]:
    """The coefficients of a series that are known, or of a constant, but no more than asked for."""
    given = series.coeffs() if hasattr(series, "coeffs") else [arb(series)]
    known = min(number, getattr(series, "prec", number))
    return [*given[:known], *[arb(0)] * (known - len(given))]


def _parts(piece: _Piece) -> list[tuple[arb, arb]]:
    """What is looked at next: the halves, or the part to which Newton's method confines a minimum inside."""
    low, high = piece.low, piece.high
    half = ((low + high) / 2).mid()
    if piece.inside is None or not piece.inside.rad() * 4 < high - low:
        return [(low, half), (half, high)]
    inner = (max(low, piece.inside.lower()), min(high, piece.inside.upper()))
    ends = [(low, low), (high, high)]  # an infimum at an end is not confined
    return [inner, *ends] if inner[0] <= inner[1] else ends


def _smaller(best: arb, attained: arb) -> arb:
    """The smaller of two upper bounds."""
    upper = attained.upper()
    return upper if upper < best else best


def _is_finest(piece: _Piece) -> bool:
    return not (piece.high - piece.low).mid() > (abs(piece.high) * arb(2) ** -FINEST).mid()


def _is_blurred(piece: _Piece) -> bool:
    """Whether the observable is not known better at one time than on the piece: halves would be no better."""
    return piece.attained.upper() - piece.lower <= 4 * piece.attained.rad()


def _when(piece: _Piece) -> arb:
    if piece.settled and piece.inside is not None:
        return piece.step.start + piece.inside
    span = piece.low.union(piece.high)
    return piece.step.start + (span if piece.high < piece.step.length else span.union(piece.step.length))
