"""What the experiments share: the loop that resumes to the last bit, the table and its file, claims, and processes."""

import inspect
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from rich.console import Console
from test_executor import wait_for

from figures.experiments import table, training
from figures.experiments.claims import Claim, always, beyond_error, claims_table
from figures.experiments.processes import Run, carry_out
from figures.experiments.table import array_of, over_repeats, table_of
from figures.experiments.training import State, state_path, train
from flowsim import progress
from flowsim.executor import ProcessDiedError

# --- the loop ---


def advance(state: State) -> State:
    """A chaotic map, which shows every bit."""
    x = 3.9 * state["x"] * (1 - state["x"])
    return {"epoch": state["epoch"] + 1, "records": [*state["records"], x], "x": x, "parts": {"half": [x / 2]}}


def first() -> State:
    x = torch.tensor([0.1, 0.2], dtype=torch.float64)
    return {"epoch": 0, "records": [x], "x": x, "parts": {"half": [x / 2]}}


def ends(state: State) -> bool:
    return state["epoch"] == 30


class Stop(Exception):  # noqa: N818
    """Something that fails."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("where", ["while advancing", "between epochs"])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits(
    kind: type[BaseException], where: str, tmp_path: Path
) -> None:
    path, whole = tmp_path / "run.partial", train(first(), advance, ends, tmp_path / "whole")

    def failing(at: int) -> Callable[[State], State]:
        def advance_or_fail(state: State) -> State:
            if state["epoch"] + 1 == at:
                raise kind
            return advance(state)

        return advance_or_fail

    def told(at: int) -> Callable[[int], None]:
        def advanced(epoch: int) -> None:
            if epoch == at:
                raise kind

        return advanced

    for at in (7, 8, 20):
        with pytest.raises(kind):
            if where == "while advancing":
                train(first(), failing(at), ends, path)
            else:
                train(first(), advance, ends, path, told(at))
        saved = torch.load(path, weights_only=True)
        assert saved["epoch"] == at - (where == "while advancing") == len(saved["records"]) - 1
    seen: list[int] = []
    again = train(first(), advance, ends, path, seen.append)
    assert seen == list(range(seen[0], 31)) and seen[0] >= 19
    assert torch.equal(torch.stack(again["records"]), torch.stack(whole["records"]))
    assert torch.equal(again["parts"]["half"][0], whole["parts"]["half"][0])


def test_it_is_saved_so_often_and_not_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(training.time, "monotonic", lambda: float(next(seconds)))
    saved: list[int] = []
    monkeypatch.setattr(training, "save", lambda path, state: saved.append(state["epoch"]))
    train(first(), advance, ends, tmp_path / "run", save_every=10.0)
    assert saved == [10, 20, 30, 30], "every ten seconds, and at the end"


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.zeros(3, dtype=torch.float64)},
        {"x": torch.zeros(2)},
        {"x": 0.5},
        {"more": 1},
        {"epoch": "3"},
        {"parts": {"half": []}},
        {"parts": {"other": [torch.zeros(2, dtype=torch.float64)]}},
        {"records": [torch.zeros(1, dtype=torch.float64)]},
    ],
)
def test_a_state_that_is_made_up_otherwise_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.partial"
    torch.save({**first(), **change}, path)
    with pytest.raises(ValueError, match=r"run.partial is not the state of a run: .+; delete it to start anew"):
        train(first(), advance, ends, path)


def test_a_state_that_would_run_something_is_not_run(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "run.partial"
    torch.save({**first(), "x": Malicious()}, path)
    with pytest.raises(ValueError, match="is not the state of a run"):
        train(first(), advance, ends, path)
    assert not (tmp_path / "executed").exists()


def test_states_of_other_settings_or_data_have_other_names(tmp_path: Path) -> None:
    one, other = torch.zeros(3), torch.tensor([0.0, 0.0, 1e-30])
    names = {
        state_path(tmp_path, "run", settings, data)
        for settings, data in [((1, "cpu"), [one]), ((2, "cpu"), [one]), ((1, "cuda"), [one]), ((1, "cpu"), [other])]
    }
    assert len(names) == 4
    assert state_path(tmp_path, "run", (1, "cpu"), [one.clone()]) in names


# --- the table ---


def test_a_table_comes_back_from_its_file_with_every_bit(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((2, 3, 5, 2)) * 10.0 ** generator.integers(-300, 300, (2, 3, 5, 2))
    values[0, 0, 0] = np.nan, np.inf
    axes = {"rule": ["GD", "sign-FA"], "repeat": range(3), "epoch": [0, 5, 10, 15, 20]}
    made = table_of(values, axes, ["loss", "cosine"])
    table.write(made, tmp_path / "table.csv")
    back = table.read(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(back, made, check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    row = back[(back["rule"] == "sign-FA") & (back["repeat"] == 2) & (back["epoch"] == 15)]
    assert row["cosine"].item() == values[1, 2, 3, 1]
    for quantity in range(2):
        shuffled = back.sample(frac=1, random_state=0).sort_values(["rule", "repeat", "epoch"])
        found = array_of(shuffled, ["loss", "cosine"][quantity], "epoch", "rule", "repeat")
        np.testing.assert_array_equal(found, values[..., quantity].transpose(2, 0, 1))


def test_arrays_have_no_number_where_there_is_no_row_and_refuse_two_rows_in_one_place() -> None:
    made = table_of(np.arange(4.0).reshape(2, 2, 1), {"rule": ["GD", "FA"], "epoch": [0, 1]}, ["loss"])
    np.testing.assert_array_equal(array_of(made.iloc[:3], "loss", "rule", "epoch"), [[0, 1], [2, np.nan]])
    with pytest.raises(ValueError, match="axes must tell all rows apart, got rule"):
        array_of(made, "loss", "rule")


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table_of(np.zeros((1, 1)), {"epoch": [0]}, ["loss"])
    path = tmp_path / "table.csv"
    table.write(made, path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space left"):
        table.write(made.assign(loss=1.0), path)
    assert table.read(path)["loss"].tolist() == [0.0]


def test_standard_errors() -> None:
    mean, error = over_repeats(np.array([[1.0, 2.0, 6.0], [1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(mean, [3.0, 1.0])
    np.testing.assert_allclose(error, [7**0.5 / 3**0.5, 0.0])
    assert np.isnan(over_repeats(np.ones((2, 1))).error).all()


# --- claims ---


def test_verdicts_are_by_standard_errors() -> None:
    surely, unsure = [2.0, 3.0, 4.0], [-1.0, 1.5, 0.1]
    assert beyond_error(np.array([surely, surely])) == "agrees"
    assert beyond_error(np.array([surely, unsure])) == "undecided"
    assert beyond_error(-np.array([unsure, surely])) == "disagrees"
    assert beyond_error(np.array([[2.0]])) == "undecided", "one repeat decides nothing"
    assert beyond_error(np.array([surely, [np.nan, 1.0, 1.0]])) == "undecided"
    assert (always(np.array([True, True])), always(np.array([True, False]))) == ("agrees", "disagrees")


def test_claims_are_printed_in_rows() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(claims_table("Title", [Claim("it holds", "by 3", "agrees"), Claim("or not", "by 0", "undecided")]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Title" in text and re.search(r"or not\W+by 0\W+undecided", text)


# --- processes ---


def job(name: str, path: Path, tell: Callable[[float], None]) -> tuple[str, int, float]:
    started = time.monotonic()
    if name == "fails":
        raise ValueError("of its own")
    tell(0.5)
    if name == "dies":
        train(first(), advance, ends, path, die_at_10, save_every=0.0)
    return name, torch.get_num_threads(), started


def die_at_10(epoch: int) -> None:
    if epoch == 10:
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_longest_runs_come_first_and_one_that_fails_or_dies_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread each; how far they are is told meanwhile; what died is as far as it was saved last."""
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "LONGEST", 0.0)
    stream, path = io.StringIO(), tmp_path / "run.partial"
    runs = [
        Run(name, cost, job, lambda name=name: (name, path))
        for cost, name in enumerate(["short", "fails", "dies", "long", "longest"], start=1)
    ]
    found = list(carry_out(runs, 1, stream))
    assert [run.name for run, _ in found] == ["longest", "long", "fails", "short", "dies"]
    futures = {run.name: future for run, future in found}
    results = [futures[name].result() for name in ("longest", "long", "short")]
    assert [name for name, _, _ in results] == ["longest", "long", "short"]
    assert {threads for _, threads, _ in results} == {1}
    assert sorted(started for _, _, started in results) == [started for _, _, started in results]
    with pytest.raises(ValueError, match="of its own"):
        futures["fails"].result()
    with pytest.raises(ProcessDiedError, match="its process died"):
        futures["dies"].result()
    lines = stream.getvalue().splitlines()
    assert lines[-1].startswith("5 of 5 runs: 100 % after")
    assert any(re.match(r"1 of 5 runs: (33|47) % after \d+ s, about \d+ s left", line) for line in lines)
    seen: list[int] = []
    again, whole = train(first(), advance, ends, path, seen.append), train(first(), advance, ends, tmp_path / "whole")
    assert seen == list(range(9, 31))
    assert torch.equal(torch.stack(again["records"]), torch.stack(whole["records"]))


