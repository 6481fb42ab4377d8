"""Ends of intervals as decimal strings, rounded outwards: what is printed contains what is proved.

A ball is exactly its midpoint plus or minus its radius, two dyadic rationals, and all here is exact in integers.
"""

from __future__ import annotations

from fractions import Fraction

from flint import arb

DIGITS = 20
"""Significant digits of an end."""

Interval = tuple[str, str]
"""Lower and upper end; "-inf" and "inf" if there is none."""


def interval(lower: arb, upper: arb, digits: int = DIGITS) -> Interval:
    """The decimal interval around all numbers from the lower end of one ball to the upper end of another.

    >>> interval(arb(1) / 3, arb(1) / 3, 3)
    ('3.33e-1', '3.34e-1')
    """
    low, high = lower_end(lower), upper_end(upper)
    return (
        "-inf" if low is None else rounded(low, digits, up=False),
        "inf" if high is None else rounded(high, digits, up=True),
    )


def lower_end(ball: arb) -> Fraction | None:
    """The lower end of a ball, exactly; None if it is infinite, or nothing is known."""
    return dyadic(ball.mid()) - dyadic(ball.rad()) if ball.is_finite() else None


def upper_end(ball: arb) -> Fraction | None:
    """The upper end of a ball, exactly; None if it is infinite, or nothing is known."""
    return dyadic(ball.mid()) + dyadic(ball.rad()) if ball.is_finite() else None


def dyadic(number: arb) -> Fraction:
    """A ball without radius, exactly.

    >>> dyadic(arb(0.75))
    Fraction(3, 4)
    """
    mantissa, exponent = number.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def rounded(value: Fraction, digits: int, *, up: bool) -> str:
    """The largest decimal of so many digits that is not above the value; with `up` the smallest not below.

    >>> rounded(Fraction(-2, 3), 4, up=False), rounded(Fraction(-2, 3), 4, up=True), rounded(Fraction(1, 4), 4, up=True)
    ('-6.667e-1', '-6.666e-1', '2.5e-1')
    """
    if value == 0:
        return "0"
    unit = _magnitude(abs(value)) - digits + 1
    scaled = value / Fraction(10) ** unit
    whole = -(-scaled.numerator // scaled.denominator) if up else scaled.numerator // scaled.denominator
    first, *others = str(abs(whole))
    exponent = unit + len(others)
    fraction = "".join(others).rstrip("0")
    return f"{'-' if whole < 0 else ''}{first}{'.' if fraction else ''}{fraction}{f'e{exponent}' if exponent else ''}"


def _magnitude(value: Fraction) -> int:
    """The k with 10^k <= value < 10^(k+1), of a value above 0."""
    bits = value.numerator.bit_length() - value.denominator.bit_length()
    k = bits * 30103 // 100000  # near log10 of the value; what follows is exact
    while value < Fraction(10) ** k:
        k -= 1
    while value >= Fraction(10) ** (k + 1):
        k += 1
    return k
