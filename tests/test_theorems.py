"""The checks themselves: verdict logic, every statement's cases and controls, planted mistakes, the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Weights, solve
from flowsim.data import orthogonally_separable
from flowsim.files import write_npz
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.integrators.event import driver, series
from flowsim.solution import IntegrationError
from theorems import lemma_5_4, own_data, problems, proposition_5_3, proposition_5_7, theorem_5_1, theorem_5_2
from theorems.__main__ import MODULES, main, outcome
from theorems.check import (
    Case,
    Claim,
    DoesNotApplyError,
    Hypothesis,
    Measurement,
    NoMarginError,
    Statement,
    check,
    dominance_along,
    measure,
    sampled_times,
    verdict,
)
from theorems.controls import DecayFlow, TanhFlow

CASES = [(name, case.label) for name, module in MODULES.items() for case in module.cases(1, "cpu")]


@pytest.mark.parametrize(("name", "label"), CASES)
def test_every_theorem_case_holds_and_every_control_is_violated(name: str, label: str) -> None:
    (case,) = [case for case in MODULES[name].cases(1, "cpu") if case.label == label]
    result = outcome(case)
    assert result.as_expected, (result.verdict, result.margin, result.error_bound, result.details)
    assert result.error_bound is not None
    assert result.error_bound < 1e-6, "margins of size 1 are decided with digits to spare"


@pytest.mark.parametrize("name", MODULES)
def test_every_statement_has_a_control(name: str) -> None:
    assert {case.role for case in MODULES[name].cases(1, "cpu")} == {"theorem", "control"}


# Verdict logic, on made-up numbers


def measurement(kind: Any, margins: list[list[float]], errors: list[list[float]]) -> Measurement:
    claim = Claim("made up", kind, lambda solution, times: torch.empty(0))
    values = [torch.tensor(rows, dtype=torch.float64) for rows in (margins, errors)]
    return Measurement(claim, torch.arange(len(margins)).double(), *values)


@pytest.mark.parametrize(
    ("kind", "margins", "errors", "role", "expected"),
    [
        ("inequality", [[1.0], [0.2]], [[0.1], [0.1]], "theorem", "holds"),
        ("inequality", [[1.0], [0.05]], [[0.1], [0.1]], "theorem", "undecided"),
        ("inequality", [[0.05], [1.0]], [[0.1], [0.1]], "theorem", "undecided"),
        ("inequality", [[1.0], [-0.05]], [[0.1], [0.1]], "theorem", "undecided"),
        ("inequality", [[-0.2], [1.0]], [[0.1], [0.1]], "theorem", "violated"),
        ("inequality", [[1.0, -1.0]], [[0.1, 0.1]], "theorem", "violated"),
        ("inequality", [[1.0, -1.0]], [[0.1, 0.1]], "control", "undecided"),
        ("inequality", [[-1.0, -1.0]], [[0.1, 0.1]], "control", "violated"),
        ("inequality", [[1.0, 1.0]], [[0.1, 0.1]], "control", "holds"),
        ("equality", [[-1e-11]], [[1e-10]], "theorem", "holds"),
        ("equality", [[-1e-9]], [[1e-10]], "theorem", "violated"),
        ("equality", [[-1e-9]], [[1e-8]], "theorem", "undecided"),
        ("equality", [[-1e-2]], [[1e-8]], "control", "violated"),
    ],
)
def test_verdict_compares_margins_with_errors(
    kind: Any, margins: list[list[float]], errors: list[list[float]], role: Any, expected: str
) -> None:
    assert verdict([measurement(kind, margins, errors)], role) == expected


def test_one_violated_claim_violates_a_theorem() -> None:
    good, bad = measurement("inequality", [[1.0]], [[0.1]]), measurement("inequality", [[-1.0]], [[0.1]])
    assert verdict([good, bad], "theorem") == "violated"


def test_a_rounding_allowance_does_not_weaken_a_strict_hypothesis() -> None:
    assert Hypothesis("x >= 0", torch.tensor(-1e-16), rounding=1e-15).holds
    assert not Hypothesis("x > 0", torch.tensor(0.0), strict=True, rounding=1e-15).holds


def test_a_claim_without_a_finite_margin_is_an_error_not_a_pass() -> None:
    solution = problems.linear_run(1, "cpu")
    claim = Claim("nan", "inequality", lambda run, times: torch.full((len(times), 1, 1), torch.nan).double())
    with pytest.raises(NoMarginError, match="'nan' has no finite margin"):
        measure(claim, solution, sampled_times(solution))


@pytest.mark.parametrize(("kind", "margin"), [("inequality", -2.0), ("equality", -3.0)])
def test_the_margin_is_that_of_the_worst_part_and_its_error_that_of_the_most_uncertain(
    kind: Any, margin: float
) -> None:
    solution = problems.linear_run(1, "cpu")
    offsets = {id(solution): 0.0, id(solution.companion): 0.5}

    def parts(run: Any, times: torch.Tensor) -> torch.Tensor:
        return torch.tensor([3.0, -2.0, 1.0 + offsets[id(run)]]).double().expand(len(times), 1, 3)

    result = measure(Claim("parts", kind, parts), solution, sampled_times(solution))
    assert (result.margins == margin).all()
    torch.testing.assert_close(result.errors, torch.full_like(result.errors, 0.5), rtol=0, atol=1e-9)


def test_margins_are_sampled_at_the_ends_and_on_both_sides_of_every_kink() -> None:
    solution = problems.margin_run("separable", "fa", 1, "cpu")
    times = sampled_times(solution)
    assert times[0] == 0
    assert times[-1] == solution.t_final
    assert (times.diff() > 0).all()
    for kink in solution.events.time:
        nearest = (times / kink - 1).sort().values
        assert ((nearest > 0) & (nearest < 2e-6)).any()
        assert ((nearest < 0) & (nearest > -2e-6)).any()


def test_a_theorem_that_does_not_apply_is_refused_and_so_is_a_control_that_breaks_nothing() -> None:
    contradictory = problems.margin_run("contradictory", "fa", 1, "cpu", slope=1.0)
    with pytest.raises(DoesNotApplyError, match="kappa > 0"):
        check(proposition_5_7.SEPARABLE, "x", "theorem", contradictory)
    with pytest.raises(ValueError, match="breaks no hypothesis"):
        check(proposition_5_7.SEPARABLE, "x", "control", problems.margin_run("separable", "fa", 1, "cpu"))


# Hypotheses notice their breach


def fails(statement: Statement, flow: Flow, weights: Weights) -> set[str]:
    method = "event" if problems.has_events(type(flow), len(weights.layers)) else "dopri5"
    solution = solve(flow, weights, 1e-3, method=method, rtol=1e-8)
    return {item.name for item in statement.hypotheses(solution, sampled_times(solution)) if not item.holds}


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
        (theorem_5_2.STATEMENT, TanhFlow(SEPARABLE, FA), GOOD, {"phi'(z) z = phi(z)"}),
        (theorem_5_2.STATEMENT, DecayFlow(SEPARABLE, FA), GOOD, {"d theta/dt = -fa"}),
    ],
)
def test_hypotheses_notice_their_breach(statement: Statement, flow: Flow, weights: Weights, expected: set[str]) -> None:
    assert fails(statement, flow, weights) == expected


# Formulas against independent computations


def test_bound_excess_is_the_mean_dominance_ratio_over_mu_minus_one() -> None:
    """Section 3: the margin of Theorem 5.1 equals the time average of D over mu, minus one; D by quadrature."""
    solution = problems.margin_run("boundary", "fa", 1, "cpu")
    kinks = solution.events.time
    edges = torch.cat([torch.linspace(0, 2, 400).double(), kinks[kinks < 2]]).unique()
    positions, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(5))
    nodes = edges[:-1, None] + edges.diff()[:, None] * (positions + 1) / 2
    mu = torch.tensor([0.7], dtype=torch.float64)
    for alpha in (1, 2, 3):
        ratios = dominance_along(solution, nodes, alpha)[..., 0]
        mean = (ratios @ weights * edges.diff()).sum() / 2 / 2.0
        excess = theorem_5_1.bound_excess(solution, torch.tensor([0.0, 2.0]).double(), alpha, mu)[:, 0, 0]
        at_zero = dominance_along(solution, 0.0, alpha)[0] / mu[0] - 1
        torch.testing.assert_close(excess, torch.stack([at_zero, mean / mu[0] - 1]), rtol=1e-9, atol=0)


def test_tangent_kernel_gives_the_motion_of_the_outputs_and_the_dominance_product() -> None:
    """D f / dt = -Theta r / n by forward differences of the outputs, and <grad, fa> = r^T Theta r / n^2."""
    solution = problems.wide_run(1, "cpu")
    flow, times = solution.flow, torch.tensor([0.7], dtype=torch.float64)
    kernel = theorem_5_1.tangent_kernel(solution, times)[0, 0]
    at = solution.evaluate(0.7)
    residual = (flow.outputs(at) - flow.dataset.targets)[0, :, 0]
    h = 1e-5
    later, earlier = (
        Weights(*(w + side * h * u for w, u in zip((at.hidden, at.output), (v.hidden, v.output), strict=True)))
        for v in [flow.velocity(at)]
        for side in (1, -1)
    )
    motion = ((flow.outputs(later) - flow.outputs(earlier)) / (2 * h))[0, :, 0]
    # central differences of a function that is quadratic along the line: only rounding, eps / h
    torch.testing.assert_close(motion, -kernel @ residual / 4, rtol=0, atol=1e-9)
    smallest = 2 / 4 * torch.linalg.eigvalsh(kernel)[0]
    torch.testing.assert_close(theorem_5_1.mu_kernel(solution, times)[0], smallest, rtol=1e-12, atol=0)
    product = dominance_along(solution, 0.7, 0)[0]
    torch.testing.assert_close(product, residual @ kernel @ residual / 16, rtol=1e-12, atol=0)


def test_constants_of_proposition_5_7_never_exceed_the_measured_ratio_nor_the_sharper_one() -> None:
    for kind, statement in [
        ("separable", proposition_5_7.SEPARABLE),
        ("boundary", proposition_5_7.BOUNDARY),
        ("nearly orthogonal", proposition_5_7.NEARLY_ORTHOGONAL),
    ]:
        for rule in ("fa", "sign-fa"):
            solution = problems.margin_run(kind, rule, 1, "cpu")  # type: ignore[arg-type]
            found = statement.constants(solution, sampled_times(solution))
            assert (found["mu"] > 0).all()
            assert (found["mu"] <= found["mu (SVM margin)"] * (1 + 1e-9)).all()
            assert (found["mu (SVM margin)"] <= found["min <grad, fa> / L^2"]).all()


# Planted mistakes: the mathematics is altered, and a check or a hypothesis must notice


def negated_feedback(
    self: FeedbackAlignment, weights: Any, original: Callable = FeedbackAlignment.feedback_matrices
) -> Any:
    return tuple(-matrix for matrix in original(self, weights))


def always_active(self: Flow, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, slopes = original_activation(self, z)
    return values, torch.ones_like(slopes)


def halved_descent(self: Flow, *arguments: Any) -> list[torch.Tensor]:
    first, *others = original_descent(self, *arguments)
    return [0.5 * first, *others]


def halved_series(*arguments: Any) -> series.Series:
    found = original_taylor(*arguments)
    found.hidden[1:] *= 0.5
    return found


def negated_in_series(*arguments: Any) -> torch.Tensor:
    return -original_feedback(*arguments)


original_activation, original_descent = Flow.activation, Flow._descent
original_taylor, original_feedback = series.taylor, series.feedback


@pytest.mark.parametrize(
    ("owner", "attribute", "planted", "name", "label"),
    [
        (Flow, "_descent", halved_descent, "theorem_5_2", "FA, 3 layers, cross-entropy"),
        (Flow, "_descent", halved_descent, "equation_1", "GD, 3 layers"),
        (driver, "taylor", halved_series, "theorem_5_2", "FA, 3 outputs, cross-entropy"),
        (series, "feedback", negated_in_series, "theorem_5_2", "FA, logistic"),
        (series, "feedback", negated_in_series, "equation_1", "FA, 3 outputs, cross-entropy"),
    ],
)
def test_planted_mistakes_in_the_flow_turn_a_theorem_into_a_violation(
    monkeypatch: pytest.MonkeyPatch, owner: Any, attribute: str, planted: Callable, name: str, label: str
) -> None:
    (case,) = [case for case in MODULES[name].cases(1, "cpu") if case.label == label]
    problems.any_run.cache_clear()
    monkeypatch.setattr(owner, attribute, planted)
    try:
        assert outcome(case).verdict == "violated"
    finally:
        problems.any_run.cache_clear()


def test_a_derivative_taken_on_the_wrong_side_of_the_kink_is_caught_by_the_hypotheses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Flow, "activation", always_active)
    assert "phi'(z) z = phi(z)" in fails(theorem_5_2.STATEMENT, Flow(SEPARABLE, FA), GOOD)


def test_a_wrong_sign_of_the_feedback_is_caught_by_the_hypotheses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeedbackAlignment, "feedback_matrices", negated_feedback)
    assert "c_j >= 0" in fails(lemma_5_4.STATEMENT, Flow(SEPARABLE, FA), GOOD)


def test_an_overstated_kappa_is_caught_by_a_tight_instance() -> None:
    """One sample and inactive neurons attain the hidden-layer bound (section 7); |grad_v|^2 is small beside it."""
    rule = SignFeedbackAlignment()
    hidden = torch.tensor([[-1e-3]], dtype=torch.float64)
    flow = Flow(Dataset([[1.0]], [1]), rule)
    solution = solve(flow, with_gaps(hidden, rule, 0.5), 1e-3)
    result = check(proposition_5_7.SEPARABLE, "tight", "theorem", solution)
    assert result.verdict == "holds"
    assert result.details["constants"]["tightness"] < 1.01
    generous = proposition_5_7._statement(
        "orthogonally separable", lambda run: 1.02 * proposition_5_7.mu_separable(run)
    )
    assert check(generous, "overstated", "theorem", solution).verdict == "violated"


# The command line


def test_a_run_that_cannot_go_on_is_undecided_with_the_reason() -> None:
    def stop() -> Any:
        raise IntegrationError(0.5, "because", 3, None)

    result = outcome(Case(lemma_5_4.STATEMENT, "stopped", "theorem", stop))
    assert result.verdict == "undecided"
    assert "because" in result.details["reason"]
    assert not result.as_expected


def test_command_line_writes_json_and_html_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in ("report.json", "report.html")]
    status = main(["proposition_5_3", "lemma_5_4", "--seeds", "1", "--json", files[0], "--html", files[1]])
    assert status == 0
    report = json.loads(Path(files[0]).read_text())
    assert set(report) == {"version", "device", "dtype", "seconds", "checks"}
    assert report["dtype"] == "float64"
    keys = {"name", "case", "role", "verdict", "margin", "error_bound", "trajectories", "details"}
    assert all(set(entry) == keys for entry in report["checks"])
    assert {entry["name"] for entry in report["checks"]} == {"proposition_5_3", "lemma_5_4"}
    page = Path(files[1]).read_text()
    assert not re.search(r"(src|href)\s*=|@import|url\(", page), "the page loads nothing"
    for entry in report["checks"]:
        assert entry["case"].replace(">", "&gt;").replace("<", "&lt;") in page
    assert "8 of 8 checks as expected" in capsys.readouterr().out


def test_command_line_exits_1_when_a_verdict_is_not_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Case(case.statement, case.label, "theorem", case.solution) for case in proposition_5_3.cases(1, "cpu")][:1]
    generous = Statement(
        **{
            **vars(wrong[0].statement),
            "claims": [Claim("false", "inequality", lambda s, t: -1.0 - proposition_5_3.excess(s, t))],
        }
    )
    monkeypatch.setattr(
        proposition_5_3, "cases", lambda seeds, device: [Case(generous, "false claim", "theorem", wrong[0].solution)]
    )
    assert main(["proposition_5_3", "--seeds", "1"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lemma_9_9"], "NAME must be one of equation_1, .* got 'lemma_9_9'"),
        (["--seeds", "0"], "--seeds must be an integer of at least 1, got 0"),
        (["--device", "nowhere"], "--device nowhere does not work here"),
        (["--data", "missing.npz"], "missing.npz cannot be read: No such file or directory"),
        (["lemma_5_4", "--json", "no/such/folder/x.json"], "--json no/such/folder/x.json cannot be written"),
    ],
)
def test_bad_command_lines_exit_2_with_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.match(f"error: {message}", error)
    assert error.count("\n") == 1


def write_problem(path: Path, labels: torch.Tensor, **more: Any) -> str:
    arrays = {"inputs": SEPARABLE.inputs, "labels": labels, "hidden": GOOD.hidden, "output": GOOD.output}
    write_npz(path, {**arrays, "feedback": FEEDBACK, **more})
    return str(path)


def test_own_data_is_checked_where_the_statements_apply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=1.0)
    report = tmp_path / "own.json"
    assert main(["--data", path, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["data"]["kappa"] == pytest.approx(0.2)
    labels = [entry["case"] for entry in found["checks"]]
    assert any(label.startswith("fa, orthogonally separable") for label in labels)
    assert all(entry["verdict"] == "holds" for entry in found["checks"])
    refused = {(item["name"], item["case"].split(",")[0]) for item in found["inapplicable"]}
    assert ("lemma_5_4", "gd") in refused
    assert "kappa = 0.2" in capsys.readouterr().out


def test_own_data_without_feedback_leaves_fa_out(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    write_problem(path, SEPARABLE.labels, t_final=0.1)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "feedback"}
    write_npz(path, arrays)
    assert list(own_data.runs(str(path), "cpu")) == ["sign-fa", "gd"]


def test_own_data_that_starts_at_zero_output_weights_is_checked_where_it_can_be(tmp_path: Path) -> None:
    path, report = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=0.1), tmp_path / "own.json"
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    write_npz(path, {**arrays, "output": 0 * arrays["output"]})
    assert main(["--data", path, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert {entry["name"] for entry in found["checks"]} == {"equation_1", "theorem_5_1", "theorem_5_2"}
    refused = [item["fails"] for item in found["inapplicable"] if item["case"].startswith("sign-fa, alignment")]
    assert "W_l(0) != 0" in refused[0]


def test_own_data_on_which_one_rule_stops_keeps_the_verdicts_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> Any:
        raise IntegrationError(0.5, "because", 0, None)

    path = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=0.1)
    runs = {**own_data.runs(path, "cpu"), "gd": stop}
    monkeypatch.setattr(own_data, "runs", lambda path, device: runs)
    report = tmp_path / "own.json"
    assert main(["theorem_5_2", "--data", path, "--json", str(report)]) == 1
    verdicts = {entry["case"]: entry["verdict"] for entry in json.loads(report.read_text())["checks"]}
    law = "conservation of alignment"
    assert verdicts == {f"fa, {law}": "holds", f"sign-fa, {law}": "holds", f"gd, {law}": "undecided"}
