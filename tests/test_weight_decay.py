"""What weight decay makes of the conserved quantities: against another integrator, and planted mistakes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from flowsim import FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, solve
from flowsim.data import orthogonally_separable
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.observables import conserved
from flowsim.rules import Rule
from flowsim.solution import Pieces
from theorems import ensembles, equation_1, weight_decay
from theorems.check import Statement, check, hypotheses_of
from theorems.measurement import Claim
from theorems.observation import observe

SIGNS = random_signs(4, 0)
FA = FeedbackAlignment(SIGNS)
DATA = orthogonally_separable(4, 5, 0.2, 0)
HIDDEN = gaussian(4, 5, 0).hidden
GOOD = with_gaps(HIDDEN, FA, -0.3)
RULES: list[Rule] = [FA, SignFeedbackAlignment(0.5), GradientDescent()]


def test_the_law_holds_along_another_integrator_without_the_library() -> None:
    """Two layers under FA in numpy, integrated with int e^(s/2) |w_j|^2 / 2 ds as further states."""
    lam, slope, X, y, b = 0.5, 0.3, DATA.inputs.numpy(), DATA.labels.numpy(), SIGNS.numpy()

    def velocity(time: float, state: np.ndarray) -> np.ndarray:
        W, v = state[:20].reshape(4, 5), state[20:24]
        z = X @ W.T
        q = y * np.exp(-y * (np.where(z > 0, z, slope * z) @ v)) / 4
        moved = (b * np.where(z > 0, 1, slope) * q[:, None]).T @ X - lam * W
        return np.concatenate(
            [moved.ravel(), np.where(z > 0, z, slope * z).T @ q - lam * v, np.exp(lam * time) * (W**2).sum(1) / 2]
        )

    W, v = HIDDEN.numpy(), GOOD.output.numpy()
    end = solve_ivp(velocity, (0, 2), np.concatenate([W.ravel(), v, np.zeros(4)]), rtol=1e-10, atol=1e-12).y[:, -1]
    c0, c = b * v - (W**2).sum(1) / 2, b * end[20:24] - (end[:20].reshape(4, 5) ** 2).sum(1) / 2
    np.testing.assert_allclose(c, np.exp(-2 * lam) * c0 + lam * np.exp(-2 * lam) * end[24:], rtol=1e-8)
    assert (b * end[20:24] > np.exp(-2 * lam) * c0 + (end[:20].reshape(4, 5) ** 2).sum(1) / 2).all()
    run = solve(Flow(DATA, FA, slope=slope, decay=lam), GOOD, 2.0, rtol=1e-10)
    torch.testing.assert_close(run.evaluate(2.0).output, torch.from_numpy(end[20:24]), rtol=1e-8, atol=0)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_the_rate_of_c_is_that_of_the_law_at_any_weights(rule: Rule) -> None:
    """By central differences along the velocity: dc/dt = -lambda (c - |w|^2 / 2), or -2 lambda c under GD."""
    flow, weights, h = Flow(DATA, rule, decay=0.7), gaussian(4, 5, 3), 1e-6
    velocity = flow.velocity(weights)
    later, earlier = (
        weights.with_layers([w + side * h * u for w, u in zip(weights.layers, velocity.layers, strict=True)])
        for side in (1, -1)
    )
    (c,), (after,), (before,) = (conserved(flow, at) for at in (weights, later, earlier))
    kept = 2 * c if isinstance(rule, GradientDescent) else c - 0.5 * weights.hidden.square().sum(-1)
    torch.testing.assert_close((after - before) / (2 * h), -0.7 * kept, rtol=1e-7, atol=1e-9)


def verdict(statement: Statement, claim: Claim | None = None) -> str:
    claims = statement.claims if claim is None else [claim]
    run = ensembles.any_run("gd" if statement is weight_decay.DESCENT else "fa", 1, "cpu", decay=weight_decay.DECAY)
    return check(replace(statement, claims=claims), "x", "theorem", [run]).verdict


@pytest.mark.parametrize("rate", [0.99, 1.01, -1.0])
def test_a_rate_that_is_a_percent_off_is_noticed(rate: float) -> None:
    assert verdict(weight_decay.DESCENT) == "holds"
    mistaken = Claim("x", "equality", partial(weight_decay.gained, rate=2 * rate))
    assert verdict(weight_decay.DESCENT, mistaken) == "violated"


@pytest.mark.parametrize("factor", [0.99, 1.01, -1.0])
def test_an_integral_that_is_a_percent_off_is_noticed(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(weight_decay.STATEMENT) == "holds"
    norms = weight_decay.norms
    monkeypatch.setattr(weight_decay, "norms", lambda weights: factor * norms(weights))
    assert verdict(weight_decay.STATEMENT, weight_decay.STATEMENT.claims[0]) == "violated"


def test_the_mean_norm_is_continued_to_the_start() -> None:
    """Up to lambda t = 1e-7, and beyond, it is |w_j|^2 / 2 of the start, but for O(t)."""
    run = solve(Flow(DATA, FA, slope=0.3, decay=1.0), GOOD, 1e-5, rtol=1e-13, atol=1e-15)
    times = torch.tensor([0.0, 5e-8, 2e-7, 1e-6], dtype=torch.float64)
    at = Pieces(torch.zeros(4, dtype=torch.long), times, times)
    means = weight_decay.mean_norm(observe(run, at)).excess[0]
    expected = 0.5 * HIDDEN.square().sum(-1).expand(4, 4)
    torch.testing.assert_close(means, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (Flow(DATA, FA, decay=0.1), set()),
        (Flow(DATA, SignFeedbackAlignment(0.5), decay=0.1), set()),
        (Flow(DATA, FA), {"lambda > 0"}),
        (
            Flow(DATA, GradientDescent(), decay=0.1),
            {"rule is FeedbackAlignment or SignFeedbackAlignment"},
        ),
    ],
)
def test_hypotheses_notice_their_breach(flow: Flow, expected: set[str]) -> None:
    run = solve(flow, GOOD, 0.1, rtol=1e-12)
    assert {item.name for item in hypotheses_of(weight_decay.STATEMENT, run) if not item.holds} == expected


def test_decay_is_part_of_what_moves_the_weights_only_where_the_statement_says_so() -> None:
    run = ensembles.any_run("fa", 1, "cpu", decay=weight_decay.DECAY)
    assert {item.name for item in hypotheses_of(equation_1.STATEMENT, run) if not item.holds} == {"d theta/dt = -fa"}
    assert all(item.holds for item in hypotheses_of(weight_decay.STATEMENT, run))
