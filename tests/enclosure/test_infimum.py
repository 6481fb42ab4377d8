"""Infima are enclosed, with their place, however small the margin."""

import pytest
import torch
from flint import arb, arb_series, ctx

from enclosure.runs import gaussian, one_neuron
from flowsim import enclose
from flowsim.enclosure.infimum import _bounded, _coefficients, _parts, _Piece, _range, _when
from flowsim.enclosure.points import alignment, conserved, descent_product, risk


def dominance(point):
    level = risk(point)
    return descent_product(point) / (level * level)


@pytest.mark.parametrize("rule", ["fa", "sign-fa", "gd"])
@pytest.mark.parametrize("observable", [dominance, alignment, risk, lambda point: -risk(point)])
def test_no_sample_lies_below_and_one_comes_near(rule: str, observable) -> None:
    enclosure = enclose(*gaussian(0, rule, sizes=(5, 3, 2)), 6.0, bits=128)
    found = enclosure.infimum(observable, digits=20)
    assert found.lower <= found.upper and found.upper - found.lower <= abs(found.upper) * 1e-20
    values = [observable(enclosure.at(time)) for time in torch.linspace(0, 6, 301).tolist()]
    assert all(value > found.lower or value.contains(found.lower) for value in values)
    assert min(float(value.upper()) for value in values) < float(found.upper) + 0.02


def test_a_minimum_inside_is_found_to_thirty_six_digits_with_its_time() -> None:
    """(t - 1/3)^2 + 1e-30 on the whole run."""
    enclosure = enclose(*one_neuron(), 2.0)

    def observable(point):
        return (point.time - arb(1) / 3) * (point.time - arb(1) / 3) + arb(10) ** -30

    found = enclosure.infimum(observable)
    with ctx.workprec(256):
        assert found.value.contains(arb(10) ** -30)
        assert found.value.rad() < 1e-64 and found.time.contains(arb(1) / 3)


@pytest.mark.parametrize(("sign", "shift"), [(1, 24), (-1, 24)])
def test_margins_below_float_rounding_keep_their_sign(sign: int, shift: int) -> None:
    enclosure = enclose(*one_neuron(), 2.0)

    def margin(point):
        gap = conserved(point)[0]
        size = point.output[0] - arb(0.3)
        return gap - conserved(enclosure.at(0))[0] + sign * arb(10) ** -shift + size * arb(10) ** -shift / 1000

    found = enclosure.infimum(margin)
    assert (found.lower > 0) if sign > 0 else (found.upper < 0)


def test_a_quantity_that_does_not_move_is_enclosed_too() -> None:
    enclosure = enclose(*gaussian(0, "fa", sizes=(4, 3, 1)), 2.0, bits=128)
    found = enclosure.infimum(lambda point: conserved(point)[0], digits=20)
    with ctx.workprec(128):
        assert found.value.overlaps(conserved(enclosure.at(0))[0]) and found.upper - found.lower < 1e-18


def test_ranges_on_a_piece_contain_the_values_at_its_ends() -> None:
    """The exponential function on [-1, 1] with four terms: f, f' and f'' / 2."""
    wide = [arb(0, 1).exp() / factor for factor in (1, 1, 2, 6)]
    close = [arb(1) / factor for factor in (1, 1, 2, 6)]
    for k, factor in enumerate((1, 1, 2)):
        for end in (-1, 0, 1):
            assert _range(close, wide, arb(1), k).contains(arb(end).exp() / factor)


def test_the_ends_of_a_piece_are_looked_at_though_a_minimum_inside_is_confined() -> None:
    step = enclose(*one_neuron(), 1.0).steps[0]
    piece = _Piece(step, arb(0), arb(1), 0, arb(0), arb(1), inside=arb(0.5, 0.01))
    parts = _parts(piece)
    assert (arb(0), arb(0)) in parts and (arb(1), arb(1)) in parts and parts[0][0] > 0.48


@pytest.mark.parametrize("cap", [2, 10])
def test_terms_that_series_keep_are_as_many_as_are_asked_for(cap: int) -> None:
    """-s^12 e^(-s^2) about the middle of a quarter: its first 12 coefficients there are 0, and its dips are beside."""
    enclosure = enclose(*one_neuron(), 0.25, bits=128)
    length = enclosure.steps[0].length

    def observable(point):
        scaled = (point.time - 3 * length / 8) * 40 / length
        square = scaled * scaled
        return -(square * square * square) * (square * square * square) * (-square).exp()

    kept = ctx.cap
    try:
        ctx.cap = cap
        found = enclosure.infimum(observable, digits=10)
        assert ctx.cap == cap
    finally:
        ctx.cap = kept
    with ctx.workprec(128):
        assert found.value.overlaps(-(arb(6) ** 6) * arb(-6).exp())


def test_a_series_of_which_fewer_terms_are_known_is_not_taken_for_a_polynomial() -> None:
    series = arb_series([1, 2, 3], 3)
    assert [*map(len, (_coefficients(series, 3), _coefficients(series, 2), _coefficients(series.derivative(), 3)))] == [
        3, 2, 2
    ]  # fmt: skip
    assert _coefficients(arb_series([5], 4), 4) == _coefficients(5, 4) == [5, 0, 0, 0]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 9])
def test_pieces_that_do_not_suffice_leave_a_wide_enclosure_and_not_a_wrong_one(pieces: int) -> None:
    enclosure = enclose(*one_neuron(), 2.0)
    found = enclosure.infimum(lambda point: (3 * point.time).sin(), pieces=pieces)
    assert found.lower <= -1 <= found.upper
    assert found.time.overlaps(arb.pi() / 2)


def test_few_bits_have_infima_too() -> None:
    """The steps of few bits have few coefficients."""
    enclosure = enclose(*one_neuron(), 2.0, bits=53)
    found = enclosure.infimum(lambda point: (30 * point.time).sin(), digits=8)
    assert found.lower <= -1 <= found.upper and found.upper - found.lower < 1e-7


def test_the_end_of_a_step_is_all_of_the_ball_in_which_it_lies() -> None:
    enclosure = enclose(*gaussian(0, "fa"), 6.0, bits=64)
    step = next(step for step in enclosure.steps if step.changes)
    with ctx.workprec(64):
        last = step.length.upper()  # may be rounded up, and lie outside
        for sign in (1, -1):
            piece = _Piece(step, last, last, 0, arb.neg_inf(), arb.pos_inf())
            found = _bounded(enclosure.problem, lambda point, sign=sign: sign * point.time, piece)
            assert found.settled and found.attained.contains(sign * step.end) and _when(found).contains(step.end)
        assert _when(piece).contains(step.end)


def test_what_divides_by_balls_with_0_is_looked_at_on_smaller_pieces() -> None:
    enclosure = enclose(*one_neuron(), 2.0, bits=128)
    found = enclosure.infimum(lambda point: -1 / (1 - point.time * (2 - point.time) * 1023 / 1024), digits=9)
    assert found.lower <= -1024 <= found.upper and found.upper - found.lower < 1e-5
