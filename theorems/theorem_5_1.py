"""Theorem 5.1: alpha-alignment dominance bounds the risk (section 3).

alpha = 1:   L(t) <= L(0) exp(-mu t)
alpha > 1:   L(t) <= [L(0)^(1-alpha) + (alpha-1) mu t]^(-1/(alpha-1))
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from flowsim.losses import Loss, polynomial
from theorems import problems
from theorems.check import Case, Claim, Hypothesis, Role, Statement, dominance_along
from theorems.constants import mu_separable

POLYNOMIAL = polynomial(2)
"""(1 + u)^-2: alpha = 2 + 2/p = 3, and the constants of Proposition 5.7 times p^2 = 4."""

Mu = Callable[[Solution, Tensor], Float[Tensor, "*batch"]]
"""The dominance constant of a run, which may be measured at the given times."""


def bound_excess(
    solution: Solution, times: Tensor, alpha: float, mu: Float[Tensor, "*batch"]
) -> Float[Tensor, "times *batch 1"]:
    """(L(t)^(1-alpha) - L(0)^(1-alpha)) / ((alpha-1) mu t) - 1, or log(L(0) / L(t)) / (mu t) - 1 for alpha = 1.

    Positive where the bound holds strictly; it is the mean of the dominance ratio over [0, t], divided by mu, minus 1,
    so that its value at t = 0 is the ratio there divided by mu, minus 1.
    """
    start = solution.evaluate(0.0)
    risk, initial = solution.flow.risk(solution.evaluate(times)), solution.flow.risk(start)
    gained = (initial / risk).log() if alpha == 1 else (risk ** (1 - alpha) - initial ** (1 - alpha)) / (alpha - 1)
    after = times.reshape(-1, *[1] * len(solution.batch_shape))
    mean_ratio = torch.where(after > 0, gained / after, dominance_along(solution, 0.0, alpha))
    return (mean_ratio / mu - 1).unsqueeze(-1)


def statement(alpha: float, mu: Mu) -> Statement:
    """Theorem 5.1 for given alpha and mu."""

    def dominance(solution: Solution, times: Tensor) -> Tensor:
        ratio = dominance_along(solution, times, alpha)
        return (ratio / mu(solution, times)).amin(0) - 1

    return Statement(
        name="theorem_5_1",
        title=f"Theorem 5.1, convergence with alpha = {alpha:g}",
        formula="<grad, fa> >= mu L^alpha for all t implies L(t)^(1-alpha) >= L(0)^(1-alpha) + (alpha-1) mu t "
        "(alpha = 1: L(t) <= L(0) exp(-mu t))",
        hypotheses=lambda solution, times: [
            Hypothesis("mu > 0", mu(solution, times), strict=True),
            Hypothesis("<grad, fa> >= mu L^alpha at the sampled times", dominance(solution, times)),
        ],
        claims=[
            Claim(
                "bound on L, as mean dominance ratio / mu - 1 > 0",
                "inequality",
                lambda solution, times: bound_excess(solution, times, alpha, mu(solution, times)),
            )
        ],
        constants=lambda solution, times: {"mu": mu(solution, times)},
    )


def tangent_kernel(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch n n"]:
    """Theta_ik = x_i.x_k sum_j v_j b_j phi'_ij phi'_kj + sum_j phi(z_ij) phi(z_kj), for two layers, scalar output."""
    flow, weights = solution.flow, solution.evaluate(times)
    feedback = flow.rule.feedback_matrices(weights)[0].squeeze(-2)
    output = weights.layers[1].squeeze(-2)
    activation, derivative = flow.activation(flow.pre_activations(weights)[0])
    weighted = (derivative * (output * feedback).unsqueeze(-2)) @ derivative.mT
    return flow.dataset.gram * weighted + activation @ activation.mT


def mu_kernel(solution: Solution, times: Tensor) -> Float[Tensor, "*batch"]:
    """2 min_t lambda_min(Theta(t)) / n over the given times: squared loss, alpha = 1."""
    smallest = torch.linalg.eigvalsh(tangent_kernel(solution, times))[..., 0].amin(0)
    return 2 * smallest / solution.flow.dataset.samples


def mu_linear(solution: Solution, times: Tensor) -> Float[Tensor, "*batch"]:
    """2 (b . v(0)) lambda_min(K) / n: linear network from zero hidden weights, squared loss, alpha = 1."""
    start = solution.evaluate(0.0)
    feedback = solution.flow.rule.feedback_matrices(start)[0]
    smallest = torch.linalg.eigvalsh(solution.flow.dataset.gram)[..., 0]
    return 2 * (feedback * start.layers[1]).sum((-2, -1)) * smallest / solution.flow.dataset.samples


def mu_measured(alpha: float, share: float) -> Mu:
    """The given share of the smallest dominance ratio at the sampled times."""
    return lambda solution, times: share * dominance_along(solution, times, alpha).amin(0)


def cases(seeds: int, device: str) -> list[Case]:
    """alpha = 1 (kernel regime, linear network), 2 and 3; the controls misstate alpha and overstate mu."""

    def separable(loss: str | Loss = "exponential") -> Solution:
        return problems.margin_run("separable", "fa", seeds, device, loss=loss)

    def mu_at_start(solution: Solution, times: Tensor) -> Tensor:
        return dominance_along(solution, 0.0, 1)

    def mu_too_large(solution: Solution, times: Tensor) -> Tensor:
        return 2 * dominance_along(solution, times, 2).amax(0)

    def case(label: str, alpha: float, mu: Mu, solution: Callable[[], Solution], role: Role = "theorem") -> Case:
        return Case(statement(alpha, mu), label, role, solution)

    return [
        case("alpha = 1, wide adaFA", 1, mu_kernel, lambda: problems.wide_run(seeds, device)),
        case("alpha = 1, linear FA", 1, mu_linear, lambda: problems.linear_run(seeds, device)),
        case("alpha = 2, FA, exponential", 2, lambda run, times: mu_separable(run), separable),
        case("alpha = 3, FA, (1+u)^-2", 3, lambda run, times: 4 * mu_separable(run), lambda: separable(POLYNOMIAL)),
        case("alpha = 1 stated, 2 true", 1, mu_at_start, separable, "control"),
        case("mu twice the largest ratio", 2, mu_too_large, separable, "control"),
    ]
