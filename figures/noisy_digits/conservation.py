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
from matplotlib.ticker import NullLocator

from figures.experiments.table import levels, over_repeats
from figures.noisy_digits.results import by_rule, median
from figures.style import RULES as COLOURS
from figures.style import YELLOW, grid, panels, whole_decades

LEAST = 1e-17
"""Where a rest of exactly 0 is drawn."""


def draw(table: pd.DataFrame) -> Figure:
    """Over widths: the deviation above, what is left of it below."""
    figure, (above, below) = panels(2, 1, 3.6, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    widths, formula = levels(table, "width"), by_rule(table, "deviation_by_correction")
    for rule, deviation in by_rule(table, "deviation").items():
        mean, error = over_repeats(median(abs(deviation)))
        above.errorbar(widths, mean, error, color=COLOURS[rule], marker="o", markersize=6, capsize=2, label=rule)
        mean, _ = over_repeats(median(abs(formula[rule])))
        above.plot(widths, mean, "+", color=YELLOW, markersize=5, zorder=3)
        rest = median(abs(deviation - formula[rule])).mean(-1)
        below.plot(widths, np.maximum(rest, LEAST), ".:", color=COLOURS[rule])
    for panel in (above, below):
        panel.set_yscale("log")
        whole_decades(panel)
        grid(panel)
    below.set_xscale("log")
    below.set_xticks(widths, [str(width) for width in widths])
    below.xaxis.set_minor_locator(NullLocator())
    below.set_xlabel("width $m$")
    above.set_ylabel("|quantity of B.1 $-$ 1|")
    below.set_ylabel("what is left")
    handles, labels = above.get_legend_handles_labels()
    handles.append(Line2D([], [], color=YELLOW, marker="+", markersize=5, linestyle=""))
    figure.legend(handles, [*labels, "exact correction"], loc="outside upper left", ncols=3)
    return figure
