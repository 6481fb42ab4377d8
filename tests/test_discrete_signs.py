"""Signs under gradient steps: against steps written out, at the edge of the hypothesis, and planted mistakes."""

import numpy as np
import pytest
import torch

from flowsim.activation import Tanh
from theorems import discrete_signs
from theorems.check import DoesNotApplyError
from theorems.discrete_signs import Case, Descent, change, gaps_last, onto_zero, shrinking, signs


def test_steps_written_out_in_numpy_have_the_same_signs_and_spend_the_same() -> None:
    run = shrinking(1, 0.5)
    X, y = run.flow.dataset.inputs.numpy(), run.flow.dataset.labels.numpy()
    W, v = run.weights.hidden.numpy().copy(), run.weights.output.numpy().copy()
    b = run.flow.rule.feedback_matrices(run.weights)[0].flatten().numpy()
    spent, products = np.zeros_like(v), [b * v]
    for _ in range(run.steps):
        z = X @ W.T
        h = np.where(z > 0, z, 0.3 * z)
        q = y * np.exp(-y * (h @ v)) / len(y)
        delta = (np.where(z > 0, 1, 0.3) * np.outer(q, b)).T @ X
        spent += 0.25 * (delta**2).sum(1) / 2
        W, v = W + 0.5 * delta, v + 0.5 * h.T @ q
        products.append(b * v)
    np.testing.assert_allclose(run.history.products.numpy(), products, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(run.history.spent[-1].numpy(), spent, rtol=1e-11)
    assert min(map(np.min, products)) < -0.01, "a sign is lost"
    assert not gaps_last(run).holds


@pytest.mark.parametrize("eta", [0.01, 0.05, 0.1, 0.2, 0.5, 1.0])
def test_no_sign_is_lost_before_the_gap_is_spent(eta: float) -> None:
    run = shrinking(0, eta)
    left = (run.gaps - run.history.spent).amin(-1) >= 0
    assert (signs(run).excess[left] > 0).all()
    assert change(run).excess.abs().max() < 1e-13


@pytest.mark.parametrize(("share", "kept"), [(1.01, True), (0.99, False)])
def test_a_percent_of_the_gap_decides_on_the_sign(share: float, kept: bool) -> None:
    """By hand: the step takes w to 0, so that b v = c - |w|^2 / 2 after it."""
    run = onto_zero(share)
    assert run.history.norms[-1].item() < 1e-30
    assert run.history.products[-1].item() == pytest.approx(0.5 * (share - 1), abs=1e-15)
    assert gaps_last(run).holds == kept
    assert (run.history.products[-1] > 0).item() == kept


def verdict(run: Descent, factor: float) -> str:
    case = Case("x", "theorem", discrete_signs.EXACT, lambda _: [], lambda run: change(run, factor), [run])
    return case.combined([case.examined(0)]).verdict


@pytest.mark.parametrize("factor", [0.99, 1.01, 0.5, -1.0])
def test_a_correction_that_is_a_percent_off_is_noticed(factor: float) -> None:
    run = shrinking(0, 0.05)
    assert verdict(run, 1.0) == "holds"
    assert verdict(run, factor) == "violated"


def test_a_case_that_does_not_apply_is_refused_and_so_is_a_control_that_breaks_nothing() -> None:
    def case(role: discrete_signs.Role, run: Descent) -> Case:
        return Case("x", role, discrete_signs.KEPT, lambda run: [gaps_last(run)], signs, [run])

    with pytest.raises(DoesNotApplyError, match="c_j"):
        case("theorem", shrinking(0, 0.5)).examined(0)
    with pytest.raises(ValueError, match="breaks no hypothesis"):
        case("control", shrinking(0, 0.05)).examined(0)


def test_tanh_is_not_homogeneous() -> None:
    assert not discrete_signs.is_homogeneous(shrinking(0, 0.05, Tanh())).holds
    assert discrete_signs.is_homogeneous(shrinking(0, 0.05)).holds
    assert torch.equal(shrinking(0, 0.05).gaps, shrinking(0, 0.05, Tanh()).gaps)
