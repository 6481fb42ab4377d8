"""All that is measured, one after another, by one process: `python tests/benchmarks` starts it."""

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import gpu
import scale
import torch
from accuracy import measure_convergence, measure_exact
from limits import measure_arithmetic, measure_memory
from measure import GOALS, OURS, Row, measure, no_collections
from problems import BASE, GROWTH, HARD, SINGLE
from report import write
from results import Results

from figures.peers import PEERS, TOGETHER
from flowsim.integrators.event.compiled.kernel import compile_core

FASTEST, FASTEST_TOGETHER = "diffrax Tsit5", "diffrax Tsit5, vmap"
OTHERS = ("diffrax Dopri8", "scipy DOP853", "torchdiffeq dopri5")
OTHERS_ON_HARD = ("scipy DOP853",)
OTHERS_TOGETHER = ("diffrax Dopri8, vmap", "torchode Dopri5")
LIMIT, LIMIT_OF_OTHERS, LIMIT_ON_LARGEST = 60.0, 10.0, 300.0
"""Seconds for a run of the fastest peer, of others, and of the fastest one on the largest problem."""

LARGEST = list(SINGLE)[-1]
ENSEMBLES, ON_TWO_THREADS = (16, 64, 256), (16, 64)
HARD_TOGETHER = 16
MEMORY_RTOL = 1e-8
COMPILE = """
import time
from flowsim.integrators.event.compiled.kernel import compile_core
started = time.perf_counter()
compile_core()
print(time.perf_counter() - started)
"""


class Task(NamedTuple):
    """A method on an ensemble of a problem, and the seconds that a run of it may take."""

    problem: str
    ensemble: int
    method: str
    limit: float = math.inf
    threads: int = 1


def list_tasks(quick: bool) -> Iterator[Task]:
    """What is timed; `quick` is flowsim and the fastest peer."""
    for name in SINGLE:
        yield Task(name, 1, OURS)
        yield Task(name, 1, FASTEST, LIMIT_ON_LARGEST if name == LARGEST else LIMIT)
        yield from (Task(name, 1, method, LIMIT_OF_OTHERS) for method in OTHERS if not quick)
    for count in ENSEMBLES:
        yield Task(BASE, count, OURS)
        if count in ON_TWO_THREADS:
            yield Task(BASE, count, OURS, threads=2)
        yield Task(BASE, count, FASTEST_TOGETHER, LIMIT)
        yield from (Task(BASE, count, method, LIMIT_OF_OTHERS) for method in OTHERS_TOGETHER if not quick)
    for name in HARD:
        yield from (Task(name, count, OURS) for count in (1, HARD_TOGETHER))
        yield Task(name, 1, FASTEST, LIMIT)
        yield from (Task(name, 1, method, LIMIT_OF_OTHERS) for method in OTHERS_ON_HARD if not quick)
    yield from (Task(name, 1, OURS) for name in GROWTH if name not in SINGLE)


def do(task: Task, rows: Sequence[Row]) -> Row:
    """Measure, unless the method did not end with fewer trajectories together."""
    name, count, method = task.problem, task.ensemble, task.method
    before = [row for row in rows if (row.problem, row.method) == (name, method)]
    failed = [row.ensemble for row in before if row.ensemble < count and row.best(GOALS[-1]) is None]
    if failed or method not in (OURS, *PEERS, *TOGETHER):
        note = f"not tried: {failed[0]} together did not end" if failed else "not installed"
        return Row(name, count, method, task.threads, (), note)
    if name not in HARD:
        alone = method.removesuffix(", vmap")
        before.extend(row for row in rows if (row.problem, row.method) == (BASE, alone))
    goals = GOALS if count == 1 else GOALS[-1:]
    with no_collections():
        return measure(name, count, method, task.limit, task.threads, goals, like=next(iter(before), None))


def describe_machine() -> str:
    """What times depend on."""
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, torch {torch.__version__}"


def measure_compilation() -> dict[str, float]:
    """Seconds to compile the core where nothing is stored, and to load what is."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-c", COMPILE]
        first, second = (
            float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout) for _ in range(2)
        )
    return {"compiled": first, "loaded": second}


def measure_all(quick: bool, results: Results) -> None:
    """Measure, and add what is found to the results, so that it can be written whatever happens."""
    results.compilation = measure_compilation()
    compile_core()
    for task in list_tasks(quick):
        row = do(task, results.rows)
        results.rows.append(row)
        _tell(row)
        if row.method == OURS and row.ensemble == 1:
            results.arithmetic.append(measure_arithmetic(row))
    for name in (*SINGLE, *HARD):
        results.memory.append(measure_memory(name, MEMORY_RTOL))
    results.exact = measure_exact()
    results.convergence = [measure_convergence(name) for name in (BASE, *HARD)]


def _tell(row: Row) -> None:
    best = row.best(GOALS[-1])
    outcome = f"{best.seconds:.3g} s" if best else row.note
    print(f"{row.problem}, {row.ensemble} together: {row.method}, {row.threads} threads: {outcome}", file=sys.stderr)


def main() -> None:
    """Measure, and write what is found."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description="Benchmarks against other solvers.")
    parser.add_argument("--quick", action="store_true", help="flowsim and the fastest peer alone")
    axes = list(scale.AXES)
    help_on_scale = f"how far flowsim goes instead, along all axes or some of: {', '.join(axes)}"
    parser.add_argument("--scale", nargs="*", choices=axes, metavar="AXIS", help=help_on_scale)
    parser.add_argument("--cuda", action="store_true", help="ensembles on a GPU instead, against the cores of its host")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.scale is not None:
        scale.write(options.scale or axes)
        return
    if options.cuda:
        gpu.write(gpu.measure_all(torch.device("cuda")) if torch.cuda.is_available() else None)
        return
    results = Results(describe_machine(), "quick" if options.quick else "full")
    started, busy = time.perf_counter(), time.process_time()
    try:
        measure_all(options.quick, results)
    finally:
        results.seconds = time.perf_counter() - started
        results.share = (time.process_time() - busy) / results.seconds
        write(results)


if __name__ == "__main__":
    main()
