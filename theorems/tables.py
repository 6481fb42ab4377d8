"""Verdicts, findings and hypotheses as tables for the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from theorems.check import Check


def empty_grid() -> Table:
    """A table with a line under its headings alone."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def fill(grid: Table, checks: Sequence[Check], row: Callable[[Check], Sequence[str]]) -> None:
    """Add a row for every check, by statement, controls last, under the statement's name."""
    for name, group in itertools.groupby(checks, key=lambda check: check.name):
        by_role = sorted(group, key=lambda check: check.role != "theorem")
        for role, same_role in itertools.groupby(by_role, key=lambda check: check.role):
            grid.add_row(f"[bold]{name}[/]" if role == "theorem" else " controls")
            for check in same_role:
                grid.add_row(*row(check))
        grid.add_section()


def shown_verdict(check: Check) -> str:
    """The verdict in colour; one other than expected stands out."""
    return f"[green]{check.verdict}[/]" if check.as_expected else f"[bold red]{check.verdict}?![/]"


def table(checks: Sequence[Check]) -> Table:
    """One row per check. A star says that what is checked goes beyond the paper.

    "proved" and "measured" are the constant of the statement's first claim that has one, on the trajectory that comes
    nearest to it.
    """
    grid = empty_grid()
    grid.add_column("case")
    for heading, width in [("verdict", 8), ("margin", 8), ("error", 5), ("proved", 8), ("measured", 8), ("runs", 4)]:
        justify = "left" if heading == "verdict" else "right"
        grid.add_column(heading, justify=justify, no_wrap=True, min_width=width)
    fill(grid, checks, _row)
    if any(check.beyond for check in checks):
        grid.caption = "* beyond the paper"
    return grid


def _row(check: Check) -> list[str]:
    proved, measured = proved_and_measured(check)
    return [
        f"  {check.case}{' *' * check.beyond}",
        shown_verdict(check),
        short(check.margin, ".1e"),
        short(check.error_bound, ".0e"),
        short(proved, ".3g"),
        short(measured, ".3g"),
        str(check.trajectories),
    ]


def proved_and_measured(check: Check) -> tuple[float | None, float | None]:
    """The constant proved and the one measured, of the first claim that has one."""
    for claim in check.details.get("claims", {}).values():
        if "proved" in claim:
            return claim["proved"], claim["measured"]
    return None, None


def short(value: float | None, form: str) -> str:
    """A number in a form, a dash if there is none."""
    return "-" if value is None else f"{value:{form}}"


def findings_table(found: Mapping[str, Any]) -> Table:
    """Conclusions that survive a broken hypothesis."""
    grid = empty_grid()
    for heading in ("finding: broken hypothesis", "conclusion"):
        grid.add_column(heading)
    for heading, width in [("survives", 8), ("margin", 8)]:
        grid.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for item in found["findings"]:
        why = item["details"].get("reason")
        of = "-" if why else f"{item['survives']} of {item['trajectories']}"
        conclusion = f"{item['conclusion']}; not measured: {escape(why)}" if why else item["conclusion"]
        grid.add_row(f"{item['statement']}: {item['broken']}", conclusion, of, short(item["margin"], ".1e"))
    return grid


def describe_state(name: str, state: Mapping[str, Any]) -> str:
    """A hypothesis, whether it holds, and its slack."""
    measured = "" if state["slack"] in (0, float("-inf")) else f" ({state['slack']:.3g})"
    return f"{name}{measured}" if state["holds"] else f"[bold]fails: {name}{measured}[/]"


def data_table(
    checks: Sequence[Check],
    found: Mapping[str, Any],
    state: Callable[[str, Mapping[str, Any]], str] = describe_state,
    constant: Callable[[Any], str] = "= {:.6g}".format,
) -> Group:
    """The constants of the user's data, and for every statement and rule which hypotheses hold, with their slacks.

    `state` and `constant` write a hypothesis and a number; those of enclosed runs are intervals.
    """
    grid = empty_grid()
    for heading in ("statement", "applies", "hypotheses (slack)"):
        grid.add_column(heading)
    known, unknown = (
        [(check.name, check.case, check.details.get("hypotheses", {})) for check in checks if test(check)]
        for test in (lambda check: "hypotheses" in check.details, lambda check: "hypotheses" not in check.details)
    )
    fails = [(item["name"], item["case"], item["hypotheses"]) for item in found["inapplicable"]]
    for answer, rows in (("yes", known), ("unknown", unknown), ("no", fails)):
        for name, case, hypotheses in rows:
            grid.add_row(f"{name}: {case}", answer, "\n".join(state(*item) for item in hypotheses.items()))
        grid.add_section()
    values = ", ".join(f"{name} {constant(value)}" for name, value in found["data"].items())
    return Group(f"data: {values}", grid)
