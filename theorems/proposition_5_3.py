"""Proposition 5.3: under sign-FA, cos(W_l, B_l) >= 1 / sqrt(N_l) at every layer with N_l entries (section 5)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import SignFeedbackAlignment, Solution
from theorems import ensembles
from theorems.check import Case, Statement
from theorems.ensembles import Scope
from theorems.hypothesis import is_rule, layers_not_zero
from theorems.measurement import Claim, Compared
from theorems.observation import Observation


def bound(solution: Solution) -> Float[Tensor, "ensemble layers"]:
    """1 / sqrt(N_l) for the layers l = 2 .. H+1."""
    entries = [layer.shape[-2:].numel() for layer in solution.start.layers[1:]]
    bounds = torch.tensor(entries, dtype=torch.float64, device=solution.pieces.start.device) ** -0.5
    return bounds.expand(solution.batch_shape.numel(), -1)


def squared_cosines(seen: Observation) -> Compared:
    """<W_l, B_l> |<W_l, B_l>| above |W_l|^2 |B_l|^2 / N_l for the layers l = 2 .. H+1."""
    pairs = list(zip(seen.weights.layers[1:], seen.feedback, strict=True))
    product = torch.stack([(layer * matrix).sum((-2, -1)) for layer, matrix in pairs], -1)
    norms = [layer.square().sum((-2, -1)) * matrix.square().sum((-2, -1)) for layer, matrix in pairs]
    size = torch.stack(norms, -1) * seen.of(bound(seen.solution)).square()
    return Compared(product * product.abs() - size, size)


STATEMENT = Statement(
    name="proposition_5_3",
    title="Proposition 5.3, alignment of sign-FA",
    formula=r"\cos(W_l, \mathrm{sign}\, W_l) \ge \frac{1}{\sqrt{N_l}}",
    hypotheses=lambda solution: [is_rule(solution, SignFeedbackAlignment), layers_not_zero(solution)],
    claims=[Claim("cos(W_l, B_l) > 1 / sqrt(N_l)", "inequality", squared_cosines, bound, squares=True)],
)


def cases(scope: Scope) -> list[Case]:
    """Widths 5 to 200, one and three outputs, two and three layers; the control has fixed random feedback instead."""

    def any_run(label: str, **options: Any) -> Case:
        return Case(STATEMENT, label, "theorem", ensembles.any_runs(scope, "sign-fa", **options))

    return [
        Case(
            STATEMENT, "sign-FA, separable", "theorem", ensembles.margin_runs(scope, "separable", "sign-fa", wide=True)
        ),
        any_run("sign-FA, 3 outputs, squared", loss="squared", outputs=3),
        any_run("sign-FA, 3 layers, logistic", hidden_layers=2),
        Case(STATEMENT, "fixed, opposite feedback", "control", [ensembles.wrong_signs(scope)]),
    ]
