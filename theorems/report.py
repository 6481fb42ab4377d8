"""Verdicts as a table for the terminal, as JSON, and as one HTML page."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scipy
import torch
import torchdiffeq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

import flowsim
from flowsim.files import whole
from theorems.check import Check, Statement
from theorems.mathml import mathml

if TYPE_CHECKING:
    from theorems.pictures import Picture


def table(checks: Sequence[Check]) -> Table:
    """One row per check, by statement, controls last; a verdict other than expected stands out.

    A star says that what is checked goes beyond the paper.

    "proved" and "measured" are the constant of the statement's first claim that has one, on the trajectory that comes
    nearest to it.
    """
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("case")
    for heading, width in [("verdict", 8), ("margin", 8), ("error", 5), ("proved", 8), ("measured", 8), ("runs", 4)]:
        justify = "left" if heading == "verdict" else "right"
        grid.add_column(heading, justify=justify, no_wrap=True, min_width=width)
    for name, group in itertools.groupby(checks, key=lambda check: check.name):
        for role, same_role in itertools.groupby(sorted(group, key=lambda check: check.role != "theorem"), _role):
            grid.add_row(f"[bold]{name}[/]" if role == "theorem" else " controls")
            for check in same_role:
                verdict = f"[green]{check.verdict}[/]" if check.as_expected else f"[bold red]{check.verdict}?![/]"
                proved, measured = constants(check)
                grid.add_row(
                    f"  {check.case}{' *' * check.beyond}",
                    verdict,
                    _short(check.margin, ".1e"),
                    _short(check.error_bound, ".0e"),
                    _short(proved, ".3g"),
                    _short(measured, ".3g"),
                    str(check.trajectories),
                )
        grid.add_section()
    if any(check.beyond for check in checks):
        grid.caption = "* beyond the paper"
    return grid


def _role(check: Check) -> str:
    return check.role


def constants(check: Check) -> tuple[float | None, float | None]:
    """The constant proved and the one measured, of the first claim that has one."""
    for claim in check.details.get("claims", {}).values():
        if "proved" in claim:
            return claim["proved"], claim["measured"]
    return None, None


def _short(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def findings_table(found: Mapping[str, Any]) -> Table:
    """Conclusions that survive a broken hypothesis."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("finding: broken hypothesis", "conclusion"):
        grid.add_column(heading)
    for heading, width in [("survives", 8), ("margin", 8)]:
        grid.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for item in found["findings"]:
        why = item["details"].get("reason")
        of = "-" if why else f"{item['survives']} of {item['trajectories']}"
        conclusion = f"{item['conclusion']}; not measured: {escape(why)}" if why else item["conclusion"]
        grid.add_row(f"{item['statement']}: {item['broken']}", conclusion, of, _short(item["margin"], ".1e"))
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
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
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


def summary(
    checks: Sequence[Check], device: str, seconds: float, *, complete: bool = True, dtype: str = "float64", **more: Any
) -> dict[str, Any]:
    """What `--json` writes; it is not complete if the command was interrupted."""
    return {
        "version": flowsim.__version__,
        "device": device,
        "dtype": dtype,
        "seconds": round(seconds, 3),
        "complete": complete,
        "checks": [dataclasses.asdict(check) for check in checks],
        **more,
    }


def write_json(path: str, report: dict[str, Any]) -> None:
    """Write the summary as strict JSON; numbers that are not finite become null.

    Raises:
        OSError: if the file cannot be written.
    """
    text = json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_html(path: str, report: dict[str, Any], statements: Sequence[Statement], source: str) -> None:
    """Write one self-contained page: statements, verdicts, constants, figures, versions.

    `source` says where runs come from.

    Raises:
        OSError: if the file cannot be written.
    """
    from theorems import pictures  # noqa: PLC0415, matplotlib is not for those who want no page

    report = _finite(report)
    checks = [Check(**entry) for entry in report["checks"]]
    equalities = {(item.name, claim.name) for item in statements for claim in item.claims if claim.kind == "equality"}
    environment = Environment(loader=PackageLoader("theorems", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {
        "short": _short,
        "constants": constants,
        "nearest": pictures.nearest,
        "mathml": mathml,
        "pieces": pieces,
        "svg": _svg,
    }
    if "rigorous" in report:
        from theorems.rigorous.report import shortened, worst  # noqa: PLC0415, optional

        environment.filters |= {"interval": shortened, "worst": worst}
    template = "rigorous.html.jinja" if "rigorous" in report else "report.html.jinja"
    page = environment.get_template(template).render(
        report=report,
        checks=checks,
        groups=[
            (_heading(name, statements), formula_parts(name, statements), list(group))
            for name, group in itertools.groupby(checks, key=lambda check: check.name)
        ],
        pictures=[] if "rigorous" in report else pictures.pictures(checks, equalities),
        source=source,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(Path(__file__)),
        platform=platform.platform(),
        versions={
            "flowsim": report["version"],
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchdiffeq": torchdiffeq.__version__,
            "scipy": scipy.__version__,
            **report.get("rigorous", {}),
        },
    )
    with whole(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _heading(name: str, statements: Sequence[Statement]) -> str:
    """The title of the statements of a name: only their number, if they differ in the rest."""
    titles = {statement.title for statement in statements if statement.name == name}
    return titles.pop() if len(titles) == 1 else titles.pop().split(",")[0]


def formula_parts(name: str, statements: Sequence[Statement]) -> list[str]:
    """The formula of the statements of a name, cut where it may be broken into lines: at wide spaces outside braces."""
    parts = [""]
    for piece in re.split(r"(\\q?quad)\b", next(item.formula for item in statements if item.name == name)):
        if piece in (r"\quad", r"\qquad") and parts[-1].count("{") == parts[-1].count("}"):
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def pieces(part: str) -> list[str]:
    r"""A part of a formula, cut before its relations, where a narrow screen may break it.

    >>> pieces(r"a(x = 1) \le b_{c = d} = e")
    ['a(x = 1) ', '\\le b_{c = d} ', '= e']
    """
    found = [""]
    for piece in re.split(r"(?=\\(?:le|ge|Rightarrow)\b|=)", part):
        if found[-1].strip() and all(
            found[-1].count(left) == found[-1].count(right) for left, right in ("{}", "()", "[]")
        ):
            found.append(piece)
        else:
            found[-1] += piece
    return found


def _svg(picture: Picture) -> Markup:
    return Markup(picture.svg)


def commit(file: Path) -> str:
    """The commit of the checkout that a file belongs to, and whether anything was changed since."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)  # it may also lie in a folder that a repository ignores
        changed = " + uncommitted changes" if git("status", "--porcelain") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
