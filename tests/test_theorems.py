"""The statements: cases and controls, hypotheses that notice their breach, constants, planted mistakes."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Solution, Weights, solve
from flowsim.activation import Softplus, Tanh
from flowsim.data import orthogonally_separable
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.integrators.event import compiled
from flowsim.integrators.event.batched import rounds, series
from flowsim.observables import dominance_ratio
from flowsim.solution import Pieces
from theorems import check as check_module
from theorems import (
    constants,
    ensembles,
    equation_1,
    findings,
    integrals,
    lemma_5_4,
    observation,
    polynomial,
    proposition_5_3,
    proposition_5_7,
    theorem_5_1,
    theorem_5_2,
)
from theorems.cases import MODULES, decide
from theorems.check import Case, Check, DoesNotApplyError, Statement, check, hypotheses_of
from theorems.ensembles import Scope, Shape
from theorems.measurement import infimum, measure
from theorems.observation import Observation, observe

SCOPE = Scope(1, "cpu")
CASES: dict[tuple[str, str], Any] = {
    (name, case.label): case for name, module in MODULES.items() for case in module.cases(SCOPE)
}
SHAPE = Shape(5, 6, 0.3)


def case_of(name: str, label: str) -> Case:
    found = CASES[name, label]
    assert isinstance(found, Case)
    return found


@cache
def decided(name: str, label: str) -> tuple[Check, list[int]]:
    """The check of a case, and how many hypotheses each of its runs breaks."""
    case = CASES[name, label]
    runs = [case.examined(number) for number in range(len(case.runs))]
    return case.combined(runs), [sum(not item.holds for item in run.hypotheses) for run in runs]


@pytest.mark.parametrize(("name", "label"), CASES)
def test_every_theorem_case_holds_and_every_control_breaks_exactly_one_hypothesis_and_is_violated(
    name: str, label: str
) -> None:
    result, broken = decided(name, label)
    assert set(broken) == {int(CASES[name, label].role == "control")}
    assert result.as_expected, (result.verdict, result.margin, result.error_bound, result.details)
    assert result.margin is not None
    assert result.error_bound is not None
    # measured from the margin, an error bound is that of the run or the 1e-7 + 1e-6 margin of the branch and bound
    assert result.error_bound < 1e-5 * max(1, abs(result.margin)), "decided with digits to spare"


@pytest.mark.parametrize("name", MODULES)
def test_every_statement_has_a_control(name: str) -> None:
    assert {case.role for (of, _), case in CASES.items() if of == name} == {"theorem", "control"}


def test_the_cases_cover_widths_samples_and_slopes() -> None:
    for full, widths, samples in [(False, {5, 20, 50, 200}, {4, 8, 64}), (True, {5, 20, 50, 200}, {4, 16, 64})]:
        shapes = Scope(1, "cpu", full).shapes("separable", wide=True)
        assert {shape.width for shape in shapes} == widths
        assert {shape.samples for shape in shapes} == samples
        assert len(set(shapes)) == len(shapes), "nothing is checked twice"
        assert len({shape.slope for shape in shapes}) >= 4
        assert len(ensembles.any_runs(Scope(1, "cpu", full), "fa")) == 1 + full


DEEP = [
    ("equation_1", "GD, 3 layers"),
    ("theorem_5_2", "FA, 3 layers, cross-entropy"),
    ("theorem_5_2", "sign-FA, 3 layers, logistic"),
    ("theorem_5_2", "GD, 3 layers, logistic"),
    ("theorem_5_2", "FA, 4 layers, logistic"),
    ("proposition_5_3", "sign-FA, 3 layers, logistic"),
]


@pytest.mark.parametrize(("name", "label"), DEEP)
def test_deep_cases_are_long_slide_above_the_first_layer_and_are_decided_sharply(name: str, label: str) -> None:
    """They slide there, and equalities hold to 1e-12 (measured)."""
    case = case_of(name, label)
    (run,) = case.runs
    solution = run()
    assert ((solution.events.after == 0) & (solution.events.layer >= 2)).any()
    assert (solution.settings.method, solution.t_final) == ("event", 30.0)
    assert solution.flow.dataset.samples == 10
    assert all(layer.shape[-2] == 8 for layer in solution.start.layers[:-1])
    found, _ = decided(name, label)
    assert found.verdict == "holds"
    if case.statement.claims[0].kind == "equality":
        assert found.error_bound is not None
        assert found.error_bound < 1e-12


def test_same_seeds_give_the_same_verdicts_and_numbers() -> None:
    first, _ = decided("lemma_5_4", "c_j = 0, boundary")
    ensembles.margin_run.cache_clear()
    assert decide(case_of("lemma_5_4", "c_j = 0, boundary")) == first


@pytest.mark.parametrize("question", findings.QUESTIONS, ids=lambda question: f"{question.statement} {question.broken}")
def test_findings_break_a_hypothesis_and_what_is_proved_of_them_holds(question: findings.Question) -> None:
    answer = question.answer(1, "cpu")
    assert 0 <= answer.survives <= answer.trajectories == 1
    if "proved" in answer.conclusion:
        assert answer.survives == 1


def test_a_step_of_the_papers_proof_fails_where_the_statement_holds() -> None:
    """By hand: -7.5e-5; and the bound of section 7, with diagonal and other terms apart, holds for the same numbers."""
    (step,) = findings.STEPS
    answer = step.answer(1, "cpu")
    gamma, rho, (p, q) = findings.STEP_SLOPE, findings.STEP_RHO, findings.STEP_SHARES
    summed = p * p + (gamma * q) ** 2 - rho * p * q * gamma
    assert answer.margin == pytest.approx(summed - gamma**2 * (p * p + q * q - rho * p * q), rel=1e-9)
    assert answer.margin == pytest.approx(-7.5e-5, rel=0.01)
    assert (answer.survives, answer.trajectories) == (0, 1)
    assert rho < gamma**2 * 2, "nearly orthogonal in the sense of the proposition"
    assert summed >= gamma**2 * (1 - rho / (2 * gamma**2)) / 2 * (p + q) ** 2


def test_a_finding_that_breaks_nothing_is_refused() -> None:
    question = replace(findings.QUESTIONS[0], hypotheses=lambda solution: [])
    with pytest.raises(ValueError, match="breaks no hypothesis"):
        question.answer(1, "cpu")


def test_a_theorem_that_does_not_apply_is_refused_and_so_is_a_control_that_breaks_nothing() -> None:
    contradictory = ensembles.margin_run("contradictory", "fa", SHAPE._replace(slope=1.0), 1, "cpu", t_final=0.1)
    with pytest.raises(DoesNotApplyError, match="kappa > 0"):
        check(proposition_5_7.SEPARABLE, "x", "theorem", [contradictory])
    with pytest.raises(ValueError, match="breaks no hypothesis"):
        check(proposition_5_7.SEPARABLE, "x", "control", [ensembles.margin_run("separable", "fa", SHAPE, 1, "cpu")])


# Hypotheses notice their breach


def fails(statement: Statement, flow: Flow, weights: Weights, t_final: float = 1e-3) -> set[str]:
    method = "event" if ensembles.has_events(flow) else "dopri5"
    solution = solve(flow, weights, t_final, method=method, rtol=1e-12)
    return {item.name for item in hypotheses_of(statement, solution) if not item.holds}


FEEDBACK = random_signs(4, 0)
FA = FeedbackAlignment(FEEDBACK)
SEPARABLE = orthogonally_separable(4, 5, 0.2, 0)
GOOD = with_gaps(gaussian(4, 5, 0).hidden, FA, 0.1)
BAD_GAPS = with_gaps(gaussian(4, 5, 0).hidden, FA, torch.tensor([0.1, 0.1, 0.1, -1.0]))
NEGATIVE_SUM = with_gaps(gaussian(4, 5, 0).hidden, FA, -1.0)


@pytest.mark.parametrize(
    ("statement", "flow", "weights", "expected"),
    [
        (lemma_5_4.STATEMENT, Flow(SEPARABLE, FA), GOOD, set()),
        (lemma_5_4.STATEMENT, Flow(SEPARABLE, FA), BAD_GAPS, {"c_j >= 0"}),
        (lemma_5_4.STATEMENT, Flow(SEPARABLE, GradientDescent()), GOOD, {"rule is FeedbackAlignment"}),
        (lemma_5_4.STATEMENT, Flow(SEPARABLE, FeedbackAlignment(FEEDBACK * 0)), GOOD, {"b_j != 0", "c_j >= 0"}),
        (proposition_5_3.STATEMENT, Flow(SEPARABLE, FA), GOOD, {"rule is SignFeedbackAlignment"}),
        (proposition_5_7.SEPARABLE, Flow(SEPARABLE, FA), GOOD, set()),
        (proposition_5_7.SEPARABLE, Flow(SEPARABLE, FA, "logistic"), GOOD, {"exponential loss"}),
        (proposition_5_7.SEPARABLE, Flow(SEPARABLE, FA, slope=0.0), GOOD, {"gamma > 0"}),
        (
            proposition_5_7.SEPARABLE,
            Flow(SEPARABLE, GradientDescent()),
            GOOD,
            {"rule is FeedbackAlignment or SignFeedbackAlignment"},
        ),
        (proposition_5_7.SEPARABLE, Flow(SEPARABLE, FA), NEGATIVE_SUM, {"c_j >= 0", "S0 = sum c_j > 0"}),
        (
            proposition_5_7.SEPARABLE,
            Flow(Dataset(SEPARABLE.inputs, -SEPARABLE.labels * SEPARABLE.labels[0]), FA),
            GOOD,
            set(),
        ),
        (
            proposition_5_7.SEPARABLE,
            Flow(Dataset(SEPARABLE.inputs, torch.ones(4)), FA),
            GOOD,
            {"kappa > 0"},
        ),
        (
            proposition_5_7.NEARLY_ORTHOGONAL,
            Flow(SEPARABLE, FA),
            GOOD,
            {"rho < gamma^2 n / (n-1)"},
        ),
        (
            proposition_5_7.BOUNDARY,
            Flow(Dataset(SEPARABLE.inputs, torch.ones(4)), FA),
            GOOD,
            {"y_i y_k x_i.x_k >= 0 for i != k"},
        ),
        (proposition_5_7.ANY_SEPARABLE, Flow(SEPARABLE, FA), GOOD, set()),
        (
            proposition_5_7.ANY_SEPARABLE,
            Flow(Dataset(torch.ones(2, 5), [1, -1]), FA),
            GOOD,
            {"SVM margin > 0"},
        ),
        (theorem_5_2.STATEMENT, Flow(SEPARABLE, FA, activation=Tanh()), GOOD, {"phi'(z) z = phi(z)"}),
        (theorem_5_2.STATEMENT, Flow(SEPARABLE, FA, activation=Softplus()), GOOD, {"phi'(z) z = phi(z)"}),
        (theorem_5_2.BIAS_LEFT_OUT, Flow(SEPARABLE, FA), GOOD, {"the bias counts as an incoming weight"}),
        (theorem_5_2.STATEMENT, Flow(SEPARABLE, FA, decay=0.1), GOOD, {"d theta/dt = -fa"}),
    ],
)
def test_hypotheses_notice_their_breach(statement: Statement, flow: Flow, weights: Weights, expected: set[str]) -> None:
    assert fails(statement, flow, weights) == expected


def test_gaps_of_size_zero_do_not_add_up_to_a_positive_sum_by_rounding() -> None:
    """S0 of many starts with c_j = 0: some are positive by rounding, and Proposition 5.7 applies to none."""
    totals, rule = [], FeedbackAlignment([0.7, -1.1, 1.3, 0.6])
    for seed in range(12):
        weights = with_gaps(gaussian(4, 5, seed).hidden, rule, 0.0)
        solution = solve(Flow(SEPARABLE, rule), weights, 1e-3, rtol=1e-8)
        totals.append(constants.total_gap(solution).item())
        assert not constants.total_gap_positive(solution).holds
    assert max(totals) > 0


def test_a_layer_that_passes_zero_on_the_way_has_no_direction_there() -> None:
    dataset = Dataset([[1.0]], [1])
    weights = Weights([[2.0]], [-0.1])  # type: ignore[arg-type]
    assert fails(proposition_5_3.STATEMENT, Flow(dataset, SignFeedbackAlignment()), weights, 1.0) == {
        "W_l != 0 at the start and at events"
    }


# Formulas against independent computations


def test_the_mean_dominance_ratio_is_its_integral_by_another_quadrature() -> None:
    """Section 3: the margin of Theorem 5.1 is the time average of D over mu, minus one; here by Gauss quadrature."""
    solution = ensembles.margin_run("boundary", "fa", SHAPE, 1, "cpu")
    kinks, end = solution.events.time, 2.0
    edges = torch.cat([torch.linspace(0, end, 400).double(), kinks[kinks < end]]).unique()
    positions, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(5))
    nodes = edges[:-1, None] + edges.diff()[:, None] * (positions + 1) / 2
    last = Pieces(torch.zeros(1, dtype=torch.long), torch.tensor([1.999]).double(), torch.tensor([end]).double())
    for alpha in (1, 2, 3):
        ratios = dominance_ratio(solution.flow, solution.evaluate(nodes), alpha)[..., 0]
        mean = (ratios @ weights * edges.diff()).sum() / 2 / end
        found = theorem_5_1.mean_ratio(observe(solution, last), alpha)[-1, 0]
        torch.testing.assert_close(found, mean, rtol=1e-9, atol=0)


def at(solution: Solution, time: float) -> Observation:
    """A single time, as a piece without length."""
    when = torch.tensor([time], dtype=torch.float64)
    return observe(solution, Pieces(torch.zeros(1, dtype=torch.long), when, when))


def test_tangent_kernel_gives_the_motion_of_the_outputs_and_the_dominance_product() -> None:
    """D f / dt = -Theta r / n by central differences of the outputs, and <grad, fa> = r^T Theta r / n^2."""
    solution = ensembles.wide_run(1, "cpu")
    flow, weights, seen = solution.flow, solution.evaluate(0.7), at(solution, 0.7)
    kernel = theorem_5_1.tangent_kernel(seen)[0, 0]
    residual = (flow.outputs(weights) - flow.dataset.targets)[0, :, 0]
    h = 1e-5
    later, earlier = (
        Weights(*(w + side * h * u for w, u in zip(weights.layers, v.layers, strict=True)))
        for v in [flow.velocity(weights)]
        for side in (1, -1)
    )
    motion = ((flow.outputs(later) - flow.outputs(earlier)) / (2 * h))[0, :, 0]
    # central differences of a function that is quadratic along the line: only rounding, eps / h
    torch.testing.assert_close(motion, -kernel @ residual / 4, rtol=0, atol=1e-9)
    smallest = torch.linalg.eigvalsh(kernel)[0]
    torch.testing.assert_close(theorem_5_1.smallest_eigenvalue(seen).excess[0, 0, 0], smallest, rtol=1e-12, atol=0)
    assert theorem_5_1.mu_kernel(solution)[0] <= 2 / 4 * smallest
    torch.testing.assert_close(seen.factors.product[0, 0], residual @ kernel @ residual / 16, rtol=1e-12, atol=0)


KINDS = [
    ("separable", proposition_5_7.SEPARABLE),
    ("boundary", proposition_5_7.BOUNDARY),
    ("nearly orthogonal", proposition_5_7.NEARLY_ORTHOGONAL),
]


@pytest.mark.parametrize(("kind", "statement"), KINDS)
@pytest.mark.parametrize("rule", ["fa", "sign-fa"])
def test_constants_of_proposition_5_7_never_exceed_the_sharper_ones_nor_those_the_measured_ratio(
    kind: Any, statement: Statement, rule: Any
) -> None:
    """mu <= mu (SVM) <= inf D, and each claim's margin, a ratio minus one, is the smaller the sharper the claim is."""
    solution = ensembles.margin_run(kind, rule, SHAPE, 1, "cpu")
    found = statement.constants(solution)
    smallest = infimum(partial(theorem_5_1.dominance_ratio_of, alpha=2), solution)
    assert (found["mu"] > 0).all()
    assert (found["mu"] <= found["mu (SVM margin)"] * (1 + 1e-9)).all()
    assert (found["mu (SVM margin)"] <= smallest).all()
    margins = {
        claim.name: margin.margin.item()
        for claim, margin in zip(statement.claims, measure(statement.claims, solution, statement.rate), strict=True)
    }
    plain, integrated, grown, grown_integrated, svm, svm_grown, svm_integrated = margins.values()
    # of the last three: a mean is not below the infimum
    ordered = [(svm_grown, grown), (svm_grown, svm), (grown, plain), (svm, plain)]
    ordered += [(plain, integrated), (grown, grown_integrated), (svm_grown, svm_integrated)]
    for lower, upper in ordered:
        assert lower <= upper + 1e-9 * (1 + upper)  # orthogonal inputs of one length have margin^2 = R^2 / n


