"""The report's figures, drawn from checks alone, as inline SVG: no links, no scripts, readable on a phone."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from flowsim.plot.theme import BLACK, BLUE, COLOURS, GREY, ORANGE
from theorems.check import Check
from theorems.thresholds import EQUALITY_ERROR

WIDTH = 4.2
"""Inches. A phone shows them on 330 pixels: text of 9 points then has 10 pixels."""

LONGEST = 32
"""Characters of a line of a label."""

STYLE: dict[Any, Any] = {"font.size": 9, "legend.fontsize": 8.5, "svg.fonttype": "none", "text.usetex": False}

LEAST, LEAST_RATIO = 1e-17, 1e-2
"""The left ends of the logarithmic axes: what is smaller, or 0, is drawn there."""

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its title, for those who cannot see it too, and what is seen in a sentence."""

    title: str
    caption: str
    figure: Figure

    @property
    def svg(self) -> str:
        """The figure as an element of an HTML page."""
        buffer = io.StringIO()
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(buffer, format="svg")
        return _inline(buffer.getvalue(), self.title)


def pictures(checks: Sequence[Check], equalities: Collection[tuple[str, str]]) -> list[Picture]:
    """The figures for which there are checks.

    Args:
        checks: those of the report.
        equalities: the claims that are equalities, by the statement's name and their own.
    """
    known = [check for check in checks if check.margin is not None]
    theorems = [check for check in known if check.role == "theorem"]
    equal = [check for check in theorems if (check.name, nearest(check)[0]) in equalities]
    with matplotlib.rc_context(STYLE):
        found = [
            margins(
                [check for check in theorems if check not in equal],
                "Inequalities: margins and their errors",
                "margin",
                "The smallest margin of each theorem case (dot) must be right of its error bound (tick); the distance "
                "is the number of digits to spare.",
            ),
            margins(
                equal,
                "Equalities: deviations and their errors",
                "deviation",
                "The largest deviation of each theorem case (dot) must not be right of its error bound (tick), nor the "
                f"bound right of {EQUALITY_ERROR:.0e} (dashed).",
                limit=EQUALITY_ERROR,
            ),
            margins(
                [check for check in known if check.role == "control"],
                "Controls: violations and their errors",
                "violation",
                "Where a hypothesis is broken, the statement must fail by more (dot) than the error bound (tick).",
            ),
            cosines(theorems),
            tightness(theorems),
        ]
    return [picture for picture in found if picture is not None]


def nearest(check: Check) -> tuple[str, dict[str, Any]]:
    """The claim with the smallest margin, which is the check's, by name; of nothing for a check without claims."""
    claims = check.details.get("claims", {})
    return next((item for item in claims.items() if item[1]["margin"] == check.margin), ("", {}))


# --- figures ---


def margins(
    checks: Sequence[Check], title: str, meaning: str, caption: str, limit: float | None = None
) -> Picture | None:
    """The size of the margin and the error bound of every check, in rows, by statement."""
    if not checks:
        return None
    rows = _rows(checks)
    figure, axes = _rows_on_log_scale([label for label, _ in rows], height=0.05, legend=3)
    drawn = [(row, check) for row, (_, check) in enumerate(rows) if check is not None]
    for expected, colour, marker, name in [
        (True, BLUE, "o", meaning),
        (False, ORANGE, "X", f"{meaning}, not as expected"),
    ]:
        some = [(row, check) for row, check in drawn if check.as_expected == expected]
        if some:
            sizes = [_at_least(LEAST, abs(check.margin or 0.0)) for _, check in some]
            axes.plot(sizes, [row for row, _ in some], marker, color=colour, markersize=5, label=name)
    errors = [_at_least(LEAST, check.error_bound) for _, check in drawn]
    axes.plot(errors, [row for row, _ in drawn], "|", color=BLACK, markersize=9, label="error bound")
    for row, (_, check) in enumerate(rows):
        axes.get_yticklabels()[row].set_fontweight("normal" if check else "bold")
    if limit is not None:
        axes.axvline(limit, color=BLACK, linestyle="--", linewidth=0.8)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    return _finished(figure, axes, title, caption)


