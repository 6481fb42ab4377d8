"""Constants and hypotheses are rational numbers: at a boundary, and 1e-40 beyond it, they are decided exactly."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from flowsim import Dataset
from theorems.rigorous import constants
from theorems.rigorous.claims import EnclosedRun, Hypothesis
from theorems.rigorous.ensembles import GAP, gaussian_instance, margin_instance, tight_instance, with_gaps
from theorems.rigorous.instance import Instance, least_norm
from theorems.rigorous.proposition_5_7 import STATEMENTS, presumed_nearly_orthogonal

TINY = Fraction(1, 10**40)


def _fails(kind: str, instance: Instance) -> list[str]:
    return [item.name for item in STATEMENTS[kind].hypotheses(EnclosedRun(instance, 64)) if not item.holds]


@pytest.mark.parametrize("rule", ["FA", "sign-FA"])
def test_constants_are_those_of_the_measured_statements(rule: str) -> None:
    for seed in range(5):
        instance = gaussian_instance(rule, seed)  # type: ignore[arg-type]
        data = Dataset(torch.tensor(np.array(instance.inputs, dtype=float)), torch.tensor(instance.labels))
        assert float(instance.kappa) == pytest.approx(data.kappa.item(), abs=1e-12)
        assert float(instance.rho) == pytest.approx(data.rho.item())
        assert float(instance.squared_radius) == pytest.approx(data.squared_radius.item())
        assert float(instance.squared_svm_margin) ** 0.5 == pytest.approx(data.svm_margin.item(), abs=1e-12)


def test_the_svm_margin_is_exact_where_inputs_are_repeated_or_surround_zero() -> None:
    one, zero = Fraction(1), Fraction(0)
    assert least_norm([[one, one], [one, one]]) == 1
    assert least_norm([[one, -one], [-one, one]]) == 0
    assert least_norm([[one, zero, one], [zero, 3 * one, zero], [one, zero, one]]) == Fraction(3, 4)


def test_repeated_samples_count_for_rho() -> None:
    """x_1 = x_2 has |x_1 . x_2| = R^2, so that rho = n, however often the enclosure merges them."""
    assert tight_instance("identical").rho == 4


def test_gaps_at_zero_meet_the_lemma_and_1e_40_below_do_not() -> None:
    """Floats round c_j = b_j v_j - |w_j|^2 / 2 to the same."""
    exact = margin_instance("boundary", "FA", 0, gap=Fraction(0))
    assert set(exact.gaps) == {0}
    assert constants.gaps_not_negative(EnclosedRun(exact, 64)).holds is True
    below = with_gaps(exact, [Fraction(0)] * 3 + [-TINY])
    assert constants.gaps_not_negative(EnclosedRun(below, 64)).holds is False
    assert list(map(float, below.output)) == list(map(float, exact.output))


def test_a_total_gap_of_zero_is_not_positive() -> None:
    instance = with_gaps(margin_instance("separable", "sign-FA", 0), [GAP, -GAP, GAP, -GAP])
    assert constants.total_gap_positive(EnclosedRun(instance, 64)).holds is False
    more = with_gaps(instance, [GAP, -GAP, GAP, -GAP + TINY])
    assert constants.total_gap_positive(EnclosedRun(more, 64)).holds is True


def _of_angle(off: Fraction) -> Instance:
    """x_1 = (1, 0), x_2 = (off, 1) with labels +1: M_12 = off."""
    two = margin_instance("separable", "FA", 0, samples=2)
    rows = ((Fraction(1), Fraction(0), Fraction(0)), (off, Fraction(1), Fraction(0)))
    return replace(two, inputs=rows, labels=(1, 1))


@pytest.mark.parametrize(
    ("off", "separable", "boundary"), [(TINY, True, True), (Fraction(0), False, True), (-TINY, False, False)]
)
def test_kappa_is_compared_with_zero_exactly(off: Fraction, separable: bool, boundary: bool) -> None:
    assert _of_angle(off).kappa == off
    assert _fails("orthogonally separable", _of_angle(off)) == ([] if separable else ["kappa > 0"])
    assert _fails("boundary", _of_angle(off)) == ([] if boundary else ["y_i y_k x_i.x_k >= 0 for i != k"])


@pytest.mark.parametrize(("more", "fails"), [(-TINY, False), (Fraction(0), True), (TINY, True)])
def test_rho_is_compared_with_its_limit_exactly(more: Fraction, fails: bool) -> None:
    """n = 2 and gamma = 3/10: rho = 2 |x_1 . x_2| must be below 2 gamma^2 = 9/50."""
    instance = _of_angle(Fraction(9, 100) + more)
    assert instance.slope**2 == Fraction(9, 100)
    assert _fails("nearly orthogonal", instance) == (["rho < gamma^2 n / (n-1)"] if fails else [])


def test_what_the_control_of_rho_claims_is_the_constant_of_half_the_rho_allowed() -> None:
    instance = _of_angle(Fraction(9, 200))
    assert presumed_nearly_orthogonal(instance) == constants.mu_nearly_orthogonal(instance) > 0


def test_a_slope_of_zero_is_not_positive() -> None:
    assert _fails("boundary", tight_instance("orthogonal", slope=Fraction(0))) == ["gamma > 0"]


def test_a_slack_is_shown_outwards() -> None:
    slack = constants.gaps_not_negative(
        EnclosedRun(margin_instance("separable", "FA", 0, gap=Fraction(1, 3)), 64)
    ).slack
    assert slack is not None
    assert Fraction(slack[0]) < Fraction(1, 3) < Fraction(slack[1])
    assert Hypothesis("x", False).shown == "none"
