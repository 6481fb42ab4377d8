"""Proposition 5.7: FA and sign-FA satisfy 2-alignment dominance on nice data, so that 1/L grows linearly (section 7).

    orthogonally separable   mu = gamma^2 S0 kappa
    boundary case            mu = gamma^2 S0 R^2 / n
    nearly orthogonal        mu = S0 R^2 (gamma^2 - rho (n-1)/n) / n

with S0 = sum_j c_j; chained with Theorem 5.1: 1/L(t) >= 1/L(0) + mu t. Sharper, beyond the paper: S(t) = v.b in the
place of S0, its integral in the place of S0 t, and the squared SVM margin of the data in that of kappa and R^2 / n.
With the logistic loss (section 14.7), with mu as on separable data and F(x) = log(e^x - 1) - 1 / (e^x - 1):

    <grad, fa> >= mu ((1 - e^(-nL)) / n)^2,   F(nL(t)) <= F(nL(0)) - mu t / n
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, SignFeedbackAlignment, Solution
from flowsim.losses import Loss
from flowsim.rules import is_one_of
from theorems import ensembles
from theorems.check import Case, Statement, control
from theorems.constants import (
    each,
    gaps_not_negative,
    mu_boundary,
    mu_nearly_orthogonal,
    mu_separable,
    mu_svm,
    scaled,
    separable,
    total_gap,
    total_gap_positive,
)
from theorems.ensembles import GAP, SLOPE, SMALL, T_FINAL, WIDTH, Scope, Shape
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, slope_positive, two_layers
from theorems.measurement import Claim, Compared, ratio
from theorems.observation import Observation
from theorems.theorem_5_1 import POLYNOMIAL, Mu, mean_ratio, too_early


def total_product(seen: Observation) -> Float[Tensor, "nodes pieces"]:
    """S(t) = v.b, which is S0 + |W(t)|_F^2 / 2."""
    return (seen.weights.layers[1] * seen.feedback[0]).sum((-2, -1))


def with_constant(mu: Mu) -> list[Claim]:
    """The proposition's conclusions with a constant mu."""

    def dominance(seen: Observation) -> Compared:
        return ratio(seen.factors.product, seen.of(mu(seen.solution)) * seen.risk.square())

    def bound(seen: Observation) -> Compared:
        return ratio(mean_ratio(seen, 2), seen.of(mu(seen.solution)))

    return [
        Claim("<grad, fa> > mu L^2", "inequality", dominance, mu),
        Claim("1/L(t) > 1/L(0) + mu t", "inequality", bound, mu),
    ]


def _with_total_product(mu: Mu) -> list[Claim]:
    """Beyond the paper: with mu S(t) / S0."""

    def grown(seen: Observation) -> Tensor:
        return seen.of(mu(seen.solution) / total_gap(seen.solution)) * total_product(seen)

    def dominance(seen: Observation) -> Compared:
        return ratio(seen.factors.product, grown(seen) * seen.risk.square())

    def bound(seen: Observation) -> Compared:
        promised = seen.of(mu(seen.solution) / total_gap(seen.solution)) * seen.integral / seen.times
        return ratio(mean_ratio(seen, 2), torch.where(too_early(seen), grown(seen), promised))

    return [
        Claim("<grad, fa> > mu S(t)/S0 L^2", "inequality", dominance),
        Claim("1/L(t) > 1/L(0) + mu/S0 int S", "inequality", bound),
    ]


def _svm_claims() -> list[Claim]:
    """Beyond the paper: with the SVM margin of the data."""
    first, _ = with_constant(mu_svm)
    sharpest, integrated = _with_total_product(mu_svm)
    return [
        Claim("<grad, fa> > gamma^2 S0 margin^2 L^2", "inequality", first.values, mu_svm),
        Claim("<grad, fa> > gamma^2 S(t) margin^2 L^2", "inequality", sharpest.values),
        Claim("1/L(t) > 1/L(0) + gamma^2 margin^2 int S", "inequality", integrated.values),
    ]


def _boundary_slack(dataset: Dataset) -> Tensor:
    """The smallest M_ik off the diagonal; the diagonal must be positive besides."""
    diagonal = torch.eye(dataset.samples, dtype=torch.bool, device=dataset.inputs.device)
    return torch.where(diagonal, torch.inf, dataset.signed_gram).amin((-2, -1))


