"""Lemma 5.4: FA with initial gaps c_j >= 0 keeps the output weights' signs and their alignment (section 6).

Corollary, Dale's principle: no output weight ever changes sign.
"""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from flowsim import FeedbackAlignment, Solution
from flowsim.observables import smallest_share
from theorems import ensembles
from theorems.check import Case, Statement
from theorems.constants import each, gaps_not_negative
from theorems.ensembles import Scope
from theorems.hypothesis import Hypothesis, all_hold, fact, is_rule, layers_not_zero
from theorems.measurement import Claim, Compared, ratio
from theorems.observation import Observation
from theorems.validity import homogeneous


def _feedback(solution: Solution) -> Float[Tensor, "*batch m"]:
    return solution.flow.rule.feedback_matrices(solution.start)[-1].squeeze(-2)


def hypotheses(solution: Solution) -> list[Hypothesis]:
    """FA with b_j != 0, scalar output, two layers, and c_j = b_j v_j(0) - |w_j(0)|^2 / 2 >= 0."""
    start = solution.start
    scalar = len(start.layers) == 2 and start.layers[-1].shape[-2] == 1
    return of_scalar(solution, fact("two layers, scalar output", scalar))


def of_scalar(solution: Solution, setting: Hypothesis) -> list[Hypothesis]:
    """The same for networks of another setting with scalar output, with the c_j of the last hidden layer."""
    shape = [is_rule(solution, FeedbackAlignment), setting]
    if not all_hold(shape):
        return shape
    return [
        *shape,
        Hypothesis("b_j != 0", _feedback(solution).abs().amin(-1), strict=True),
        homogeneous(solution),
        layers_not_zero(solution),
        gaps_not_negative(solution, len(solution.start.layers) - 2),
    ]


def bound(solution: Solution) -> Float[Tensor, " ensemble"]:
    """min |b_j| / |b|, which is 1 / sqrt(m) for b in {-1, +1}^m."""
    return each(solution, smallest_share(_feedback(solution)))


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
    """v_j(t) sign(v_j(0)) of every output weight, and |v(t)|_1: Dale's principle says that it stays positive."""
    now, first = (at.layers[-1].flatten(-2) for at in (seen.weights, seen.start))
    return Compared(now * first.sign(), now.abs().sum(-1, keepdim=True).expand_as(now))


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


def cases(scope: Scope) -> list[Case]:
    """Gaps above and at 0, widths 5 to 200; the controls start with gaps below 0: signs wrong at once, or lost."""
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
    ]