ENDED = """
import os, sys, time
from pathlib import Path
import torch
from figures.experiments.processes import Run, carry_out
from figures.experiments.training import State, train
{first}
{advance}
def slowly(state):
    time.sleep(0.05)
    return advance(state)
def go(folder, number, tell):
    def told(epoch):
        if epoch == 1:
            Path(folder, f"{{number}}.pid").write_text(str(os.getpid()))
    path = Path(folder, f"{{number}}.partial")
    train(first(), slowly, lambda state: state["epoch"] == 400, path, told, save_every=1e9)
if __name__ == "__main__":
    runs = [Run(str(n), 1.0, go, lambda n=n: (sys.argv[1], n)) for n in range(2)]
    try:
        list(carry_out(runs, 2))
    except KeyboardInterrupt:
        sys.exit(130)
"""
"""Runs that last 20 seconds: what they need of this module is written out, as it imports much else."""


def test_ctrl_c_ends_all_processes_which_save_where_they_are(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ENDED.format(first=inspect.getsource(first), advance=inspect.getsource(advance)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    for number in range(2):
        assert not psutil.pid_exists(int((tmp_path / f"{number}.pid").read_text()))
        state = torch.load(tmp_path / f"{number}.partial", weights_only=True)
        assert 0 < state["epoch"] < 400
        seen: list[int] = []
        again = train(first(), advance, lambda at: at["epoch"] == 400, tmp_path / f"{number}.partial", seen.append)
        assert seen[0] == state["epoch"]
        direct = train(first(), advance, lambda at: at["epoch"] == 400, tmp_path / f"{number}.whole")
        assert torch.equal(again["x"], direct["x"])
