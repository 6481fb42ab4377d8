"""Deep networks: test accuracy over the number of classes.

On the left after the last epoch, as in the paper’s tables 1 and 2; on the right after equally many updates, those at
which the runs with the fewest classes end: an epoch with more classes has more images, hence more updates, and more
training. Mean and standard error over repeats, each with its own classes, weights and order of the images, which the
four rules share; runs that diverged are left out. No theorem of the paper is about test accuracy.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures.deep_networks.results import TIMES
from figures.experiments.table import levels, over_repeats
from figures.style import RULES as COLOURS
from figures.style import grid, panels


def draw(table: pd.DataFrame) -> Figure:
    """At equal epochs on the left, at equal updates on the right."""
    figure, axes = panels(1, 2, 2.4, sharey=True)
    classes = levels(table, "classes")
    for panel, (when, at) in zip(axes, TIMES.items(), strict=True):
        for rule, accuracy in zip(levels(table, "rule"), at(table, "test_accuracy"), strict=True):
            mean, error = over_those_left(100 * accuracy)
            panel.errorbar(
                classes, mean, error, color=COLOURS[rule], marker="o", markersize=3, capsize=2,
                label=rule if panel is axes[0] else None,
            )  # fmt: skip
        panel.set_title(when)
        panel.set_xticks(classes, [str(number) for number in classes])
        panel.set_xlabel("classes $k$")
        grid(panel)
    axes[0].set_ylabel("test accuracy (%)")
    figure.legend(loc="outside upper left", ncols=4)
    return figure


def over_those_left(values: NDArray) -> tuple[NDArray, NDArray]:
    """Mean and standard error over the repeats that did not diverge.

    >>> over_those_left(np.array([[1.0, np.nan, 3.0]]))
    (array([2.]), array([1.]))
    """
    mean, error = (np.full(len(values), np.nan) for _ in range(2))
    for place, row in enumerate(values):
        left = row[~np.isnan(row)]
        if len(left):
            mean[place], error[place] = over_repeats(left)
    return mean, error