def cosines(checks: Sequence[Check]) -> Picture | None:
    """Proposition 5.3 and Lemma 5.4: the smallest cosine of each ensemble, by the number of entries of the layer."""
    series = {
        name: list(_cosines(checks, name)) for name in ("proposition_5_3", "lemma_5_4") if any(_cosines(checks, name))
    }
    points = [point for some in series.values() for point in some]
    if not points:
        return None
    figure = Figure((WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    marks = {"proposition_5_3": ("s", 8, BLUE), "lemma_5_4": ("o", 4, ORANGE)}
    for name, some in series.items():
        marker, size, colour = marks[name]
        axes.plot(
            [point.entries for point in some],
            [point.measured for point in some],
            marker,
            color=colour,
            fillstyle="none" if marker == "s" else "full",
            markersize=size,
            label=f"{_title(name)}: smallest cosine",
        )
    axes.plot(
        [point.entries for point in points],
        [point.claimed for point in points],
        "_",
        color=BLACK,
        markersize=12,
        label="claimed",
    )
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.set_ylim(min(0.0, *(point.measured for point in points)), 1.0)
    axes.set_xlabel("entries of the layer (width, for one output)")
    return _finished(
        figure,
        axes,
        "Proposition 5.3 and Lemma 5.4: alignment over width",
        "The smallest cosine between a layer and its feedback on each ensemble must stay above the bound that is "
        "claimed: 1 over the root of the number of entries, if all feedback is of one size.",
    )


def tightness(checks: Sequence[Check]) -> Picture | None:
    """Proposition 5.7: what is measured over what is promised, for every case and claim."""
    some = [check for check in checks if check.name == "proposition_5_7" and check.details.get("claims")]
    if not some:
        return None
    names = list(dict.fromkeys(name for check in some for name in check.details["claims"]))
    figure, axes = _rows_on_log_scale([check.case for check in some], height=0.05 * len(names), legend=len(names))
    marks = itertools.cycle(zip("osD^vPX", COLOURS, strict=True))
    for place, (name, (marker, colour)) in enumerate(zip(names, marks, strict=False)):
        beside = 0.8 * ((place + 0.5) / len(names) - 0.5)  # marks of a row lie above each other: most are close
        having = [(row, check.details["claims"]) for row, check in enumerate(some) if name in check.details["claims"]]
        ratios = [_at_least(LEAST_RATIO, 1 + claims[name]["margin"]) for _, claims in having]
        axes.plot(ratios, [row + beside for row, _ in having], marker, color=colour, markersize=4, label=name)
    for row in range(len(some) - 1):
        axes.axhline(row + 0.5, color=GREY, linewidth=0.6)
    axes.axvline(1.0, color=BLACK, linestyle="--", linewidth=0.8)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.9), max(right, 2.2))
    _plain_ticks(axes)
    return _finished(
        figure,
        axes,
        "Proposition 5.7: how tight its bounds are",
        "The smallest ratio of what is measured to what a claim promises: 1 (dashed) is attained, and below it the "
        "claim would fail.",
    )


class _Cosine(NamedTuple):
    entries: int
    claimed: float
    measured: float


def _cosines(checks: Sequence[Check], name: str) -> Iterator[_Cosine]:
    """The points of a statement. The bound of Proposition 5.3 says how many entries the layer nearest to it has."""
    for run in (run for check in checks if check.name == name for run in check.details.get("runs", [])):
        for claim in (claim for claim in run["claims"].values() if "claimed" in claim):
            claimed = claim["claimed"]
            entries = run["widths"][-1] if name == "lemma_5_4" else round(claimed**-2)
            yield _Cosine(entries, claimed, claim["measured"])


# --- drawing ---


def _rows(checks: Sequence[Check]) -> list[tuple[str, Check | None]]:
    """A row for every check, under one with the name of its statement."""
    rows: list[tuple[str, Check | None]] = []
    for name, group in itertools.groupby(checks, key=lambda check: check.name):
        rows += [(_title(name), None), *((check.case, check) for check in group)]
    return rows


def _title(name: str) -> str:
    """The name of a statement, to be read.

    >>> _title("proposition_5_7")
    'Proposition 5.7'
    """
    kind, _, number = name.partition("_")
    return f"{kind.capitalize()} {number.replace('_', '.')}"


def _at_least(least: float, value: float | None) -> float:
    return max(least, value or 0.0)


def _rows_on_log_scale(labels: Sequence[str], height: float, legend: int) -> tuple[Figure, Axes]:
    """Axes with rows from top to bottom and a logarithmic scale, with room for lines of a legend.

    Rows are so many inches higher than their labels, which are broken into lines where the axes would become narrow.
    """
    labels = [textwrap.fill(label, LONGEST, break_on_hyphens=False) for label in labels]
    lines = 1 + max(label.count("\n") for label in labels)
    figure = Figure((WIDTH, 0.45 + (height + 0.14 * lines) * len(labels) + 0.18 * legend), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, ... on a logarithmic scale; powers of 10 alone, where those would be too many."""
    left, right = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right < 100 * left else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _finished(figure: Figure, axes: Axes, title: str, caption: str) -> Picture:
    """With a legend, a grid, and nothing that SVG has to link to: no clipping."""
    axes.grid(axis="x", color=GREY, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", frameon=False, handletextpad=0.3, borderaxespad=0.1)
    for artist in figure.findobj():
        artist.set_clip_on(False)
    return Picture(title, caption, figure)


# --- SVG ---


def _inline(svg: str, title: str) -> str:
    """A file of matplotlib's as an element of a page, that refers to nothing by address, and has no names to clash."""
    root = ElementTree.fromstring(svg)
    shapes = {element.get("id"): element for element in root.iter(f"{SVG}path")}
    for parent in list(root.iter()):
        parent[:] = [
            _copy(shapes[child.attrib[LINK][1:]], child) if child.tag == f"{SVG}use" else child
            for child in parent
            if child.tag not in (f"{SVG}defs", f"{SVG}metadata")
        ]
    for element in root.iter():
        element.attrib.pop("id", None)
    for name in ("width", "height"):
        del root.attrib[name]
    root.attrib |= {"role": "img", "stroke-linejoin": "round"}
    name = ElementTree.Element(f"{SVG}title")
    name.text = title
    root.insert(0, name)
    ElementTree.register_namespace("", SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _copy(shape: ElementTree.Element, use: ElementTree.Element) -> ElementTree.Element:
    """The shape where it is used; its own style counts more."""
    style = f"{use.get('style', '')}; {shape.get('style', '')}"
    transform = f"translate({use.get('x', '0')} {use.get('y', '0')})"
    return ElementTree.Element(f"{SVG}path", {"d": shape.attrib["d"], "style": style, "transform": transform})
