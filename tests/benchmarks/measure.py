"""Time per trajectory at equal achieved error, of flowsim and of its peers."""

import gc
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from problems import T_FINAL

from figures.peers import PEERS, TOGETHER, Run, packed, problem
from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
from flowsim.reduction import reduce

TARGET = 1e-9
"""The largest error of any weight at the end that counts."""

RTOLS = tuple(10.0**-digits for digits in range(7, 14))
LIMIT = 60.0
"""Seconds for one run."""

OURS = "flowsim, event-driven"


@dataclass(frozen=True)
class Point:
    """A run: the tolerance asked for, the largest error, and seconds and evaluations per trajectory."""

    rtol: float
    error: float
    seconds: float
    evaluations: float
    compilation: float


@dataclass(frozen=True)
class Row:
    """A method on an ensemble of a problem, from loose tolerances on to the first with an error below the target.

    `size`: n r m, and `events` of a trajectory, the mean, for flowsim. `note`: why no run counts.
    """

    problem: str
    ensemble: int
    method: str
    size: int
    points: tuple[Point, ...]
    note: str = ""
    events: float | None = None

    @property
    def best(self) -> Point | None:
        """The run that counts."""
        return self.points[-1] if self.points and self.points[-1].error <= TARGET else None


def row(name: str, method: str, flow: Flow, weights: Weights) -> Row:
    """Measure a method. The reference is a run of flowsim at a tolerance of 1e-13."""
    reduced = reduce(flow, weights)
    samples, r = reduced.flow.dataset.inputs.shape[-2:]
    count, size = weights.hidden.shape[0], samples * r * weights.hidden.shape[-2]
    reference = solve(flow, weights, T_FINAL, rtol=1e-13, atol=1e-15)
    ends, points, note = _packed(flow, reference.evaluate(T_FINAL)), [], f"error above {TARGET:g} at {RTOLS[-1]:g}"
    events = None
    if method == OURS:
        found = reference.statistics
        events = float((found["crossings"] + found["slides"]).double().mean())
    try:
        for point in _points(method, flow, weights, ends):
            points.append(point)
            note = "" if point.error <= TARGET else note
    except TimeoutError as stop:
        note = str(stop)
    return Row(name, count, method, size, tuple(points), note, events)


def _points(method: str, flow: Flow, weights: Weights, ends: Sequence[NDArray]) -> Iterator[Point]:
    """Errors are about proportional to the tolerance: the next one is as many powers of 10 tighter as are missing."""
    place = 0
    while place < len(RTOLS):
        runs = _runs(method, flow, weights, RTOLS[place])
        error = max(float(np.abs(run.end - end).max()) for run, end in zip(runs, ends, strict=True))
        seconds = statistics.fmean(run.seconds for run in runs)
        evaluations = statistics.fmean(run.evaluations for run in runs)
        yield Point(RTOLS[place], error, seconds, evaluations, runs[0].compilation)
        if error <= TARGET:
            return
        place += max(1, math.floor(math.log10(error / TARGET)))


def _runs(method: str, flow: Flow, weights: Weights, rtol: float) -> list[Run]:
    gc.collect()
    gc.disable()  # as timeit does
    try:
        if method != OURS:
            problems = [problem(*each, T_FINAL) for each in separate(flow, weights)]
            return (
                TOGETHER[method](problems, rtol, LIMIT)
                if method in TOGETHER
                else [PEERS[method](each, rtol, LIMIT) for each in problems]
            )
        started = time.perf_counter()
        solution = solve(flow, weights, T_FINAL, rtol=rtol, atol=1e-2 * rtol)
        seconds = (time.perf_counter() - started) / weights.hidden.shape[0]
    finally:
        gc.enable()
    ends, terms = _packed(flow, solution.evaluate(T_FINAL)), solution.statistics["terms"].tolist()
    return [Run(end, seconds, count) for end, count in zip(ends, terms, strict=True)]


def separate(flow: Flow, weights: Weights) -> list[tuple[Flow, Weights]]:
    """The trajectories of an ensemble under FA."""
    dataset, matrices = flow.dataset, flow.rule.feedback_matrices(weights)[0]
    return [
        (
            Flow(Dataset(inputs, labels), FeedbackAlignment(feedback), flow.loss, flow.slope),
            Weights(hidden, output),
        )
        for inputs, labels, feedback, hidden, output in zip(
            dataset.inputs, dataset.labels, matrices.squeeze(-2), weights.hidden, weights.output, strict=True
        )
    ]


def _packed(flow: Flow, weights: Weights) -> list[NDArray]:
    return [packed(reduce(*each).weights) for each in separate(flow, weights)]
