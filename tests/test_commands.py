"""The command `flowsim`: its sub-commands, what is loaded for which, and what is said of those that are not there."""

import gc
import importlib.metadata
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowsim import commands
from flowsim.commands import version

FLOWSIM = [sys.executable, "-m", "flowsim"]
COMMANDS = {"check", "draw", "simulate", "sweep", "version"}


def entry(value: str, name: str = "own") -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, value, commands.GROUP)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let there be one command, "own"."""
    return lambda value: monkeypatch.setattr(commands, "commands", lambda: {"own": entry(value)})


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The only line of one that ends with status 2."""
    with pytest.raises(SystemExit) as leaving:
        commands.run(arguments)
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_help_lists_every_command_with_a_line_and_loads_neither_torch_nor_the_commands() -> None:
    loaded = "import sys, flowsim.commands as c; print(c.parser().format_help()); print(*sys.modules, file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    lines = dict(re.findall(r"^  (\w+) {2,}(\S.+)$", shown.stdout, re.MULTILINE))
    assert lines.keys() >= COMMANDS
    assert lines["version"] == (version.__doc__ or "")
    modules = set(shown.stderr.split())
    assert not modules & {"torch", "rich", "matplotlib", "scipy", "theorems", "figures", "flowsim.commands.simulate"}


def test_every_command_is_there_and_has_a_first_line() -> None:
    found = commands.commands()
    assert found.keys() >= COMMANDS
    assert all(commands.summary(item.module) for item in found.values())
    assert commands.summary("flowsim.no_such_module") == ""


def test_a_command_gets_what_stands_behind_its_name_options_included(
    only: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only("flowsim.commands.version:main")
    seen: list[list[str]] = []
    monkeypatch.setattr(version, "main", lambda arguments: seen.append(list(arguments)) or 3)
    for arguments in (["--help"], ["a", "--version", "b"], []):
        with pytest.raises(SystemExit) as leaving:
            commands.run(["own", *arguments])
        assert leaving.value.code == 3
        assert seen.pop() == arguments


def test_a_command_that_there_is_not_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str], only: Callable[[str], None]
) -> None:
    only("flowsim.commands.version:main")
    assert refused(capsys, "simulat") == "error: COMMAND must be one of own, got 'simulat'\n"
    assert refused(capsys, "owm") == "error: COMMAND must be one of own, got 'owm': did you mean own?\n"


def test_a_package_that_a_command_misses_is_named(
    capsys: pytest.CaptureFixture[str], only: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bare.py").write_text("import no_such_package\n")
    (tmp_path / "told.py").write_text(
        "from flowsim.extras import needed\nwith needed('drawing', 'plot'):\n    import no_such_package\n"
    )
    (tmp_path / "wrong.py").write_text("from flowsim.shell import no_such_name\n")
    (tmp_path / "wrong_module.py").write_text("import flowsim.no_such_module\n")
    only("bare:main")
    assert refused(capsys, "own") == "error: own needs no_such_package: pip install '.[all]'\n"
    only("told:main")
    assert refused(capsys, "own") == "error: drawing needs no_such_package: pip install '.[plot]'\n"
    for mistake in ("wrong", "wrong_module"):
        only(f"{mistake}:main")
        with pytest.raises(ImportError, match="no_such"):
            commands.run(["own"])


def test_garbage_is_not_looked_for_while_a_command_is_loaded_and_not_among_what_was_loaded(
    only: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """But while it runs, and also after one that cannot be loaded; at its end not among what it leaves."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loads.py").write_text(
        "import gc\nat_first, kept, frozen = gc.isenabled(), [[] for _ in range(10_000)], []\n"
        "def main(arguments):\n    frozen.append(gc.get_freeze_count())\n    kept.extend([] for _ in range(10_000))\n"
        "    return 10 * at_first + gc.isenabled()\n"
    )
    before = gc.get_freeze_count()
    only("loads:main")
    with pytest.raises(SystemExit) as leaving:
        commands.run(["own"])
    assert leaving.value.code == 1
    (loaded,) = sys.modules["loads"].frozen
    some = 9_000  # others are given back meanwhile
    assert loaded >= before + some and gc.get_freeze_count() >= loaded + some
    only("no_such_module:main")
    with pytest.raises(SystemExit):
        commands.run(["own"])
    assert gc.isenabled()


def test_the_version_is_a_line_with_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert version.main([]) == 0
    number = re.escape(importlib.metadata.version("flowsim"))
    assert re.fullmatch(rf"flowsim {number} \(Python \S+, torch \S+, numpy \S+, numba \S+\)\n", capsys.readouterr().out)


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        commands.run([])
    assert leaving.value.code == 0
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--none"], "unrecognized arguments: --none; flowsim --help says more"),
        (["check", "--seeds", "x"], "argument --seeds: invalid int value: 'x'; flowsim check --help says more"),
        (["draw", "--init", "mine"], "argument --init: invalid choice: 'mine' .*; flowsim draw --help says more"),
        (["simulate"], "the following arguments are required: FILE, .*; flowsim simulate --help says more"),
        (["sweep", "--none"], "unrecognized arguments: --none; flowsim sweep --help says more"),
        (["version", "it"], "unrecognized arguments: it; flowsim version --help says more"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        commands.run(arguments)
    assert leaving.value.code == 2
    assert re.fullmatch(f"error: {message}\n", capsys.readouterr().err)


@pytest.mark.parametrize("package", ["theorems", "figures"])
def test_packages_have_their_command_under_the_old_name(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [package, "--help"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module(package, run_name="__main__")
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {package} ")
