"""Verdicts, findings and hypotheses as tables for the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from theorems.check import Check
from theorems.hypothesis import RULE_IS


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


LEGEND = """\
margin: smallest of measured / claimed - 1; of an equality minus the largest deviation
claimed, measured: the constant that is claimed, and the one that is reached"""


def table(checks: Sequence[Check]) -> Table:
    """One row per check. A star says that what is checked goes beyond the paper.

    "claimed" and "measured" are the constant of the statement's first claim that has one, on the trajectory that comes
    nearest to it.
    """
    grid = empty_grid()
    grid.add_column("case")
    for heading, width in [("verdict", 8), ("margin", 8), ("error", 5), ("claimed", 8), ("measured", 8), ("runs", 4)]:
        justify = "left" if heading == "verdict" else "right"
        grid.add_column(heading, justify=justify, no_wrap=True, min_width=width)
    fill(grid, checks, _row)
    beyond = ["* beyond the paper"] if any(check.beyond for check in checks) else []
    grid.caption, grid.caption_justify = "\n".join([*beyond, LEGEND]), "left"
    return grid


def _row(check: Check) -> list[str]:
    claimed, measured = claimed_and_measured(check)
    return [
        f"  {check.case}{' *' * check.beyond}",
        shown_verdict(check),
        short(check.margin, ".1e"),
        short(check.error_bound, ".0e"),
        short(claimed, ".3g"),
        short(measured, ".3g"),
        str(check.trajectories),
    ]


def claimed_and_measured(check: Check) -> tuple[float | None, float | None]:
    """The constant claimed and the one measured, of the first claim that has one."""
    for claim in check.details.get("claims", {}).values():
        if "claimed" in claim:
            return claim["claimed"], claim["measured"]
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


State = Callable[[str, Mapping[str, Any]], str]
"""How a hypothesis is written, by its name and what was measured or proved of it."""


def data_tables(
    found: Mapping[str, Any], state: State = describe_state, constant: Callable[[Any], str] = "= {:.6g}".format
) -> list[RenderableType]:
    """What the user's data are, and their constants; nothing if no run could be solved.

    `state` and `constant` write a hypothesis and a number; those of enclosed runs are intervals.
    """
    if not found["data"]:
        return []
    values = ", ".join(f"{name} {constant(value)}" for name, value in found["data"].items())
    grid = empty_grid()
    for heading in ("the data are", "", "hypotheses (slack)"):
        grid.add_column(heading)
    for name, hypotheses in found["kinds"].items():
        decisive = _broken(hypotheses) or hypotheses
        grid.add_row(
            name, answer(hypotheses), "\n".join(state(hypothesis, each) for hypothesis, each in decisive.items())
        )
    return [grid, f"data: {values}"]


def inapplicable_tables(
    inapplicable: Sequence[Mapping[str, Any]], state: State = describe_state
) -> list[RenderableType]:
    """Why statements do not apply to the user's data.

    Hypotheses that hold, and statements about another rule, are left to JSON and HTML.
    """
    grid = empty_grid()
    for heading in ("statement", "does not apply to", "because (slack)"):
        grid.add_column(heading)
    for (statement, reason), rules in _reasons(inapplicable, state).items():
        grid.add_row(statement, ", ".join(rules), reason)
    return [*([grid] if grid.rows else []), "all hypotheses with their slacks: --json FILE, --html FILE"]


def answer(hypotheses: Mapping[str, Mapping[str, Any]]) -> str:
    """Whether all of them hold.

    >>> answer({"kappa > 0": {"holds": True}}), answer({"R > 0": {"holds": None}, "kappa > 0": {"holds": False}})
    ('yes', 'no')
    """
    broken = _broken(hypotheses).values()
    return "no" if any(each["holds"] is False for each in broken) else "undecided" if broken else "yes"


def _listed(hypotheses: Mapping[str, Mapping[str, Any]], state: State) -> str:
    """One below the other."""
    return "\n".join(state(name, each) for name, each in hypotheses.items())


def _broken(hypotheses: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Those that do not hold, or are not proved to."""
    return {name: each for name, each in hypotheses.items() if not each["holds"]}


def _reasons(inapplicable: Sequence[Mapping[str, Any]], state: State) -> dict[tuple[str, str], list[str]]:
    """The rules for which a statement does not apply, by statement and reason; not where it is about another rule."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in inapplicable:
        broken = _broken(item["hypotheses"])
        if any(name.startswith(RULE_IS) for name in broken):
            continue
        rule, _, variant = item["case"].partition(", ")
        found.setdefault((f"{item['name']}: {variant}", _listed(broken, state)), []).append(rule)
    return found
