"""Sweeping: chunk by chunk, in as many processes as there are cores, or on a cluster."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from flowsim.executor import ProcessDiedError, execute, execute_here
from flowsim.messages import first_line
from flowsim.progress import reporting
from flowsim.shell import Mistake, mistake
from flowsim.sweeps.grid import Grid
from flowsim.sweeps.keys import AnyGrid, as_grid
from flowsim.sweeps.results import Results, open_results
from flowsim.sweeps.rows import Part, failed_part, solved_part
from flowsim.validation import require_count

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Outcome:
    """What came of the chunks that were solved.

    Args:
        chunks: how many.
        status: how many trajectories ended how.
        reasons: why, for the first of each that did not end as it should.
        failed: the rows of chunks that failed, as parquet files; they are tried again when the sweep goes on.
        mistakes: flowsim's own.
    """

    chunks: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    failed: dict[int, bytes] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Count a chunk and its trajectories."""
        self.chunks += 1
        self.status.update(part.status)
        self.reasons = {**part.reasons, **self.reasons}


def sweep(
    grid: AnyGrid,
    output: str | os.PathLike[str] | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Solve all combinations of what a grid varies, and return a table of what is observed along them.

    The columns are described in `flowsim.sweeps.rows`, the keys of a grid in `flowsim.sweeps`. A trajectory that fails
    has its rows all the same. The rows are the same, to the last bit, whatever the number of processes.

    Processes import the script that starts them: what calls this in a script stands under `if __name__ ==
    "__main__":`. A sweep of one chunk is carried out in this process.

    Args:
        grid: keys and values, or the TOML file that has them.
        output: a folder for the rows, as parquet files; with those that are there the sweep goes on.
        workers: processes, one for each core if not given.
        scheduler: the address of a Dask scheduler whose workers are used instead.
        progress: whether to show on stderr how far it is.

    Raises:
        ValueError: for a grid that is wrong, naming the key; for a folder that has the rows of another grid, or cannot
            be written to; or a scheduler that cannot be reached.
        OSError: if rows cannot be written; what was written stays, and the sweep can go on.
        ImportError: without the packages of the extra `sweep`.

    >>> found = sweep({"samples": 4, "dimension": 6, "kappa": 0.1, "width": 5, "seeds": 2, "t_final": 1e3})
    >>> found.status.tolist(), bool((found.loss < 0.5).all())
    (['ended', 'ended'], True)
    """
    with nullcontext(output) if output is not None else tempfile.TemporaryDirectory() as folder:
        results = open_results(folder, as_grid(grid))
        outcome = solve_missing(results, workers, scheduler, progress)
        return results.read(outcome.failed)


def solve_missing(results: Results, workers: int | None, scheduler: str | None, progress: bool) -> Outcome:
    """Solve the chunks that are not there yet, and write the file of each when it is done.

    While there are no workers `progress` says so.

    Raises:
        ValueError: if there are no such workers, or the scheduler cannot be reached.
        OSError: if a file cannot be written, or the connection to the scheduler is lost.
    """
    if workers is not None:
        require_count("workers", workers)
    missing, outcome = results.missing(), Outcome()
    with reporting() if progress else nullcontext(_untold) as tell:

        def show(doing: str) -> None:
            tell(outcome.chunks / len(missing), f"{doing}, {outcome.chunks} of {len(missing)} chunks")

        solved = _execute(results.grid, missing, workers, scheduler, on_wait=lambda: show("waiting for workers"))
        for number, future in solved:
            error = future.exception()
            if error is None:
                part = future.result()
                results.write(number, part.content)
            else:
                part = failed_part(results.grid, number, first_line(error))
                outcome.failed[number] = part.content
                if not isinstance(error, (ProcessDiedError, MemoryError)):
                    outcome.mistakes.append(mistake(f"chunk {number}", error))
            outcome.add(part)
            show("sweeping")
    return outcome


def _execute(
    grid: Grid, missing: Sequence[int], workers: int | None, scheduler: str | None, on_wait: Callable[[], None]
) -> Iterator[tuple[int, Future[Part]]]:
    function = partial(solved_part, grid)
    if len(missing) <= 1 and scheduler is None:
        return execute_here(function, missing)
    return execute(function, missing, workers=workers, scheduler=scheduler, on_wait=on_wait)


def _untold(share: float, doing: str) -> None:
    """Show nothing."""
