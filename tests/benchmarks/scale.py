"""How far flowsim goes: `python tests/benchmarks --scale`, half an hour; `--scale width` along one axis.

Along each axis a problem grows until a run does not end. Every run is a process of its own that may take so many CPU
seconds, which unlike seconds of the clock hardly depend on what else the machine does, and most of the memory that is
free. Writes scale.json and scale.md beside this file, axis by axis.
"""

import json
import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from problems import SLOPE, arbitrary_labels, deep, separable
from telling import tabulate

from flowsim import Flow, IntegrationError, Solution, solve
from flowsim.files import whole
from flowsim.integrators.event.records import COLUMNS
from flowsim.weights import NetworkWeights

SECONDS = 120
"""CPU seconds that a run may take, of each thread."""

OF_MEMORY = 0.8
"""Share of the memory that is free when a run starts which it may take."""

RTOL = 1e-8
KEPT = (2 / (1 + SLOPE**2)) ** 0.5
"""Scale of weights that keep the size of signals from layer to layer, on the average."""

FOLDER = Path(__file__).resolve().parent
GIGABYTE = 1e9


class Axis(NamedTuple):
    """What grows: the problem in words, with its size in braces; what there is at a size, and its t_final; sizes."""

    problem: str
    make: Callable[[int], tuple[Flow, NetworkWeights, float]]
    sizes: Sequence[int]
    threads: int = 1


def _doubled(first: int) -> list[int]:
    return [first << times for times in range(20)]


