"""Proposition 5.7 along enclosed runs: FA and sign-FA satisfy 2-alignment dominance on nice data."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from flowsim.enclosure.points import Point
from theorems import proposition_5_7
from theorems.ensembles import Scope
from theorems.rigorous.alignment import products
from theorems.rigorous.claims import (
    EnclosedRun,
    Hypothesis,
    Nonnegative,
    Observable,
    dominance_ratio,
    exactly,
    excess_over,
    is_rule,
    mean_rate,
)
from theorems.rigorous.constants import (
    gaps_not_negative,
    mu_boundary,
    mu_nearly_orthogonal,
    mu_separable,
    mu_svm,
    total_gap_positive,
)
from theorems.rigorous.ensembles import (
    GAP,
    SLOPE,
    Kind,
    TightKind,
    contradictory,
    margin_instance,
    one_wrong_sign,
    opposed,
    tight_instance,
)
from theorems.rigorous.instance import Instance
from theorems.rigorous.statement import BITS, FINE_BITS, Case, Statement

Mu = Callable[[Instance], Fraction]

MUS: dict[str, Mu] = {
    "orthogonally separable": mu_separable,
    "boundary": mu_boundary,
    "nearly orthogonal": mu_nearly_orthogonal,
    "separable": mu_svm,
}
"""The constant by the kind of data; the last is beyond the paper, for all data that can be separated."""


def dominance_with_total_product(factor: Fraction) -> Observable:
    """<grad, fa> / (factor S(t) L^2) - 1 with S(t) = v.b."""
    ratio = excess_over(dominance_ratio(2), factor)

    def excess(point: Point[Any]) -> Any:
        return (ratio(point) + 1) / products(point)[0] - 1

    return excess


def _claims(mu: Mu, run: EnclosedRun) -> list[Nonnegative]:
    """The proposition's conclusions with a constant mu."""
    constant = mu(run.instance)
    ratio = excess_over(dominance_ratio(2), constant)
    return [
        Nonnegative("<grad, fa> >= mu L^2", [ratio]),
        Nonnegative("1/L(t) >= 1/L(0) + mu t", [excess_over(mean_rate(run, 2), constant)], mean_of=ratio),
    ]


def _sharper_claims(mu: Mu, run: EnclosedRun) -> list[Nonnegative]:
    """Besides, beyond the paper: with S(t) in the place of S0."""
    sharper = dominance_with_total_product(mu(run.instance) / run.instance.total_gap)
    return [*_claims(mu, run), Nonnegative("<grad, fa> >= mu S(t)/S0 L^2", [sharper])]


def data_hypotheses(kind: str, instance: Instance) -> list[Hypothesis]:
    """That the data are of a kind: orthogonally separable, boundary, separable or nearly orthogonal."""
    n = instance.samples
    if kind == "orthogonally separable":
        return [exactly("kappa > 0", instance.kappa, strict=True)]
    if kind == "separable":
        return [exactly("SVM margin > 0", instance.squared_svm_margin, strict=True)]
    radius = exactly("R > 0", instance.squared_radius, strict=True)
    if not radius.holds:
        return [radius]
    if kind == "boundary":
        off = [instance.signed_gram[i][k] for i in range(n) for k in range(i)]
        return [radius, exactly("y_i y_k x_i.x_k >= 0 for i != k", min(off, default=Fraction(0)))]
    limit = instance.slope**2 * n / max(n - 1, 1)
    return [radius, exactly("rho < gamma^2 n / (n-1)", limit - instance.rho, strict=True)]


def _hypotheses(kind: str, stated: bool, run: EnclosedRun) -> list[Hypothesis]:
    instance = run.instance
    rule = is_rule(run, "FA", "sign-FA")
    if not rule.holds:
        return [rule]
    return [
        rule,
        Hypothesis("exponential loss", instance.loss == "exponential"),
        exactly("gamma > 0", instance.slope, strict=True),
        Hypothesis("mu as stated", stated),
        *([gaps_not_negative(run)] if instance.rule == "FA" else []),
        total_gap_positive(run),
        *data_hypotheses(kind, instance),
    ]


