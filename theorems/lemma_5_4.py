"""Lemma 5.4: FA with initial gaps c_j >= 0 keeps the output weights' signs and their alignment (section 6).

Corollary, Dale's principle: no output weight ever changes sign. Beyond the paper (section 14.8): the same at the last
hidden layer of deep networks; with vector output no column of W_{l+1}, at any layer, is ever obtuse to its feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import DeepWeights, FeedbackAlignment, Solution
from flowsim.observables import conserved
from theorems import ensembles
from theorems.check import Case, Statement
from theorems.constants import each, gaps_not_negative
from theorems.ensembles import DEEP as DEEP_SHAPE
from theorems.ensembles import GAP, GAUSSIAN, T_FINAL, Scope, any_problem, solved
from theorems.hypothesis import Hypothesis, fact, is_rule, layers_not_zero
from theorems.measurement import Claim, Compared, ratio
from theorems.observation import Observation
from theorems.validity import homogeneous


def _feedback(solution: Solution) -> Float[Tensor, "*batch m"]:
    return solution.flow.rule.feedback_matrices(solution.start)[-1].squeeze(-2)


def hypotheses(solution: Solution) -> list[Hypothesis]:
    """FA with b_j != 0, scalar output, two layers, and c_j = b_j v_j(0) - |w_j(0)|^2 / 2 >= 0."""
    start = solution.start
    return _of_scalar(solution, "two layers, scalar output", len(start.layers) == 2 and start.layers[-1].shape[-2] == 1)


def _of_scalar(solution: Solution, setting: str, true: bool) -> list[Hypothesis]:
    """The hypotheses of networks of that kind, with the c_j of the last hidden layer."""
    shape = [is_rule(solution, FeedbackAlignment), fact(setting, true)]
    if not all(hypothesis.holds for hypothesis in shape):
        return shape
    return [
        *shape,
        Hypothesis("b_j != 0", _feedback(solution).abs().amin(-1), strict=True),
        homogeneous(solution),
        layers_not_zero(solution),
        gaps_not_negative(solution, len(solution.start.layers) - 2),
    ]


def _deep_hypotheses(solution: Solution) -> list[Hypothesis]:
    """As `hypotheses`, at the last hidden layer of a network of any depth."""
    return _of_scalar(solution, "scalar output", solution.start.layers[-1].shape[-2] == 1)


def _column_hypotheses(stated: bool, solution: Solution) -> list[Hypothesis]:
    """FA, and c_j >= 0 at all hidden layers."""
    rule = is_rule(solution, FeedbackAlignment)
    if not rule.holds:
        return [rule]
    return [rule, homogeneous(solution), gaps_not_negative(solution), fact("c_j as stated", stated)]


def bound(solution: Solution) -> Float[Tensor, " ensemble"]:
    """min |b_j| / |b|, which is 1 / sqrt(m) for b in {-1, +1}^m."""
    feedback = _feedback(solution)
    return each(solution, feedback.abs().amin(-1) / feedback.norm(dim=-1))


def products(seen: Observation) -> Compared:
    """b_j v_j, and sum_k |b_k v_k|."""
    values = (seen.feedback[-1] * seen.weights.layers[-1]).squeeze(-2)
    return Compared(values, values.abs().sum(-1, keepdim=True).expand_as(values))


def squared_cosine(seen: Observation) -> Compared:
    """(v.b) |v.b| above |v|^2 min b_j^2: cos(v, b) above min |b_j| / |b|, 1 / sqrt(m) for b in {-1, +1}^m."""
    output, feedback = seen.weights.layers[-1].squeeze(-2), seen.feedback[-1].squeeze(-2)
    product = (output * feedback).sum(-1)
    return ratio(product * product.abs(), output.square().sum(-1) * feedback.square().amin(-1))


def same_sign(seen: Observation) -> Compared:
    """v_j(t) sign(v_j(0)), and |v(t)|_1: Dale's principle says that it stays positive."""
    now, first = (at.layers[-1].squeeze(-2) for at in (seen.weights, seen.start))
    return Compared(now * first.sign(), now.abs().sum(-1, keepdim=True).expand_as(now))


def entries_same_sign(seen: Observation) -> Compared:
    """The same for every entry of the output weights: with vector output not so (section 14.8)."""
    now, first = (at.layers[-1].flatten(-2) for at in (seen.weights, seen.start))
    return Compared(now * first.sign(), now.abs().sum(-1, keepdim=True).expand_as(now))


def columns(seen: Observation, share: float = 0.0) -> Compared:
    """<W_{l+1}[:, j], B_{l+1}[:, j]> less a share of c_j(0), for all hidden neurons, and the sum of their sizes."""
    pairs = zip(seen.weights.layers[1:], seen.feedback, strict=True)
    products = torch.cat([(layer * matrix).sum(-2) for layer, matrix in pairs], -1)
    gaps = torch.cat(conserved(seen.flow, seen.start), -1)
    return Compared(products - share * gaps, (products.abs() + gaps.abs()).sum(-1, keepdim=True).expand_as(products))


