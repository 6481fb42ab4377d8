"""An axis of widths, and marks of several series beside each other on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation

APART = 3.0
"""Points from a mark to that of the next series."""

ROOM = 0.18
"""The share of the axis that a number takes."""


def width_axis(axes: Axes, widths: Sequence[int]) -> None:
    """Widths on a logarithmic scale, with a tick at each, and its number where there is room."""
    axes.set_xscale("log")
    numbered = with_room(widths)
    axes.set_xticks(widths, [str(width) if width in numbered else "" for width in widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.1)
    axes.set_xlabel("width $m$")


def with_room(widths: Sequence[int]) -> list[int]:
    """Those of increasing widths that have room for their number, from the largest on.

    >>> with_room([15, 30, 60, 100, 200])
    [15, 30, 60, 100, 200]
    >>> with_room([15, 30, 45, 60, 75, 100, 125, 150, 175, 200])
    [15, 45, 75, 125, 200]
    """
    kept, room = [widths[-1]], ROOM * math.log(widths[-1] / widths[0])
    for width in widths[-2::-1]:
        if math.log(kept[0] / width) >= room:
            kept.insert(0, width)
    return kept


def set_beside(bars: ErrorbarContainer, place: int, count: int) -> None:
    """Move series `place` of `count` sideways on the page, so that the error bars of all are seen."""
    for artist in bars.get_children():
        assert artist.axes is not None
        moved = (place - (count - 1) / 2) * APART / 72
        offset = ScaledTranslation(moved, 0, artist.axes.figure.dpi_scale_trans)
        artist.set_transform(artist.axes.transData + offset)
