"""How everything that is drawn looks: colours that the colour-blind tell apart, sizes, fonts, and axes of time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

BLUE, ORANGE, BLACK, GREY, SHADE = "#0072b2", "#d55e00", "#000000", "#dddddd", "#888888"
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", BLACK)
"""Okabe and Ito's: the colour-blind can tell them apart. Marks and lines differ in shape, too."""

GREEN, PURPLE, YELLOW = COLOURS[2:5]

RULES = {"GD": BLACK, "FA": BLUE, "adaFA": GREEN, "sign-FA": ORANGE, "DFA": PURPLE}
"""The colour of each rule, in every figure."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.0,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: many publishers refuse Type 3
    "text.usetex": False,
}

SERIF: dict[Any, Any] = {
    "font.family": ["cmr10", "STIXGeneral"],  # the second has the letters that the first lacks
    "mathtext.fontset": "cm",
    "axes.formatter.use_mathtext": True,
    "axes.unicode_minus": False,
}
"""Computer Modern as it ships with matplotlib, as LaTeX sets it, without LaTeX."""


LINEAR = 0.75
"""Decades that the linear part of an axis of time is as wide as."""

TICKS = 5
"""At most so many beside 0."""


@contextmanager
def style(serif: bool = False) -> Iterator[None]:
    """Draw and save within in the style of a paper's column: text of 8 points, thin axes, no frames.

    Args:
        serif: whether letters are those of LaTeX's Computer Modern, as it ships with matplotlib; no LaTeX is needed.
            Outside of formulas it has no < > | _ { }, nor superscripts: write them as $<$.

    >>> with style(serif=True):
    ...     matplotlib.rcParams["mathtext.fontset"]
    'cm'
    """
    dates = logging.getLogger("fontTools.ttLib.tables._h_e_a_d")
    level = dates.level
    dates.setLevel(logging.ERROR)  # it finds the date of cmr10 too early, whenever it writes a PDF
    try:
        with matplotlib.rc_context(STYLE | SERIF if serif else STYLE):
            yield
    finally:
        dates.setLevel(level)


def log_time_axis(axes: Axes, first: float, last: float) -> None:
    """Time on a logarithmic scale, with ticks at powers of 10."""
    axes.set_xscale("log")
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time $t$")


def time_axis(axes: Axes, first: float, last: float) -> None:
    """Time from 0, on a scale that is logarithmic from `first` on, a power of 10, and linear before."""
    axes.set_xscale("symlog", linthresh=first, linscale=0.9 * LINEAR)
    axes.set_xlim(0, last)
    exponents = range(round(math.log10(first)), math.floor(math.log10(last)) + 1)
    axes.set_xticks([0.0, *(10.0**exponent for exponent in exponents[:: math.ceil(len(exponents) / TICKS)])])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time $t$")


def whole_decades(axes: Axes) -> None:
    """Limits of a logarithmic vertical axis at powers of 10, and labels there alone."""
    low, high = axes.get_ylim()
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def grid(axes: Axes, axis: Any = "y") -> None:
    """Faint lines at the ticks, below what is drawn."""
    axes.grid(axis=axis, color=GREY, linewidth=0.4)
    axes.set_axisbelow(True)
