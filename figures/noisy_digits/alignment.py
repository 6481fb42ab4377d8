"""Noisy digits: alignment over epochs.

The cosine of the output weights V and the feedback B, mean and standard error over repeats, for the narrowest and the
widest network (compare the paper’s Figure 3). GD has cos = 1 by definition. adaFA starts at 1, as B = V(0), FA near
0, as its B is independent of V. sign-FA cannot fall below 1/√N with N = 10 m (Proposition 5.3). The step size falls by
ten every 1000 epochs: curves have a corner at the first time, and hardly move from the second on.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.experiments.table import levels, over_repeats
from figures.noisy_digits.protocol import CLASSES, Protocol
from figures.noisy_digits.results import by_rule
from figures.style import RULES as COLOURS
from figures.style import SHADE, grid, panels


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each of two widths."""
    figure, axes = panels(1, 2, 2.4, sharey=True)
    epochs, widths = levels(table, "epoch"), levels(table, "width")
    for panel, place in zip(axes, (0, len(widths) - 1), strict=True):
        for rule, cosine in by_rule(table, "alignment").items():
            mean, error = over_repeats(cosine[:, place])
            panel.plot(epochs, mean, color=COLOURS[rule], label=rule)
            panel.fill_between(epochs, mean - error, mean + error, color=COLOURS[rule], alpha=0.25, linewidth=0)
        bound = (widths[place] * CLASSES) ** -0.5
        panel.axhline(bound, color=COLOURS["sign-FA"], linestyle=":", label=r"$1/\sqrt{N}$")
        for epoch in range(Protocol.decay, epochs[-1], Protocol.decay):
            panel.axvline(epoch, color=SHADE, linewidth=0.6, linestyle="--", zorder=0, label="step size / 10")
        panel.set_title(f"$m = {widths[place]}$")
        panel.set_xlabel("epoch")
        panel.set_xlim(0, epochs[-1])
        panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True))
        grid(panel)
    axes[0].set_ylabel(r"alignment $\cos(V, B)$")
    handles, labels = axes[0].get_legend_handles_labels()
    key = dict(zip(labels, handles, strict=True))
    figure.legend(list(key.values()), list(key), loc="outside upper left", ncols=3)
    return figure
