"""Print the version, and those of what it stands on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

import flowsim
from flowsim.shell import CommandLine, say

STANDS_ON = ("torch", "numpy", "numba")
"""Packages that what is computed depends on, to the last bit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 2 if nothing can be printed."""
    CommandLine(prog="flowsim version", description=__doc__).parse_args(arguments)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in STANDS_ON]
    python = f"Python {platform.python_version()}"
    return 0 if say(f"flowsim {flowsim.__version__} ({', '.join([python, *versions])})") else 2
