"""Noisy digits: alignment over epochs.

The cosine of the output weights V and the feedback B, mean and standard error over repeats, for the narrowest and the
widest network (compare the paper’s Figure 3). GD has cos = 1 by definition. adaFA starts at 1, as B = V(0), FA near
0, as its B is independent of V. sign-FA cannot fall below 1/√N with N = 10 m (dotted, Proposition 5.3). The step size
falls by ten every 1000 epochs: from the second time on hardly anything moves.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures.experiments.table import levels, over_repeats
from figures.noisy_digits.protocol import CLASSES
from figures.noisy_digits.results import by_rule
from figures.style import RULES as COLOURS
from figures.style import grid, panels


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each of two widths."""
    figure, axes = panels(1, 2, 2.4, sharey=True)
    epochs, widths = levels(table, "epoch"), levels(table, "width")
    for panel, place in zip(axes, (0, len(widths) - 1), strict=True):
        for rule, cosine in by_rule(table, "alignment").items():
            mean, error = over_repeats(cosine[:, place])
            panel.plot(epochs, mean, color=COLOURS[rule], label=rule if panel is axes[0] else None)
            panel.fill_between(epochs, mean - error, mean + error, color=COLOURS[rule], alpha=0.25, linewidth=0)
        bound = (widths[place] * CLASSES) ** -0.5
        label = r"$1/\sqrt{N}$" if panel is axes[0] else None
        panel.axhline(bound, color=COLOURS["sign-FA"], linestyle=":", label=label)
        panel.set_title(f"$m = {widths[place]}$")
        panel.set_xlabel("epoch")
        panel.set_xlim(0, epochs[-1])
        panel.set_xticks([0, epochs[-1]])
        grid(panel)
    axes[0].set_ylabel(r"$\cos(V, B)$")
    figure.legend(loc="outside upper left", ncols=3)
    return figure