def data_hypotheses(kind: str, solution: Solution) -> list[Hypothesis]:
    """That the data are of a kind: orthogonally separable, boundary, separable or nearly orthogonal."""
    dataset, n = solution.flow.dataset, solution.flow.dataset.samples
    if kind == "orthogonally separable":
        return [Hypothesis("kappa > 0", dataset.kappa, strict=True)]
    if kind == "separable":
        return [separable(solution)]
    radius = Hypothesis("R > 0", dataset.squared_radius, strict=True)
    if kind == "boundary":
        return [radius, Hypothesis("y_i y_k x_i.x_k >= 0 for i != k", _boundary_slack(dataset))]
    limit = solution.flow.slope**2 * n / max(n - 1, 1)
    return [radius, Hypothesis("rho < gamma^2 n / (n-1)", limit - dataset.rho, strict=True)]


def _hypotheses(kind: str, loss: str, stated: bool, solution: Solution) -> list[Hypothesis]:
    setting = two_layers(solution, FeedbackAlignment, SignFeedbackAlignment)
    if not all_hold(setting):
        return setting
    return [
        *setting,
        has_loss(solution, loss),
        slope_positive(solution),
        fact("mu as stated", stated),
        *([gaps_not_negative(solution)] if is_one_of(solution.flow.rule, FeedbackAlignment) else []),
        total_gap_positive(solution),
        *data_hypotheses(kind, solution),
    ]


def _statement(kind: str, mu: Mu, claims: Sequence[Claim], stated: bool = True) -> Statement:
    """The proposition for a kind of data."""
    return Statement(
        name="proposition_5_7",
        title=f"Proposition 5.7, {kind} data",
        formula=r"\langle \mathrm{grad}, \mathrm{fa} \rangle \ge \mu L^2, \qquad "
        r"\frac{1}{L(t)} \ge \frac{1}{L(0)} + \mu t, \qquad \mu = \gamma^2 S_0 \kappa, \quad "
        r"\frac{\gamma^2 S_0 R^2}{n}, \quad \frac{S_0 R^2}{n} \Big(\gamma^2 - \rho \frac{n-1}{n}\Big)",
        hypotheses=partial(_hypotheses, kind, "exponential", stated),
        claims=claims,
        rate=total_product,
        constants=lambda solution: {
            "mu": mu(solution),
            "mu (SVM margin)": mu_svm(solution),
            "S0": total_gap(solution),
        },
    )


def _of_the_paper(kind: str, mu: Mu) -> Statement:
    return _statement(kind, mu, [*with_constant(mu), *_with_total_product(mu), *_svm_claims()])


def _misstated(kind: str, mu: Mu) -> Statement:
    """With another mu than the statement's."""
    return _statement(kind, mu, with_constant(mu), stated=False)


SEPARABLE = _of_the_paper("orthogonally separable", mu_separable)
BOUNDARY = _of_the_paper("boundary", mu_boundary)
NEARLY_ORTHOGONAL = _of_the_paper("nearly orthogonal", mu_nearly_orthogonal)
ANY_SEPARABLE = replace(_statement("separable", mu_svm, _svm_claims()), beyond=True)
"""Beyond the paper: linearly separable data, whatever the signs of x_i.x_k."""


def least_drive(seen: Observation) -> Float[Tensor, "nodes pieces"]:
    """(1 - e^(-nL)) / n: of all outputs with this logistic risk, one sample having it all gives the smallest mean g."""
    samples = seen.flow.dataset.samples
    return -torch.expm1(-samples * seen.risk) / samples


def logistic_time(nL: Tensor) -> Tensor:
    """F(x) = log(e^x - 1) - 1 / (e^x - 1), the integral of (1 - e^-x)^-2: with equality, dF(nL)/dt = -mu / n."""
    return nL + torch.log(-torch.expm1(-nL)) - 1 / torch.expm1(nL)


