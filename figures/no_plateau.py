"""How long the loss takes to halve from small weights: FA has no plateau.

The time to L = 1/2 over the size ε of the initial weights, three seeds each, on orthogonally separable data (n = 5, m =
6, γ = 0.3, exponential loss). Under FA and sign-FA with |b_j| = 1 it does not grow however small the weights are; the
theorem bounds it by the blue line, which tends to (24/(γ⁴ margin⁴ |b|²))^(1/3). Under GD it grows like log(1/ε), as it
must: it is above the black line. Under adaFA the feedback is as small as the weights, and the time, which the same
theorem bounds by the green line, grows like ε^(−2/3). Bounds are those of the first seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from figures.style import RULES, SHADE, grid, panels
from theorems.ensembles import RuleName
from theorems.no_plateau import (
    half_time,
    half_time_at_least,
    half_time_at_most,
    initial_loss,
    lower,
    scaled_run,
)

SEEDS = (0, 1, 2)
SCALES = tuple(10.0**-exponent for exponent in range(1, 9))

NAMES: dict[str, RuleName] = {"GD": "gd", "FA": "fa", "adaFA": "adafa", "sign-FA": "sign-fa"}
MARKERS = {"GD": "s", "FA": "o", "adaFA": "^", "sign-FA": "+"}


class Measured(NamedTuple):
    """By rule the times to L = 1/2, and what is proved of them."""

    scales: Sequence[float]
    times: dict[str, Float[Tensor, "scales seeds"]]
    proved: dict[str, Float[Tensor, "scales seeds"]]


def measure(scales: Sequence[float] = SCALES, seeds: tuple[int, ...] = SEEDS) -> Measured:
    """Run all rules from all scales."""
    found = Measured(scales, {}, {})
    for name, rule in NAMES.items():
        runs = [scaled_run(rule, scale, len(seeds), "cpu", _long_enough(rule, scale)) for scale in scales]
        found.times[name] = torch.stack([half_time(run) for run in runs])
        proved = [
            half_time_at_least(run) if rule == "gd" else half_time_at_most(lower(run), initial_loss(run))
            for run in runs
        ]
        found.proved[name] = torch.stack(proved)
    return found


def _long_enough(rule: RuleName, scale: float) -> float:
    return {"gd": 80.0, "adafa": 10 * scale ** (-2 / 3)}.get(rule, 20.0)


def draw(measured: Measured) -> Figure:
    """Times as markers, bounds as lines."""
    figure, (axes,) = panels(1, 1, 2.8)
    looks: dict[str, Any] = {"markersize": 4, "fillstyle": "none"}
    for name, times in measured.times.items():
        colour = RULES[name]
        for seed, column in enumerate(times.T):
            label = None if seed else name
            axes.plot(measured.scales, column, MARKERS[name], color=colour, label=label, **looks)
        if name != "sign-FA":  # that of FA
            axes.plot(measured.scales, measured.proved[name][:, 0], "--", color=colour, linewidth=0.9)
    axes.plot([], [], "--", color=SHADE, label="proved")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(r"size of the initial weights $\varepsilon$")
    axes.set_ylabel("time to $L = 1/2$")
    grid(axes)
    axes.legend(loc="upper left", ncols=2)
    return figure
