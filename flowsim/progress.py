"""How far a long command is: a bar in a terminal, where rich is installed, and else a plain line now and then."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO

FIRST, LONGEST = 10.0, 300.0
"""Seconds to the first line, and between two lines at most; in between, each comes after twice the time of the one
before. Some services that run commands take ten silent minutes for the end."""

Tell = Callable[[float, str], None]
"""Takes the share that is done, from 0 to 1, and what is being done."""


@contextlib.contextmanager
def reporting(stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    """A function to be told how far something is, often; it shows that on standard error, or another stream.

    >>> times = iter([0.0, 5.0, 12.0, 15.0, 31.0])
    >>> with reporting(sys.stdout, clock=lambda: next(times)) as tell:
    ...     for done in range(1, 5):
    ...         tell(done / 4, f"case {done}")
    case 2: 50 % after 12 s, about 14 s left
    case 4: 100 % after 31 s
    """
    to = sys.stderr if stream is None else stream
    with _bar(to) if _takes_a_bar(to) else _lines(to, clock) as tell:
        yield tell


def _takes_a_bar(stream: IO[str]) -> bool:
    movable = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return movable and importlib.util.find_spec("rich") is not None


@contextlib.contextmanager
def _bar(stream: IO[str]) -> Iterator[Tell]:
    # rich is loaded by those who look at it only
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, doing: bar.update(task, completed=share, description=doing)


@contextlib.contextmanager
def _lines(stream: IO[str], clock: Callable[[], float]) -> Iterator[Tell]:
    started, due, first = clock(), FIRST, None

    def tell(share: float, doing: str) -> None:
        nonlocal due, first
        seconds = clock() - started
        first = first or (share, seconds)  # a run that goes on where it was begins in the middle
        if seconds >= due:
            due = seconds + min(seconds, LONGEST)
            with contextlib.suppress(OSError):  # what is done matters more than that it is shown
                left = _left(share, seconds, *first)
                print(f"{doing}: {100 * share:.0f} % after {seconds:.0f} s{left}", file=stream, flush=True)

    yield tell


def _left(share: float, seconds: float, share_then: float, seconds_then: float) -> str:
    """How long the rest takes at the speed since then; nothing where that is not known."""
    if not share_then < share < 1:
        return ""
    return f", about {(seconds - seconds_then) * (1 - share) / (share - share_then):.0f} s left"
