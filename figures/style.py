"""The style that all figures share, that of `flowsim.plot` in a column's width, and how they are saved."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import flowsim
from flowsim.files import whole
from flowsim.plot import theme
from flowsim.plot.theme import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RULES,
    SHADE,
    YELLOW,
    grid,
    log_time_axis,
    whole_decades,
)

COLUMN = 3.4
"""Inches: the column of a paper, in which text of 8 points is that of a caption."""

PAGE = 7.0
"""Inches: two columns with what is between them."""

STYLE: dict[Any, Any] = theme.STYLE | {"figure.dpi": 300}
"""That of `flowsim.plot`, laid out for the resolution at which figures are saved."""


def panels(rows: int, columns: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of one column's width with panels, row by row."""
    figure = Figure((COLUMN, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    return figure, list(axes.flat)


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
    "BLACK", "BLUE", "COLOURS", "COLUMN", "GREEN", "GREY", "ORANGE", "PAGE", "PURPLE", "RULES", "SHADE", "STYLE",
    "YELLOW", "grid", "log_time_axis", "panels", "save", "title_and_caption", "whole_decades",
]  # fmt: skip
