"""How far a long run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LONGEST = 600.0
"""Lines come after 1, 2, 4, .. seconds, and from then on so many seconds apart."""


@contextmanager
def reported(task: str, shares: float) -> Iterator[Callable[[float], None]]:
    """Show the progress of a task on stderr, and yield what to call with each share gained, out of `shares` in all."""
    if sys.stderr.isatty():
        with _bar(task, shares) as gained:
            yield gained
    else:
        lines = Lines(task, shares, sys.stderr)
        yield lines.gained
        lines.end()


@contextmanager
def _bar(task: str, shares: float) -> Iterator[Callable[[float], None]]:
    from rich.console import Console  # noqa: PLC0415, `import flowsim` does without
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        number = bar.add_task(task, total=shares)
        yield lambda share: bar.advance(number, share)


class Lines:
    """A line at the start, one at the end, and between them some at intervals that grow."""

    def __init__(self, task: str, shares: float, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.task, self.shares, self.stream, self.clock = task, shares, stream, clock
        self.done, self.interval = 0.0, 1.0
        self.start = self.last = clock()
        self._print(task)

    def gained(self, share: float) -> None:
        """Take note of a share, and print a line if it is time for one."""
        self.done += share
        now = self.clock()
        if now - self.last >= self.interval:
            self.last, self.interval = now, min(2 * self.interval, LONGEST)
            self._print(f"{self.task}: {min(self.done / self.shares, 1):.1%} after {now - self.start:.0f} s")

    def end(self) -> None:
        """Print how long it took."""
        self._print(f"{self.task}: {min(self.done / self.shares, 1):.1%} after {self.clock() - self.start:.0f} s, done")

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
