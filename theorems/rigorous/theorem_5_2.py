"""Theorem 5.2 along enclosed runs: Psi(v_j) - |w_j|^2 / 2 stays what it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flint import arb

from flowsim.enclosure.exact import rational
from flowsim.enclosure.points import Point, conserved
from theorems import theorem_5_2
from theorems.ensembles import Scope
from theorems.rigorous.claims import EnclosedRun, Hypothesis
from theorems.rigorous.ensembles import gaussian_instance, margin_instance
from theorems.rigorous.equality import Equal
from theorems.rigorous.instance import inner
from theorems.rigorous.statement import FINE_BITS, Case, Statement


def balancedness(point: Point[Any]) -> list[Any]:
    """v_j^2 / 2 - |w_j|^2 / 2, which GD conserves."""
    rows = zip(point.output_merged, point.hidden_merged, strict=True)
    return [(v * v - sum((x * x for x in w), 0 * v)) / 2 for v, w in rows]


def conserved_without_bias(point: Point[Any]) -> list[Any]:
    """The same with the last input, a bias, left out of |w_j|^2."""
    return [c + w[-1] * w[-1] / 2 for c, w in zip(conserved(point), point.hidden_merged, strict=True)]


Law = Callable[[Point[Any]], list[Any]]


def _claim(law: Law, run: EnclosedRun) -> list[Equal]:
    first = run.law_at_start(law)
    instance = run.instance
    sizes = [abs(psi) + inner(w, w) / 2 for psi, w in zip(instance.potentials, instance.hidden, strict=True)]

    def differences(point: Point[Any]) -> list[Any]:
        return [now - before for now, before in zip(law(point), first, strict=True)]

    return [Equal("Psi(t) - |w(t)|^2 / 2 = Psi(0) - |w(0)|^2 / 2", differences, arb(rational(max(sizes) or 1)))]


def _statement(law: Law, broken: str | None = None) -> Statement:
    hypotheses = [Hypothesis(broken, False)] if broken else []
    return Statement(theorem_5_2.STATEMENT, lambda run: hypotheses, partial(_claim, law))


STATEMENT = _statement(conserved)


def cases(scope: Scope) -> list[Case]:
    """Every rule and loss, through crossings and slides; the controls take another law, or leave out the bias."""
    seeds = range(scope.seeds)

    def gaussian(rule: Any, **options: Any) -> list[Any]:
        return [partial(gaussian_instance, rule, seed, **options) for seed in seeds]

    with_bias = gaussian("FA", bias=True)
    case = partial(Case, bits=FINE_BITS)
    return [
        case(STATEMENT, "FA, separable", "theorem", [partial(margin_instance, "separable", "FA", s) for s in seeds]),
        case(STATEMENT, "FA, logistic, slides", "theorem", gaussian("FA")),
        case(STATEMENT, "adaFA, squared", "theorem", gaussian("adaFA", loss="squared")),
        case(STATEMENT, "sign-FA, logistic", "theorem", gaussian("sign-FA")),
        case(STATEMENT, "GD, logistic", "theorem", gaussian("GD")),
        case(STATEMENT, "FA with biases", "theorem", with_bias),
        case(
            _statement(conserved_without_bias, "the bias counts as an incoming weight"),
            "FA, biases left out",
            "control",
            with_bias,
        ),
        case(_statement(balancedness, "B is the gradient of Psi"), "FA, law of GD", "control", gaussian("FA")),
    ]
