"""Verdicts as a table for the terminal, as JSON, and as one HTML page."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scipy
import torch
import torchdiffeq
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table

from theorems.check import Check, Statement


def table(checks: Sequence[Check]) -> Table:
    """One row per check, by statement; a verdict other than expected stands out."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("case", "role", "verdict"):
        grid.add_column(heading)
    for heading in ("margin", "error", "runs"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for name, group in itertools.groupby(checks, key=lambda check: check.name):
        grid.add_row(f"[bold]{name}[/]")
        for check in group:
            verdict = (
                f"[green]{check.verdict}[/]" if check.as_expected else f"[bold red]{check.verdict} (unexpected)[/]"
            )
            numbers = ["-" if value is None else f"{value:.2e}" for value in (check.margin, check.error_bound)]
            grid.add_row(f"  {check.case}", check.role, verdict, *numbers, str(check.trajectories))
        grid.add_section()
    return grid


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
