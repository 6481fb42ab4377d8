"""`python -m theorems`: verdicts, reports, your own data, and what it says of bad input."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowsim import FeedbackAlignment, IntegrationError
from flowsim.data import orthogonally_separable
from flowsim.files import write_npz
from flowsim.initialization import gaussian, random_signs, with_gaps
from theorems import cases, lemma_5_4, own_data, proposition_5_3
from theorems.__main__ import main
from theorems.check import Case
from theorems.ensembles import Scope
from theorems.measurement import Claim, Compared
from theorems.observation import Observation

FEEDBACK = random_signs(4, 0)
SEPARABLE = orthogonally_separable(4, 5, 0.2, 0)
GOOD = with_gaps(gaussian(4, 5, 0).hidden, FeedbackAlignment(FEEDBACK), 0.1)


def test_a_run_that_cannot_go_on_is_undecided_with_the_reason() -> None:
    def stop() -> Any:
        raise IntegrationError(0.5, "because", 3, None)

    result = cases.outcome(Case(lemma_5_4.STATEMENT, "stopped", "theorem", [stop]))
    assert result.verdict == "undecided"
    assert "because" in result.details["reason"]
    assert not result.as_expected


def test_command_line_writes_json_and_html_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in ("report.json", "report.html")]
    status = main(["proposition_5_3", "lemma_5_4", "--seeds", "1", "--json", files[0], "--html", files[1]])
    assert status == 0
    report = json.loads(Path(files[0]).read_text())
    assert set(report) == {"version", "device", "dtype", "seconds", "complete", "checks", "findings"}
    assert report["dtype"] == "float64"
    assert report["complete"] is True
    keys = {"name", "case", "role", "verdict", "margin", "error_bound", "trajectories", "details"}
    assert all(set(entry) == keys for entry in report["checks"])
    assert {entry["name"] for entry in report["checks"]} == {"proposition_5_3", "lemma_5_4"}
    page = Path(files[1]).read_text()
    assert not re.search(r"(src|href)\s*=|@import|url\(", page), "the page loads nothing"
    for entry in report["checks"]:
        assert entry["case"].replace(">", "&gt;").replace("<", "&lt;") in page
    assert "8 of 8 checks as expected" in capsys.readouterr().out


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


def test_cases_in_several_processes_give_the_same_checks_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    names, scope = ["proposition_5_3", "lemma_5_4"], Scope(1, "cpu")
    places = cases.places(names, scope)
    here = list(cases.decided(places, scope))
    assert [place for place, _ in here] == places
    monkeypatch.setattr(cases, "FEW", 0)
    assert dict(cases.decided(places, scope)) == dict(here)


def test_the_table_shows_constants_proved_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Lemma 5.4 at width 5: 1 / sqrt(5) = 0.447 proved, and more measured."""
    assert main(["lemma_5_4", "--seeds", "1"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "c_j = 0, boundary" in line]
    *_, proved, measured, runs = row.split()
    assert proved == "0.447"
    assert 0.447 < float(measured) <= 1
    assert runs == "3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lemma_9_9"], "NAME must be one of equation_1, .* got 'lemma_9_9'"),
        (["--seeds", "0"], "--seeds must be an integer of at least 1, got 0"),
        (["--search", "0"], "--search must be a finite number above 0, got 0.0"),
        (["--search", "1", "--data", "x.npz"], "--search does not go with --data"),
        (["--search", "1", "--output", "/dev/null/x"], "--output /dev/null/x cannot be written: "),
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
    printed = capsys.readouterr().out
    assert "kappa = 0.2" in printed
    assert re.search(r"lemma_5_4: gd, sign preservation and +no +fails: rule is FeedbackAlignment", printed)
    assert re.search(r"kappa > 0 \(0\.2\)", printed)
    holding = found["checks"][0]["details"]["hypotheses"]
    assert all(state["holds"] for state in holding.values())


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
    refused = [item["hypotheses"] for item in found["inapplicable"] if item["case"].startswith("sign-fa, alignment")]
    assert not refused[0]["W_l != 0"]["holds"]
    assert refused[0]["rule is SignFeedbackAlignment"]["holds"]


def test_own_data_on_which_one_rule_stops_keeps_the_verdicts_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> Any:
        raise IntegrationError(0.5, "because", 0, None)

    path = write_problem(tmp_path / "own.npz", SEPARABLE.labels, t_final=0.1)
    runs = {**own_data.runs(path, "cpu"), "gd": stop}
    monkeypatch.setattr(own_data, "runs", lambda path, device, progress: runs)
    report = tmp_path / "own.json"
    assert main(["theorem_5_2", "--data", path, "--json", str(report)]) == 1
    verdicts = {entry["case"]: entry["verdict"] for entry in json.loads(report.read_text())["checks"]}
    law = "conservation of alignment"
    assert verdicts == {f"fa, {law}": "holds", f"sign-fa, {law}": "holds", f"gd, {law}": "undecided"}
