"""Theorem 5.1: alpha-alignment dominance bounds the risk (section 3).

alpha = 1:   L(t) <= L(0) exp(-mu t)
alpha > 1:   L(t) <= [L(0)^(1-alpha) + (alpha-1) mu t]^(-1/(alpha-1))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowsim import Solution
from flowsim.losses import Loss, polynomial
from flowsim.observables import dominance_ratio
from theorems import ensembles
from theorems.check import Case, Role, Statement
from theorems.constants import Constant, each, mu_separable, scaled, smallest_gram_eigenvalue
from theorems.ensembles import SMALL, T_FINAL, Scope
from theorems.hypothesis import Hypothesis
from theorems.measurement import Claim, Compared, alone, infimum, ratio
from theorems.observation import Observation
from theorems.thresholds import EARLY

POLYNOMIAL = polynomial(2)
"""(1 + u)^-2: alpha = 2 + 2/p = 3, and the constants of Proposition 5.7 times p^2 = 4."""

Mu = Constant
"""The dominance constant of a run, which may be measured along it."""


def mean_ratio(seen: Observation, alpha: float) -> Float[Tensor, "nodes pieces"]:
    """(L(t)^(1-alpha) - L(0)^(1-alpha)) / ((alpha-1) t), or log(L(0) / L(t)) / t for alpha = 1.

    By Eq. (1) the mean of the dominance ratio over [0, t]. Theorem 5.1 says that it is at least mu.
    """
    risk, initial = seen.risk, seen.initial_risk
    gained = (initial / risk).log() if alpha == 1 else (risk ** (1 - alpha) - initial ** (1 - alpha)) / (alpha - 1)
    return torch.where(too_early(seen), seen.dominance(alpha), gained / seen.times)


def too_early(seen: Observation) -> Bool[Tensor, "nodes pieces"]:
    """Where L has changed by so little since the start that L(t) - L(0) is rounding.

    There the rate itself stands for its mean over [0, t], which is the stronger claim: a mean over [0, t] is not below
    the smallest rate up to t.
    """
    return (seen.risk / seen.initial_risk - 1).abs() <= EARLY


def statement(alpha: float, mu: Mu) -> Statement:
    """Theorem 5.1 for given alpha and mu."""
    mu = lru_cache(maxsize=16)(mu)

    def dominance(seen: Observation) -> Compared:
        return ratio(seen.factors.product, seen.of(mu(seen.solution)) * seen.risk**alpha)

    def hypotheses(solution: Solution) -> list[Hypothesis]:
        positive = Hypothesis("mu > 0", mu(solution), strict=True)
        if not positive.holds:
            return [positive]
        return [positive, Hypothesis("<grad, fa> >= mu L^alpha", infimum(dominance, solution))]

    def bound(seen: Observation) -> Compared:
        return ratio(mean_ratio(seen, alpha), seen.of(mu(seen.solution)))

    return Statement(
        name="theorem_5_1",
        title=f"Theorem 5.1, convergence with alpha = {alpha:g}",
        formula=r"\langle \mathrm{grad}, \mathrm{fa} \rangle \ge \mu L^\alpha \ \forall t \quad\Rightarrow\quad "
        r"L(t)^{1-\alpha} \ge L(0)^{1-\alpha} + (\alpha - 1) \mu t \quad (\alpha = 1: \ L(t) \le L(0) e^{-\mu t})",
        hypotheses=hypotheses,
        claims=[Claim("mean of <grad, fa> / L^alpha over [0, t] > mu", "inequality", bound, mu)],
        constants=lambda solution: {"mu": mu(solution)},
    )


def smallest_eigenvalue(seen: Observation) -> Compared:
    """lambda_min of the feedback tangent kernel."""
    return alone(torch.linalg.eigvalsh(tangent_kernel(seen))[..., :1])


def tangent_kernel(seen: Observation) -> Float[Tensor, "nodes pieces n n"]:
    """Theta_ik = x_i.x_k sum_j v_j b_j phi'_ij phi'_kj + sum_j phi(z_ij) phi(z_kj), for two layers, scalar output."""
    assert seen.slopes is not None
    (slopes,), (feedback,), (hidden, output) = seen.slopes, seen.feedback, seen.weights.layers
    activation = slopes * (seen.flow.dataset.inputs @ hidden.mT)
    weighted = (slopes * (output * feedback)) @ slopes.mT
    return seen.flow.dataset.gram * weighted + activation @ activation.mT


def mu_kernel(solution: Solution) -> Float[Tensor, " ensemble"]:
    """2 min_t lambda_min(Theta(t)) / n: squared loss, alpha = 1."""
    return 2 * infimum(smallest_eigenvalue, solution) / solution.flow.dataset.samples


def mu_linear(solution: Solution) -> Float[Tensor, " ensemble"]:
    """2 (b . v(0)) lambda_min(K) / n: linear network from zero hidden weights, squared loss, alpha = 1."""
    start = solution.start
    feedback = solution.flow.rule.feedback_matrices(start)[0]
    product = each(solution, (feedback * start.layers[1]).sum((-2, -1)))
    return 2 * product * smallest_gram_eigenvalue(solution) / solution.flow.dataset.samples


def mu_measured(alpha: float, share: float) -> Mu:
    """The given share of the infimum of the dominance ratio."""
    return lambda solution: share * infimum(partial(dominance_ratio_of, alpha=alpha), solution)


def dominance_ratio_of(seen: Observation, alpha: float) -> Compared:
    """<grad, fa> and L^alpha."""
    return Compared(seen.factors.product.unsqueeze(-1), (seen.risk**alpha).unsqueeze(-1))


def cases(scope: Scope) -> list[Case]:
    """alpha = 1 (kernel regime, linear network), 2 and 3; the controls misstate alpha and overstate mu."""
    seeds, device = scope.seeds, scope.device

    def separable(loss: str | Loss = "exponential", t_final: float = T_FINAL) -> Callable[[], Solution]:
        return partial(ensembles.margin_run, "separable", "fa", SMALL, seeds, device, loss=loss, t_final=t_final)

    def mu_at_start(solution: Solution) -> Tensor:
        """The largest mu that dominance with alpha = 1 allows at the start."""
        start = solution.start
        return each(solution, dominance_ratio(solution.flow, start, 1))

    def mu_too_large(solution: Solution) -> Tensor:
        """Twice the supremum of the dominance ratio."""

        def negative(seen: Observation) -> Compared:
            product, size = dominance_ratio_of(seen, 2)
            return Compared(-product, size)

        return -2 * infimum(negative, solution)

    def case(label: str, alpha: float, mu: Mu, solution: Callable[[], Solution], role: Role = "theorem") -> Case:
        return Case(statement(alpha, mu), label, role, [solution])

    def kernel(paired: bool) -> list[Callable[[], Solution]]:
        return [partial(ensembles.kernel_run, width, paired, seeds, device) for width in (16, 64, 256)]

    runs = ensembles.margin_runs(scope, "separable", "fa")
    return [
        case("alpha = 1, wide adaFA", 1, mu_kernel, partial(ensembles.wide_run, seeds, device)),
        *(
            Case(statement(1, mu_kernel), f"alpha = 1, {label}, m = 16 to 256", "theorem", kernel(paired))
            for label, paired in [("adaFA", True), ("FA, independent B", False)]
        ),
        case("alpha = 1, linear FA", 1, mu_linear, partial(ensembles.linear_run, seeds, device)),
        Case(statement(2, mu_separable), "alpha = 2, FA, exponential", "theorem", runs),
        case("alpha = 3, FA, (1+u)^-2", 3, scaled(4, mu_separable), separable(POLYNOMIAL)),
        case("alpha = 1 stated, 2 true", 1, mu_at_start, separable(t_final=1000.0), "control"),
        case("mu twice the largest ratio", 2, mu_too_large, separable(), "control"),
    ]
