"""The logistic loss in Proposition 5.7: the smallest mean drive, its integral, and planted mistakes."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

from theorems import proposition_5_7
from theorems.constants import mu_boundary, mu_svm, total_gap
from theorems.ensembles import Shape, margin_run, tight_run
from theorems.measurement import Compared, measure
from theorems.observation import Observation, observe
from theorems.proposition_5_7 import LOGISTIC, least_drive, logistic_time, with_constant


def test_no_losses_of_a_given_sum_have_a_smaller_mean_drive_than_one_that_has_it_all() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(20000, 5, generator=generator, dtype=torch.float64) ** 8
    losses = 10 ** (4 * torch.rand(20000, 1, generator=generator, dtype=torch.float64) - 3) * shares
    mean, total = -torch.expm1(-losses).mean(-1), losses.sum(-1)
    least = -torch.expm1(-total) / 5
    assert (mean >= least * (1 - 1e-12)).all()
    assert (mean / least).min() < 1.01, "attained"


def test_the_least_drive_is_below_the_mean_of_the_drives_of_a_run() -> None:
    solution = margin_run("separable", "fa", Shape(5, 6, 0.3), 1, "cpu", loss="logistic")
    seen = observe(solution, solution.pieces)
    outputs = seen.flow.forward(seen.weights)[0]
    margins = outputs.squeeze(-1) * solution.flow.dataset.labels[0]
    assert (least_drive(seen) <= torch.sigmoid(-margins).mean(-1)).all()


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.5), (0.5, 3.0), (3.0, 40.0)])
def test_logistic_time_is_the_integral_of_the_reciprocal_square(low: float, high: float) -> None:
    by_quadrature = quad(lambda x: np.expm1(-x) ** -2, low, high, epsabs=0, epsrel=1e-12)[0]
    ends = logistic_time(torch.tensor([low, high], dtype=torch.float64))
    assert (ends[1] - ends[0]).item() == pytest.approx(by_quadrature, rel=1e-11)


def test_the_bound_tends_to_1_over_mu_t() -> None:
    """F(nL) = -mu t / n gives nL -> n / (mu t), the rate of the exponential loss."""
    for time in (1e3, 1e6):
        bound: Any = brentq(lambda nL, time=time: logistic_time(torch.tensor(nL)).item() + time, 1e-9, 10, xtol=1e-15)
        assert bound * time == pytest.approx(1, rel=20 * np.log(time) / time)


PLANTED = {
    "mu 1 % too large": lambda seen: (1.01, least_drive(seen).square()),
    "the exponent 1 in the place of 2": lambda seen: (1.0, least_drive(seen)),
    "L^2 in the place of the drive": lambda seen: (1.0, seen.risk.square()),
    "e^(nL) - 1 in the place of 1 - e^(-nL)": lambda seen: (1.0, torch.expm1(seen.risk).square()),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_mistakes_in_the_bound_are_violated_where_it_is_attained(mistake: str) -> None:
    def values(seen: Observation) -> Compared:
        factor, size = PLANTED[mistake](seen)
        size = seen.of(factor * mu_svm(seen.solution)) * size
        return Compared((seen.factors.product - size).unsqueeze(-1), size.unsqueeze(-1))

    (claim, _), solution = LOGISTIC.claims, tight_run("single", "cpu", loss="logistic")
    assert not measure([claim], solution)[0].violated.item()
    planted = type(claim)("planted", "inequality", values)
    assert measure([planted], solution)[0].violated.item()


def test_both_claims_are_attained_up_to_1e4_by_one_sample_and_inactive_neurons() -> None:
    for margin in measure(LOGISTIC.claims, tight_run("single", "cpu", loss="logistic")):
        assert 0 < margin.surely.item() < 1e-4


def test_what_the_control_of_rho_claims_is_the_constant_of_half_the_rho_allowed_and_true_up_to_that_rho() -> None:
    """On a simplex with gamma = 1 the constant of rho is attained; the one of rho = 0 is too large with rho, too."""
    solution = tight_run("simplex", "cpu", slope=1.0)
    dataset = solution.flow.dataset
    n, gap = dataset.samples, total_gap(solution)
    half = 0.5 * n / (n - 1)
    assert 0 < dataset.rho.item() < half
    presumed = proposition_5_7.presumed_nearly_orthogonal
    mu = gap * dataset.squared_radius * (1 - half * (n - 1) / n) / n
    torch.testing.assert_close(presumed(solution), mu, rtol=1e-14, atol=0)
    assert not any(margin.violated.any() for margin in measure(with_constant(presumed), solution))
    assert all(margin.violated.all() for margin in measure(with_constant(mu_boundary), solution))


def test_the_statement_asks_for_the_logistic_loss() -> None:
    exponential = margin_run("separable", "fa", Shape(5, 6, 0.3), 1, "cpu")
    failing = [item.name for item in LOGISTIC.hypotheses(exponential) if not item.holds]
    assert failing == ["logistic loss"]
    assert proposition_5_7.ANY_SEPARABLE.hypotheses(exponential)[3].name == "exponential loss"
