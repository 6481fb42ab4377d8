"""Deep networks: alignment of each layer over epochs, and as the law predicts it.

The cosine of weights W and feedback B of each layer, mean over repeats (compare the figures of the paper’s appendix
B.2). Wide and pale below it: the same as it follows from the norms one layer before. Theorem 5.2 with shared weights
says that, summed over channels, ⟨W, B⟩ gains half of what |W|² + |b|² gains in the layer that writes what this one
reads, up to a correction of discrete steps that has a formula. The first layer reads the images: nothing predicts its
alignment, and nothing goes back through its feedback. GD has cos = 1 by definition.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.deep_networks.results import OWN, layers_of, predicted_cosine
from figures.experiments.table import array_of, column, levels, rows
from figures.style import COLOURS, GREY, grid, panels

FEW = 6
"""So many layers are shown; of more, one for each stage and the last."""


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each rule and number of classes."""
    rules, classes = [rule for rule in levels(table, "rule") if rule in OWN], levels(table, "classes")
    figure, axes = panels(len(rules), len(classes), 1.2 * len(rules) + 0.7, sharex=True, sharey="row")
    epochs, last = np.sort(levels(table, "epoch")), column(table, "epoch").max()
    for (rule, number), panel in zip([(rule, number) for rule in rules for number in classes], axes, strict=True):
        of = rows(table, rule=rule, classes=number)
        at = epochs[: len(levels(of, "epoch"))]
        for layer, colour in zip(shown(layers_of(table)), COLOURS, strict=False):
            predicted = of.assign(predicted=predicted_cosine(of, layer))
            law, measured = (
                array_of(each, name, "epoch", "repeat").mean(-1)
                for each, name in [(predicted, "predicted"), (of, f"cosine {layer}")]
            )
            panel.plot(at, law, color=colour, linewidth=3, alpha=0.3, solid_capstyle="butt")
            panel.plot(at, measured, color=colour, linewidth=0.9, label=layer if panel is axes[0] else None)
        panel.set_title(f"{rule}, $k = {number}$")
        panel.set_xlim(0, last)
        panel.set_xticks([0, last / 2, last])
        grid(panel)
    for panel in axes[-len(classes) :]:
        panel.set_xlabel("epoch", labelpad=0)
    for panel in axes[:: len(classes)]:
        panel.set_ylabel(r"$\cos(W, B)$")
    handles, labels = axes[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=GREY, linewidth=3))
    figure.legend(handles, [*labels, "by the law"], loc="outside upper left", ncols=3)
    return figure


def shown(layers: list[str]) -> list[str]:
    """Those that are drawn.

    >>> shown(["conv1", *(f"layer{stage}.{block}.conv2" for stage in (1, 2, 3, 4) for block in (0, 1)), "fc"])
    ['layer1.1.conv2', 'layer2.1.conv2', 'layer3.1.conv2', 'layer4.1.conv2', 'fc']
    """
    if len(layers) <= FEW:
        return layers
    return [layer for layer in layers if layer.endswith("1.conv2")] + layers[-1:]