AXES = {
    "samples": Axis(
        "n = {}, d = 2 n, m = 50, separable, to t = 100",
        lambda size: (*separable(1, samples=size), 100.0), _doubled(160),
    ),
    "width": Axis(
        "m = {}, n = 20, d = 40, separable, to t = 100",
        lambda size: (*separable(1, width=size), 100.0), _doubled(400),
    ),
    "depth": Axis(
        "{} hidden layers of 32, n = 10, d = 6, arbitrary labels, to t = 20",
        lambda size: (*deep(1, hidden=(32,) * size, scale=KEPT), 20.0), _doubled(2),
    ),
    "horizon": Axis(
        "to t = 1e{}, n = 20, d = 40, m = 50, separable",
        lambda size: (*separable(1), 10.0**size), (4, 8, 12, 16, 32, 64, 128, 256, 308),
    ),
    "horizon, labels not fitted": Axis(
        "to t = 1e{}, n = 40, d = 2, m = 5, arbitrary labels",
        lambda size: (*arbitrary_labels(1, samples=40, dimension=2, width=5), 10.0**size), (2, 4, 6, 8, 10, 12),
    ),
    "ensemble": Axis(
        "{} trajectories, n = 20, d = 40, m = 50, separable, to t = 100",
        lambda size: (*separable(size), 100.0), _doubled(256), threads=2,
    ),
    "events stored": Axis(
        "n = {} in the plane, m = 50, arbitrary labels, to t = 100",
        lambda size: (*arbitrary_labels(1, samples=size, dimension=2), 100.0), _doubled(80),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run: its size, why it did not end ("" if it did), and what it took and left.

    Seconds are CPU seconds of all threads, with the making of the problem. `stored` are bytes of the starts of steps,
    `peak` is the most memory that the process held.
    """

    size: int
    stopped: str
    seconds: float
    peak: float
    steps: int = 0
    events: int = 0
    stored: float = 0.0
    loss: float = 0.0


# --- in a process of its own ---


def restrict(threads: int) -> None:
    """From here on this process may take no more time and memory."""
    memory = int(OF_MEMORY * psutil.virtual_memory().available)
    seconds = SECONDS * threads
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))  # SIGXCPU, before the system kills without a word
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def run(axis: Axis, size: int) -> Run:
    """A run to its end, unless the system ends it."""
    torch.set_num_threads(axis.threads)
    started, stopped, left = time.process_time(), "", {}
    try:
        flow, weights, t_final = axis.make(size)
        solution = solve(flow, weights, t_final, rtol=RTOL, atol=1e-2 * RTOL)
        left = describe(solution)
    except IntegrationError as error:
        stopped = str(error)
    except MemoryError as error:
        stopped = f"memory: {error}" if str(error) else "memory"
    seconds, peak = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return Run(size, stopped, seconds, peak, **left)


def describe(solution: Solution[NetworkWeights]) -> dict[str, Any]:
    """Steps and events of all trajectories, the bytes of what is stored, and the largest loss at the end."""
    counts = {name: int(count.sum()) for name, count in solution.statistics.items()}
    records = solution.path.records  # type: ignore[attr-defined]
    stored = sum(getattr(record, column).nbytes for record in records for column in COLUMNS)
    loss = solution.flow.risk(solution.evaluate(solution.t_final)).max().item()
    return {
        "steps": sum(len(record.index) for record in records), "events": counts["crossings"] + counts["slides"],
        "stored": float(stored), "loss": loss,
    }  # fmt: skip


# --- from outside ---


def measure(name: str, size: int) -> Run:
    """A run in a process of its own, within its time and its memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ended = subprocess.run([sys.executable, __file__, name, str(size)], stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode == 0:
        return Run(**json.loads(ended.stdout))
    stopped = "time" if ended.returncode == -signal.SIGXCPU else f"exit status {ended.returncode}"
    return Run(size, stopped, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, math.nan)


def climb(name: str) -> Iterator[Run]:
    """Runs of an axis, size after size, until one does not end."""
    for size in AXES[name].sizes:
        found = measure(name, size)
        yield found
        if found.stopped:
            return


def write(names: Sequence[str], folder: Path = FOLDER) -> None:
    """Measure along these axes, and write after every run what is known."""
    file = folder / "scale.json"
    known = read(file) if file.exists() else {}
    for name in names:
        known[name] = []
        for found in climb(name):
            known[name].append(found)
            print(f"{name}: {found}", file=sys.stderr)
            content = {axis: [asdict(run) for run in runs] for axis, runs in known.items()}
            with whole(file) as partial:
                partial.write_text(json.dumps(content, indent=1) + "\n")
            with whole(folder / "scale.md") as partial:
                partial.write_text(tell(known))


def read(file: Path) -> dict[str, list[Run]]:
    """What `write` wrote."""
    return {axis: [Run(**run) for run in runs] for axis, runs in json.loads(file.read_text()).items()}


# --- tables ---


def tell(known: Mapping[str, Sequence[Run]]) -> str:
    """How far each axis goes, and all runs."""
    parts = [
        f"Tolerance {RTOL:g}, FA, exponential loss, slope {SLOPE:g}; {SECONDS} CPU seconds for each thread (ensembles: "
        f"two, all others: one), {OF_MEMORY:.0%} of the free memory, and what else is `solve`'s default. "
        "The largest size that ends, and what ends the next:",
        tabulate("| axis | the largest that ends | CPU s | steps | events | stored, GB | the next | ends by |",
                 (_limit(axis, runs) for axis, runs in known.items())),
        "All runs:",
        tabulate("| axis | size | CPU s | steps | events | stored, GB | memory, GB | loss at the end | ended by |",
                 (_line(axis, run) for axis, runs in known.items() for run in runs)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _limit(axis: str, runs: Sequence[Run]) -> str:
    """The last run that ended, and what became of the next."""
    ended, problem = [run for run in runs if not run.stopped], AXES[axis].problem
    last, after = (ended or [None])[-1], [run for run in runs if run.stopped]
    next_size, why = (f"{after[0].size}", _shortly(after[0].stopped)) if after else ("", "nothing: all end")
    found = f"{problem.format(last.size)} | {_work(last)}" if last else "none | | | |"
    return f"| {axis} | {found} | {next_size} | {why} |"


def _line(axis: str, run: Run) -> str:
    peak = f"{run.peak / GIGABYTE:.2g}" if math.isfinite(run.peak) else ""
    loss = "" if run.stopped else f"{run.loss:.3g}"
    return f"| {axis} | {run.size} | {_work(run)} | {peak} | {loss} | {_shortly(run.stopped) or 'its end'} |"


def _work(run: Run) -> str:
    counts = "| |" if run.stopped else f"{run.steps} | {run.events} | {run.stored / GIGABYTE:.2g}"
    return f"{run.seconds:.3g} | {counts}"


def _shortly(reason: str) -> str:
    """What an error says first."""
    return reason.partition(";")[0].partition(", while")[0]


if __name__ == "__main__":
    asked, size = sys.argv[1], int(sys.argv[2])
    restrict(AXES[asked].threads)
    print(json.dumps(asdict(run(AXES[asked], size))))
