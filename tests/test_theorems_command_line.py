"""`python -m theorems`: verdicts, reports, your own data, and what it says of bad input."""

import contextlib
import html
import itertools
import json
import math
import multiprocessing
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowsim import FeedbackAlignment, IntegrationError, progress
from flowsim.data import orthogonally_separable
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.npz import write_npz
from flowsim.problems import read_source
from theorems import cases, ensembles, findings, lemma_5_4, own_data, pictures, proposition_5_3
from theorems.check import Case, DoesNotApplyError
from theorems.command import main
from theorems.ensembles import Scope
from theorems.hypothesis import fact
from theorems.measurement import Claim, Compared, NoMarginError
from theorems.observation import Observation

FEEDBACK = random_signs(4, 0)
SEPARABLE = orthogonally_separable(4, 5, 0.2, 0)
GOOD = with_gaps(gaussian(4, 5, 0).hidden, FeedbackAlignment(FEEDBACK), 0.1)


def test_a_run_that_cannot_go_on_is_undecided_with_the_reason() -> None:
    def stop() -> Any:
        raise IntegrationError(0.5, "because", 3, None)

    result = cases.decide(Case(lemma_5_4.STATEMENT, "stopped", "theorem", [stop]))
    assert result.verdict == "undecided"
    assert "because" in result.details["reason"]
    assert not result.as_expected


def test_command_line_writes_json_and_html_and_exits_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a table, with the constants claimed and measured: 1 / sqrt(5) = 0.447 at width 5, and more."""
    monkeypatch.setattr(ensembles, "WIDE", ())
    files = [str(tmp_path / name) for name in ("report.json", "report.html")]
    status = main(["proposition_5_3", "lemma_5_4", "--seeds", "1", "--json", files[0], "--html", files[1]])
    assert status == 0
    report = json.loads(Path(files[0]).read_text())
    assert set(report) == {"version", "device", "dtype", "seconds", "complete", "checks", "findings"}
    assert report["dtype"] == "float64"
    assert report["complete"] is True
    keys = {"name", "case", "role", "verdict", "margin", "error_bound", "trajectories", "details", "beyond"}
    assert all(set(entry) == keys for entry in report["checks"])
    assert {entry["name"] for entry in report["checks"]} == {"proposition_5_3", "lemma_5_4"}
    page = Path(files[1]).read_text()
    assert not re.search(r"(src|href)\s*=|@import|url\(", page), "the page loads nothing"
    for entry in report["checks"]:
        assert entry["case"].replace(">", "&gt;").replace("<", "&lt;") in page
    out = capsys.readouterr().out
    assert "8 of 8 checks as expected" in out
    (row,) = [line for line in out.splitlines() if "c_j = 0, boundary" in line]
    *_, claimed, measured, runs = row.split()
    assert claimed == "0.447"
    assert 0.447 < float(measured) <= 1
    assert runs == "3"


def test_command_line_exits_1_when_a_verdict_is_not_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only one of several is wrong; and a progress bar goes through all."""
    case = proposition_5_3.cases(Scope(1, "cpu"))[1]

    def opposite(seen: Observation) -> Compared:
        excess, size = proposition_5_3.squared_cosines(seen)
        return Compared(-size - excess, size)

    false = Claim("false", "inequality", opposite)
    wrong = replace(case, statement=replace(case.statement, claims=[false]))
    monkeypatch.setattr(proposition_5_3, "cases", lambda scope: [case])
    assert main(["proposition_5_3", "--seeds", "1"]) == 0
    monkeypatch.setattr(proposition_5_3, "cases", lambda scope: [case, wrong])
    assert main(["proposition_5_3", "--seeds", "1"]) == 1


def test_each_case_and_question_is_in_one_group_and_what_would_be_slow_apart_stays_together() -> None:
    scope = Scope(1, "cpu")
    everything = [*cases.places(list(cases.MODULES), scope), *cases.asked(list(cases.MODULES), scope)]
    groups = cases._groups(everything, scope)
    assert sorted(place for group in groups for place in group) == sorted(everything)
    assert all(len({name == cases.FINDINGS for name, _ in group}) == 1 for group in groups)
    assert [place for place in everything if place[0] == "weight_sharing"] in groups
    for name in ("proposition_5_7", cases.FINDINGS):
        alone = [group for group in groups if {each for each, _ in group} == {name}]
        assert 1 < max(map(len, alone)) <= cases.BUNDLE


