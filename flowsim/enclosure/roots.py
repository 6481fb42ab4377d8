"""The first zero of a curve: proved to be there, to be the only one, and simple; or proved not to be there."""

from __future__ import annotations

from flint import arb, ctx

from flowsim.enclosure.curve import Curve, around_zero

SPLIT = 0.4921875
"""Where intervals are split: not in the middle, where zeros of simple problems sit."""

NEWTON = 60
"""Steps of Newton's method at most."""


class Unseparated(Exception):  # noqa: N818
    """Balls are too wide for what they must separate. More bits may help."""


def is_clear(curve: Curve, end: arb) -> bool:
    """Whether a_0 outweighs all else on [0, end], so that the curve is positive there: a quick test, in few digits."""
    with ctx.workprec(64):
        return curve.coefficients(arb(0), end, 1)[0] > 0


def first_zero(curve: Curve, end: arb) -> arb | None:
    """Enclose the first zero on (0, end] of a curve that starts above 0; None if it stays positive.

    A zero is found where the curve falls strictly from above 0 to below. Then it is the only one there.

    Raises:
        Unseparated: if the curve is not proved positive at 0, comes to 0 without falling through, or has a zero at
            the end.
    """
    if not curve.value(arb(0)) > 0:
        raise Unseparated("a function that must start above 0 is not proved to")
    intervals, shortest = [(arb(0), end)], end * arb(2) ** (-ctx.prec // 2)  # there values are lost in rounding
    while intervals:
        low, high = intervals.pop()
        radius = ((high - low) / 2).upper()
        middle = ((high + low) / 2).mid()
        values, slopes = curve.coefficients(middle, (radius + abs((high + low) / 2 - middle)).upper(), 2)
        if values > 0 or slopes > 0:
            continue  # positive at `low`, and so up to `high`
        if slopes < 0:
            there = curve.value(high)
            if there > 0:
                continue
            if there < 0:
                return refine(curve, low, high)
        if radius < shortest:
            raise Unseparated("a function comes to 0 and is not proved to fall through it")
        split = (low + (high - low) * SPLIT).mid()
        intervals += [(split, high), (low, split)]
    return None


def refine(curve: Curve, low: arb, high: arb) -> arb:
    """The zero in [low, high], where the curve falls strictly, by the interval Newton method.

    Every zero in a ball T is in N = m - f(m) / f'(T), m the middle, and thus in both.
    """
    time = ((low + high) / 2).mid() + around_zero(((high - low) / 2).upper() * 1.0001)
    for _ in range(NEWTON):
        middle = time.mid()
        slope = curve.coefficients(middle, time.rad(), 2)[1]
        newton = middle - curve.value(middle) / slope
        if not newton.overlaps(time):
            raise ArithmeticError("Newton's method lost the zero that is proved to be there")
        closer = newton.intersection(time)
        if not closer.rad() < time.rad() * 0.9:
            return closer
        time = closer
    return time
