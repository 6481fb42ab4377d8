"""Deep networks: drift from the conservation law, and what its formula leaves.

The largest drift of a conserved quantity of all channels since the start (solid), and what is left of it after the
formula for discrete steps with momentum, decay and mini-batches (dotted), mean over repeats. The flow conserves these
quantities (Theorem 5.2 with shared weights: a sum over the places where a kernel is used); steps of a size do not, and
by how much is known. What is left is the rounding of weights in float32: 6e-8 of each number, in every step.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from figures.experiments.table import array_of, column, levels, rows
from figures.style import BLACK, grid, panels, whole_decades
from figures.style import RULES as COLOURS


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each number of classes."""
    classes, last = levels(table, "classes"), column(table, "epoch").max()
    figure, axes = panels(1, len(classes), 2.4, sharey=True)
    for number, panel in zip(classes, axes, strict=True):
        for rule in levels(table, "rule"):
            of = rows(table, rule=rule, classes=number)
            epochs = np.sort(levels(of, "epoch"))[1:]
            for quantity, line in [("drift", "-"), ("rest", ":")]:
                mean = array_of(of, quantity, "epoch", "repeat").mean(-1)[1:]
                panel.semilogy(epochs, mean, line, color=COLOURS[rule], label=rule if line == "-" else None)
        panel.set_title(f"$k = {number}$")
        panel.set_xlim(0, last)
        panel.set_xticks([0, last / 2, last])
        panel.set_xlabel("epoch", labelpad=0)
    for panel in axes:
        panel.yaxis.set_major_locator(LogLocator(numticks=9))
        grid(panel)
    whole_decades(axes[0])
    axes[0].set_ylabel("change of conserved quantities")
    handles, labels = axes[0].get_legend_handles_labels()
    handles += [Line2D([], [], color=BLACK, linestyle=line) for line in ("-", ":")]
    figure.legend(handles, [*labels, "drift", "what is left"], loc="outside upper left", ncols=3)
    return figure