ENDLESS = ("proposition_5_3", 1)


def endless(places: Sequence[cases.Place], scope: Scope) -> Any:
    """In a process of its own: comes to an end on all cases but one."""
    while ENDLESS in places:
        time.sleep(1000.0)
    return cases._of_group(places, scope)


def test_several_processes_give_the_same_checks_and_findings_and_end_when_nobody_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two cases are on the same run, which one process observes for both; the other one's would take for ever."""
    scope = Scope(1, "cpu")
    places = [("theorem_5_1", 3), ("theorem_5_2", 1), ("theorem_5_2", 12), ("theorem_5_2", 13)]
    places += cases.asked(["lemma_5_4"], scope)
    assert [places[2], places[3]] in cases._groups(places, scope)
    here = list(cases.results(places, scope))
    assert [place for place, _ in here] == places
    monkeypatch.setattr(cases, "FEW", 0)
    monkeypatch.setattr(cases, "_of_group", endless)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    results = cases.results([ENDLESS, *places], scope)
    assert isinstance(results, Generator)
    assert dict(itertools.islice(results, len(places))) == dict(here)
    children = multiprocessing.active_children()
    assert len(children) == 2
    results.close()  # as after Ctrl-C
    for child in children:
        child.join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lemma_9_9"], "NAME must be one of equation_1, .* got 'lemma_9_9'"),
        (["--seeds", "0"], "--seeds must be an integer of at least 1, got 0"),
        (["--search", "0"], "--search must be a finite number above 0, got 0.0"),
        (["--search", "1", "--data", "x.npz"], "--search does not go with --data"),
        (["--data", "x.npz", "--seeds", "4"], "--seeds is for the cases of flowsim check, got it with --data"),
        (["--data", "x.npz", "--full"], "--full is for the cases of flowsim check, got it with --data"),
        (["--search", "1", "--seeds", "4"], "--seeds is for the cases of flowsim check, got it with --search"),
        (["lemma_5_4", "--output", "d"], "--output goes with --search, got 'd' without it"),
        (["--search", "1", "--output", "/dev/null/x"], "--output /dev/null/x cannot be written: "),
        (["--device", "nowhere"], "--device must be cpu or cuda, got 'nowhere'"),
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
    printed = capsys.readouterr().out
    assert "kappa = 0.2" in printed
    assert found["kinds"]["orthogonally separable"]["kappa > 0"]["slack"] == pytest.approx(0.2)
    assert re.search(r"\n *orthogonally separable +yes +kappa > 0 \(0\.2\)", printed)
    assert re.search(r"\n *nearly orthogonal +no +fails: rho < gamma\^2 n / \(n-1\)", printed)
    assert re.search(r"proposition_5_7: nearly orthogonal.* fa, sign-fa +fails: rho < gamma", printed)
    assert "rule is" not in printed and "side_ij" not in printed  # about another rule, or met
    holding = found["checks"][0]["details"]["hypotheses"]
    assert all(state["holds"] for state in holding.values())


def test_where_no_statement_applies_nothing_is_checked_and_that_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=1.0, output=-GOOD.output)
    assert main(["lemma_5_4", "--data", path]) == 1
    assert "nothing is checked, " in capsys.readouterr().out


def test_own_data_without_feedback_leaves_fa_out(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    write_problem(path, SEPARABLE.labels, t_final=0.1)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "feedback"}
    write_npz(path, arrays)
    assert list(own_data.runs(read_source(str(path)))) == ["sign-fa", "gd"]


