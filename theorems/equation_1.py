"""Equation (1): dL/dt = -<grad, fa> = -|grad| |fa| cos(grad, fa) (section 2).

The check measures the integral form, L(t) - L(0) = -int_0^t <grad, fa> ds, with Lobatto quadrature on every piece.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from theorems import ensembles
from theorems.check import Case, Statement
from theorems.ensembles import Scope
from theorems.measurement import Claim, Compared
from theorems.observation import Observation


def imbalance(seen: Observation) -> Compared:
    """L(t) - L(0) + int_0^t <grad, fa> ds and max(L(0), L(t)), with fa = the direction that the rule prescribes."""
    size = torch.maximum(seen.risk, seen.initial_risk)
    return Compared((seen.risk - seen.initial_risk + seen.integral).unsqueeze(-1), size.unsqueeze(-1))


STATEMENT = Statement(
    name="equation_1",
    title="Equation (1), the descent identity",
    formula=r"\frac{dL}{dt} = -\langle \mathrm{grad}, \mathrm{fa} \rangle"
    r" \quad = -|\mathrm{grad}| \, |\mathrm{fa}| \, \cos\angle(\mathrm{grad}, \mathrm{fa})",
    hypotheses=lambda solution: [],
    claims=[Claim("L(t) - L(0) = -int <grad, fa> ds", "equality", imbalance)],
    rate=lambda seen: seen.factors.product,
)


def cases(scope: Scope) -> list[Case]:
    """All rules, through kinks and slides, two and three layers, one and three outputs; the control adds decay."""
    seeds, device = scope.seeds, scope.device

    def gaussian(label: str, rule: ensembles.RuleName, **options: Any) -> Case:
        return Case(STATEMENT, label, "theorem", ensembles.any_runs(scope, rule, **options))

    return [
        Case(STATEMENT, "FA, separable", "theorem", ensembles.margin_runs(scope, "separable", "fa")),
        Case(STATEMENT, "sign-FA, separable", "theorem", ensembles.margin_runs(scope, "separable", "sign-fa")),
        gaussian("GD, arbitrary labels", "gd", loss="exponential"),
        gaussian("FA, 3 outputs, cross-entropy", "fa", loss="cross-entropy", outputs=3),
        gaussian("sign-FA, 3 outputs, squared", "sign-fa", loss="squared", outputs=3),
        gaussian("GD, 3 layers", "gd", hidden_layers=2),
        Case(
            STATEMENT,
            "FA with weight decay",
            "control",
            [partial(ensembles.any_run, "fa", seeds, device, decay=0.1)],
        ),
        Case(
            STATEMENT,
            "FA, feedback changed midway",
            "control",
            [partial(ensembles.changed_feedback_run, seeds, device)],
        ),
    ]
