"""Proposition 5.3: under sign-FA, cos(W_l, B_l) >= 1 / sqrt(N_l) at every layer with N_l entries (section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import SignFeedbackAlignment, Solution
from flowsim.observables import alignment
from theorems import problems
from theorems.check import Case, Claim, Role, Statement, is_rule, layers_not_zero


def excess(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch layers"]:
    """cos(W_l, B_l) sqrt(N_l) - 1 for the layers l = 2 .. H+1."""
    weights = solution.evaluate(times)
    cosines = alignment(solution.flow, weights)
    entries = [layer.shape[-2:].numel() for layer in weights.layers[1:]]
    return torch.stack([cosine * count**0.5 - 1 for cosine, count in zip(cosines, entries, strict=True)], -1)


STATEMENT = Statement(
    name="proposition_5_3",
    title="Proposition 5.3, alignment of sign-FA",
    formula="cos(W_l, sign W_l) >= 1 / sqrt(N_l)",
    hypotheses=lambda solution, times: [is_rule(solution, SignFeedbackAlignment), layers_not_zero(solution)],
    claims=[Claim("cos(W_l, B_l) sqrt(N_l) - 1 > 0", "inequality", excess)],
    constants=lambda solution, times: {
        "min cos(W_l, B_l)": torch.stack(alignment(solution.flow, solution.evaluate(times)), -1).amin(0)
    },
)


def cases(seeds: int, device: str) -> list[Case]:
    """One and three outputs, two and three layers; the control has fixed random feedback instead."""

    def case(label: str, role: Role, solution: Callable[[], Solution]) -> Case:
        return Case(STATEMENT, label, role, solution)

    def separable(rule: problems.MarginRule, **options: float) -> Solution:
        return problems.margin_run("separable", rule, seeds, device, **options)

    def any_run(**options: Any) -> Solution:
        return problems.any_run("sign-fa", seeds, device, **options)

    return [
        case("sign-FA, separable", "theorem", lambda: separable("sign-fa")),
        case("sign-FA, 3 outputs, squared", "theorem", lambda: any_run(loss="squared", outputs=3)),
        case("sign-FA, 3 layers, logistic", "theorem", lambda: any_run(hidden_layers=2)),
        case("fixed, opposite feedback", "control", lambda: separable("fa", gap=-3.0, t_final=0.5)),
    ]