_PAPER = {
    "orthogonally separable": proposition_5_7.SEPARABLE,
    "boundary": proposition_5_7.BOUNDARY,
    "nearly orthogonal": proposition_5_7.NEARLY_ORTHOGONAL,
    "separable": proposition_5_7.ANY_SEPARABLE,
}

STATEMENTS = {
    kind: Statement(_PAPER[kind], partial(_hypotheses, kind, True), partial(_sharper_claims, mu))
    for kind, mu in MUS.items()
}
"""The proposition by the kind of data."""


def _misstated(kind: str, mu: Mu, stated: bool = False) -> Statement:
    """With another mu than the statement's, or where its constant is not that of the data."""
    return Statement(_PAPER[kind], partial(_hypotheses, kind, stated), partial(_claims, mu))


def _overstated(mu: Mu, instance: Instance) -> Fraction:
    return Fraction(11, 10) * mu(instance)


def _presumed(instance: Instance) -> Fraction:
    """gamma^2 S0 kappa with the slope and gaps that tight instances have."""
    return SLOPE**2 * instance.width * GAP * instance.kappa


def presumed_nearly_orthogonal(instance: Instance) -> Fraction:
    """S0 R^2 gamma^2 / (2n), the constant of nearly orthogonal data with half of the rho allowed."""
    return mu_boundary(instance) / 2


TIGHT: list[tuple[str, TightKind, Fraction]] = [
    ("orthogonally separable", "identical", SLOPE),
    ("boundary", "orthogonal", SLOPE),
    ("nearly orthogonal", "simplex", Fraction(1)),
]
"""Kinds of data, and instances and slopes with which their constants are attained."""


def cases(scope: Scope) -> list[Case]:
    """Both rules on the kinds of data, tight instances, and controls for every hypothesis."""
    found = []
    kinds: list[tuple[str, Kind, Fraction]] = [
        ("orthogonally separable", "separable", SLOPE),
        ("boundary", "boundary", SLOPE),
        ("nearly orthogonal", "nearly orthogonal", Fraction(1, 2)),
    ]
    for rule in ("FA", "sign-FA"):
        for kind, data, slope in kinds:
            runs = [partial(margin_instance, data, rule, seed, slope=slope) for seed in range(scope.seeds)]
            found.append(Case(STATEMENTS[kind], f"{rule}, {data}", "theorem", runs))
        found += [
            _control(f"{rule}, contradictory labels", "boundary", mu_boundary, partial(contradictory, rule)),
            _control(f"{rule}, rho too large", "nearly orthogonal", presumed_nearly_orthogonal, partial(opposed, rule)),
        ]
    for kind, inputs, slope in TIGHT:
        for near, bits in ((Fraction(1, 10**3), BITS), (Fraction(1, 10**12), FINE_BITS)):
            tight = partial(tight_instance, inputs, near=near, slope=slope)
            found.append(Case(STATEMENTS[kind], f"FA, {inputs}, tight to {float(near):.0e}", "theorem", [tight], bits))
        found.append(
            Case(_misstated(kind, partial(_overstated, MUS[kind])), f"FA, {inputs}, 1.1 mu", "control", [tight])
        )
    kind = "orthogonally separable"
    return [
        *found,
        _control("FA, gamma = 0", kind, _presumed, partial(tight_instance, "identical", slope=Fraction(0))),
        _control("FA, zero gap", kind, _presumed, partial(tight_instance, "identical", gap=Fraction(0))),
        _control("FA, one wrong sign", kind, mu_separable, one_wrong_sign),
        _control("FA, logistic loss", kind, mu_separable, partial(tight_instance, "identical", loss="logistic")),
    ]


def _control(label: str, kind: str, mu: Mu, run: Callable[[], Instance]) -> Case:
    return Case(_misstated(kind, mu, stated=True), label, "control", [run])
