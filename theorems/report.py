"""Verdicts as a table for the terminal, as JSON, and as one HTML page."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy
import torch
import torchdiffeq
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Group
from rich.table import Table

from theorems.check import Check, Statement


def table(checks: Sequence[Check]) -> Table:
    """One row per check, by statement; a verdict other than expected stands out.

    "proved" and "measured" are the constant of the statement's first claim that has one, on the trajectory that comes
    nearest to it.
    """
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("case", "role", "verdict"):
        grid.add_column(heading)
    for heading in ("margin", "error", "proved", "measured", "runs"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for name, group in itertools.groupby(checks, key=lambda check: check.name):
        grid.add_row(f"[bold]{name}[/]")
        for check in group:
            verdict = (
                f"[green]{check.verdict}[/]" if check.as_expected else f"[bold red]{check.verdict} (unexpected)[/]"
            )
            numbers = [_short(value) for value in (check.margin, check.error_bound, *constants(check))]
            grid.add_row(f"  {check.case}", check.role, verdict, *numbers, str(check.trajectories))
        grid.add_section()
    return grid


def constants(check: Check) -> tuple[float | None, float | None]:
    """The constant proved and the one measured, of the first claim that has one."""
    for claim in check.details.get("claims", {}).values():
        if "proved" in claim:
            return claim["proved"], claim["measured"]
    return None, None


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def data_table(found: Mapping[str, Any]) -> Group:
    """The constants of the user's data, and what does not apply to it, with every hypothesis and its slack."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    for heading in ("does not apply", "hypothesis", "holds"):
        grid.add_column(heading)
    grid.add_column("slack", justify="right", no_wrap=True)
    for item in found["inapplicable"]:
        for number, (name, state) in enumerate(item["hypotheses"].items()):
            first = f"{item['name']}, {item['case']}" if number == 0 else ""
            slack = "-" if abs(state["slack"]) == float("inf") else f"{state['slack']:.3g}"
            grid.add_row(first, name, "[green]yes[/]" if state["holds"] else "[bold]no[/]", slack)
        grid.add_section()
    values = ", ".join(f"{name} = {value:.6g}" for name, value in found["data"].items())
    return Group(f"data: {values}", grid)


def summary(checks: Sequence[Check], device: str, seconds: float, **more: Any) -> dict[str, Any]:
    """What `--json` writes."""
    return {
        "version": importlib.metadata.version("flowsim"),
        "device": device,
        "dtype": "float64",
        "seconds": round(seconds, 3),
        "checks": [dataclasses.asdict(check) for check in checks],
        **more,
    }


def write_json(path: str, report: dict[str, Any]) -> None:
    """Write the summary as strict JSON; numbers that are not finite become null."""
    Path(path).write_text(json.dumps(_finite(report), indent=1, allow_nan=False) + "\n")


def write_html(path: str, report: dict[str, Any], statements: Sequence[Statement], source: str) -> None:
    """Write one self-contained page: statements, verdicts, constants, versions; `source` says where runs come from."""
    environment = Environment(loader=PackageLoader("theorems", "."), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.jinja").render(
        report=_finite(report),
        statements={item.name: item for item in statements},
        groups=[
            (name, list(group)) for name, group in itertools.groupby(report["checks"], key=lambda item: item["name"])
        ],
        source=source,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions={
            "flowsim": report["version"],
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchdiffeq": torchdiffeq.__version__,
            "scipy": scipy.__version__,
        },
    )
    Path(path).write_text(page)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
