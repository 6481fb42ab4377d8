"""Every case comes out as it should, and the command says so: tables, JSON, HTML, exit statuses."""

import contextlib
import importlib
import importlib.util
import json
import re
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from flowsim.enclosure import checker
from flowsim.npz import write_npz
from flowsim.problems import read_source
from theorems import cases, command
from theorems.command import main
from theorems.ensembles import Scope
from theorems.outcome import Outcome
from theorems.rigorous import lemma_5_4, own_data, proposition_5_7
from theorems.rigorous.claims import EnclosedRun
from theorems.rigorous.ensembles import margin_instance
from theorems.rigorous.instance import Instance

SCOPE = Scope(1, "cpu", rigorous=True)
PLACES = cases.places(list(cases.PROVED), SCOPE)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_theorems_are_proved_and_controls_refuted(place: cases.Place) -> None:
    name, number = place
    case = cases.cases_of(name, SCOPE)[number]
    found = cases.decide(case)
    assert found.verdict == ("proved" if case.role == "theorem" else "refuted")
    assert found.as_expected
    broken = [name for name, state in found.details["hypotheses"].items() if state["holds"] is False]
    assert len(broken) == (1 if case.role == "control" else 0)
    for claim in found.details["claims"].values():
        low, high = map(Fraction, claim["interval"])
        assert low <= high
        if "=" in claim and claim["verdict"] == "proved":
            assert high >= 0


def test_each_statement_has_theorem_cases_and_controls() -> None:
    for name in cases.PROVED:
        assert {case.role for case in cases.cases_of(name, SCOPE)} == {"theorem", "control"}


def test_instances_cover_slides_large_networks_and_long_times() -> None:
    every: list[Any] = [case for name in cases.PROVED for case in cases.cases_of(name, SCOPE)]
    runs = [case.runs[0]() for case in every]
    assert max(run.samples for run in runs) == 8
    assert max(run.width for run in runs) == 10
    assert max(run.t_final for run in runs) == 100
    assert {run.rule for run in runs} == {"FA", "sign-FA", "GD"}
    assert {run.loss for run in runs} == {"exponential", "logistic", "squared"}
    sliding = every[2].runs[0]()  # of Equation (1)
    assert any(event.kind == "sliding entry" for event in EnclosedRun(sliding, 64).enclosure.events)


def saved(instance: Instance, path: Path) -> str:
    arrays: dict[str, Any] = {
        "inputs": np.array(instance.inputs, dtype=float),
        "labels": np.array(instance.labels, dtype=float),
        "hidden": np.array(instance.hidden, dtype=float),
        "output": np.array(instance.output, dtype=float),
        "feedback": np.array(instance.feedback, dtype=float),
        "slope": 0.3,
        "t_final": float(instance.t_final),
    }
    write_npz(path, arrays)
    return str(path)


class Proved(NamedTuple):
    """What the command says of data of one's own, and where it has put its files."""

    instance: Instance
    report: dict[str, Any]
    page: str
    printed: str
    folder: Path


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    folder = tmp_path_factory.mktemp("own")
    instance = margin_instance("boundary", "FA", 0, samples=2, width=2, t_final=1, gap=Fraction(1, 8))
    own, report, page, certificate = (str(folder / name) for name in ("own.npz", "run.json", "run.html", "one.json"))
    options = ["--json", report, "--html", page, "--certificate", certificate]
    with contextlib.redirect_stdout(StringIO()) as printed:
        assert main(["--rigorous", "--data", saved(instance, Path(own)), *options]) == 0
    return Proved(instance, json.loads(Path(report).read_text()), Path(page).read_text(), printed.getvalue(), folder)


def test_it_is_said_that_many_rows_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "prove_on_data", lambda *_: Outcome("data"))
    for rows, said in [(12, ""), (13, "flowsim: proofs on 13 rows may take hours: they are for about 12\n")]:
        path = tmp_path / f"{rows}.csv"
        path.write_text("a,b,label\n" + "".join(f"{row},1,{row % 2}\n" for row in range(rows)))
        main(["lemma_5_4", str(path), "--rigorous"])
        assert capsys.readouterr().err == said


def test_own_data_are_proved_and_json_and_html_have_the_intervals(proved: Proved) -> None:
    report, page, printed = proved.report, proved.page, proved.printed
    assert report["dtype"] == "ball arithmetic"
    assert set(report["rigorous"]) == {"flowsim", "python-flint", "flint", "python"}
    assert report["data"]["R^2"][0] == report["data"]["R^2"][1]
    for entry in report["checks"]:
        assert entry["verdict"] == "proved"
        assert [run["bits"] for run in entry["details"]["runs"]] == [own_data.BITS]
        for claim in entry["details"]["claims"].values():
            assert Fraction(claim["interval"][0]) <= Fraction(claim["interval"][1])
            assert f"[{claim['interval'][0]}, {claim['interval'][1]}]" in page
    rows = {(entry["name"], entry["case"]) for entry in report["checks"]}
    assert ("lemma_5_4", "fa, sign preservation and alignment") in rows
    out = {item["case"]: item["hypotheses"] for item in report["inapplicable"]}
    assert out["gd, boundary data"]["rule is FA or sign-FA"]["holds"] is False
    assert not re.search(r"(src|href)\s*=|@import|url\(", page), "the page loads nothing"
    assert "as proved" in page
    assert "python-flint" in page
    assert "proved" in printed
    assert f"{len(report['checks'])} of {len(report['checks'])} checks as expected" in printed


