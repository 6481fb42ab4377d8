"""Seconds per trajectory against errors, as a figure."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import GOALS, OURS, Row
from problems import BASE
from results import Results

from figures.style import BLUE, GREEN, ORANGE, PURPLE, YELLOW, grid

COLOURS = {OURS: BLUE, "torchdiffeq": ORANGE, "scipy": GREEN, "diffrax": PURPLE, "torchode": YELLOW}
MARKS = "os^Dv"
DRAWN = "3 layers (8, 7)"


def draw(results: Results) -> Figure:
    """Seconds per trajectory against the error: the base problem, alone and together, and a deep one alone."""
    shown = [(BASE, count) for count in (1, *results.ensembles)] + [(DRAWN, 1)]
    figure = Figure((2.3 * len(shown), 3.6), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    styles = _choose_styles([row.method for row in results.rows])
    for panel, (name, count) in zip(axes, shown, strict=True):
        rows = [row for row in results.rows if (row.problem, row.ensemble, row.threads) == (name, count, 1)]
        _draw_rows(panel, rows, styles)
        panel.set_title(name if name == DRAWN else "one alone" if count == 1 else f"{count} together")
    axes[0].set_ylabel("seconds per trajectory")
    labelled = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if labelled:
        figure.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=4)
    return figure


def _choose_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour for each library, a mark for each of its methods."""
    found, seen = {}, dict.fromkeys(COLOURS, 0)
    for method in dict.fromkeys(methods):
        library = method.split(" ")[0]
        found[method] = COLOURS[library], MARKS[seen[library] % len(MARKS)]
        seen[library] += 1
    return found


def _draw_rows(panel: Axes, rows: Sequence[Row], styles: dict[str, tuple[str, str]]) -> None:
    for row in rows:
        points = [point for point in row.points if math.isfinite(point.error) and point.error > 0]
        if points:
            colour, mark = styles[row.method]
            errors, seconds = zip(*((point.error, point.seconds) for point in points), strict=True)
            panel.loglog(errors, seconds, color=colour, marker=mark, markersize=3.5, label=row.method)
    for goal in GOALS:
        panel.axvline(goal, color="black", linewidth=0.6, linestyle=":")
    panel.set_xlabel("largest error at the end")
    panel.invert_xaxis()
    grid(panel, "both")
