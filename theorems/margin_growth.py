"""The smoothed margin never shrinks, beyond the paper (section 14.2).

FA and sign-FA with all gaps c_j >= 0, exponential loss, any data and slope: log(1/(nL)) / |v|^(3/2) does not decrease
once nL < 1, for <grad, fa> |v|^2 >= 3/2 (v . dv/dt)^2 at all times, which takes no assumption on the loss.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from flowsim import Dataset, FeedbackAlignment, Flow, SignFeedbackAlignment, Solution, Weights
from flowsim.initialization import with_gaps
from flowsim.rules import is_one_of
from theorems import ensembles
from theorems.check import Case, Statement, control
from theorems.constants import feedback_not_zero, gaps_not_negative
from theorems.ensembles import GAP, SLOPE, Scope, margin_run, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, two_layers
from theorems.measurement import Claim, Compared
from theorems.observation import Observation

EXPONENT = 1.5


def growth(seen: Observation) -> tuple[torch.Tensor, torch.Tensor]:
    """<grad, fa> |v|^2 and v . dv/dt."""
    output, speed = (weights.layers[1].squeeze(-2) for weights in (seen.weights, seen.velocity))
    return seen.factors.product * output.square().sum(-1), (output * speed).sum(-1)


def margin_rate(exponent: float, seen: Observation) -> Compared:
    """d/dt log M above p d/dt log |v| with M = log(1/(nL)), where nL < 1: <grad, fa> |v|^2 above p L M v . dv/dt."""
    size, moves = growth(seen)
    margin = (-(seen.flow.dataset.samples * seen.risk).log()).clamp(min=0)
    return Compared((size - exponent * seen.risk * margin * moves).unsqueeze(-1), size.unsqueeze(-1))


def cauchy_schwarz(exponent: float, seen: Observation) -> Compared:
    """<grad, fa> |v|^2 above p (v . dv/dt)^2."""
    size, moves = growth(seen)
    return Compared((size - exponent * moves.square()).unsqueeze(-1), size.unsqueeze(-1))


def hypotheses(solution: Solution, stated: bool = True) -> list[Hypothesis]:
    """FA with b_j != 0 or sign-FA, two layers, scalar output, all c_j >= 0."""
    setting = two_layers(solution, FeedbackAlignment, SignFeedbackAlignment)
    if not all_hold(setting):
        return setting
    fixed = is_one_of(solution.flow.rule, FeedbackAlignment)
    return [
        *setting,
        *([feedback_not_zero(solution)] if fixed else []),
        gaps_not_negative(solution),
        fact("exponent 3/2", stated),
    ]


def exponential_hypotheses(solution: Solution, stated: bool = True) -> list[Hypothesis]:
    """The same, and exponential loss."""
    found = hypotheses(solution, stated)
    return [*found, has_loss(solution, "exponential")] if all_hold(found[:3]) else found


def _descent(exponent: float = EXPONENT) -> Statement:
    return Statement(
        name="margin_growth",
        title="Margin growth, descent against the growth of v",
        formula=r"\langle \mathrm{grad}, \mathrm{fa} \rangle |v|^2 \ge \tfrac32 (v \cdot \dot v)^2, \qquad "
        r"\frac{d}{dt} \frac{\log\frac{1}{nL}}{|v|^{3/2}} \ge 0 \quad (nL < 1)",
        hypotheses=partial(hypotheses, stated=exponent == EXPONENT),
        claims=[Claim("<grad, fa> |v|^2 > 3/2 (v.dv/dt)^2", "inequality", partial(cauchy_schwarz, exponent))],
        beyond=True,
    )


def _margin(exponent: float = EXPONENT) -> Statement:
    return replace(
        _descent(exponent),
        title="Margin growth, the smoothed margin never shrinks",
        hypotheses=partial(exponential_hypotheses, stated=exponent == EXPONENT),
        claims=[
            Claim("d log log(1/(nL)) > 3/2 d log|v| where nL < 1", "inequality", partial(margin_rate, exponent)),
        ],
    )


DESCENT, STATEMENT = _descent(), _margin()


@cache
def one_sample_run(device: str, gap: float = 1e-3, loss: str = "exponential") -> Solution[Weights]:
    """One sample and neurons alike and along it: for gaps 0 the smoothed margin would not move."""
    sample = torch.tensor([[[0.6, 0.8]]], dtype=torch.float64)
    rule = FeedbackAlignment(torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    rows = 0.5 * torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * sample
    return solved(Flow(Dataset(sample, torch.ones(1, 1)), rule, loss, 1.0), with_gaps(rows, rule, gap), 1e3, device)


def cases(scope: Scope) -> list[Case]:
    """Any data, slopes from 0 to 1, gaps at and above 0, a tight instance; the controls misstate the exponent."""
    seeds, device = scope.seeds, scope.device

    def any_data(kind: ensembles.DataKind, rule: ensembles.MarginRule, slope: float, **options: Any) -> partial:
        return partial(margin_run, kind, rule, ensembles.SMALL._replace(slope=slope), seeds, device, **options)

    one = partial(one_sample_run, device)
    return [
        Case(STATEMENT, "FA, separable", "theorem", ensembles.margin_runs(scope, "separable", "fa")),
        Case(STATEMENT, "sign-FA, separable", "theorem", ensembles.margin_runs(scope, "separable", "sign-fa")),
        Case(STATEMENT, "FA, c_j = 0", "theorem", [any_data("separable", "fa", SLOPE, gap=0.0, t_final=1e6)]),
        Case(STATEMENT, "FA, one sample, tight", "theorem", [one]),
        Case(DESCENT, "FA, descent, contradictory labels", "theorem", [any_data("contradictory", "fa", SLOPE)]),
        Case(DESCENT, "FA, descent, ReLU", "theorem", [any_data("opposed", "fa", 0.0)]),
        Case(
            DESCENT,
            "sign-FA, descent, logistic loss",
            "theorem",
            [any_data("contradictory", "sign-fa", SLOPE, loss="logistic")],
        ),
        Case(DESCENT, "FA, descent, one sample, tight", "theorem", [one]),
        control("exponent 1.515, one sample", _margin(1.01 * EXPONENT), one),
        control(
            "exponent 1.8, separable, to t = 1e8",
            _margin(1.2 * EXPONENT),
            any_data("separable", "fa", 1.0, t_final=1e8),
        ),
        control("logistic loss", STATEMENT, partial(one, loss="logistic")),
        control("descent, 1.515, one sample", _descent(1.01 * EXPONENT), one),
        # the exponent is 1 + b_j v_j / |w_j|^2 there
        control("descent, c_j < 0", DESCENT, partial(one, gap=-GAP)),
    ]
