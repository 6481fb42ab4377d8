"""Proposition 5.7: FA and sign-FA satisfy 2-alignment dominance on nice data, so that 1/L grows linearly (section 7).

    orthogonally separable   mu = gamma^2 S0 kappa
    boundary case            mu = gamma^2 S0 R^2 / n
    nearly orthogonal        mu = S0 R^2 (gamma^2 - rho (n-1)/n) / n

with S0 = sum_j c_j; chained with Theorem 5.1: 1/L(t) >= 1/L(0) + mu t.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, SignFeedbackAlignment, Solution
from flowsim.losses import named
from theorems import problems
from theorems.check import Case, Claim, Hypothesis, Statement, dominance_along, fact, is_rule
from theorems.constants import gaps_not_negative, mu_boundary, mu_nearly_orthogonal, mu_separable, mu_svm, total_gap
from theorems.theorem_5_1 import bound_excess


def _boundary_slack(dataset: Dataset) -> Tensor:
    """The smallest M_ik off the diagonal; the diagonal must be positive besides."""
    diagonal = torch.eye(dataset.samples, dtype=torch.bool, device=dataset.inputs.device)
    return torch.where(diagonal, torch.inf, dataset.signed_gram).amin((-2, -1))


def _data_hypotheses(kind: str, solution: Solution) -> list[Hypothesis]:
    dataset, n = solution.flow.dataset, solution.flow.dataset.samples
    if kind == "orthogonally separable":
        return [Hypothesis("kappa > 0", dataset.kappa, strict=True)]
    radius = Hypothesis("R > 0", dataset.squared_radius, strict=True)
    if kind == "boundary":
        return [radius, Hypothesis("y_i y_k x_i.x_k >= 0 for i != k", _boundary_slack(dataset))]
    limit = solution.flow.slope**2 * n / max(n - 1, 1)
    return [radius, Hypothesis("rho < gamma^2 n / (n-1)", limit - dataset.rho, strict=True)]


def _statement(kind: str, constant: Callable[[Solution], Tensor], factor: float = 1.0) -> Statement:
    """The proposition for a kind of data; a factor other than 1 misstates its constant."""

    def mu(solution: Solution) -> Tensor:
        return factor * constant(solution)

    def hypotheses(solution: Solution, times: Tensor) -> list[Hypothesis]:
        flow, start = solution.flow, solution.evaluate(0.0)
        scalar = len(start.layers) == 2 and flow.dataset.classes is None
        setting = [
            is_rule(solution, FeedbackAlignment, SignFeedbackAlignment),
            fact("two layers, labels +-1", scalar),
            fact("exponential loss", named(flow.loss).name == "exponential"),
            Hypothesis("gamma > 0", torch.tensor(float(flow.slope)), strict=True),
        ]
        if not all(hypothesis.holds for hypothesis in setting):
            return setting
        return [
            *setting,
            fact("mu as stated", factor == 1),
            *([gaps_not_negative(solution)] if isinstance(flow.rule, FeedbackAlignment) else []),
            Hypothesis("S0 = sum c_j > 0", total_gap(solution), strict=True),
            *_data_hypotheses(kind, solution),
        ]

    def dominance(solution: Solution, times: Tensor) -> Tensor:
        return (dominance_along(solution, times, 2) / mu(solution) - 1).unsqueeze(-1)

    def constants(solution: Solution, times: Tensor) -> dict[str, Tensor]:
        smallest = dominance_along(solution, times, 2).amin(0)
        return {
            "mu": mu(solution),
            "mu (SVM margin)": mu_svm(solution),
            "min <grad, fa> / L^2": smallest,
            "tightness": smallest / mu(solution),
        }

    return Statement(
        name="proposition_5_7",
        title=f"Proposition 5.7, {kind} data",
        formula="<grad, fa> >= mu L^2 and 1/L(t) >= 1/L(0) + mu t",
        hypotheses=hypotheses,
        claims=[
            Claim("<grad, fa> / (mu L^2) - 1 > 0", "inequality", dominance),
            Claim(
                "(1/L(t) - 1/L(0)) / (mu t) - 1 > 0",
                "inequality",
                lambda solution, times: bound_excess(solution, times, 2, mu(solution)),
            ),
        ],
        constants=constants,
    )


SEPARABLE = _statement("orthogonally separable", mu_separable)
BOUNDARY = _statement("boundary", mu_boundary)
NEARLY_ORTHOGONAL = _statement("nearly orthogonal", mu_nearly_orthogonal)
RHO_IGNORED = _statement("nearly orthogonal", mu_boundary)
"""The constant at rho = 0: what the control claims of data whose rho is too large for any positive constant."""


def cases(seeds: int, device: str) -> list[Case]:
    """Both rules on the three kinds of data; the controls break what is assumed of the data."""
    rules: list[tuple[str, problems.MarginRule]] = [("FA", "fa"), ("sign-FA", "sign-fa")]
    found = []
    for label, rule in rules:

        def run(kind: problems.DataKind, rule: problems.MarginRule = rule, **options: float) -> Solution:
            return problems.margin_run(kind, rule, seeds, device, **options)

        found += [
            Case(SEPARABLE, f"{label}, separable", "theorem", partial(run, "separable")),
            Case(BOUNDARY, f"{label}, boundary", "theorem", partial(run, "boundary")),
            Case(NEARLY_ORTHOGONAL, f"{label}, nearly orthogonal", "theorem", partial(run, "nearly orthogonal")),
            Case(BOUNDARY, f"{label}, contradictory labels", "control", partial(run, "contradictory", slope=1.0)),
            Case(RHO_IGNORED, f"{label}, rho too large", "control", partial(run, "opposed", slope=1.0)),
        ]
    # where the bound is nearly attained, a constant that is a tenth too large must be noticed
    kinds: list[tuple[str, problems.TightKind, Statement, Statement]] = [
        ("separable", "identical", SEPARABLE, _statement("orthogonally separable", mu_separable, 1.1)),
        ("boundary", "orthogonal", BOUNDARY, _statement("boundary", mu_boundary, 1.1)),
        ("nearly orthogonal", "simplex", NEARLY_ORTHOGONAL, _statement("nearly orthogonal", mu_nearly_orthogonal, 1.1)),
    ]
    for label, inputs, stated, overstated in kinds:
        tight = partial(problems.tight_run, inputs, device)
        found += [
            Case(stated, f"FA, {label}, tight", "theorem", tight),
            Case(overstated, f"FA, {label}, 1.1 mu", "control", tight),
        ]
    return found
