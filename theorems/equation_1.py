"""Equation (1): dL/dt = -<grad, fa> = -|grad| |fa| cos(grad, fa) (section 2).

The check measures the integral form, L(t) - L(0) = -int_0^t <grad, fa> ds, with Lobatto quadrature on every piece.
Beyond the paper, where all b_j v_j > 0 (section 14.3): cos(grad, fa) >= 2 sqrt(AB) / (A + B) with A, B the extremes of
{1, v_j / b_j}, whatever the data and the loss; so L falls.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, Flow, SignFeedbackAlignment, Solution, Weights
from flowsim.initialization import with_gaps
from theorems import any_start, ensembles, lemma_5_4
from theorems.check import Case, Statement
from theorems.ensembles import Scope, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, two_layers
from theorems.measurement import Claim, Compared, alone, infimum, ratio
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


def extremes(seen: Observation) -> tuple[Float[Tensor, "nodes pieces"], Float[Tensor, "nodes pieces"]]:
    """A and B, the smallest and the largest of 1 and all v_j / b_j."""
    ratios = (seen.weights.layers[1] / seen.feedback[0]).squeeze(-2)
    return ratios.amin(-1).clamp(max=1), ratios.amax(-1).clamp(min=1)


def squared_cosine(factor: float, seen: Observation) -> Compared:
    """<grad, fa> |<grad, fa>| (A + B)^2 above 4 A B |grad|^2 |fa|^2."""
    (low, high), factors = extremes(seen), seen.factors
    product = factors.product * (low + high)
    norms = factor * factors.gradient_norm * factors.update_norm
    # where some b_j v_j < 0 the bound is for a control, and has a size all the same
    return ratio(product * product.abs(), 4 * low.abs() * high * norms.square())


def descent(seen: Observation) -> Compared:
    """<grad, fa>, and |grad| |fa|."""
    return Compared(
        seen.factors.product.unsqueeze(-1), (seen.factors.gradient_norm * seen.factors.update_norm).unsqueeze(-1)
    )


def angle_hypotheses(solution: Solution, stated: bool = True) -> list[Hypothesis]:
    """FA or sign-FA, two layers, scalar output, and b_j v_j > 0 all along the run."""
    setting = two_layers(solution, FeedbackAlignment, SignFeedbackAlignment)
    if not all_hold(setting):
        return setting
    products = infimum(lambda seen: alone(lemma_5_4.products(seen).excess), solution)
    return [*setting, Hypothesis("b_j v_j(t) > 0", products, strict=True), fact("bound as stated", stated)]


def _angle(factor: float = 1.0) -> Statement:
    """The bound on the angle, times a factor."""
    return Statement(
        name="equation_1",
        title="Equation (1), the angle where b_j v_j > 0",
        formula=r"\cos\angle(\mathrm{grad}, \mathrm{fa}) \ge \frac{2 \sqrt{AB}}{A + B}, \quad "
        r"A = \min\{1, \tfrac{v_j}{b_j}\}, \ B = \max\{1, \tfrac{v_j}{b_j}\}",
        hypotheses=partial(angle_hypotheses, stated=factor == 1),
        claims=[
            Claim("cos(grad, fa) > 2 sqrt(AB) / (A + B)", "inequality", partial(squared_cosine, factor), squares=True),
            Claim("dL/dt < 0", "inequality", descent),
        ],
        beyond=True,
    )


ANGLE = _angle()


@cache
def _balanced_run(device: str) -> Solution[Weights]:
    """One sample and one neuron along it, c slightly below |w|^2 / 2: the bound is attained up to 0.1 %."""
    sample = torch.tensor([[[1.0]]], dtype=torch.float64)
    rule = FeedbackAlignment(torch.tensor([[2.0]], dtype=torch.float64))
    weights = with_gaps(torch.tensor([[[0.5]]], dtype=torch.float64), rule, 0.12)
    return solved(Flow(Dataset(sample, torch.ones(1, 1)), rule, "exponential", 1.0), weights, 1e-2, device)


def _angle_cases(scope: Scope) -> list[Case]:
    """Any labels, losses and rules; the controls misstate the bound, and start with signs wrong."""
    shape, seeds, device = ensembles.SMALL, scope.seeds, scope.device
    logistic = partial(ensembles.margin_run, "contradictory", "fa", shape, seeds, device, loss="logistic")
    settled = ensembles.QUICK[0]._replace(slope=0.9), seeds, device
    tight = partial(_balanced_run, device)
    return [
        Case(ANGLE, "FA, angle, separable", "theorem", ensembles.margin_runs(scope, "separable", "fa")),
        Case(ANGLE, "sign-FA, angle, separable", "theorem", ensembles.margin_runs(scope, "separable", "sign-fa")),
        Case(ANGLE, "FA, angle, contradictory labels, logistic", "theorem", [logistic]),
        Case(ANGLE, "FA, angle, once signs are right", "theorem", [partial(any_start.settled_run, *settled)]),
        Case(ANGLE, "FA, angle, tight", "theorem", [tight]),
        Case(_angle(1.01), "FA, angle, 1.01 times the bound", "control", [tight]),
        Case(ANGLE, "FA, angle, wrong signs", "control", [ensembles.wrong_signs(scope)]),
    ]


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
        *_angle_cases(scope),
    ]
