"""Proved verdicts as a table for the terminal, and the versions of what proves them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import flint
from rich.table import Table

import flowsim
from theorems.check import Check
from theorems.rigorous.decimals import rounded
from theorems.tables import empty_grid, fill, shown_verdict

SHORT = 4
"""Digits of the ends of intervals in tables; JSON has them all."""


def versions() -> dict[str, str]:
    """What a proof relies on, besides the interpreter's machine."""
    return {
        "flowsim": flowsim.__version__,
        "python-flint": importlib.metadata.version("python-flint"),
        "flint": flint.__FLINT_VERSION__,
        "python": platform.python_version(),
    }


def shortened(interval: Sequence[str], digits: int = SHORT) -> str:
    """An interval with fewer digits, rounded outwards again.

    >>> shortened(("1.23456e-3", "1.23456e-3")), shortened(("-inf", "2"))
    ('[1.234e-3, 1.235e-3]', '[-inf, 2]')
    """
    ends = [
        text if "inf" in text else rounded(Fraction(text), digits, up=up)
        for text, up in zip(interval, (False, True), strict=True)
    ]
    return f"[{', '.join(ends)}]"


def table(checks: Sequence[Check]) -> Table:
    """One row per check."""
    grid = empty_grid()
    grid.add_column("case")
    grid.add_column("verdict", no_wrap=True)
    for heading in ("what is claimed to be at least 0, or 0, is in", "at t in", "bits"):
        grid.add_column(heading, justify="right", no_wrap=heading == "bits")
    fill(grid, checks, _row)
    return grid


def _row(check: Check) -> list[str]:
    _, claim = worst(check)
    value, time = (shortened(claim[key]) if claim else "-" for key in ("interval", "time"))
    bits = "-" if not claim else str(max(run["bits"] for run in check.details["runs"]))
    return [f"  {check.case}", shown_verdict(check), value, time, bits]


def worst(check: Check) -> tuple[str, dict[str, Any]]:
    """The claim that decides a check, by name; of nothing for a check without claims."""
    order = ["refuted", "undecided", "proved"]
    claims = check.details.get("claims", {})
    return min(
        claims.items(),
        key=lambda item: (order.index(item[1]["verdict"]), float(item[1]["interval"][0])),
        default=("", {}),
    )


def describe_state(name: str, state: Mapping[str, Any]) -> str:
    """A hypothesis, whether it holds, and its slack."""
    slack = f" ({shortened(state['slack'])})" if state["slack"] else ""
    if state["holds"]:
        return f"{name}{slack}"
    return f"[bold]{'fails' if state['holds'] is False else 'undecided'}: {name}[/]{slack}"


def describe_constant(ends: Any) -> str:
    """The interval that a constant of the data lies in."""
    return f"in {shortened(ends)}"
