"""Ends of intervals are rounded outwards: what is printed contains what is proved."""

from fractions import Fraction

import pytest
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st

from theorems.rigorous.decimals import dyadic, interval, lower_end, rounded, upper_end
from theorems.rigorous.report import shortened

FRACTIONS = st.fractions() | st.builds(
    lambda a, b, e: Fraction(a, b) * Fraction(10) ** e, st.integers(-99, 99), st.integers(1, 99), st.integers(-400, 400)
)
DIGITS = st.integers(1, 30)


@given(FRACTIONS, DIGITS)
def test_a_decimal_is_on_its_side_and_one_unit_of_its_last_digit_away_at_most(value: Fraction, digits: int) -> None:
    low, high = (Fraction(rounded(value, digits, up=up)) for up in (False, True))
    assert low <= value <= high
    assert high - low <= abs(value) * Fraction(10) ** (1 - digits)


@given(st.integers(-999, 999), st.integers(-50, 50))
def test_a_short_decimal_is_itself(mantissa: int, exponent: int) -> None:
    value = Fraction(mantissa) * Fraction(10) ** exponent
    assert Fraction(rounded(value, 3, up=False)) == value == Fraction(rounded(value, 3, up=True))


@pytest.mark.parametrize("value", [Fraction(999, 1000), Fraction(9995, 10), Fraction(-999, 1000), Fraction(1, 10**400)])
def test_carries_and_sizes_beyond_floats(value: Fraction) -> None:
    low, high = (Fraction(rounded(value, 2, up=up)) for up in (False, True))
    assert low <= value <= high
    assert high - low <= abs(value) / 10


@given(st.integers(-(2**200), 2**200), st.integers(-400, 100), st.integers(0, 2**30), st.integers(-500, 50), DIGITS)
def test_an_interval_contains_its_ball(mantissa: int, exponent: int, radius: int, power: int, digits: int) -> None:
    with ctx.workprec(256):
        ball = arb(arb((mantissa, exponent)), arb((radius, power)))
    low, high = map(Fraction, interval(ball, ball, digits))
    middle, spread = dyadic(ball.mid()), dyadic(ball.rad())
    assert low <= middle - spread
    assert middle + spread <= high


def test_the_ends_of_a_ball_are_exact() -> None:
    ball = arb(1, 0.25)
    assert lower_end(ball) == Fraction(3, 4) - (dyadic(ball.rad()) - Fraction(1, 4))
    assert upper_end(ball) == 1 + dyadic(ball.rad()) >= Fraction(5, 4)


@pytest.mark.parametrize("ball", [arb.nan(), arb.pos_inf(), arb.neg_inf()])
def test_what_is_not_finite_has_no_ends(ball: arb) -> None:
    assert interval(ball, ball) == ("-inf", "inf")


@given(FRACTIONS, st.integers(1, 5))
def test_a_shortened_interval_contains_the_longer(value: Fraction, digits: int) -> None:
    longer = rounded(value, 20, up=False), rounded(value, 20, up=True)
    low, high = map(Fraction, shortened(longer, digits)[1:-1].split(", "))
    assert low <= Fraction(longer[0]) <= Fraction(longer[1]) <= high
