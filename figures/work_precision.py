"""Work against precision, beside other solvers.

FA on orthogonally separable data (n = 10, m = 20, t = 100, some 80 kinks crossed), one trajectory: the time taken
(above; one core, median of three runs, of one where it takes long, compilation left out) and evaluations of the
velocity (below; for the event-driven integrator Taylor coefficients, each of which costs about as much) against the
largest error of a weight at the end, for tolerances from 1e-4 to 1e-12. Better is lower, and further to the right; of
each other library one method is in colour. A curve ends where a run took more than 2 s, or had not ended after 5. At
kinks the others lose digits, and win each back with many steps: at errors near 1e-10 with 10 to 80 times the
event-driven integrator’s evaluations. It has digits for little more time: there it takes less than a tenth of the time
of compiled diffrax, the fastest of the others, which at errors near 1e-3 is the faster one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures import conservation
from figures.peers import PEERS, Arrays, Peer, TimedRun, packed, problem
from figures.style import BLUE, GREEN, ORANGE, PURPLE, SHADE, grid, panels
from flowsim import Flow, Weights, solve
from flowsim.reduction import reduce

SEEDS = conservation.SEEDS
T_FINAL = 100.0
RTOLS = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
LONG, LIMIT = 2.0, 5.0
"""Seconds: a method that took longer is not asked for more digits; one that takes longer is stopped."""


class Point(NamedTuple):
    """A run: the tolerance asked for, the error achieved, the time, and the evaluations."""

    rtol: float
    error: float
    seconds: float
    evaluations: int


Measured = dict[str, list[Point]]
"""By method."""


def measure(samples: int = 10, width: int = 20, t_final: float = T_FINAL, rtols: tuple[float, ...] = RTOLS) -> Measured:
    """Run one problem with every method and tolerance; the reference is an event-driven run at 1e-14."""
    flow, weights = conservation.problem(samples, width)
    arrays = problem(flow, weights, t_final)
    reference = by_events(flow, weights, arrays, 1e-14, LIMIT).end
    methods = {"event-driven": partial(by_events, flow, weights), **PEERS}
    return {name: list(points(method, arrays, reference, rtols)) for name, method in methods.items()}


def by_events(flow: Flow, weights: Weights, arrays: Arrays, rtol: float, _: float) -> TimedRun:
    """flowsim's own: it ends."""
    started = time.perf_counter()
    solution = solve(flow, weights, arrays.t_final, rtol=rtol, atol=1e-2 * rtol)
    seconds = time.perf_counter() - started
    end = packed(reduce(flow, solution.evaluate(arrays.t_final)).weights)
    return TimedRun(end, seconds, int(solution.statistics["terms"]))


def points(method: Peer, arrays: Arrays, reference: NDArray, rtols: tuple[float, ...]) -> Iterator[Point]:
    """From the loosest tolerance on, until it takes too long, or does not end at all."""
    for rtol in rtols:
        try:
            run = method(arrays, rtol, LIMIT)
        except TimeoutError:
            return
        times = [run.seconds, *(method(arrays, rtol, LIMIT).seconds for _ in range(2 if run.seconds < LONG / 8 else 0))]
        yield Point(rtol, float(np.abs(run.end - reference).max()), statistics.median(times), run.evaluations)
        if run.seconds > LONG:
            return


LOOKS = {
    "event-driven": (BLUE, "o"),
    "diffrax Tsit5": (PURPLE, "D"),
    "scipy LSODA": (GREEN, "^"),
    "torchdiffeq dopri5": (ORANGE, "s"),
}
"""Colour and marker; of each other library the method that comes nearest. The rest is grey."""

REST = {"torchdiffeq dopri8": "-", "scipy RK45": "--", "scipy DOP853": "-.", "diffrax Dopri8": ":"}
"""Lines."""


def draw(measured: Measured) -> Figure:
    """Seconds above, evaluations below."""
    figure, axes = panels(2, 1, 4.6, sharex=True)
    for name in sorted(measured, key=[*REST, *reversed(LOOKS)].index):  # what matters most comes last, on top
        errors = [point.error for point in measured[name]]
        if name in LOOKS:
            look = dict(zip(("color", "marker"), LOOKS[name], strict=True), markersize=3.5)
        else:
            look = {"color": SHADE, "linestyle": REST[name], "marker": ".", "markersize": 3, "linewidth": 0.8}
        axes[0].loglog(errors, [point.seconds for point in measured[name]], label=name, **look)
        axes[1].loglog(errors, [point.evaluations for point in measured[name]], label=name, **look)
    for panel in axes:
        grid(panel, "both")
    axes[0].invert_xaxis()
    axes[0].set_ylabel("time in seconds")
    axes[1].set_ylabel("evaluations of the velocity")
    axes[1].set_xlabel("largest error of a weight at the end")
    named = {line.get_label(): line for line in axes[0].get_lines()}
    handles = [named[name] for name in (*LOOKS, *REST) if name in named]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=3)
    return figure
