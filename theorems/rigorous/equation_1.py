"""Equation (1) along enclosed runs: L(t) - L(0) = -int_0^t <grad, fa> ds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from flowsim.enclosure.points import Point, descent_product, risk
from theorems import equation_1
from theorems.ensembles import Scope
from theorems.rigorous.claims import EnclosedRun, Hypothesis, Observable
from theorems.rigorous.ensembles import gaussian_instance, margin_instance
from theorems.rigorous.equality import Equal
from theorems.rigorous.statement import FINE_BITS, Case, Statement


def squared_gradient(point: Point[Any]) -> Any:
    """|grad|^2, what <grad, fa> is for GD: b_j = v_j."""
    rows = zip(point.counts, point.output_merged, point.pulls_merged, point.learning_merged, strict=True)
    return sum((c * (v * v * sum((x * x for x in r), 0 * v) + pace * pace) for c, v, r, pace in rows), 0 * point.time)


def product_at_kinks(point: Point[Any]) -> Any:
    """<grad, fa> with phi'(0) = gamma, also where a neuron slides."""
    modes = [mode.with_sides(dict.fromkeys(mode.slid, -1)) for mode in point.known_modes]
    return descent_product(replace(point, modes=tuple(modes)))


def _claim(rate: Observable, run: EnclosedRun) -> list[Equal]:
    initial = run.at_start(risk)
    return [
        Equal("L(t) - L(0) = -int <grad, fa> ds", lambda point: [risk(point) - initial], initial, rate)
    ]  # fmt: skip


def _statement(rate: Observable, broken: str | None = None) -> Statement:
    hypotheses = [Hypothesis(broken, False)] if broken else []
    return Statement(equation_1.STATEMENT, lambda run: hypotheses, partial(_claim, rate))


STATEMENT = _statement(descent_product)


def cases(scope: Scope) -> list[Case]:
    """All rules, through kinks and slides; the controls take another direction than that of the weights."""
    seeds = range(scope.seeds)
    sliding = [partial(gaussian_instance, "FA", seed) for seed in seeds]
    case = partial(Case, bits=FINE_BITS)
    return [
        case(STATEMENT, "FA, separable", "theorem", [partial(margin_instance, "separable", "FA", s) for s in seeds]),
        case(
            STATEMENT,
            "sign-FA, separable",
            "theorem",
            [partial(margin_instance, "separable", "sign-FA", s) for s in seeds],
        ),
        case(STATEMENT, "FA, Gaussian, slides", "theorem", sliding),
        case(STATEMENT, "GD, Gaussian", "theorem", [partial(gaussian_instance, "GD", s) for s in seeds]),
        case(_statement(squared_gradient, "fa is that of FA"), "FA, direction of GD", "control", sliding),
        case(
            _statement(product_at_kinks, "fa holds a sliding neuron on its kink"),
            "FA, phi'(0) = gamma while sliding",
            "control",
            sliding,
        ),
    ]
