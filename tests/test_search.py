"""The search for counterexamples: instances meet the hypotheses, planted ones are found, files say the same again."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from flowsim import Dataset, Weights, progress
from theorems import equation_1, lemma_5_4, own_data, proposition_5_7, search
from theorems.cases import OF_FLOWS
from theorems.check import Statement
from theorems.command import main
from theorems.constants import mu_svm
from theorems.measurement import measure
from theorems.search import TARGETS, Hunt, Setting, Target

SETTINGS = [Setting(4, 3, 1.0, 0.1), Setting(2, 4, 0.1, 0.1), Setting(3, 2, 0.45, 0.3)]


def ids(target: Target) -> str:
    return target.file.removesuffix(".npz")


def evaluations(limit: int) -> Callable[[Hunt], float]:
    return lambda hunt: hunt.evaluations / limit


def points_of(setting: Setting, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, search.dimension(setting), generator=generator, dtype=torch.float64)


def target_of(statement: Statement, rule: str = "fa") -> Target:
    (target,) = [item for item in TARGETS if item.statement.title == statement.title and item.rule == rule]
    return target


def overstated(factor: float) -> Target:
    """A false statement: the sharpest constant for separable data, and some more."""
    claims = proposition_5_7.with_constant(lambda solution: factor * mu_svm(solution))
    return Target(replace(proposition_5_7.ANY_SEPARABLE, claims=claims), "fa", "separable")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round has few random points."""
    monkeypatch.setattr(search, "RESTARTS", 8)


@pytest.mark.parametrize("target", TARGETS, ids=ids)
@pytest.mark.parametrize("setting", SETTINGS)
def test_instances_meet_the_hypotheses_wherever_the_point_is(target: Target, setting: Setting) -> None:
    random = points_of(setting, 8)
    corners = [torch.zeros_like(random[:1]), torch.ones_like(random[:1]), random[:4].round()]
    points = torch.cat([random, *corners, torch.full_like(random[:1], 0.5)])
    solution, which = search._solved(*search.instances(target, setting, points), setting.t_final)
    assert solution is not None
    assert len(which) == len(points)
    for hypothesis in target.statement.hypotheses(solution):
        assert hypothesis.holds, (hypothesis.name, hypothesis.slack.min())


def test_every_statement_that_data_checks_is_searched_but_for_those_that_others_cover_or_without_instances() -> None:
    names = set(OF_FLOWS) - {"never_obtuse", "linear_networks", "no_plateau", "implicit_bias"}
    titles = {item.title for item in own_data.STATEMENTS if item.name in names}
    assert {target.statement.title for target in TARGETS} == titles
    assert len({target.file for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS[2], TARGETS[8], TARGETS[-1]], ids=ids)
def test_margins_at_the_nodes_are_those_of_the_check_between_them_aside(target: Target) -> None:
    setting = SETTINGS[2]._replace(t_final=2.0)
    points = points_of(setting, 8)
    solution, _ = search._solved(*search.instances(target, setting, points), setting.t_final)
    assert solution is not None
    statement = target.statement
    measured = torch.stack([item.margin for item in measure(statement.claims, solution, statement.rate)]).amin(0)
    difference = search.margins(target, setting, points) - measured
    assert (difference >= -1e-9).all()
    assert (difference <= 1e-12 + 0.1 * measured.abs()).all()


def test_what_cannot_be_solved_is_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    target, setting = target_of(lemma_5_4.STATEMENT), SETTINGS[2]
    points = points_of(setting, 5)
    without = search.margins(target, setting, points)
    flow, weights = search.instances(target, setting, points)
    factors = torch.tensor([1.0, 1e12, 1.0, 1e12, 1.0], dtype=torch.float64).unsqueeze(-1)
    larger = Weights(weights.hidden, weights.output * factors)
    # at the wrong labels losses are e^|f|: they overflow
    outputs, labels = flow.outputs(larger).squeeze(-1), flow.dataset.labels
    dataset = Dataset(flow.dataset.inputs, torch.where(factors > 1, -torch.sign(outputs), labels))
    flow = replace(flow, dataset=dataset)
    monkeypatch.setattr(search, "instances", lambda *_: (flow, larger))
    found = search.margins(target, setting, points)
    assert found.isinf().tolist() == [False, True, False, True, False]
    assert torch.equal(found[::2], without[::2])


