"""The command `flowsim`, whose sub-commands are the entry points of the group "flowsim.commands".

Each is a function `main(arguments) -> int`, which gets what stands behind its name and returns the exit status, in a
module whose docstring begins with the line that `flowsim --help` shows. That line is read from the source: nothing is
loaded but the command that is asked for.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NoReturn

from flowsim.messages import meant
from flowsim.shell import CommandLine, add_version, complain, leave, say

GROUP = "flowsim.commands"

OWN = ("flowsim", "theorems", "figures")
"""Packages of this distribution: if one of them is missing, no extra brings it."""

WIDTH = 10
"""Columns of a command's name."""

Command = Callable[..., int]


def commands() -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of all commands by name, in alphabetical order."""
    return {entry.name: entry for entry in sorted(importlib.metadata.entry_points(group=GROUP))}


def summary(module: str) -> str:
    """The first line of the docstring of a module, which is not loaded; empty where there is none.

    >>> summary("flowsim.commands.version")
    'Print the version, and those of what it stands on.'
    """
    path: Sequence[str] | None = None
    source = ""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), path)
        if spec is None:
            return ""
        path, source = spec.submodule_search_locations, spec.origin or ""
    documented = ast.get_docstring(ast.parse(Path(source).read_bytes())) if source.endswith(".py") else None
    return (documented or "").partition("\n")[0]


def load(name: str, entry: importlib.metadata.EntryPoint) -> Command:
    """The function of a command.

    Raises:
        ValueError: if a package is missing that only an extra brings.
    """
    try:
        return entry.load()
    except ImportError as error:
        if "pip install" in str(error):  # `needed` has said it
            raise ValueError(str(error)) from None
        package = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package not in OWN:
            raise ValueError(f"{name} needs {package}: pip install '.[all]'") from None
        raise


def parser() -> argparse.ArgumentParser:
    """The command line up to the name of the command."""
    lines = [f"  {name:{WIDTH}}{summary(entry.module)}" for name, entry in commands().items()]
    main = CommandLine(
        prog="flowsim",
        usage="flowsim COMMAND [OPTION ...]",
        description="Learning rules as exact flows, and the theorems about them.",
        epilog="\n".join(["commands:", *lines, "", "flowsim COMMAND --help says more about one of them."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(main)
    main.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    main.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return main


def chosen(arguments: Sequence[str] | None = None) -> tuple[str, Callable[[], int]]:
    """The name of the command that is asked for, and how to run it.

    Raises:
        ValueError: if there is no such command, or a package is missing.
    """
    line = parser()
    options = line.parse_args(arguments)
    if options.command is None:
        return "help", lambda: 0 if say(line.format_help().rstrip()) else 2
    found = commands()
    if options.command not in found:
        raise ValueError(
            f"COMMAND must be one of {', '.join(found)}, got {options.command!r}{meant(options.command, found)}"
        )
    return options.command, partial(load(options.command, found[options.command]), options.arguments)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and end the process with its exit status."""
    _leave(partial(chosen, arguments))


def run_package(name: str) -> NoReturn:
    """Run `python -m name`, whose command is the function `main` of the package's module `command`; likewise."""

    def found() -> tuple[str, Callable[[], int]]:
        entry = importlib.metadata.EntryPoint(name, f"{name}.command:main", GROUP)
        return name, partial(load(name, entry), sys.argv[1:], prog=f"python -m {name}")

    _leave(found)


def _leave(find: Callable[[], tuple[str, Callable[[], int]]]) -> NoReturn:
    try:
        with _no_garbage():
            name, command = find()
    except ValueError as error:
        complain(str(error))
        sys.exit(2)
    leave(name, command, "interrupted")


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Modules are loaded and stay: to look for garbage among them takes a fifth of the time, then and later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
