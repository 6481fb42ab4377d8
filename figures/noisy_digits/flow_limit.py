"""Noisy digits as a flow: the limit of small steps.

The same experiment with 20 images and 15 neurons, as a flow (event-driven) and as gradient steps of size η with
momentum β = 0.05, to the same time ηk/(1 − β) = 5. Above, the largest difference of a weight between the two; below,
the change of Σ_j c_j, which the flow conserves (Theorem 5.2). Both vanish with η, in proportion to it for GD, FA and
adaFA (dotted: slope 1). Where large steps meet a kink on the wrong side they part from the flow for a while; under
sign-FA both scatter with where in a step the sign of a weight changes. What discrete training deviates from the law
is its discretisation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from figures.experiments.table import array_of, levels
from figures.style import BLACK, grid, panels
from figures.style import RULES as COLOURS


def draw(table: pd.DataFrame) -> Figure:
    """Differences above, deviations below, against the step size."""
    figure, axes = panels(2, 1, 4.0, sharex=True)
    etas, rules = levels(table, "eta"), levels(table, "rule")
    for panel, quantity, label in [
        (axes[0], "difference", "difference of a weight"),
        (axes[1], "deviation", r"change of $\sum_j c_j$"),
    ]:
        values = array_of(table, quantity, "rule", "eta")
        for rule, of_rule in zip(rules, values, strict=True):
            panel.loglog(etas, of_rule, "o-", color=COLOURS[rule], markersize=3, label=rule)
        ends = np.array([etas[0], etas[-1]])
        lowest = values[:, 0].min() / 2
        panel.loglog(ends, lowest * ends / ends[0], ":", color=BLACK, label=r"proportional to $\eta$")
        panel.set_ylabel(label)
        grid(panel)
    axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1].xaxis.set_major_formatter("{x:g}")
    axes[1].xaxis.set_minor_locator(NullLocator())
    axes[1].set_xlabel(r"step size $\eta$")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure
