"""Linear networks under FA: against another integrator and closed forms, and planted mistakes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Solution, Weights, solve
from flowsim.initialization import gaussian, random_signs
from flowsim.rules import Rule
from theorems import linear_networks
from theorems.check import Statement, check, hypotheses_of
from theorems.ensembles import any_run
from theorems.linear_networks import ALIGNMENT, MATRIX, STATEMENT
from theorems.measurement import Claim, Values

INPUTS = torch.randn(3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
LABELS = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
B = torch.tensor([1.0, -2.0, 0.5, 1.5], dtype=torch.float64)
OUTPUT = torch.tensor([0.8, -0.3, -0.4, 0.1], dtype=torch.float64)
ZERO = torch.zeros(4, 5, dtype=torch.float64)


def run(
    t_final: float = 1.0,
    hidden: torch.Tensor = ZERO,
    rule: Rule | None = None,
    loss: str = "squared",
    slope: float = 1.0,
    sign: float = 1.0,
) -> Solution:
    flow = Flow(Dataset(INPUTS, LABELS), rule or FeedbackAlignment(B), loss, slope)
    return solve(flow, Weights(hidden, sign * OUTPUT), t_final, rtol=1e-13, atol=1e-15)


def test_the_exact_solution_is_that_of_another_integrator_without_the_library() -> None:
    """All weights in numpy; then W = b s^T, v = v(0) + b |s|^2 / 2, beta = (b.v) s in the span of the data."""
    X, y, b, first = (part.numpy() for part in (INPUTS, LABELS, B, OUTPUT))

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        W, v = state[:20].reshape(4, 5), state[20:]
        q = (y - X @ W.T @ v) / 3
        return np.concatenate([np.outer(b, q @ X).ravel(), W @ X.T @ q])

    end = solve_ivp(velocity, (0, 2), np.concatenate([np.zeros(20), first]), rtol=1e-11, atol=1e-13).y[:, -1]
    W, v = end[:20].reshape(4, 5), end[20:]
    s = W.T @ b / (b @ b)
    np.testing.assert_allclose(W, np.outer(b, s), rtol=0, atol=1e-9)
    np.testing.assert_allclose(v, first + b * (s @ s) / 2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(W.T @ v, (b @ v) * s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.pinv(X) @ X @ s, s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run(2.0).evaluate(2.0).hidden.numpy(), W, rtol=0, atol=1e-8)


def test_the_predictor_tends_to_the_interpolant_of_smallest_norm() -> None:
    """Which is the solution of least squares by LAPACK; another one with the data's labels is longer."""
    solution = run(200.0)
    end = solution.evaluate(200.0)
    beta = (end.hidden.mT @ end.layers[1].squeeze(-2).unsqueeze(-1)).squeeze(-1)
    found = torch.from_numpy(np.linalg.lstsq(INPUTS.numpy(), LABELS.numpy(), rcond=None)[0])
    torch.testing.assert_close(beta, found, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(linear_networks.interpolant(solution)[0], found, rtol=1e-12, atol=1e-14)


def test_the_gain_of_alignment_is_below_its_bound_by_hand_and_near_it_where_v_starts_across_b() -> None:
    for solution, tight in [(run(5.0), False), (linear_networks.across_run("cpu"), True)]:
        end, start = solution.evaluate(solution.t_final), solution.start
        b = solution.flow.rule.feedback_matrices(start)[0].flatten()
        v, first = end.layers[1].flatten(), start.layers[1].flatten()
        beta = end.layers[0].reshape(len(b), -1).mT @ v
        gain = (v @ b / v.norm() - first @ b / first.norm()) / b.norm()
        cosine = first @ b / (first.norm() * b.norm())
        bound = (1 - cosine**2) * b.norm() / (2 * first.norm()) * (2 * beta.norm() / b.square().sum()) ** (2 / 3)
        assert 0 < gain < bound
        assert (gain > 0.998 * bound) == tight


def test_the_matrix_is_conserved_at_any_weights() -> None:
    """d/dt of B^T W_2 + W_2^T B - W_1 W_1^T along the velocity, three layers, by the product rule."""
    solution = any_run("fa", 1, "cpu", shape=linear_networks.DEEP._replace(slope=1.0), hidden_layers=2)
    flow, weights = solution.flow, solution.start
    velocity, feedback = flow.velocity(weights).layers, flow.rule.feedback_matrices(weights)
    for level, matrix in enumerate(feedback):
        product, below = matrix.mT @ velocity[level + 1], velocity[level] @ weights.layers[level].mT
        torch.testing.assert_close(product + product.mT, below + below.mT, rtol=0, atol=1e-13)


def verdict(statement: Statement, values: Values, solution: Solution) -> str:
    (claim, *_) = statement.claims
    return check(replace(statement, claims=[Claim("x", claim.kind, values)]), "x", "theorem", [solution]).verdict


@pytest.mark.parametrize(
    ("statement", "values", "solution"),
    [
        (STATEMENT, partial(linear_networks.distance, rate=1.01), linear_networks.tight_run("cpu")),
        (STATEMENT, partial(linear_networks.distance, share=1.01), linear_networks.tight_run("cpu")),
        (ALIGNMENT, partial(linear_networks.little_alignment, share=0.99), linear_networks.across_run("cpu")),
        (ALIGNMENT, partial(linear_networks.little_alignment, power=0.68), linear_networks.across_run("cpu")),
    ],
    ids=["rate", "eigenvalue", "constant", "exponent"],
)
def test_a_percent_is_noticed_where_a_bound_is_nearly_attained(
    statement: Statement, values: partial, solution: Solution
) -> None:
    assert verdict(statement, values.func, solution) == "holds"
    assert verdict(statement, values, solution) == "violated"


@pytest.mark.parametrize("factor", [0.99, 1.01, -1.0])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_s_that_is_a_percent_off_is_noticed(number: int, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each of the equalities; v = v(0) + b |s|^2 / 2 does not tell s from -s."""
    values, vectors = STATEMENT.claims[number].values, linear_networks._vectors
    equality = replace(STATEMENT, claims=[Claim("x", "equality", values)])
    assert check(equality, "x", "theorem", [run()]).verdict == "holds"
    monkeypatch.setattr(linear_networks, "_vectors", lambda seen: (*vectors(seen)[:3], factor * vectors(seen)[3]))
    expected = "holds" if (number, factor) == (2, -1.0) else "violated"
    assert check(equality, "x", "theorem", [run()]).verdict == expected


def broken(statement: Statement, solution: Solution) -> set[str]:
    return {item.name for item in hypotheses_of(statement, solution) if not item.holds}


def test_hypotheses_notice_their_breach() -> None:
    hidden = gaussian(4, 5, 0).hidden
    assert broken(STATEMENT, run()) == broken(ALIGNMENT, run()) == broken(MATRIX, run()) == set()
    assert broken(STATEMENT, run(hidden=hidden)) == {"W(0) = 0"}
    assert broken(STATEMENT, run(sign=-1.0)) == {"b.v(0) > 0"}
    assert broken(STATEMENT, run(loss="logistic")) == {"squared loss"}
    assert broken(STATEMENT, run(hidden=hidden, slope=0.5)) == {"W(0) = 0", "gamma = 1"}
    assert broken(STATEMENT, run(hidden=hidden, rule=GradientDescent())) == {"rule is FeedbackAlignment"}
    assert broken(MATRIX, run(hidden=hidden, slope=0.5)) == {"gamma = 1"}
    assert broken(ALIGNMENT, linear_networks.linear_run(1, "cpu")) == {"cos(v(0), b) < 1"}
    twice = Flow(Dataset(INPUTS[[0, 0]], [1, 1]), FeedbackAlignment(B), "squared", 1.0)
    assert broken(STATEMENT, solve(twice, Weights(ZERO, OUTPUT), 0.1)) == {"lambda_min(K) > 0"}


def test_random_starts_of_wide_networks_gain_the_less_the_wider() -> None:
    gains = []
    for width in linear_networks.WIDTHS[:3]:
        solution = linear_networks.wide_run(width, 1, "cpu")
        b = random_signs(width, 0)
        cosines = [
            torch.cosine_similarity(at.layers[1].flatten(), b, 0)
            for at in (solution.start, solution.evaluate(solution.t_final))
        ]
        gains.append((cosines[1] - cosines[0]).item())
    assert gains[0] > gains[1] > gains[2] > 0
