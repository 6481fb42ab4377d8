"""How far a long command is: a bar in a terminal, where rich is installed, and else a plain line now and then."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

FIRST, LONGEST = 10.0, 300.0
"""Seconds to the first line, and between two lines at most; in between, each comes after twice the time of the one
before. Some services that run commands take ten silent minutes for the end."""

FEW, SMALLEST = 8, 1e-9
"""Steps that do not tell yet how they grow, and ratios of times that are not told apart from 0."""

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


class Course:
    """How much of the work on a trajectory is done, by the shares of its time at which its steps began.

    Steps grow where things slow down: a loss that falls like 1/t takes as many of them from t to 10 t as from 10 t to
    100 t. Taken as log(1 + x / x0) up to the share x of the time, half of them up to r x,

        y = x / x0 = (1 - 2 r) / r^2,   done = log(1 + y) / log(1 + y / x)

    and done = x where they have not grown, r >= 1/2.

    >>> course = Course()
    >>> round(course.gained([0.0, *(1e-6 * 2.0**step for step in range(16))], now=1e-6 * 2.0**16), 2)  # 17 steps of 21
    0.81
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.done = 0.0

    def gained(self, steps: Sequence[float], now: float) -> float:
        """The share of the work that was done since it was asked before.

        Args:
            steps: the shares of the time at which the steps since then began.
            now: the share that is over.
        """
        self.steps += steps
        before = self.done
        self.done = max(before, self._done(now))
        return self.done - before

    def _done(self, now: float) -> float:
        if len(self.steps) < FEW or not 0 < now < 1:
            return now
        middle = len(self.steps) // 2
        halfway = self.steps[middle]
        if len(self.steps) % 2:
            halfway = (halfway + self.steps[middle + 1]) / 2
        ratio = max(halfway / now, SMALLEST)
        if ratio >= 0.5:
            return now
        beyond = (1 - 2 * ratio) / ratio**2
        return math.log1p(beyond) / math.log1p(beyond / now)
