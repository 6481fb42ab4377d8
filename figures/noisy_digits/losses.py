"""Noisy digits: losses over widths.

Cross-entropy at the end of training on the training images, a fifth of whose labels are wrong, and on clean test
images, mean and standard error over repeats (compare the paper’s Figure 4). Wider networks fit the noisy labels
better, and their test loss does not rise. No theorem of the paper is about test losses: this is its observation,
measured.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.experiments.table import levels, over_repeats
from figures.noisy_digits.results import by_rule
from figures.style import RULES as COLOURS
from figures.style import grid, panels
from figures.widths import set_beside, width_axis


def draw(table: pd.DataFrame) -> Figure:
    """Training loss on the left, test loss on the right."""
    figure, axes = panels(1, 2, 2.4)
    widths = levels(table, "width")
    for panel, (quantity, title) in zip(axes, [("train_loss", "training"), ("test_loss", "test")], strict=True):
        of_rules = by_rule(table, quantity)
        for place, (rule, loss) in enumerate(of_rules.items()):
            mean, error = over_repeats(loss[-1])
            bars = panel.errorbar(
                widths, mean, error, color=COLOURS[rule], linewidth=0.9, marker="o", markersize=2.5, capsize=1.5,
                label=rule if panel is axes[0] else None,
            )  # fmt: skip
            set_beside(bars, place, len(of_rules))
        width_axis(panel, widths.tolist())
        panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))
        panel.set_title(title)
        grid(panel)
    axes[0].set_ylabel("cross-entropy")
    figure.legend(loc="outside upper left", ncols=4)
    return figure