def test_own_data_that_starts_at_zero_output_weights_is_checked_where_it_can_be(tmp_path: Path) -> None:
    path, report = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=0.1), tmp_path / "own.json"
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    write_npz(path, {**arrays, "output": 0 * arrays["output"]})
    assert main(["--data", path, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    names = {"equation_1", "theorem_5_1", "theorem_5_2", "any_start", "no_plateau"}
    assert {entry["name"] for entry in found["checks"]} == names
    refused = [item["hypotheses"] for item in found["inapplicable"] if item["case"].startswith("sign-fa, alignment")]
    assert not refused[0]["W_l != 0 at the start and at events"]["holds"]
    assert refused[0]["rule is SignFeedbackAlignment"]["holds"]


def test_own_data_on_which_one_rule_stops_keeps_the_verdicts_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> Any:
        raise IntegrationError(0.5, "gd did not go on", 0, None)

    path = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=0.1)
    runs = {**own_data.runs(read_source(path)), "gd": stop}
    monkeypatch.setattr(own_data, "runs", lambda *_, **__: runs)
    report = tmp_path / "own.json"
    assert main(["theorem_5_2", "equation_1", "--data", path, "--json", str(report)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("gd did not go on") == 1
    found = json.loads(report.read_text())["checks"]
    verdicts = {entry["case"]: entry["verdict"] for entry in found if entry["name"] == "theorem_5_2"}
    law = "conservation of alignment"
    assert verdicts == {f"fa, {law}": "holds", f"sign-fa, {law}": "holds", f"gd, {law}": "undecided"}


# --- what fails costs nothing else -----------------------------------------------------------------------------------


def case_that(run: Callable[[], Any], label: str = "broken") -> Case:
    return Case(lemma_5_4.STATEMENT, label, "theorem", [run])


def failing(error: BaseException) -> Callable[..., Any]:
    def wrong(*_: object, **__: object) -> Any:
        raise error

    return wrong


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """Lemma 5.4 with two short cases and one question about the same runs; a test may add to the cases."""
    found = lemma_5_4.cases(Scope(1, "cpu"))
    theorem, control = (next(case for case in found if case.role == role) for role in ("theorem", "control"))
    (question,) = findings.questions(["lemma_5_4"])
    kept = [replace(theorem, runs=theorem.runs[:1]), control]
    monkeypatch.setattr(lemma_5_4, "cases", lambda scope: kept)
    monkeypatch.setattr(findings, "QUESTIONS", [replace(question, run=lambda *_: control.runs[0]())])
    monkeypatch.setattr(progress, "FIRST", math.inf)
    return kept


def verdicts_of(path: Path) -> dict[str, str]:
    return {entry["case"]: entry["verdict"] for entry in json.loads(path.read_text())["checks"]}


STOPS: list[tuple[Exception, str]] = [
    (IntegrationError(0.5, "because", 3, None), "trajectory 3 stopped at t = 0.5: because"),
    (NoMarginError("it overflows"), "it overflows"),
    (DoesNotApplyError("lemma_5_4", [fact("no", False)]), "lemma_5_4 does not apply: no (slack -inf)"),
    (MemoryError(), "there is not enough memory"),
]
MISTAKES: list[tuple[Exception, str]] = [
    (ValueError("own [/mistake]"), "ValueError: own [/mistake]"),
    (KeyError("own"), "KeyError: 'own'"),
    (RecursionError("own"), "RecursionError: own"),
]


@pytest.mark.parametrize(
    ("errors", "prefix"), [(STOPS, ""), (MISTAKES, "internal error: ")], ids=["stops", "own mistakes"]
)
def test_cases_that_fail_are_undecided_with_the_reason_and_cost_no_other(
    errors: list[tuple[Exception, str]], prefix: str, few: list[Case], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    few[1:1] = [case_that(failing(error), f"broken {number}") for number, (error, _) in enumerate(errors)]
    path, page = tmp_path / "report.json", tmp_path / "report.html"
    assert main(["lemma_5_4", "--seeds", "1", "--json", str(path), "--html", str(page)]) == 1
    assert list(verdicts_of(path).values()) == ["holds", *["undecided"] * len(errors), "violated"]
    report = json.loads(path.read_text())
    assert [item["trajectories"] for item in report["findings"]] == [1]
    shown = page.read_text().replace("&#39;", "&#x27;")
    out, err = capsys.readouterr()
    assert f"2 of {2 + len(errors)} checks as expected" in out
    said = []
    for number, (_, reason) in enumerate(errors):
        assert report["checks"][1 + number]["details"]["reason"] == prefix + reason
        assert html.escape(prefix + reason) in shown
        assert f"unexpected: lemma_5_4, broken {number}: undecided: {prefix}{reason}" in " ".join(out.split())
        said.append(f"internal error in lemma_5_4, broken {number}: {reason} (please report)")
    if not prefix:
        assert err == ""
        return
    assert [line for line in err.splitlines() if line.startswith("internal error")] == said
    assert err.count("Traceback") == err.count("in wrong") == len(errors)


def test_an_interrupt_keeps_what_was_decided(
    few: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few.insert(1, case_that(failing(KeyboardInterrupt())))
    path, page = tmp_path / "report.json", tmp_path / "report.html"
    assert main(["lemma_5_4", "--seeds", "1", "--json", str(path), "--html", str(page)]) == 130
    assert list(verdicts_of(path).values()) == ["holds"]
    report = json.loads(path.read_text())
    assert (report["complete"], report["findings"]) == (False, [])
    assert "Interrupted: this is what was decided until then" in page.read_text()
    out, err = capsys.readouterr()
    assert few[0].label in out
    assert "1 of 1 checks as expected, interrupted after" in out
    assert err == ""


def test_an_interrupt_of_the_findings_keeps_the_verdicts(
    few: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (question,) = findings.QUESTIONS
    interrupting = replace(question, broken="interrupted", run=failing(KeyboardInterrupt()))
    monkeypatch.setattr(findings, "QUESTIONS", [question, interrupting])
    path = tmp_path / "report.json"
    assert main(["lemma_5_4", "--seeds", "1", "--json", str(path)]) == 130
    assert list(verdicts_of(path).values()) == ["holds", "violated"]
    assert [item["broken"] for item in json.loads(path.read_text())["findings"]] == [question.broken]


@pytest.mark.parametrize(
    ("error", "status"), [(IntegrationError(0.5, "because", 3, None), 0), (ValueError("own"), 1)], ids=["stop", "own"]
)
def test_a_finding_that_fails_costs_neither_verdicts_nor_other_findings(
    error: Exception, status: int, few: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (question,) = findings.QUESTIONS
    monkeypatch.setattr(findings, "QUESTIONS", [replace(question, broken="x", run=failing(error)), question])
    path, page = tmp_path / "report.json", tmp_path / "report.html"
    assert main(["lemma_5_4", "--seeds", "1", "--json", str(path), "--html", str(page)]) == status
    assert list(verdicts_of(path).values()) == ["holds", "violated"]
    failed, answered = json.loads(path.read_text())["findings"]
    assert (failed["trajectories"], failed["margin"]) == (0, None)
    why = failed["details"]["reason"]
    assert str(error) in why
    assert answered["trajectories"] == 1 and answered["margin"] < 0
    assert f"not measured: {why}" in page.read_text()
    out, err = capsys.readouterr()
    assert f"not measured: {why}"[:30] in " ".join(out.split())
    last = "internal error in the finding lemma_5_4: x: ValueError: own (please report)"
    assert err.splitlines()[-1:] == ([last] if status else [])


@pytest.mark.parametrize("full", ["--json", "--html"])
def test_an_output_that_cannot_be_written_is_said_in_one_line_and_loses_no_other(
    full: str, few: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (other,) = {"--json", "--html"} - {full}
    assert main(["lemma_5_4", "--seeds", "1", full, "/dev/full", other, str(tmp_path / "other")]) == 2
    assert (tmp_path / "other").read_text()
    out, err = capsys.readouterr()
    assert "2 of 2 checks as expected" in out
    assert err == f"error: {full} /dev/full cannot be written: No space left on device\n"


def test_standard_output_that_cannot_be_written_loses_no_other(
    few: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    with open("/dev/full", "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["lemma_5_4", "--seeds", "1", "--json", str(path)]) == 2
        patch.undo()
        with contextlib.suppress(OSError):
            stream.close()
    assert list(verdicts_of(path).values()) == ["holds", "violated"]
    assert capsys.readouterr().err == "error: standard output cannot be written: No space left on device\n"


def test_a_page_that_cannot_be_made_is_an_own_mistake_that_loses_no_other(
    few: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "pictures", failing(ValueError("own")))
    files = ["--json", str(tmp_path / "report.json"), "--html", str(tmp_path / "report.html")]
    assert main(["lemma_5_4", "--seeds", "1", *files]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    out, err = capsys.readouterr()
    assert "2 of 2 checks as expected" in out
    assert err.splitlines()[-1] == f"internal error in --html {files[-1]}: ValueError: own (please report)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "x", "--html", "./x"], "--html ./x must be another file than --json x"),
        (["--data", "own.npz", "--json", "own.npz"], "--json own.npz must be another file than --data own.npz"),
        (
            ["--search", "1", "--output", ".", "--json", "lemma_5_4_fa_any_data.npz"],
            "--output, lemma_5_4_fa_any_data.npz: lemma_5_4_fa_any_data.npz must be another file than --json ",
        ),
    ],
)
def test_outputs_are_no_other_files_of_the_command(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.npz").write_text("x")
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["own.npz"]
    assert (tmp_path / "own.npz").read_text() == "x"


def test_lines_say_how_far_the_checks_are_where_nobody_watches(
    few: list[Case], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FIRST", "LONGEST"):
        monkeypatch.setattr(progress, name, 0.0)
    assert main(["lemma_5_4", "--seeds", "1"]) == 0
    lines = [line.split(" after ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["checking, 1 of 2 cases: 33 %", "checking, 2 of 2 cases: 67 %", "findings, 1 of 1: 100 %"]


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert re.fullmatch(r"flowsim \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("place", ["solve", "a statement", "the constants"])
def test_an_own_mistake_on_own_data_costs_no_other_verdict_and_is_no_bad_input(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=0.1)
    wrong, law = failing(ValueError("own")), "conservation of alignment"
    if place == "solve":
        runs = {**own_data.runs(read_source(path)), "gd": wrong}
        monkeypatch.setattr(own_data, "runs", lambda *_, **__: runs)
    elif place == "a statement":
        statements = [replace(own_data.STATEMENTS[0], hypotheses=wrong), *own_data.STATEMENTS[1:]]
        monkeypatch.setattr(own_data, "STATEMENTS", statements)
    else:
        monkeypatch.setattr(own_data, "constants", wrong)
    report = tmp_path / "own.json"
    assert main(["equation_1", "theorem_5_2", "--data", path, "--json", str(report)]) == 1
    found = json.loads(report.read_text())
    equalities = [entry for entry in found["checks"] if "angle" not in entry["case"]]
    verdicts = {(entry["name"], entry["case"].split(",")[0]): entry["verdict"] for entry in equalities}
    assert len(verdicts) == 6
    expected = {
        "solve": lambda name, rule: rule == "gd",
        "a statement": lambda name, rule: name == "equation_1",
        "the constants": lambda *_: False,
    }[place]
    assert {key for key, verdict in verdicts.items() if verdict == "undecided"} == {
        key for key in verdicts if expected(*key)
    }
    assert set(verdicts.values()) <= {"holds", "undecided"}
    assert bool(found["data"]) == (place != "the constants")
    out, err = capsys.readouterr()
    assert law in out
    assert "error: own" not in err and "Traceback" in err
    assert err.splitlines()[-1].endswith("ValueError: own (please report)")


def troubled(places: Sequence[cases.Place], scope: Scope) -> Any:
    """In a process of its own: dies on one case, as by a system without memory; what another finds cannot be sent."""
    if ("proposition_5_3", 1) in places:
        os._exit(1)
    if ("proposition_5_3", 3) in places:
        return threading.Lock()
    return cases._of_group(places, scope)


def test_a_process_that_dies_and_a_result_that_cannot_be_sent_cost_their_own_case_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cases, "FEW", 0)
    monkeypatch.setattr(cases, "_of_group", troubled)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    places = [("theorem_5_2", 0), ("proposition_5_3", 2), ("proposition_5_3", 1), ("proposition_5_3", 3)]
    assert places[1:] in cases._groups(places, Scope(1, "cpu"))
    found: dict[cases.Place, Any] = dict(cases.results(places, Scope(1, "cpu")))
    assert found.keys() == set(places)
    assert all(found[place].as_expected for place in places[:2])
    for place, reason in zip(places[2:], ("its process died", "internal error: .*pickle"), strict=True):
        assert found[place].verdict == "undecided"
        assert re.match(reason, found[place].details["reason"])


def test_own_data_is_checked_with_the_loss_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, report = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=1.0), tmp_path / "own.json"
    for loss, applies in [("exponential", "separable data"), ("logistic", "separable data and logistic loss")]:
        assert main(["proposition_5_7", "--data", path, "--loss", loss, "--json", str(report)]) == 0
        cases = {entry["case"] for entry in json.loads(report.read_text())["checks"]}
        assert {case for case in cases if case.startswith("fa, separable")} == {f"fa, {applies}"}
    assert main(["--loss", "logistic"]) == 2
    assert "--loss is for --data" in capsys.readouterr().err


def write_table(path: Path) -> str:
    """SEPARABLE as a table, with names for the labels."""
    rows = [
        ",".join([*map(repr, row), "up" if label > 0 else "down"])
        for row, label in zip(SEPARABLE.inputs.tolist(), SEPARABLE.labels.tolist(), strict=True)
    ]
    path.write_text("\n".join(["a,b,c,d,e,kind", *rows]))
    return str(path)


def test_a_table_is_checked_with_weights_that_are_made_up_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a name among the statements; the start meets the hypotheses of the theorems on starts."""
    path, report, page = write_table(tmp_path / "own.csv"), tmp_path / "own.json", tmp_path / "own.html"
    names = ["lemma_5_4", "proposition_5_3"]
    options = ["--label", "kind", "--width", "4", "--json", str(report), "--html", str(page)]
    assert main([*names, path, *options]) == 0
    found = json.loads(report.read_text())
    assert {(entry["name"], entry["verdict"]) for entry in found["checks"]} == {(name, "holds") for name in names}
    said = ["kind: down is -1, up is +1", "start: gaps, width 4, seed 0, scale "]
    assert found["said"][0] == said[0]
    assert found["said"][1].startswith(said[1]) and found["said"][1].endswith("gap 0.05, feedback random signs")
    out = capsys.readouterr().out
    assert all(line in out and line in page.read_text() for line in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["own.csv"],
            "own.csv has no column 'label': name that of the labels by --label, or label=, one of a, b, c, d, e, kind",
        ),
        (["own.csv", "--data", "own.npz"], "FILE must be one file, got own.csv and own.npz"),
        (["nowhere.csv"], "nowhere.csv cannot be read: No such file"),
        (
            ["lemma_9_9"],
            "NAME must be one of equation_1, .*, or a .npz, .csv or .parquet file, got 'lemma_9_9': .* lemma_5_4",
        ),
        (["--label", "kind"], "--label is for --data, or a file among the names, got 'kind'"),
        (["lemma_5_4", "--width", "3"], "--width is for --data, or a file among the names, got 3"),
        (["own.npz", "--width", "3"], "--width makes up weights, but own.npz has the keys hidden and output"),
        (["own.npz", "--init", "gaps"], "--init makes up weights, but own.npz"),
        (["own.csv", "--label", "kind", "--width", "0"], "--width must be an integer of at least 1, got 0"),
        (
            ["own.csv", "--label", "kind", "lemma_5_4", "--width", "0"],
            "--width must be an integer of at least 1, got 0",
        ),
        (["own.csv", "--label", "a"], "column 'a' of own.csv must hold two values, or classes, got 4 numbers such as "),
        (["own.csv", "--search", "1"], "--search does not go with --data, got 'own.csv'"),
    ],
)
def test_files_and_options_that_do_not_go_together_are_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_table(Path("own.csv"))
    write_problem(Path("own.npz"), SEPARABLE.labels)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.match(f"error: {message}", error), error
    assert error.count("\n") == 1