def _logistic_claims(mu: Mu) -> list[Claim]:
    def dominance(seen: Observation) -> Compared:
        return ratio(seen.factors.product, seen.of(mu(seen.solution)) * least_drive(seen).square())

    def bound(seen: Observation) -> Compared:
        samples, rate = seen.flow.dataset.samples, seen.factors.product / least_drive(seen).square()
        passed = logistic_time(samples * seen.initial_risk) - logistic_time(samples * seen.risk)
        mean = torch.where(too_early(seen), rate, samples * passed / seen.times)
        return ratio(mean, seen.of(mu(seen.solution)))

    return [
        Claim("<grad, fa> > mu ((1 - e^(-nL)) / n)^2", "inequality", dominance, mu),
        Claim("F(nL(t)) < F(nL(0)) - mu t / n", "inequality", bound, mu),
    ]


def _logistic(mu: Mu, stated: bool = True) -> Statement:
    """Beyond the paper: the logistic loss on separable data."""
    return Statement(
        name="proposition_5_7",
        title="Proposition 5.7, separable data and logistic loss",
        formula=r"\langle \mathrm{grad}, \mathrm{fa} \rangle \ge "
        r"\gamma^2 S_0 m_\ast^2 \Big(\frac{1 - e^{-nL}}{n}\Big)^2, \qquad "
        r"F(nL(t)) \le F(nL(0)) - \frac{\mu t}{n}, \quad F(x) = \log(e^x - 1) - \frac{1}{e^x - 1}",
        hypotheses=partial(_hypotheses, "separable", "logistic", stated),
        claims=_logistic_claims(mu),
        constants=lambda solution: {"mu": mu(solution), "S0": total_gap(solution)},
        beyond=True,
    )


LOGISTIC = _logistic(mu_svm)


LONG = 1e8
"""Where 1/L(0) is nothing beside mu t, so that the bound is L(t) < 1 / (mu t)."""


def faster_than_linear(seen: Observation) -> Compared:
    """1/L(t) - 1/L(0) and mu t (1 + t)^(1/2), both over t."""
    return ratio(mean_ratio(seen, 2), seen.of(mu_separable(seen.solution)) * (1 + seen.times).sqrt())


def _presumed(slope: float | None = None, total: float | None = None) -> Mu:
    """gamma^2 S0 kappa with another slope, or another sum of gaps, than the run has."""

    def mu(solution: Solution) -> Tensor:
        gamma = solution.flow.slope if slope is None else slope
        gap = total_gap(solution) if total is None else total
        return gamma**2 * gap * each(solution, solution.flow.dataset.kappa)

    return mu


presumed_nearly_orthogonal = scaled(0.5, mu_boundary)
"""S0 R^2 gamma^2 / (2n), the constant of nearly orthogonal data with half of the rho allowed, whatever rho the run has.

It is true with every rho up to that.
"""


def cases(scope: Scope) -> list[Case]:
    """Both rules on the kinds of data, tight instances, and controls for every hypothesis."""
    return [
        *_cases_of_rule("FA", "fa", scope),
        *_cases_of_rule("sign-FA", "sign-fa", scope),
        *_tight_cases(scope),
        *_long_cases(scope),
        *_logistic_cases(scope),
        *_cases_short_of_a_hypothesis(scope),
    ]


def _cases_of_rule(label: str, rule: ensembles.MarginRule, scope: Scope) -> list[Case]:
    """The kinds of data, and two that are of none."""

    def runs(kind: ensembles.DataKind) -> list[Callable[[], Solution]]:
        return ensembles.margin_runs(scope, kind, rule)

    def linear(kind: ensembles.DataKind, t_final: float) -> Callable[[], Solution]:
        """No kinks, but also the weakest case for a control: gamma = 1."""
        shape = SMALL._replace(slope=1.0)
        return partial(ensembles.margin_run, kind, rule, shape, scope.seeds, scope.device, t_final=t_final)

    boundary = _statement("boundary", mu_boundary, with_constant(mu_boundary))
    presumed = presumed_nearly_orthogonal
    nearly = _statement("nearly orthogonal", presumed, with_constant(presumed))
    return [
        Case(SEPARABLE, f"{label}, separable", "theorem", runs("separable")),
        Case(BOUNDARY, f"{label}, boundary", "theorem", runs("boundary")),
        Case(NEARLY_ORTHOGONAL, f"{label}, nearly orthogonal", "theorem", runs("nearly orthogonal")),
        # 1/L is at most n/2, and mu t is above that by then
        control(f"{label}, contradictory labels", boundary, linear("contradictory", 300.0)),
        control(f"{label}, rho too large", nearly, linear("opposed", T_FINAL)),
    ]


