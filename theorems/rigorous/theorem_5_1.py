"""Theorem 5.1 along enclosed runs: alpha-alignment dominance bounds the risk, for alpha = 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial

from theorems import theorem_5_1
from theorems.ensembles import Scope
from theorems.rigorous import constants
from theorems.rigorous.claims import (
    EnclosedRun,
    Hypothesis,
    Nonnegative,
    dominance_ratio,
    exactly,
    excess_over,
    mean_rate,
    nowhere_negative,
)
from theorems.rigorous.decimals import lower_end, upper_end
from theorems.rigorous.ensembles import linear_instance, margin_instance
from theorems.rigorous.statement import Case, Statement

Mu = Callable[[EnclosedRun], Fraction]
"""The dominance constant of a run, a rational number, which may be measured along it."""


def statement(alpha: int, mu: Mu) -> Statement:
    """Theorem 5.1 for given alpha and mu."""
    mu = lru_cache(maxsize=16)(mu)

    def hypotheses(run: EnclosedRun) -> list[Hypothesis]:
        positive = exactly("mu > 0", mu(run), strict=True)
        if not positive.holds:
            return [positive]
        least = run.infimum(excess_over(dominance_ratio(alpha), mu(run)))
        return [positive, nowhere_negative("<grad, fa> >= mu L^alpha", least)]

    def claims(run: EnclosedRun) -> list[Nonnegative]:
        mean, ratio = (excess_over(rate, mu(run)) for rate in (mean_rate(run, alpha), dominance_ratio(alpha)))
        return [Nonnegative("mean of <grad, fa> / L^alpha over [0, t] >= mu", [mean], mean_of=ratio)]

    paper = theorem_5_1.statement(alpha, lambda solution: solution.pieces.start)  # for its name, title and formula
    return Statement(paper, hypotheses, claims)


def mu_measured(alpha: int, share: Fraction, run: EnclosedRun) -> Fraction:
    """The given share of a lower bound of the dominance ratio."""
    return share * _finite(lower_end(run.infimum(dominance_ratio(alpha)).lower))


def mu_too_large(run: EnclosedRun) -> Fraction:
    """Twice an upper bound of the dominance ratio."""
    return -2 * _finite(lower_end(run.infimum(lambda point: -dominance_ratio(2)(point)).lower))


def mu_at_start(run: EnclosedRun) -> Fraction:
    """An upper bound of the dominance ratio for alpha = 1 at the start."""
    return _finite(upper_end(run.at_start(dominance_ratio(1))))


def _finite(end: Fraction | None) -> Fraction:
    return Fraction(0) if end is None else end


def cases(scope: Scope) -> list[Case]:
    """alpha = 1 (squared loss) and 2; the controls misstate alpha and overstate mu."""
    share = Fraction(99, 100)
    separable = [partial(margin_instance, "separable", "FA", seed) for seed in range(scope.seeds)]
    signs = [partial(margin_instance, "separable", "sign-FA", seed) for seed in range(scope.seeds)]
    long = [partial(margin_instance, "separable", "FA", 0, t_final=100)]
    return [
        Case(
            statement(1, partial(mu_measured, 1, share)), "alpha = 1, linear FA, squared", "theorem", [linear_instance]
        ),
        Case(statement(2, lambda run: constants.mu_separable(run.instance)), "alpha = 2, FA", "theorem", separable),
        Case(statement(2, partial(mu_measured, 2, share)), "alpha = 2, sign-FA, measured mu", "theorem", signs),
        Case(statement(1, mu_at_start), "alpha = 1 stated, 2 true", "control", long),
        Case(statement(2, mu_too_large), "mu twice the largest ratio", "control", separable),
    ]