def test_descents_stay_in_the_cube(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(search, "margins", lambda target, setting, points: seen.append(points) or points.sum(-1))
    hunt = Hunt(TARGETS[0], evaluations(4000))
    hunt.run()
    assert len(seen) > 2
    assert all(((points >= 0) & (points <= 1)).all() for points in seen)


def test_a_false_statement_that_holds_on_typical_instances_is_refuted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "RESTARTS", 64)
    factor = 1.005
    target = overstated(factor)
    typical = torch.cat([search.margins(target, setting, points_of(setting, 10)) for setting in SETTINGS])
    assert typical.median() > 0
    hunt = Hunt(target, evaluations(1000))
    hunt.run()
    result = search.keep(hunt, tmp_path).check
    assert result.verdict == "violated"
    assert result.margin is not None
    assert 1 / factor - 1 - 1e-6 <= result.margin < 0


def test_descents_reach_what_random_points_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(proposition_5_7.BOUNDARY)
    hunt, random = (Hunt(target, evaluations(500)) for _ in range(2))
    hunt.run()
    monkeypatch.setattr(Hunt, "_descend", lambda *_: None)
    random.run()
    assert 0 < hunt.margin < random.margin / 20


def test_the_same_number_of_evaluations_gives_the_same_instance() -> None:
    hunts = [Hunt(target_of(lemma_5_4.STATEMENT), evaluations(250)) for _ in range(2)]
    for hunt in hunts:
        hunt.run()
    first, second = (hunt.tightest for hunt in hunts)
    assert first.keys() == second.keys() == {"inputs", "labels", "hidden", "output", "feedback", "slope", "t_final"}
    assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "target", [target_of(lemma_5_4.STATEMENT), target_of(proposition_5_7.BOUNDARY, "sign-fa"), TARGETS[5]], ids=ids
)
def test_data_says_the_same_of_the_file(target: Target, tmp_path: Path) -> None:
    hunt = Hunt(target, evaluations(60))
    hunt.run()
    found = search.keep(hunt, tmp_path)
    assert found.file == tmp_path / target.file
    assert found.evaluations == hunt.evaluations >= 60
    main(["--data", str(found.file), target.statement.name, "--json", str(tmp_path / "checks.json")])
    checks = json.loads((tmp_path / "checks.json").read_text())["checks"]
    case = f"{target.rule}, {target.statement.title.split(', ', 1)[1]}"
    (entries,) = [item["details"]["claims"] for item in checks if item["case"] == case]
    entry = min((entries[claim.name] for claim in target.statement.claims), key=lambda entry: entry["margin"])
    assert (found.check.margin, found.check.error_bound) == (entry["margin"], entry["error_bound"])
    assert entry["place"] in found.claim
    # sign-FA's neurons have no feedback weights of their own
    assert ("feedback" in hunt.tightest) == (target.rule == "fa")


@pytest.mark.usefixtures("few")
def test_a_search_keeps_one_file_for_each_target(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=150)
    found = list(search.search(0.005, ["lemma_5_4", "equation_1"], "cpu", tmp_path / "new" / "folder", console))
    assert [item.check.name for item in found] == [*["equation_1"] * 2, "lemma_5_4", *["equation_1"] * 2]
    assert all(item.file.is_file() and item.evaluations >= search.RESTARTS for item in found)
    assert {item.check.verdict for item in found} == {"holds"}
    assert all(item.summary()["margin"] == item.check.margin for item in found)
    console.print(search.table(found))
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert sum("equation_1: FA, any data " in line and "holds" in line for line in lines) == 1


@pytest.mark.usefixtures("few")
def test_an_interrupt_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    margins = search.margins

    def interrupted(target: Target, setting: Setting, points: torch.Tensor) -> torch.Tensor:
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return margins(target, setting, points)

    monkeypatch.setattr(search, "margins", interrupted)
    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(search.search(5.0, ["proposition_5_7"], "cpu", tmp_path, Console(file=StringIO())))
    assert [item.check.case for item in found] == ["FA, orthogonally separable data"]
    assert found[0].file.is_file()
    assert found[0].check.margin is not None
    assert len(calls) == 3


