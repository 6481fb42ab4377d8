"""Infima are enclosed, with their place, however small the margin."""

import pytest
import torch
from flint import arb, ctx

from enclosure.runs import gaussian, one_neuron
from flowsim import enclose
from flowsim.enclosure.infimum import _parts, _Piece, _range
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