def test_certificates_of_own_data_are_verified_and_say_what_the_report_does(proved: Proved) -> None:
    (check,) = [item for item in proved.report["checks"] if item["case"] == "fa, boundary data"]
    excess = list(map(Fraction, check["details"]["claims"]["<grad, fa> >= mu L^2"]["interval"]))
    mu = proposition_5_7.mu_boundary(replace(proved.instance, slope=Fraction(0.3)))
    for rule in ("fa", "sign-fa", "gd"):
        stored = json.loads((proved.folder / f"one.{rule}.json").read_text())
        lines = checker.verify(stored)
        assert len(lines) == 1 + len(stored["claims"])
        assert {claim["observable"] for claim in stored["claims"]} >= {"dominance", "gap"}
        if rule == "fa":
            (least,) = [claim for claim in stored["claims"] if claim["observable"] == "dominance"]
            low, high = (Fraction(least[end]) / mu - 1 for end in ("lower", "upper"))
            assert low <= excess[0] <= excess[1] <= high
            assert float(high - low) < 1e-6
        stored["claims"][0]["lower"] = stored["claims"][0]["upper"]
        with pytest.raises(checker.Rejected):
            checker.verify(stored)


def test_own_data_are_taken_exactly(tmp_path: Path) -> None:
    """0.3 is not 3/10, and c_j = 0 is not below 0."""
    own = margin_instance("boundary", "FA", 0, samples=2, width=2, t_final=1)
    hidden = tuple((Fraction(1, 2), Fraction(0), Fraction(0)) for _ in own.output)
    output = tuple(b * Fraction(1, 8) for b in own.feedback or ())
    file = saved(replace(own, hidden=hidden, output=output), tmp_path / "own.npz")
    from theorems import own_data as measured  # noqa: PLC0415

    run = own_data.runs(*measured.problems(read_source(file)))["fa"]()
    assert set(run.instance.gaps) == {0}
    assert run.instance.hidden == hidden
    assert run.instance.slope == Fraction(0.3) != Fraction(3, 10)
    assert all(item.holds for item in lemma_5_4.hypotheses(run))


def test_a_start_with_several_solutions_is_undecided_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A neuron on a kink that repels: dz/dt is about 9/8 - 3/4 on its active side, 0.3 * 9/8 - 3/4 on the other."""
    own = margin_instance("boundary", "FA", 0, samples=2, width=1, t_final=1)
    rows = ((Fraction(3, 2), Fraction(0)), (Fraction(1), Fraction(1)))
    ones = (Fraction(1),)
    start = replace(own, inputs=rows, labels=(1, -1), hidden=((0 * ones[0], ones[0]),), output=ones, feedback=ones)
    file = saved(replace(start, output=(Fraction(1, 64),)), tmp_path / "own.npz")
    assert main(["lemma_5_4", "--data", file, "--rigorous"]) == 1
    assert "undecided" in capsys.readouterr().out


def test_a_verdict_that_is_not_as_expected_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A control in the place of a theorem does not apply, and a theorem in that of a control breaks nothing."""
    tight = [case for case in proposition_5_7.cases(SCOPE) if "identical" in case.label]
    right, control = tight[0], tight[2]
    monkeypatch.setattr(proposition_5_7, "cases", lambda scope: [right, control])
    assert main(["proposition_5_7", "--rigorous"]) == 0
    for wrong in (replace(control, role="theorem"), replace(right, role="control")):
        monkeypatch.setattr(proposition_5_7, "cases", lambda scope, wrong=wrong: [right, wrong])
        assert main(["proposition_5_7", "--rigorous"]) == 1
        assert "1 of 2 checks as expected" in capsys.readouterr().out.replace("2 of 2 checks as expected", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--full"], "--rigorous goes with neither --full nor --device"),
        (["--certificate", "x.json"], "--certificate goes with --rigorous and --data: it is of the run of one problem"),
        (["--search", "1"], "--search does not go with --rigorous: prove what it finds by --data FILE --rigorous"),
    ],
)
def test_what_does_not_go_with_it_exits_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--rigorous", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_without_python_flint_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "flint" else find(name, *rest))
    assert main(["--rigorous"]) == 2
    assert capsys.readouterr().err == 'error: --rigorous needs python-flint: pip install ".[rigorous]"\n'
