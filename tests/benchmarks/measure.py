"""Time per trajectory at equal achieved error, of flowsim and of its peers."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from problems import SETTINGS

from figures.peers import PEERS, TOGETHER, packed, problem
from flowsim import Flow, IntegrationError, Solution, solve
from flowsim.reduction import reduce
from flowsim.weights import NetworkWeights

GOALS = (1e-6, 1e-9)
"""The largest errors of any weight at the end that count."""

RTOLS = tuple(10.0**-digits for digits in range(4, 14))
TIGHTEST = 1e-13
"""The tolerance of the reference."""

OURS = "flowsim"
REPEATS, REPEATED = 5, 20.0
"""A time is the median of so many runs, or of as many as fit into so many seconds."""

LONG = 20.0
"""Seconds of a run beyond which no looser tolerance is tried once one reaches the goal."""


@dataclass(frozen=True)
class Point:
    """Runs at one tolerance: the largest error, seconds and evaluations per trajectory, and how many runs.

    Of flowsim also the events and rounds of a trajectory, the means, and the order of the series.
    """

    rtol: float
    error: float
    seconds: float
    evaluations: float
    compilation: float = 0.0
    runs: int = 1
    events: float | None = None
    rounds: float | None = None
    order: int | None = None


@dataclass(frozen=True)
class Row:
    """A method on an ensemble of a problem.

    Args:
        problem, ensemble, method, threads: what was run.
        points: by tolerance, from loose to tight.
        note: what stopped it.
    """

    problem: str
    ensemble: int
    method: str
    threads: int
    points: tuple[Point, ...]
    note: str = ""

    def best(self, goal: float) -> Point | None:
        """The cheapest runs that reach an error."""
        reaching = [point for point in self.points if point.error <= goal]
        return min(reaching, key=lambda point: point.seconds, default=None)


def measure(
    name: str,
    count: int,
    method: str,
    limit: float = math.inf,
    threads: int = 1,
    goals: Sequence[float] = GOALS,
    like: Row | None = None,
) -> Row:
    """Measure a method, which may take so many seconds for a run.

    `like`: the method on an easier problem, whose tolerances are tried first.
    """
    tried: dict[float, Point] = {}
    run = partial(run_at, name, count, method, limit, threads)
    note = ""
    try:
        for goal in goals:
            known = like.best(goal) if like else None
            if not search(run, goal, tried, known.rtol if known else RTOLS[0]):
                note = f"error above {goal:g} at {RTOLS[-1]:g}"
    except TimeoutError as stop:
        note = str(stop)
    for goal in goals:
        best = Row(name, count, method, threads, tuple(tried.values())).best(goal)
        if best and best.runs == 1:
            tried[best.rtol] = _repeat(run, best, count)
    return Row(name, count, method, threads, tuple(tried[rtol] for rtol in RTOLS if rtol in tried), note)


def search(run: Callable[[float], Point], goal: float, tried: dict[float, Point], first: float) -> bool:
    """Run at tolerances, which are added to `tried`, until the loosest of RTOLS that reaches the goal is among them.

    Errors are about proportional to the tolerance: the next one is as many powers of 10 tighter as are missing. Where
    a run takes long, and reaches the goal, none looser is tried. Return whether one reaches it.
    """
    reaching = [place for place, rtol in enumerate(RTOLS) if rtol in tried and tried[rtol].error <= goal]
    high = min(reaching, default=len(RTOLS))
    low = max((place for place in range(high) if RTOLS[place] in tried), default=-1)
    place = max(RTOLS.index(first), low + _missing(tried[RTOLS[low]], goal) if low >= 0 else 0)
    while high - low > 1:
        place = min(max(place, low + 1), high - 1)
        point = tried[RTOLS[place]] = run(RTOLS[place])
        if point.error > goal:
            low, place = place, place + _missing(point, goal)
        else:
            high, place = place, place - 1
            if point.seconds > LONG:
                break
    return high < len(RTOLS)


def _missing(point: Point, goal: float) -> int:
    """How many powers of 10 tighter the next tolerance should be."""
    return max(1, math.floor(math.log10(point.error / goal))) if math.isfinite(point.error) else 1


def _repeat(run: Callable[[float], Point], once: Point, count: int) -> Point:
    """The median of more runs."""
    more = min(REPEATS - 1, int(REPEATED / (once.seconds * count)))
    seconds = [once.seconds, *(run(once.rtol).seconds for _ in range(more))]
    return replace(once, seconds=statistics.median(seconds), runs=len(seconds))


def run_at(name: str, count: int, method: str, limit: float, threads: int, rtol: float) -> Point:
    """One run of an ensemble."""
    ends = ends_of(name, count)
    if method == OURS:
        started = time.perf_counter()
        try:
            solution = solve_ours(name, count, rtol, threads)
        except IntegrationError:  # such a tolerance does not reach any error
            return Point(rtol, math.inf, (time.perf_counter() - started) / count, 0.0)
        seconds = (time.perf_counter() - started) / count
        found = {key: value.double().mean().item() for key, value in solution.statistics.items()}
        order = solution.path.order  # type: ignore[attr-defined]
        own = {"events": found["crossings"] + found["slides"], "rounds": found["terms"] / order, "order": order}
        return Point(rtol, _difference(_ends(solution, name, count), ends), seconds, found["terms"], **own)
    problems = [problem(*each, SETTINGS[name].t_final) for each in separate(*make(name, count))]
    together = method in TOGETHER
    runs = TOGETHER[method](problems, rtol, limit) if together else [PEERS[method](problems[0], rtol, limit)]
    seconds, evaluations = (
        statistics.fmean(getattr(run, field) for run in runs) for field in ("seconds", "evaluations")
    )  # fmt: skip
    return Point(rtol, _difference([run.end for run in runs], ends), seconds, evaluations, runs[0].compilation)


def _difference(found: Sequence[NDArray], ends: Sequence[NDArray]) -> float:
    """The largest one, infinity where there is none."""
    error = max(float(np.abs(own - end).max()) for own, end in zip(found, ends, strict=True))
    return error if math.isfinite(error) else math.inf


@cache
def make(name: str, count: int) -> tuple[Flow, NetworkWeights]:
    """An ensemble of a problem."""
    return SETTINGS[name].make(count)


@cache
def ends_of(name: str, count: int) -> list[NDArray]:
    """The weights at the end, of each trajectory, from a run of flowsim at the tightest tolerance."""
    return _ends(solve_ours(name, count, TIGHTEST), name, count)


def solve_ours(name: str, count: int, rtol: float, threads: int = 1) -> Solution[NetworkWeights]:
    """flowsim's solution."""
    flow, weights = make(name, count)
    torch.set_num_threads(threads)
    try:
        return solve(flow, weights, SETTINGS[name].t_final, rtol=rtol, atol=1e-2 * rtol)
    finally:
        torch.set_num_threads(1)


@contextmanager
def no_collections() -> Iterator[None]:
    """No garbage is collected while times are taken, as in timeit."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def separate(flow: Flow, weights: NetworkWeights) -> list[tuple[Flow, NetworkWeights]]:
    """The trajectories of an ensemble."""
    return [
        flow.map_matrices(weights, lambda matrix: matrix[index])  # noqa: B023
        for index in range(weights.layers[0].shape[0])
    ]


def _ends(solution: Solution[NetworkWeights], name: str, count: int) -> list[NDArray]:
    flow, _ = make(name, count)
    at_end = solution.evaluate(SETTINGS[name].t_final)
    return [packed(reduce(*each).weights) for each in separate(flow, at_end)]
