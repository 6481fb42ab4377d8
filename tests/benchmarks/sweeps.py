"""What a sweep costs: rows per second, what the scheduler takes, memory: `python tests/benchmarks/sweeps.py`, minutes.

The solve is timed in CPU seconds as well, which hardly depend on what else the machine does. What Dask takes is the
time of tasks that do nothing but return the bytes of a part.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from flowsim.executor import execute
from flowsim.sweeps.keys import grid_of
from flowsim.sweeps.results import open_results
from flowsim.sweeps.rows import failed_part, solved_part
from flowsim.sweeps.sweeping import solve_missing

GRID = {
    "samples": 10, "dimension": 20, "kappa": 0.1, "width": 20, "rule": ["fa", "sign-fa"], "t_final": 100.0,
    "observables": ["loss", "alignment", "conserved_deviation"],
}  # fmt: skip
TIMES, EMPTY = 20, 1600
"""Rows of a trajectory; tasks that do nothing, of 64 trajectories each: 10^5 rows, one each."""


def seconds() -> float:
    """CPU seconds of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of it."""
    wall, cpu = time.perf_counter(), seconds()
    work()
    return time.perf_counter() - wall, seconds() - cpu


def swept(workers: int, seeds: int) -> str:
    """A sweep with processes, which takes the start of them."""
    grid = grid_of({**GRID, "times": TIMES, "seeds": seeds})
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = measured(lambda: solve_missing(open_results(folder, grid), workers, None, progress=False))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
    rows = grid.trajectories * TIMES
    return (
        f"{workers} processes: {rows} rows of {grid.trajectories} trajectories in {wall:.1f} s, {rows / wall:.0f} "
        f"rows/s; {1e3 * cpu / grid.trajectories:.1f} CPU ms per trajectory; {size / rows:.1f} bytes per row"
    )


def nothing(number: int) -> bytes:
    """In another process: a part without work, 64 rows."""
    return CONTENT


CONTENT = failed_part(grid_of({**GRID, "seeds": 64}), 0, "").content


def scheduled(workers: int) -> str:
    """Tasks that do nothing: what is left is Dask, and the writing of the parts."""
    grid = grid_of({**GRID, "seeds": 64 * EMPTY})
    largest, first, cpu = 0, 0.0, seconds()
    with tempfile.TemporaryDirectory() as folder:
        results = open_results(folder, grid)
        for number, future in execute(nothing, range(EMPTY), workers=workers):
            first = first or time.perf_counter()
            results.write(number, future.result())
            largest = max(largest, psutil.Process().memory_info().rss)
        wall, cpu = time.perf_counter() - first, seconds() - cpu
    return (
        f"{workers} processes: {EMPTY} empty tasks in {wall:.1f} s, {1e3 * wall / EMPTY:.1f} ms each "
        f"({1e3 * cpu / EMPTY:.1f} CPU ms, starts of the processes included); {largest / 2**20:.0f} MiB here at most"
    )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=640, help="trajectories of each rule")
    options = parser.parse_args()
    grid = grid_of({**GRID, "times": TIMES, "seeds": 64})
    solved_part(grid, 0)  # compiled, and its libraries loaded
    wall, cpu = measured(lambda: solved_part(grid, 0))
    print(f"in this process: {64 * TIMES} rows in {wall:.2f} s, {cpu:.2f} CPU s: {64 * TIMES / cpu:.0f} rows per CPU s")
    for workers in (1, 2):
        print(swept(workers, options.seeds), flush=True)
    for workers in (1, 2):
        print(scheduled(workers), flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"the largest process that worked: {used / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
