"""What bounds flowsim's time: the arithmetic of its series; and its memory: the starts of its steps."""

import gc
import itertools
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from measure import GOALS, Row, make, solve_ours

from flowsim.integrators.event.records import COLUMNS, Layout

LOOPS, TRIES = 2000, 15
"""Products timed together, and how often: the fastest counts."""


def count_operations(samples: int, widths: Sequence[int], order: int) -> int:
    """Additions and multiplications of the Taylor series of one round, under fixed feedback.

    Of order p in layers of widths r = m_0, m_1 .. m_H, k = m_{H+1}, with N_l = 2 n m_{l-1} m_l for a product:

        N_1 (p + 1)              z_1 = X W_1^T up to order p
        N_l (p + 1) (p + 2) / 2  z_l of the other hidden layers: Cauchy products with the layer below, up to order p
        N_{H+1} p (p + 1) / 2    outputs, up to order p - 1
        N_l p, l > 1             errors sent down
        N_1 p                    terms of W_1
        N_l p (p + 1) / 2, l > 1 terms of the other layers

    Left out is what is proportional to the signals alone: slopes, the loss, what may happen within the step.

    >>> count_operations(20, (20, 50, 1), 7)
    726000
    """
    products = [2 * samples * below * above for below, above in itertools.pairwise(widths)]
    first, hidden, last = products[0], products[1:-1], products[-1]
    cauchy = order * (order + 1) // 2
    forward = first * (order + 1) + sum(hidden) * (cauchy + order + 1) + last * cauchy
    backward = (sum(hidden) + last) * order
    update = first * order + (sum(hidden) + last) * cauchy
    return forward + backward + update


def measure_rate(samples: int, below: int, above: int) -> float:
    """Operations per second of products X W^T and delta^T X by BLAS, of n x r, m x r and n x m matrices."""
    generator = np.random.default_rng(0)
    X, W = generator.standard_normal((samples, below)), generator.standard_normal((above, below))
    z, moved = np.empty((samples, above)), np.empty((above, below))
    fastest = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        for _ in range(LOOPS):
            np.dot(X, W.T, z)
            np.dot(z.T, X, moved)
        fastest = min(fastest, time.perf_counter() - started)
    return LOOPS * 4 * samples * below * above / fastest


@dataclass(frozen=True)
class Arithmetic:
    """The least time that the series of a run take at the rate of BLAS, beside the time that the run took."""

    problem: str
    operations: float
    rate: float
    seconds: float

    @property
    def ratio(self) -> float:
        """The time taken over that limit."""
        return self.seconds * self.rate / self.operations


def measure_arithmetic(row: Row) -> Arithmetic:
    """The limit of one trajectory, as it was measured at the tightest goal."""
    layout, best = layout_of(row.problem), row.best(GOALS[-1])
    assert best is not None and best.rounds is not None and best.order is not None
    widths = (layout.shapes[0][1], *(rows for rows, _ in layout.shapes))
    rate = measure_rate(layout.samples, widths[0], widths[1])
    operations = best.rounds * count_operations(layout.samples, widths, best.order)
    return Arithmetic(row.problem, operations, rate, best.seconds)


def layout_of(name: str) -> Layout:
    """The shapes of a problem, reduced to the span of its inputs."""
    flow, weights = make(name, 1)
    (rows, dimension), *others = [(layer.shape[-2], layer.shape[-1]) for layer in weights.layers]
    return Layout(flow.dataset.samples, ((rows, min(dimension, flow.dataset.samples)), *others))


def count_bytes(layout: Layout) -> int:
    """What the start of a step takes: trajectory, time, opening, and weights in 8 bytes, sides and signs in one each.

    >>> count_bytes(Layout(20, ((50, 20), (1, 50))))
    9474
    """
    return 8 * (3 + layout.parameters) + layout.kinks + layout.entries


@dataclass(frozen=True)
class Memory:
    """Bytes per step of a run: as counted, of the arrays that it holds, and as Python traced them."""

    problem: str
    steps: int
    counted: int
    held: float
    traced: float


def measure_memory(name: str, rtol: float) -> Memory:
    """The memory of one trajectory of a problem. What is traced includes what a solution holds beside its steps."""
    make(name, 1)
    gc.collect()
    tracemalloc.start()
    solution = solve_ours(name, 1, rtol)
    gc.collect()
    traced, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    records = solution.path.records  # type: ignore[attr-defined]
    held = sum(getattr(record, column).nbytes for record in records for column in COLUMNS)
    steps = sum(len(record.index) for record in records)
    return Memory(name, steps, count_bytes(records[0].layout), held / steps, traced / steps)
