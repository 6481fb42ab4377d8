"""The error estimate is above the true error, which enclosures prove.

Small problems drawn at random (two layers, all rules, Gaussian and orthogonally separable data), each solved in
floating point at five tolerances and enclosed in ball arithmetic. For each solution: how many times as large the
estimate of its error is as the true one, where over the run this is least. Left of 1 an estimate would say less than
there is. At 1e-12 rounding, for which the estimate allows as well, is a part of both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, grid, panels

RESULTS = "calibration.json"
"""Beside this module; `tests/benchmarks/calibration.py` writes it."""

SEEDS = tuple(range(203))
"""Of the problems; three of them could not be enclosed."""

COLOURS = (BLACK, PURPLE, BLUE, GREEN, ORANGE)
BINS = np.logspace(-1, 3.5, 46).tolist()


class Calibrated(NamedTuple):
    """A solution beside its enclosure.

    `error` and `estimate` are the largest over the run, the former proved up to 3 digits; `ratio` is the smallest of
    estimate over error at one time. `covered` says whether it is proved that the estimate is nowhere below the error.
    """

    problem: str
    rtol: float
    events: int
    slides: int
    error: float
    estimate: float
    ratio: float
    covered: bool


def measure() -> list[Calibrated]:
    """What was measured: it takes minutes, and is stored."""
    return [Calibrated(*entry) for entry in json.loads(files("figures").joinpath(RESULTS).read_text())["solutions"]]


def draw(solutions: Sequence[Calibrated]) -> Figure:
    """A histogram of the ratios, stacked by tolerance."""
    figure, (axes,) = panels(1, 1, 2.4)
    tolerances = sorted({solution.rtol for solution in solutions}, reverse=True)
    ratios = [[solution.ratio for solution in solutions if solution.rtol == rtol] for rtol in tolerances]
    labels = [f"rtol {rtol:.0e}".replace("e-0", "e-") for rtol in tolerances]
    axes.hist(ratios, BINS, stacked=True, color=COLOURS[: len(tolerances)], label=labels)
    axes.axvline(1.0, color=BLACK, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("estimated error / true error, at its least over the run")
    axes.set_ylabel("solutions")
    grid(axes, "y")
    axes.legend()
    return figure
