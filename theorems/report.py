"""Verdicts as JSON, and as one HTML page."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scipy
import torch
import torchdiffeq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import flowsim
from flowsim.files import whole
from theorems.check import Check, Statement
from theorems.mathml import mathml
from theorems.tables import answer, claimed_and_measured, short

if TYPE_CHECKING:
    from theorems.pictures import Picture


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
    rigorous = "rigorous" in report
    template = _environment(rigorous).get_template("rigorous.html.jinja" if rigorous else "report.html.jinja")
    page = template.render(
        report=report,
        checks=checks,
        groups=[
            (_heading(name, statements), formula_parts(name, statements), list(group))
            for name, group in itertools.groupby(checks, key=lambda check: check.name)
        ],
        pictures=[] if rigorous else pictures.pictures(checks, equalities),
        source=source,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(Path(__file__)),
        platform=platform.platform(),
        versions={"flowsim": report["version"], **_versions(), **report.get("rigorous", {})},
    )
    with whole(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _environment(rigorous: bool) -> Environment:
    """The templates, with what they call."""
    from theorems import pictures  # noqa: PLC0415, as above

    environment = Environment(loader=PackageLoader("theorems", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {
        "short": short,
        "answer": answer,
        "failing": failing,
        "constants": claimed_and_measured,
        "nearest": pictures.nearest,
        "mathml": mathml,
        "pieces": pieces,
        "svg": _svg,
    }
    if rigorous:
        from theorems.rigorous.report import shortened, worst  # noqa: PLC0415, optional

        environment.filters |= {"interval": shortened, "worst": worst}
    return environment


def _versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchdiffeq": torchdiffeq.__version__,
        "scipy": scipy.__version__,
    }


def failing(hypotheses: Mapping[str, Mapping[str, Any]]) -> str:
    """The names of the hypotheses that do not hold, or are not proved to.

    >>> failing({"gamma > 0": {"holds": True}, "kappa > 0": {"holds": False}})
    'kappa > 0'
    """
    return "; ".join(name for name, state in hypotheses.items() if not state["holds"])


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