def test_the_integrated_bound_uses_the_integral_of_the_total_product() -> None:
    """int_0^T S dt by Gauss quadrature between events: S has its poles at t < 0, and 40 nodes leave 1e-20 there."""
    solution = ensembles.margin_run("separable", "fa", SHAPE, 1, "cpu")
    kinks = solution.events.time
    edges = torch.tensor([0.0, *kinks.tolist(), solution.t_final], dtype=torch.float64)
    places, factors = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(40))
    weights = solution.evaluate(edges[:-1, None] + edges.diff()[:, None] * (places + 1) / 2)
    product = (weights.output * solution.flow.rule.feedback_matrices(weights)[0].squeeze(-2)).sum(-1)[..., 0]
    expected = (product @ factors * edges.diff()).sum() / 2
    pieces = solution.pieces
    before = integrals.integrals_before(proposition_5_7.total_product, solution)[0][-1]
    last = observe(solution, Pieces(*(column[-1:] for column in pieces)))
    over = polynomial.INTEGRALS[-1] @ proposition_5_7.total_product(last) * (pieces.end - pieces.start)[-1]
    assert (before + over).item() == pytest.approx(expected.item(), rel=1e-9)


# Planted mistakes: the mathematics is altered, and a check or a hypothesis must notice

original_descent, original_taylor, original_feedback = Flow._descent, series.expand, series.find_feedback
original_slopes, original_pieces = observation.effective_slopes, Solution.pieces.func  # type: ignore[attr-defined]
original_matrices = FeedbackAlignment.feedback_matrices


