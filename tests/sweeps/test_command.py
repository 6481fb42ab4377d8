"""`flowsim sweep`: one line for what is wrong, and an example that runs."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flowsim.executor import ProcessDiedError
from flowsim.sweeps import sweeping
from flowsim.sweeps.command import main
from flowsim.sweeps.results import Results

GRID = """\
samples = 4
dimension = 3
kappa = 0.1
width = 4
t_final = 1.0
seeds = 3
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_rows_are_written_and_how_many_is_said(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows"
    for new in ("3 of them new: 3 ended", "0 of them new"):
        assert main([str(grid), "--output", str(rows)]) == 0
        assert capsys.readouterr() == (f"{rows}: 3 trajectories, {new}\n", "")
    assert len(pd.read_parquet(rows)) == 3


def test_the_example_is_printed_and_its_words_are_those_of_a_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--example"]) == 0
    path = tmp_path / "example.toml"
    text = capsys.readouterr().out
    path.write_text(text.replace("width = [10, [10, 10]]", "width = 10").replace("seeds = 8", "seeds = 1"))
    small = path.read_text().replace('["gd", "fa", "adafa", "sign-fa"]', '"fa"').replace("[0.5, 1.0]", "1.0")
    path.write_text(small.replace('["orthogonally_separable", "gaussian"]', '"orthogonally_separable"'))
    assert main([str(path), "--output", str(tmp_path / "rows")]) == 0
    assert len(pd.read_parquet(tmp_path / "rows")) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "GRID.toml must be given; flowsim sweep --example prints a grid"),
        (["{grid}"], "--output must be given; flowsim sweep --example prints a grid"),
        (["missing.toml", "--output", "x"], "missing.toml cannot be read: No such file or directory"),
        (["{grid}", "--output", "{grid}"], "output {grid} must be a folder, got a file: name another"),
        (["{grid}", "--output", "{rows}", "--workers", "0"], "--workers must be an integer of at least 1, got 0"),
        (
            ["{grid}", "--output", "{rows}", "--workers", "2", "--scheduler", "tcp://x:1"],
            "--workers does not go with --scheduler, which has its own, got 2",
        ),
        (["{grid}", "--output", "{rows}", "--scheduler", "nowhere"], "scheduler nowhere cannot be reached: "),
    ],
)
def test_bad_command_lines_exit_2_with_one_line(
    arguments: list[str], message: str, grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"grid": grid, "rows": tmp_path / "rows"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"error: {message.format(**places)}") and err.count("\n") == 1


@pytest.mark.parametrize("error", [ProcessDiedError("its process died"), KeyError("own")])
def test_a_chunk_that_fails_is_status_1_and_own_mistakes_are_shown(
    error: Exception, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(grid: Any, number: int) -> Any:
        raise error

    monkeypatch.setattr(sweeping, "solved_part", broken)
    assert main([str(grid), "--output", str(tmp_path / "rows")]) == 1
    out, err = capsys.readouterr()
    assert f"3 failed (the first: {error})" in out
    own = isinstance(error, KeyError)
    assert ("Traceback" in err) == own and ("internal error in chunk 0: KeyError: 'own' (please report)" in err) == own


def test_a_disk_that_is_full_is_one_line(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Results, "write", full)
    rows = tmp_path / "rows"
    assert main([str(grid), "--output", str(rows)]) == 2
    err = f"error: {rows} cannot be written: No space left on device; the same command goes on with what is there\n"
    assert capsys.readouterr() == ("", err)
