"""Proposition 5.7 over eight decades of time: L(1e8) by another integrator, in the logarithm of time."""

from functools import partial

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from theorems import ensembles
from theorems.check import check
from theorems.constants import mu_separable
from theorems.measurement import Claim, Compared, measure, ratio
from theorems.observation import Observation
from theorems.proposition_5_7 import LONG, SEPARABLE
from theorems.theorem_5_1 import mean_ratio


def long_run() -> ensembles.Solution:
    return ensembles.margin_run("separable", "fa", ensembles.SMALL, 1, "cpu", t_final=LONG)


def test_the_risk_at_the_end_is_that_of_another_integrator_and_below_the_bound() -> None:
    solution = long_run()
    flow, start = solution.flow, solution.start
    X, y = flow.dataset.inputs[0].numpy(), flow.dataset.labels[0].numpy()
    b = flow.rule.feedback_matrices(start)[0].flatten().numpy()
    m, d = start.layers[0].shape[-2:]

    def drives(state: np.ndarray) -> tuple[np.ndarray, ...]:
        W, v = state[: m * d].reshape(m, d), state[m * d :]
        z = X @ W.T
        h = np.where(z > 0, z, flow.slope * z)
        return h, np.where(z > 0, 1, flow.slope), np.exp(-y * (h @ v)) / len(y)

    def velocity(tau: float, state: np.ndarray) -> np.ndarray:
        h, slopes, g = drives(state)
        return np.exp(tau) * np.concatenate([((slopes * np.outer(g * y, b)).T @ X).ravel(), h.T @ (g * y)])

    state = np.concatenate([layer.numpy().ravel() for layer in start.layers])
    end = solve_ivp(velocity, (0, np.log1p(LONG)), state, method="DOP853", rtol=1e-8, atol=1e-10).y[:, -1]
    found = flow.risk(solution.evaluate(LONG)).item()
    assert found == pytest.approx(drives(end)[2].sum(), rel=1e-4)
    assert found < 1 / (1 / flow.risk(start).item() + mu_separable(solution).item() * LONG) < 1e-5


def faster(seen: Observation, power: float) -> Compared:
    """1/L(t) > 1/L(0) + mu t (1 + t)^power."""
    return ratio(mean_ratio(seen, 2), seen.of(mu_separable(seen.solution)) * (1 + seen.times) ** power)


def test_an_exponent_of_time_a_little_too_large_fails_in_the_end() -> None:
    """Beside t there is room for (log t)^(2/3) and a constant: t^1.5 is refused, t is not."""
    solution = long_run()
    assert check(SEPARABLE, "x", "theorem", [solution]).verdict == "holds"
    claims = [Claim("x", "inequality", partial(faster, power=power)) for power in (0.0, 0.1, 0.5)]
    assert [margin.violated.item() for margin in measure(claims, solution)] == [False, False, True]