STATEMENT = Statement(
    name="lemma_5_4",
    title="Lemma 5.4, sign preservation and alignment",
    formula=r"b_j v_j(0) \ge \tfrac12 |w_j(0)|^2 \ \forall j \quad\Rightarrow\quad "
    r"b_j v_j(t) \ge 0, \quad \cos(v, b) \ge \frac{\min_j |b_j|}{|b|}",
    hypotheses=hypotheses,
    claims=[
        Claim("b_j v_j(t) > 0", "inequality", products),
        Claim("cos(v, b) > min|b_j| / |b|", "inequality", squared_cosine, bound, squares=True),
        Claim("v_j(t) sign(v_j(0)) > 0 (Dale)", "inequality", same_sign),
    ],
)
DEEP = replace(
    STATEMENT,
    title="Lemma 5.4 in deep networks, at the last hidden layer",
    hypotheses=_deep_hypotheses,
    beyond=True,
)
COLUMNS = Statement(
    name="lemma_5_4",
    title="Lemma 5.4 for columns, vector output and any depth",
    formula=r"c_{l,j} \ge 0 \ \forall j \quad\Rightarrow\quad "
    r"\langle W_{l+1}[:,j], B_{l+1}[:,j] \rangle \ge c_{l,j} \ge 0",
    hypotheses=partial(_column_hypotheses, True),
    claims=[
        Claim("<W_{l+1}[:,j], B_{l+1}[:,j]> > 0", "inequality", columns),
        Claim("<W_{l+1}[:,j], B_{l+1}[:,j]> > c_j(0)", "inequality", partial(columns, share=1.0)),
    ],
    beyond=True,
)
OVERSTATED = replace(
    COLUMNS,
    hypotheses=partial(_column_hypotheses, False),
    claims=[Claim("<W_{l+1}[:,j], B_{l+1}[:,j]> > 1.01 c_j(0)", "inequality", partial(columns, share=1.01))],
)


def with_column_gaps(
    layers: Sequence[Tensor], feedback: Sequence[Tensor], gap: float, first: int = 0
) -> tuple[Tensor, ...]:
    """Weights whose hidden layers, from the given one on, have c_j = gap: columns of W_{l+1} are shifted along B."""
    found = list(layers)
    for level, matrix in list(enumerate(feedback))[first:]:
        norms, above = 0.5 * found[level].square().sum(-1), found[level + 1]
        missing = gap + norms - (above * matrix).sum(-2)
        found[level + 1] = above + matrix * (missing / matrix.square().sum(-2)).unsqueeze(-2)
    return tuple(found)


@cache
def aligned_run(
    seeds: int,
    device: str,
    *,
    outputs: int | None = None,
    hidden_layers: int = 1,
    gap: float = GAP,
    first: int = 0,
    scale: float = 1.0,
    t_final: float = T_FINAL,
) -> Solution:
    """As `ensembles.any_run` under FA, with first-layer weights scaled, and c_j = gap at hidden layers from `first`."""
    loss = "logistic" if outputs is None else "cross-entropy"
    shape = DEEP_SHAPE if hidden_layers > 1 else GAUSSIAN
    flow, start = any_problem("fa", seeds, shape, loss, outputs, hidden_layers)
    layers = (scale * start.layers[0], *start.layers[1:])
    weights = with_column_gaps(layers, flow.rule.feedback_matrices(start), gap, first)
    return solved(flow, DeepWeights(weights), t_final, device)


def cases(scope: Scope) -> list[Case]:
    """Gaps above and at 0, widths 5 to 200; the controls start with gaps below 0: signs wrong at once, or lost."""

    def aligned(**options: Any) -> list[Callable[[], Solution]]:
        return [partial(aligned_run, scope.seeds, scope.device, **options)]

    short = {"t_final": 0.01, "outputs": 3}
    return [
        Case(STATEMENT, "c_j > 0, separable", "theorem", ensembles.margin_runs(scope, "separable", "fa", wide=True)),
        Case(STATEMENT, "c_j = 0, boundary", "theorem", ensembles.margin_runs(scope, "boundary", "fa", gap=0.0)),
        Case(STATEMENT, "c_j < 0, wrong signs at start", "control", [ensembles.wrong_signs(scope)]),
        Case(
            STATEMENT,
            "c_j < 0, signs lost on the way",
            "control",
            [partial(ensembles.shrinking_run, scope.seeds, scope.device)],
        ),
        Case(DEEP, "3 layers, only the last c_j >= 0", "theorem", aligned(hidden_layers=2, first=1)),
        Case(DEEP, "4 layers, c_j > 0", "theorem", aligned(hidden_layers=3)),
        Case(
            DEEP, "3 layers, c_j < 0, wrong signs", "control", aligned(hidden_layers=2, first=1, gap=-3.0, t_final=0.01)
        ),
        Case(COLUMNS, "3 outputs", "theorem", aligned(outputs=3)),
        Case(COLUMNS, "3 layers, 3 outputs", "theorem", aligned(outputs=3, hidden_layers=2)),
        Case(COLUMNS, "3 outputs, small weights, tight", "theorem", aligned(scale=0.01, **short)),
        Case(OVERSTATED, "3 outputs, small weights, 1.01 c_j", "control", aligned(scale=0.01, **short)),
        Case(COLUMNS, "3 layers, 3 outputs, c_j < 0", "control", aligned(hidden_layers=2, gap=-3.0, **short)),
    ]