def halved_descent(self: Flow, *arguments: Any) -> list[torch.Tensor]:
    first, *others = original_descent(self, *arguments)
    return [0.5 * first, *others]


def not_divided_by_n(self: Flow, *arguments: Any) -> list[torch.Tensor]:
    return [self.dataset.samples * layer for layer in original_descent(self, *arguments)]


def halved_series(*arguments: Any) -> series.Series:
    found = original_taylor(*arguments)
    found.hidden[1:] *= 0.5
    return found


def negated_in_series(*arguments: Any) -> torch.Tensor:
    return -original_feedback(*arguments)


def not_fixed(flow: Flow, weights: Weights, mode: Any) -> torch.Tensor:
    return original_feedback(flow, weights, mode) + 1e-6 * weights.layers[1]


def on_the_other_side(flow: Flow, weights: Any, pattern: Any, feedback: Any) -> Any:
    """phi' = 1 where z < 0, too, for one sample and neuron that is inactive at first."""
    return original_slopes(
        flow, weights, tuple(side.clone().index_fill_(-2, torch.tensor([0]), 1) for side in pattern), feedback
    )


def never_sliding(flow: Flow, weights: Any, pattern: Any, feedback: Any) -> Any:
    return original_slopes(flow, weights, tuple(torch.where(side == 0, -1, side) for side in pattern), feedback)


