"""The style that all figures share, and how they are saved: column width, colours that the colour-blind tell apart."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from torch import Tensor

import flowsim
from flowsim.files import whole
from theorems.pictures import BLACK, BLUE, COLOURS, GREY, ORANGE

COLUMN = 3.4
"""Inches: the column of a paper, in which text of 8 points is that of a caption."""

GREEN, PURPLE, YELLOW = COLOURS[2:5]
SHADE = "#888888"

RULES = {"GD": BLACK, "FA": BLUE, "adaFA": GREEN, "sign-FA": ORANGE}
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
    "figure.dpi": 300,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType: many publishers refuse Type 3
    "text.usetex": False,
}


def panels(rows: int, columns: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of one column's width with panels, row by row."""
    figure = Figure((COLUMN, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    return figure, list(axes.flat)


def log_times(first: float, last: float, count: int = 400) -> Float[Tensor, " times"]:
    """0, and times from `first` to `last` that are evenly spaced on a logarithmic axis."""
    exponents = torch.linspace(0, 1, count - 1, dtype=torch.float64)
    times = first * (last / first) ** exponents
    times[-1] = last  # exactly
    return torch.cat([times.new_zeros(1), times])


def log_time_axis(axes: Axes, first: float, last: float) -> None:
    """Time on a logarithmic scale, with ticks at powers of 10."""
    axes.set_xscale("log")
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
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


def title_and_caption(module: ModuleType) -> tuple[str, str]:
    """A figure's title, without its full stop, and its caption on one line, from its module's docstring.

    >>> from figures import signs
    >>> title_and_caption(signs)[0]
    'Output weights keep their signs: Dale’s principle'
    """
    title, _, caption = inspect.cleandoc(module.__doc__ or "").partition("\n")
    return title.removesuffix("."), " ".join(caption.split())


def save(
    figure: Figure, folder: Path, name: str, module: ModuleType, seeds: Sequence[int], command: str | None = None
) -> list[Path]:
    """Write NAME.png and NAME.pdf, each whole or not at all, with what is seen, the seeds and the version in them.

    The same figure gives the same bytes: no date is written.

    Args:
        figure: what to write.
        folder: where to.
        name: without ending.
        module: the figure's, whose docstring is its title and caption.
        seeds: that it is drawn from.
        command: the name on the command line, if it is another.

    Raises:
        OSError: if one of the two cannot be written; the other one is nevertheless.
    """
    title, caption = title_and_caption(module)
    version = f"flowsim {flowsim.__version__}"
    source = f"python -m figures {command or name}; seeds {', '.join(map(str, seeds))}"
    metadata = {
        "png": {"Title": title, "Description": caption, "Source": source, "Software": version},
        "pdf": {"Title": title, "Subject": caption, "Keywords": source, "Creator": version, "CreationDate": None},
    }
    paths, lost = [folder / f"{name}.{kind}" for kind in metadata], []
    for path, (kind, about) in zip(paths, metadata.items(), strict=True):
        try:
            with whole(path) as partial:
                figure.savefig(partial, format=kind, metadata=about)
        except OSError as error:
            lost.append(f"{path.suffix}: {error.strerror or error}")
    if lost:
        raise OSError("; ".join(lost))
    return paths


__all__ = [
    "BLACK", "BLUE", "COLUMN", "GREEN", "GREY", "ORANGE", "PURPLE", "RULES", "SHADE", "STYLE", "YELLOW",
    "grid", "log_time_axis", "log_times", "panels", "save", "title_and_caption", "whole_decades",
]  # fmt: skip