@pytest.mark.usefixtures("few")
def test_a_search_that_fails_costs_neither_what_it_had_found_nor_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls, margins = [], search.margins

    def wrong(target: Target, setting: Setting, points: torch.Tensor) -> torch.Tensor:
        calls.append(target)
        if target.rule == "fa" and len(calls) == 2:
            raise ValueError("own")
        return margins(target, setting, points)

    monkeypatch.setattr(search, "margins", wrong)
    monkeypatch.setattr(search, "_clock", lambda *_: evaluations(search.RESTARTS + 1))
    report = tmp_path / "report.json"
    arguments = ["equation_1", "--search", "5", "--output", str(tmp_path), "--json", str(report)]
    assert main(arguments) == 1
    found = json.loads(report.read_text())["search"]
    assert [item["verdict"] for item in found] == ["holds", "undecided", "holds", "holds", "holds"]
    assert found[1]["claim"] == "internal error: ValueError: own"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "internal error in equation_1, FA, any data: ValueError: own (please report)"


@pytest.mark.usefixtures("few")
def test_a_file_that_cannot_be_written_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST", math.inf)
    first, second = (tmp_path / target.file for target in TARGETS[:2])
    first.symlink_to("/dev/full")
    report = tmp_path / "report.json"
    assert main(["equation_1", "--search", "0.002", "--output", str(tmp_path), "--json", str(report)]) == 2
    found = json.loads(report.read_text())["search"]
    assert [item["verdict"] for item in found] == ["undecided", "holds", "holds", "holds"]
    assert second.is_file()
    assert capsys.readouterr().err == f"error: {first} cannot be written: No space left on device\n"


@pytest.mark.usefixtures("few")
def test_an_interrupted_search_has_the_status_of_shells_and_says_that_it_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, margins = [], search.margins

    def interrupted(target: Target, setting: Setting, points: torch.Tensor) -> torch.Tensor:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return margins(target, setting, points)

    monkeypatch.setattr(search, "margins", interrupted)
    path = tmp_path / "report.json"
    assert main(["equation_1", "--search", "5", "--output", str(tmp_path), "--json", str(path)]) == 130
    found = json.loads(path.read_text())
    assert found["complete"] is False
    assert [item["case"] for item in found["search"]] == ["FA, any data"]


@pytest.mark.usefixtures("few")
def test_lines_say_how_far_a_search_is_where_nobody_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST", "LONGEST"):
        monkeypatch.setattr(progress, name, 0.0)
    console = Console(file=StringIO(), width=150)
    list(search.search(0.002, ["equation_1"], "cpu", tmp_path, console))
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert any(
        re.match(r"equation_1, FA, any data: \S+: \d+ % after \d+ s(, about \d+ s left)?$", line) for line in lines
    )
    shares = [int(line.split(": ")[-1].split(" %")[0]) for line in lines]
    assert shares == sorted(shares) and shares[-1] == 100, "of the whole search, not of one target"


@pytest.mark.usefixtures("few")
def test_a_counterexample_is_said_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TARGETS", [overstated(50.0)])
    console = Console(file=StringIO(), width=150)
    found = list(search.search(0.01, ["proposition_5_7"], "cpu", tmp_path, console))
    console.print(search.table(found))
    assert isinstance(console.file, StringIO)
    assert "counterexample to proposition_5_7" in console.file.getvalue()
    assert "violated" in console.file.getvalue()


@pytest.mark.usefixtures("few")
def test_a_file_that_cannot_be_checked_is_undecided_with_the_reason(tmp_path: Path) -> None:
    hunt = Hunt(target_of(equation_1.STATEMENT), evaluations(1))
    hunt.run()
    hunt.tightest["output"] = -1e5 * np.ones_like(hunt.tightest["output"])
    hunt.tightest["inputs"] = np.abs(hunt.tightest["inputs"])
    hunt.tightest["hidden"] = np.abs(hunt.tightest["hidden"])
    hunt.tightest["labels"] = np.ones_like(hunt.tightest["labels"])
    found = search.keep(hunt, tmp_path)
    assert (found.check.verdict, found.check.margin) == ("undecided", None)
    assert "stopped" in found.claim
    search.table([found])


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_the_time_must_be_positive(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="minutes must be a finite number above 0"):
        list(search.search(minutes, ["lemma_5_4"], "cpu", tmp_path, Console(file=StringIO())))
