"""Noisy digits: how far discrete training is from the conservation law.

The quantity of the paper’s appendix B.1, the gain of Ψ(V) over that of |W|²/2 since the start, is 1 along the flow
(Theorem 5.2). Full-batch steps with momentum: the median over training of its absolute deviation from 1, mean and
standard error over repeats (compare the paper’s Figure 2; a mean over training would show the moments at which |W|²
passes its first value, where the quantity has a pole). Crosses: the same from the exact correction of discrete steps,
by its formula (theorems/README.md, section 4). What is left, below, is rounding: nothing else deviates from the law.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from figures.noisy_digits.protocol import RULES
from figures.noisy_digits.results import Results, over_repeats
from figures.style import RULES as COLOURS
from figures.style import YELLOW, grid, panels, whole_decades

LEAST = 1e-17
"""Where a rest of exactly 0 is drawn."""


def draw(results: Results) -> Figure:
    """Over widths: the deviation above, what is left of it below."""
    figure, (above, below) = panels(2, 1, 3.6, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    widths = results.protocol.widths
    for rule in RULES:
        deviation, formula = (results.of(name, rule)[1:] for name in ("deviation", "deviation_by_correction"))
        mean, error = over_repeats(results.median_deviation[RULES.index(rule)])
        above.errorbar(
            widths, mean.numpy(), error.numpy(), color=COLOURS[rule], marker="o", markersize=6, capsize=2, label=rule
        )
        above.plot(widths, over_repeats(formula.abs().median(0).values).mean, "+", color=YELLOW, markersize=5, zorder=3)
        rest = (deviation - formula).abs().median(0).values.mean(0).clamp(min=LEAST)
        below.plot(widths, rest, ".:", color=COLOURS[rule])
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