def sliding_in_the_first_layer_only(flow: Flow, weights: Any, pattern: Any, feedback: Any) -> Any:
    first, *above = pattern
    changed = (first, *(torch.where(side == 0, -1, side) for side in above))
    return original_slopes(flow, weights, changed, feedback)


def only_the_end(self: Solution) -> Pieces:
    end = torch.full((self.batch_shape.numel(),), self.t_final, dtype=torch.float64)
    return Pieces(torch.arange(len(end)), end, end)


def without_scale(self: SignFeedbackAlignment, weights: Any) -> tuple[torch.Tensor, ...]:
    return tuple(layer.abs().sum(-2) for layer in weights.layers[1:])


def without_half(self: GradientDescent, weights: Any) -> tuple[torch.Tensor, ...]:
    return tuple(layer.square().sum(-2) for layer in weights.layers[1:])


def negated_feedback(self: FeedbackAlignment, weights: Any) -> Any:
    return tuple(-matrix for matrix in original_matrices(self, weights))


def enlarged(quantity: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    return lambda measured: 1.01 * quantity(measured)


largest_norm = property(enlarged(lambda data: data.inputs.square().sum(-1).amax(-1)))
larger_kappa = property(enlarged(Dataset.kappa.fget))  # type: ignore[attr-defined]
larger_margin = enlarged(constants.svm_margin)
larger_product = enlarged(proposition_5_7.total_product)

PLANTED: dict[str, tuple[Any, str, Any, str, str]] = {
    "hidden layer at half speed, Eq. 1": (Flow, "_descent", halved_descent, "equation_1", "GD, 3 layers"),
    "half speed in the series": (rounds, "expand", halved_series, "theorem_5_2", "FA, 3 outputs, cross-entropy"),
    "sign of the feedback": (series, "find_feedback", negated_in_series, "theorem_5_2", "FA, logistic"),
    "B not fixed": (series, "find_feedback", not_fixed, "theorem_5_2", "FA, logistic"),
    "scale of sign-FA": (SignFeedbackAlignment, "potentials", without_scale, "theorem_5_2", "sign-FA, squared"),
    "1/2 of GD": (GradientDescent, "potentials", without_half, "theorem_5_2", "GD, exponential"),
    "scale of sign-FA, deep": (
        SignFeedbackAlignment,
        "potentials",
        without_scale,
        "theorem_5_2",
        "sign-FA, 3 layers, logistic",
    ),
    "1/2 of GD, deep": (GradientDescent, "potentials", without_half, "theorem_5_2", "GD, 3 layers, logistic"),
    "deep sliding ignored": (
        observation,
        "effective_slopes",
        sliding_in_the_first_layer_only,
        "equation_1",
        "GD, 3 layers",
    ),
    "phi' on the wrong side": (observation, "effective_slopes", on_the_other_side, "equation_1", "FA, separable"),
    "sliding ignored": (observation, "effective_slopes", never_sliding, "equation_1", "GD, arbitrary labels"),
    "half the quadrature": (integrals, "INTEGRALS", 0.5 * polynomial.INTEGRALS, "equation_1", "FA, separable"),
    "kappa 1 % too large": (Dataset, "kappa", larger_kappa, "proposition_5_7", "FA, separable, tight"),
    "R from the largest norm": (Dataset, "squared_radius", largest_norm, "proposition_5_7", "FA, boundary, tight"),
    "SVM margin 1 % too large": (constants, "svm_margin", larger_margin, "proposition_5_7", "FA, separable, tight"),
    "S(t) 1 % too large": (proposition_5_7, "total_product", larger_product, "proposition_5_7", "FA, separable, tight"),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_planted_mistakes_turn_a_theorem_into_a_violation(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    owner, attribute, planted, name, label = PLANTED[mistake]
    forget()
    if owner in (rounds, series):
        monkeypatch.setattr(compiled, "has_compiled_series", lambda flow: False)
    monkeypatch.setattr(owner, attribute, planted)
    monkeypatch.setattr(check_module, "along_the_run", lambda *_: ())  # which would notice most of them
    try:
        # with the quadrature halved the two rules differ as much
        assert decide(case_of(name, label)).verdict == ("undecided" if "quadrature" in mistake else "violated")
    finally:
        forget()


def forget() -> None:
    for run in (ensembles.any_run, ensembles.margin_run, ensembles.tight_run, ensembles.shrinking_run):
        run.cache_clear()
    constants.svm_margin.cache_clear() if hasattr(constants.svm_margin, "cache_clear") else None


def test_a_margin_taken_at_the_end_only_misses_signs_lost_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("lemma_5_4", "c_j < 0, signs lost on the way")
    assert decide(case).verdict == "violated"
    forget()
    monkeypatch.setattr(Solution, "pieces", property(only_the_end))
    try:
        assert decide(case).verdict == "holds", "the control would not come out as expected"
    finally:
        forget()


@pytest.mark.parametrize("planted", [halved_descent, not_divided_by_n])
def test_a_rule_other_than_the_solver_follows_is_caught_by_the_hypotheses(
    monkeypatch: pytest.MonkeyPatch, planted: Callable
) -> None:
    """The series know nothing of `Flow.velocity`: the run moves otherwise than the altered rule says."""
    monkeypatch.setattr(Flow, "_descent", planted)
    assert fails(equation_1.STATEMENT, Flow(SEPARABLE, FA), GOOD) == {"d theta/dt = -fa"}


def test_a_wrong_sign_of_the_feedback_is_caught_by_the_hypotheses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeedbackAlignment, "feedback_matrices", negated_feedback)
    assert "c_j >= 0" in fails(lemma_5_4.STATEMENT, Flow(SEPARABLE, FA), GOOD)


def test_an_overstated_kappa_is_caught_by_a_tight_instance() -> None:
    """One sample and inactive neurons attain the hidden-layer bound (section 7); |grad_v|^2 is small beside it."""
    rule = SignFeedbackAlignment()
    hidden = torch.tensor([[[-1e-3]]], dtype=torch.float64)
    flow = Flow(Dataset([[1.0]], [1]), rule)
    solution = solve(flow, with_gaps(hidden, rule, 0.5), 1e-3)
    result = check(proposition_5_7.SEPARABLE, "tight", "theorem", [solution])
    assert result.verdict == "holds"
    assert result.details["claims"]["<grad, fa> > mu L^2"]["measured"] < 1.01 * constants.mu_separable(solution)
    generous = proposition_5_7._misstated("orthogonally separable", lambda run: 1.02 * constants.mu_separable(run))
    assert check(generous, "overstated", "control", [solution]).verdict == "violated"
