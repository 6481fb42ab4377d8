"""What Lemma 5.4 leaves of itself with vector output and in deep networks, beyond the paper (section 14.8).

FA, c_j >= 0 at all hidden layers   no column W_{l+1}[:, j] is ever obtuse to its feedback B_{l+1}[:, j]
scalar output                       Lemma 5.4 at the last hidden layer, if c_j >= 0 there
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from flowsim import DeepWeights, FeedbackAlignment, Solution
from flowsim.observables import conserved
from theorems import lemma_5_4
from theorems.check import Case, Statement
from theorems.constants import gaps_not_negative
from theorems.ensembles import DEEP as DEEP_SHAPE
from theorems.ensembles import GAP, GAUSSIAN, Scope, any_problem, solved
from theorems.hypothesis import Hypothesis, fact, is_rule
from theorems.measurement import Claim, Compared
from theorems.observation import Observation
from theorems.validity import homogeneous


def _deep_hypotheses(solution: Solution) -> list[Hypothesis]:
    """Those of Lemma 5.4, at the last hidden layer of a network of any depth."""
    return lemma_5_4.of_scalar(solution, fact("scalar output", solution.start.layers[-1].shape[-2] == 1))


def _column_hypotheses(stated: bool, solution: Solution) -> list[Hypothesis]:
    """FA, and c_j >= 0 at all hidden layers."""
    rule = is_rule(solution, FeedbackAlignment)
    if not rule.holds:
        return [rule]
    return [rule, homogeneous(solution), gaps_not_negative(solution), fact("c_j as stated", stated)]


def columns(seen: Observation, share: float = 0.0) -> Compared:
    """<W_{l+1}[:, j], B_{l+1}[:, j]> less a share of c_j(0), for all hidden neurons, and the sum of their sizes."""
    pairs = zip(seen.weights.layers[1:], seen.feedback, strict=True)
    products = torch.cat([(layer * matrix).sum(-2) for layer, matrix in pairs], -1)
    gaps = torch.cat(conserved(seen.flow, seen.start), -1)
    return Compared(products - share * gaps, (products.abs() + gaps.abs()).sum(-1, keepdim=True).expand_as(products))


COLUMNS = Statement(
    name="never_obtuse",
    title="Never obtuse, columns of weights to their feedback at any depth",
    formula=r"c_{l,j} \ge 0 \ \forall j \quad\Rightarrow\quad "
    r"\langle W_{l+1}[:,j], B_{l+1}[:,j] \rangle \ge c_{l,j} \ge 0",
    hypotheses=partial(_column_hypotheses, True),
    claims=[
        Claim("<W_{l+1}[:,j], B_{l+1}[:,j]> > 0", "inequality", columns),
        Claim("<W_{l+1}[:,j], B_{l+1}[:,j]> > c_j(0)", "inequality", partial(columns, share=1.0)),
    ],
    beyond=True,
)
DEEP = replace(
    lemma_5_4.STATEMENT,
    name="never_obtuse",
    title="Never obtuse, Lemma 5.4 at the last hidden layer of deep networks",
    hypotheses=_deep_hypotheses,
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
    t_final: float = 10.0,
) -> Solution:
    """As `ensembles.any_run` under FA, with first-layer weights scaled, and c_j = gap at hidden layers from `first`."""
    loss = "logistic" if outputs is None else "cross-entropy"
    shape = DEEP_SHAPE if hidden_layers > 1 else GAUSSIAN
    flow, start = any_problem("fa", seeds, shape, loss, outputs, hidden_layers)
    layers = (scale * start.layers[0], *start.layers[1:])
    weights = with_column_gaps(layers, flow.rule.feedback_matrices(start), gap, first)
    return solved(flow, DeepWeights(weights), t_final, device)


def cases(scope: Scope) -> list[Case]:
    """One and three outputs, 2 to 4 layers, a tight instance; the controls start obtuse, or overstate c_j."""

    def aligned(**options: Any) -> list[Callable[[], Solution]]:
        return [partial(aligned_run, scope.seeds, scope.device, **options)]

    short = {"t_final": 0.01, "outputs": 3}
    return [
        Case(COLUMNS, "3 outputs", "theorem", aligned(outputs=3)),
        Case(COLUMNS, "3 layers, 3 outputs", "theorem", aligned(outputs=3, hidden_layers=2)),
        Case(COLUMNS, "3 outputs, small weights, tight", "theorem", aligned(scale=0.01, **short)),
        Case(OVERSTATED, "3 outputs, small weights, 1.01 c_j", "control", aligned(scale=0.01, **short)),
        Case(COLUMNS, "3 layers, 3 outputs, c_j < 0", "control", aligned(hidden_layers=2, gap=-3.0, **short)),
        Case(DEEP, "3 layers, only the last c_j >= 0", "theorem", aligned(hidden_layers=2, first=1)),
        Case(DEEP, "4 layers, c_j > 0", "theorem", aligned(hidden_layers=3)),
        Case(
            DEEP, "3 layers, c_j < 0, wrong signs", "control", aligned(hidden_layers=2, first=1, gap=-3.0, t_final=0.01)
        ),
    ]
