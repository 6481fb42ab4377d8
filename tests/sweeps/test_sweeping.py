"""Sweeps: the same rows whatever the processes, and what happens to them."""

import functools
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import default_client
from test_executor import wait_for

from flowsim.executor import execute_here
from flowsim.sweeps import command, sweep
from flowsim.sweeps import sweeping as module
from flowsim.sweeps.keys import grid_of
from flowsim.sweeps.results import MANIFEST, Results
from flowsim.sweeps.rows import solved_part

KEYS = {
    "samples": 5, "dimension": 4, "kappa": 0.1, "width": 4, "rule": ["fa", "sign-fa", "adafa"], "seeds": 4,
    "t_final": 5.0, "times": 4, "observables": ["loss", "alignment", "conserved_deviation"], "chunk": 2,
}  # fmt: skip


@functools.cache
def expected() -> pd.DataFrame:
    """The rows, chunk by chunk in this process."""
    grid = grid_of(KEYS)
    parts = [solved_part(grid, number).content for number in reversed(range(grid.chunks))]
    return pd.concat([pd.read_parquet(io.BytesIO(part)) for part in reversed(parts)], ignore_index=True)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are carried out in this process, as if there were no others."""
    monkeypatch.setattr(module, "execute", lambda function, items, **_: execute_here(function, items))


def require_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """To the last bit."""
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)


def test_rows_are_the_same_bits_from_two_processes_though_one_is_killed_as_from_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the folder is one that readers of parquet know."""
    killed: list[int] = []
    write = Results.write

    def killing(results: Results, number: int, content: bytes) -> None:
        if not killed:
            pids: Any = default_client().run(os.getpid)
            assert len(pids) == 2
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)
        write(results, number, content)

    monkeypatch.setattr(Results, "write", killing)
    found = sweep(KEYS, tmp_path / "rows", workers=2)
    require_same(found, expected())
    require_same(pd.read_parquet(tmp_path / "rows"), found)
    assert found.groupby("trajectory").size().tolist() == [4] * 12
    assert killed


COMMAND = """
import sys, time
from flowsim.sweeps import command, rows, sweeping
solve = rows.solved_part
def slowly(grid, number):
    time.sleep(0.3)
    return solve(grid, number)
if __name__ == "__main__":
    sweeping.solved_part = slowly
    sys.exit(command.main(sys.argv[1:]))
"""


def write_grid(path: Path) -> Path:
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in KEYS.items()))
    return path


def require_going_on(grid: Path, rows: Path) -> None:
    """To the same rows; all that was written is whole, and not written again."""
    there = {path: path.stat().st_mtime_ns for path in rows.glob("part-*.parquet")}
    assert 2 <= len(there) < 6
    require_same(sweep(grid, rows), expected())
    assert {path: path.stat().st_mtime_ns for path in there} == there
    require_same(sweep(grid, rows), expected())


def test_waiting_for_workers_is_said_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []

    def late(function: Any, numbers: Any, *, on_wait: Callable[[], None], **_: Any) -> Iterator[Any]:
        for number in numbers:
            on_wait()
            yield from execute_here(function, [number])

    monkeypatch.setattr(module, "execute", late)
    monkeypatch.setattr(module, "reporting", lambda: nullcontext(lambda *told: shown.append(told)))
    sweep({**KEYS, "rule": "fa"}, progress=True)
    assert shown == [
        (0.0, "waiting for workers, 0 of 2 chunks"),
        (0.5, "sweeping, 1 of 2 chunks"),
        (0.5, "waiting for workers, 1 of 2 chunks"),
        (1.0, "sweeping, 2 of 2 chunks"),
    ]


@pytest.mark.usefixtures("here")
def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    script, grid, rows = tmp_path / "script.py", write_grid(tmp_path / "grid.toml"), tmp_path / "rows"
    script.write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, str(script), str(grid), "--output", str(rows), "--workers", "1"], start_new_session=True
    )
    wait_for(lambda: len(list(rows.glob("part-*.parquet"))) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    require_going_on(grid, rows)


@pytest.mark.usefixtures("here")
def test_a_sweep_that_is_interrupted_says_how_it_goes_on_and_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How processes end with it is checked in tests/test_executor.py."""
    grid, rows = write_grid(tmp_path / "grid.toml"), tmp_path / "rows"
    write = Results.write

    def interrupted(results: Results, number: int, content: bytes) -> None:
        if number == 3:
            raise KeyboardInterrupt
        write(results, number, content)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", interrupted)
        assert command.main([str(grid), "--output", str(rows)]) == 130
    message = f"error: interrupted; the same command goes on with what is in {rows}\n"
    assert capsys.readouterr() == ("", message)
    require_going_on(grid, rows)


def test_a_folder_of_another_grid_is_refused_in_one_line_and_stays_as_it_is(tmp_path: Path) -> None:
    sweep({**KEYS, "chunk": 64, "rule": "fa"}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for change, message in [
        ({"seeds": 5}, "whose seeds is 4, not 5"),
        ({"slope": 0.5}, r"whose slope is \[0.3\], not \[0.5\]"),
    ]:
        with pytest.raises(ValueError, match=f"^output must be a folder of this grid, got one {message}: give another"):
            sweep({**KEYS, "chunk": 64, "rule": "fa", **change}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / MANIFEST).write_text("[")
    with pytest.raises(ValueError, match=f"^output must be .* got a {MANIFEST} that cannot be read"):
        sweep(KEYS, tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ValueError, match=f"^output must be .* got parquet files without {MANIFEST}"):
        sweep(KEYS, tmp_path)


@pytest.mark.usefixtures("here")
def test_a_file_of_data_that_was_written_to_since_is_named(tmp_path: Path) -> None:
    """Not only while a sweep lasts: also between an end and going on."""
    data, rows = tmp_path / "own.csv", tmp_path / "rows"
    keys = {"data": [str(data), "orthogonally_separable"], **{key: KEYS[key] for key in ("samples", "dimension")}}
    keys |= {"kappa": 0.1, "width": 4, "t_final": 1.0}
    data.write_text("x,y,label\n1,0,a\n0,1,b\n")
    found = sweep(keys, rows)
    data.write_text("x,y,label\n1,0,a\n0,2,b\n")
    message = (
        f"data {data} must stay what it was when the sweep into {rows} began, but it was written to: put it back, or "
        f"give another folder than {rows}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sweep(keys, rows)
    data.write_text("x,y,label\n1,0,a\n0,1,b\n")
    require_same(sweep(keys, rows), found)


@pytest.mark.usefixtures("here")
def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    """One of no bytes, one of others, one that is another's, and one that is not there."""
    whole = sweep(KEYS, tmp_path)
    results = Results(tmp_path, grid_of(KEYS))
    assert results.missing() == []
    results.path(0).write_bytes(b"")
    results.path(1).write_bytes(b"PAR1 or not")
    results.path(2).write_bytes(results.path(3).read_bytes())
    results.path(4).unlink()
    assert results.missing() == [0, 1, 2, 4]
    require_same(sweep(KEYS, tmp_path), whole)
    assert results.missing() == []


def test_a_chunk_that_fails_has_rows_that_say_so_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {**KEYS, "chunk": 64, "rule": "fa"}

    def broken(grid: Any, number: int) -> Any:
        raise KeyError("own")

    with monkeypatch.context() as patch:
        patch.setattr(module, "solved_part", broken)
        found = sweep(keys, tmp_path)
    assert (found.status == "failed").all() and (found.reason == "'own'").all() and len(found) == 16
    assert not list(tmp_path.glob("*.parquet"))
    assert (sweep(keys, tmp_path).status == "ended").all()
