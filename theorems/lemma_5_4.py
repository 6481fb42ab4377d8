"""Lemma 5.4: FA with initial gaps c_j >= 0 keeps the output weights' signs and their alignment (section 6).

Corollary, Dale's principle: no output weight ever changes sign.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import FeedbackAlignment, Solution
from flowsim.observables import alignment
from theorems import problems
from theorems.check import Case, Claim, Hypothesis, Statement, fact, is_rule, layers_not_zero
from theorems.constants import gaps_not_negative


def _feedback(solution: Solution) -> Float[Tensor, "*batch m"]:
    return solution.flow.rule.feedback_matrices(solution.evaluate(0.0))[-1].squeeze(-2)


def hypotheses(solution: Solution, times: Tensor) -> list[Hypothesis]:
    """FA with b_j != 0, scalar output, two layers, and c_j = b_j v_j(0) - |w_j(0)|^2 / 2 >= 0."""
    start = solution.evaluate(0.0)
    scalar = len(start.layers) == 2 and start.layers[-1].shape[-2] == 1
    shape = [
        is_rule(solution, FeedbackAlignment),
        fact("two layers, scalar output", scalar),
    ]
    if not all(hypothesis.holds for hypothesis in shape):
        return shape
    return [
        *shape,
        Hypothesis("b_j != 0", _feedback(solution).abs().amin(-1), strict=True),
        layers_not_zero(solution),
        gaps_not_negative(solution),
    ]


def products(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch m"]:
    """b_j v_j(t) / max_s |b_j v_j(s)|."""
    values = _feedback(solution) * solution.evaluate(times).layers[-1].squeeze(-2)
    return values / values.abs().amax(0)


def excess(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch 1"]:
    """cos(v, b) |b| / min |b_j| - 1, which is cos(v, b) sqrt(m) - 1 for b in {-1, +1}^m."""
    feedback = _feedback(solution)
    bound = feedback.abs().amin(-1) / feedback.norm(dim=-1)
    return (alignment(solution.flow, solution.evaluate(times))[-1] / bound - 1).unsqueeze(-1)


def same_sign(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch m"]:
    """v_j(t) sign(v_j(0)) / max_s |v_j(s)|: Dale's principle says that it stays positive."""
    output = solution.evaluate(times).layers[-1].squeeze(-2)
    return output * torch.sign(output[0]) / output.abs().amax(0)


STATEMENT = Statement(
    name="lemma_5_4",
    title="Lemma 5.4, sign preservation and alignment",
    formula="b_j v_j(0) >= |w_j(0)|^2 / 2 for all j implies b_j v_j(t) >= 0 and cos(v, b) >= min|b_j| / |b|",
    hypotheses=hypotheses,
    claims=[
        Claim("b_j v_j(t) > 0", "inequality", products),
        Claim("cos(v, b) |b| / min|b_j| - 1 > 0", "inequality", excess),
        Claim("v_j(t) sign(v_j(0)) > 0 (Dale)", "inequality", same_sign),
    ],
    constants=lambda solution, times: {"min cos(v, b)": alignment(solution.flow, solution.evaluate(times))[-1].amin(0)},
)


def cases(seeds: int, device: str) -> list[Case]:
    """Gaps above and at 0; the controls start with gaps below 0: signs wrong at once, or lost on the way."""

    def run(kind: problems.DataKind, gap: float, t_final: float = 30.0) -> Solution:
        return problems.margin_run(kind, "fa", seeds, device, gap=gap, t_final=t_final)

    return [
        Case(STATEMENT, f"c_j = {problems.GAP}, separable", "theorem", lambda: run("separable", problems.GAP)),
        Case(STATEMENT, "c_j = 0, boundary", "theorem", lambda: run("boundary", 0.0)),
        Case(STATEMENT, "c_j < 0, wrong signs at start", "control", lambda: run("separable", -3.0, 0.5)),
        Case(STATEMENT, "c_j < 0, signs lost on the way", "control", lambda: problems.shrinking_run(seeds, device)),
    ]
