"""Noisy digits: how far discrete training is from the conservation law.

The quantity of the paper’s appendix B.1, the gain of Ψ(V) over that of |W|²/2 since the start, is 1 along the flow
(Theorem 5.2). Full-batch steps with momentum: the median over training of its absolute deviation from 1, mean and
standard error over repeats (compare the paper’s Figure 2; a mean over training would show the moments at which |W|²
passes its first value, where the quantity has a pole). Crosses: the same from the exact correction of discrete steps,
by its formula (theorems/README.md, section 4). What is left, below, is rounding: nothing else deviates from the law.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from figures.experiments.table import levels, over_repeats
from figures.noisy_digits.results import by_rule, median
from figures.style import RULES as COLOURS
from figures.style import YELLOW, grid, panels, whole_decades
from figures.widths import set_beside, width_axis

LEAST = 1e-17
"""Where a rest of exactly 0 is drawn."""


def draw(table: pd.DataFrame) -> Figure:
    """Over widths: the deviation above, what is left of it below."""
    figure, (above, below) = panels(2, 1, 3.6, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    widths, formula = levels(table, "width"), by_rule(table, "deviation_by_correction")
    for place, (rule, deviation) in enumerate(by_rule(table, "deviation").items()):
        rest = median(abs(deviation - formula[rule])).mean(-1)
        for panel, mean, error, line in [
            (above, *over_repeats(median(abs(deviation))), "-"),
            (below, np.maximum(rest, LEAST), None, ":"),
        ]:
            bars = panel.errorbar(
                widths, mean, error, color=COLOURS[rule], linestyle=line, linewidth=0.9, marker="o", markersize=3,
                capsize=2, label=rule,
            )  # fmt: skip
            set_beside(bars, place, len(formula))
        mean, _ = over_repeats(median(abs(formula[rule])))
        crosses = above.errorbar(widths, mean, color=YELLOW, linestyle="", marker="x", markersize=4, zorder=3)
        set_beside(crosses, place, len(formula))
    for panel in (above, below):
        panel.set_yscale("log")
        whole_decades(panel)
        panel.yaxis.set_major_locator(LogLocator(numticks=5))
        grid(panel)
    width_axis(below, widths.tolist())
    above.set_ylabel("|quantity of B.1 $-$ 1|")
    below.set_ylabel("what is left")
    handles, labels = above.get_legend_handles_labels()
    handles.append(Line2D([], [], color=YELLOW, marker="x", markersize=4, linestyle=""))
    figure.legend(handles, [*labels, "exact correction"], loc="outside upper left", ncols=3)
    return figure