def _tight_cases(scope: Scope) -> list[Case]:
    """Where the bound is nearly attained, a constant that is a tenth too large must be noticed."""
    kinds: list[tuple[str, str, ensembles.TightKind, float, Statement, Mu]] = [
        ("separable", "orthogonally separable", "identical", SLOPE, SEPARABLE, mu_separable),
        ("boundary", "boundary", "orthogonal", SLOPE, BOUNDARY, mu_boundary),
        ("nearly orthogonal", "nearly orthogonal", "simplex", 1.0, NEARLY_ORTHOGONAL, mu_nearly_orthogonal),
    ]
    found = []
    for label, kind, inputs, slope, stated, mu in kinds:
        tight = partial(ensembles.tight_run, inputs, scope.device, slope=slope)
        found += [
            Case(stated, f"FA, {label}, tight", "theorem", [tight]),
            control(f"FA, {label}, 1.1 mu", _misstated(kind, scaled(1.1, mu)), tight),
        ]
    return found


def _cases_short_of_a_hypothesis(scope: Scope) -> list[Case]:
    """Runs without a hypothesis, with the constant that they would have with it."""
    tight = partial(ensembles.tight_run, "identical", scope.device)

    def presumed(label: str, mu: Mu, run: Callable[[], Solution]) -> Case:
        return control(f"FA, {label}", _statement("orthogonally separable", mu, with_constant(mu)), run)

    return [
        presumed("gamma = 0", _presumed(slope=SLOPE), partial(tight, slope=0.0)),
        presumed("zero gap", _presumed(total=WIDTH * GAP), partial(tight, gap=0.0)),
        presumed("one wrong sign", mu_separable, partial(ensembles.one_wrong_sign_run, scope.device)),
        presumed("logistic loss", mu_separable, partial(tight, loss="logistic")),
    ]


def _logistic_cases(scope: Scope) -> list[Case]:
    """Both rules with the logistic loss; one sample attains the bound, and the controls go beyond it."""
    shape = Shape(8, 20, SLOPE)

    def run(rule: ensembles.MarginRule, loss: str | Loss = "logistic", t_final: float = 1e4) -> Callable[[], Solution]:
        where = scope.seeds, scope.device
        return partial(ensembles.margin_run, "separable", rule, shape, *where, loss=loss, t_final=t_final)

    one = partial(ensembles.tight_run, "single", scope.device, loss="logistic")
    return [
        Case(LOGISTIC, "FA, logistic, separable", "theorem", [run("fa")]),
        Case(LOGISTIC, "sign-FA, logistic, separable", "theorem", [run("sign-fa")]),
        Case(LOGISTIC, "FA, logistic, tight", "theorem", [one]),
        Case(_logistic(scaled(1.01, mu_svm), stated=False), "FA, logistic, 1.01 mu", "control", [one]),
        Case(LOGISTIC, "FA, logistic stated, (1+u)^-2 true, to t = 1e8", "control", [run("fa", POLYNOMIAL, 1e8)]),
    ]


def _long_cases(scope: Scope) -> list[Case]:
    """Runs on which L falls to 1e-9: as 1/t it does, and not as t^(-3/2)."""

    def long(kind: ensembles.DataKind, rule: ensembles.MarginRule) -> list[Callable[[], Solution]]:
        return [partial(ensembles.margin_run, kind, rule, SMALL, scope.seeds, scope.device, t_final=LONG)]

    claim = Claim("1/L(t) > 1/L(0) + mu t (1 + t)^(1/2)", "inequality", faster_than_linear)
    faster = _statement("orthogonally separable", mu_separable, [claim], stated=False)
    return [
        Case(SEPARABLE, "FA, separable, T = 1e8", "theorem", long("separable", "fa")),
        Case(BOUNDARY, "sign-FA, boundary, T = 1e8", "theorem", long("boundary", "sign-fa")),
        Case(NEARLY_ORTHOGONAL, "FA, nearly orthogonal, T = 1e8", "theorem", long("nearly orthogonal", "fa")),
        Case(faster, "FA, separable, T = 1e8, t^(3/2)", "control", long("separable", "fa")),
    ]
