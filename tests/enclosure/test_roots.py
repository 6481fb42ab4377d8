"""First zeros: found, refuted, or said not to be separable."""

import pytest
from flint import arb, arb_poly

from flowsim.enclosure.curve import Curve, Disc, coefficients_of
from flowsim.enclosure.events import Watch, first_event
from flowsim.enclosure.roots import Unseparated, first_zero

DISC = Disc(8, arb(8))


def polynomial(*roots: float, scale: float = 1.0, tail: float = 0.0) -> Curve:
    product = arb_poly([scale])
    for root in roots:
        product *= arb_poly([arb(root), -1])
    return Curve(product, arb(tail), DISC)


def test_the_first_of_several_zeros_is_enclosed() -> None:
    time = first_zero(polynomial(1.5, 0.3, 0.7), arb(2))
    assert time is not None and time.contains(arb(0.3)) and time.rad() < 1e-14


def test_a_dip_below_zero_within_the_interval_is_not_missed() -> None:
    time = first_zero(polynomial(1.0, 1.0 + 2.0**-20), arb(2))
    assert time is not None and time.contains(arb(1))


def test_a_dip_that_stays_above_zero_is_no_event() -> None:
    curve = polynomial(1.0, 1.0)
    assert first_zero(Curve(curve.polynomial + arb(2.0**-30), arb(0), DISC), arb(2)) is None


def test_a_curve_that_grazes_zero_is_not_decided() -> None:
    with pytest.raises(Unseparated, match="fall through"):
        first_zero(polynomial(0.9, 0.9), arb(2))


def test_a_zero_at_the_end_is_not_decided() -> None:
    with pytest.raises(Unseparated):
        first_zero(polynomial(0.75), arb(0.75))


def test_a_curve_that_starts_at_zero_is_not_decided_unless_it_is_deflated() -> None:
    curve = polynomial(0.0, 0.5, scale=-1.0)
    with pytest.raises(Unseparated, match="must start above 0"):
        first_zero(curve, arb(1))
    time = first_zero(curve.deflated(1), arb(1))
    assert time is not None and time.contains(arb(0.5))


def test_the_tail_widens_the_zero_as_much_as_it_can_move_it() -> None:
    tail = 2.0**-10
    time = first_zero(polynomial(1.0, tail=tail), arb(2))
    shift = tail / 8.0**8  # the term of order 8 that has all of the norm, at t = 1
    assert time is not None and time.contains(1 + arb(shift)) and time.contains(1 - arb(shift))


def test_the_remainders_bound_all_terms_that_the_norm_allows() -> None:
    for order in (8, 9, 12, 30):
        for k in range(3):
            for reach in (0.5, 4.0):
                value = arb(1) / arb(8) ** order * arb(reach) ** (order - k)
                for place in range(k):
                    value *= arb(order - place) / (place + 1)
                assert not value > DISC.remainder(arb(1), arb(reach), k)


def test_the_values_on_a_ball_of_times_allow_for_the_remainder_at_its_later_end() -> None:
    assert Curve(arb_poly([]), arb(1), DISC).value(arb(0.5, 0.25)).contains((arb(0.75) / 8) ** 8)


def test_coefficients_at_a_time_and_about_it_are_those_of_the_polynomial_and_allow_for_the_remainder() -> None:
    """1 - t and a tail with all of its norm at order 8: values and slopes at 1/2, and on [1/4, 3/4]."""
    curve = Curve(arb_poly([1, -1]), arb(1), DISC)
    (exact,), (anywhere,) = coefficients_of([curve], arb(0.5), [arb(0), arb(0.25)], 2)
    for found, times in ((exact, (0.5,)), (anywhere, (0.25, 0.5, 0.75))):
        for time in times:
            assert found[0].contains(1 - arb(time) + (arb(time) / 8) ** 8)
            assert found[1].contains(-1 + (arb(time) / 8) ** 7)
    assert exact[0].rad() < 1e-9 < anywhere[0].rad()


def test_a_series_is_not_asked_beyond_its_disc() -> None:
    with pytest.raises(ArithmeticError, match="beyond its disc"):
        polynomial(1.0, tail=1.0).value(arb(8.5))


def test_of_two_zeros_the_first_owns_the_event_whatever_their_order_in_the_list() -> None:
    early, late = (
        Watch("arrival", (0,), (0,), polynomial(0.5)),
        Watch("sign", (1,), (), polynomial(0.5 + 1e-9, scale=2.0)),
    )
    for watched in ([early, late], [late, early]):
        found = first_event(watched, arb(1))
        assert found is not None and found[1] is early


def test_a_zero_inside_of_the_ball_of_another_is_not_called_the_first() -> None:
    wide = Watch("arrival", (0,), (0,), polynomial(0.5, tail=2.0**22))
    inside = Watch("arrival", (1,), (0,), polynomial(0.4995, -0.2, scale=-1.0))  # looked at later: it rises at first
    with pytest.raises(Unseparated, match="before or after"):
        first_event([wide, inside], arb(0.75))


def test_two_events_at_once_are_not_decided() -> None:
    with pytest.raises(Unseparated, match="after the arrival of neuron"):
        first_event([Watch("arrival", (j,), (0,), polynomial(0.5, scale=j + 1.0)) for j in range(2)], arb(1))
