"""Lemma 5.4 along enclosed runs: FA with c_j >= 0 keeps the output weights' signs and their alignment."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

from flint import arb

from flowsim.enclosure.exact import rational
from theorems import lemma_5_4
from theorems.ensembles import Scope
from theorems.rigorous.alignment import cosine_at_least, output_not_zero
from theorems.rigorous.claims import EnclosedRun, Hypothesis, Nonnegative, exactly, is_rule
from theorems.rigorous.constants import gaps_not_negative
from theorems.rigorous.ensembles import margin_instance, shrinking, wrong_signs
from theorems.rigorous.statement import Case, Statement


def hypotheses(run: EnclosedRun) -> list[Hypothesis]:
    """FA with b_j != 0, and c_j = b_j v_j(0) - |w_j(0)|^2 / 2 >= 0."""
    rule = is_rule(run, "FA")
    if not rule.holds:
        return [rule]
    smallest = min(map(abs, run.instance.feedback or ()))
    return [rule, exactly("b_j != 0", smallest, strict=True), output_not_zero(run), gaps_not_negative(run)]


def claims(run: EnclosedRun) -> list[Nonnegative]:
    """The products b_j v_j, and cos(v, b) with the bound min |b_j| / |b|.

    By b_j != 0 the first also says that v_j keeps the sign of b_j (Dale's principle).
    """
    feedback = run.instance.feedback or ()
    smallest = rational(min(map(abs, feedback), default=Fraction(0)) ** 2)
    merged = range(len(run.enclosure.problem.neurons))
    parts = [lambda point, j=j: point.output_merged[j] * point.feedback_merged[j] for j in merged]
    return [Nonnegative("b_j v_j(t) >= 0", parts), *cosine_at_least("min|b_j| / |b|", lambda bb: arb(smallest))]


STATEMENT = Statement(lemma_5_4.STATEMENT, hypotheses, claims)


def cases(scope: Scope) -> list[Case]:
    """Gaps above and at 0; the controls start with gaps below 0: signs wrong at once, or lost."""
    seeds = range(scope.seeds)
    large = partial(margin_instance, "separable", "FA", 0, samples=8, width=10, t_final=100)
    return [
        Case(
            STATEMENT, "c_j > 0, separable", "theorem", [partial(margin_instance, "separable", "FA", s) for s in seeds]
        ),
        Case(STATEMENT, "c_j > 0, n = 8, m = 10, T = 100", "theorem", [large]),
        Case(
            STATEMENT,
            "c_j = 0 exactly, boundary",
            "theorem",
            [partial(margin_instance, "boundary", "FA", s, gap=Fraction(0)) for s in seeds],
        ),
        Case(STATEMENT, "c_j < 0, wrong signs at start", "control", [partial(wrong_signs, s) for s in seeds]),
        Case(STATEMENT, "c_j < 0, signs lost on the way", "control", [shrinking]),
    ]
