"""Proposition 5.3 along enclosed runs: under sign-FA cos(v, b) >= 1 / sqrt(m)."""

from __future__ import annotations

from functools import partial

from theorems import proposition_5_3
from theorems.ensembles import Scope
from theorems.rigorous.alignment import cosine_at_least, output_not_zero
from theorems.rigorous.claims import EnclosedRun, Hypothesis, Nonnegative, is_rule
from theorems.rigorous.ensembles import gaussian_instance, margin_instance, wrong_signs
from theorems.rigorous.statement import Case, Statement


def hypotheses(run: EnclosedRun) -> list[Hypothesis]:
    """sign-FA, and v != 0."""
    return [is_rule(run, "sign-FA"), output_not_zero(run)]


def claims(run: EnclosedRun) -> list[Nonnegative]:
    """The cosine, with |b|^2 / m as the bound of its square."""
    return cosine_at_least("1 / sqrt(m)", lambda bb: bb / run.instance.width)


STATEMENT = Statement(proposition_5_3.STATEMENT, hypotheses, claims)


def cases(scope: Scope) -> list[Case]:
    """Separable and Gaussian data, through changes of sign; the control has fixed feedback instead."""
    seeds = range(scope.seeds)
    return [
        Case(
            STATEMENT,
            "sign-FA, separable",
            "theorem",
            [partial(margin_instance, "separable", "sign-FA", s) for s in seeds],
        ),
        Case(STATEMENT, "sign-FA, Gaussian", "theorem", [partial(gaussian_instance, "sign-FA", s) for s in seeds]),
        Case(STATEMENT, "fixed, opposite feedback", "control", [partial(wrong_signs, s) for s in seeds]),
    ]
