"""Other libraries' solvers on the same flow, as their users would call them: packed weights, the data reduced.

torchdiffeq and scipy are installed with flowsim; diffrax and torchode are used where they are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

from flowsim import FeedbackAlignment, Flow
from flowsim.flat import join
from flowsim.reduction import reduce
from flowsim.rules import is_one_of
from flowsim.weights import NetworkWeights


class Arrays(NamedTuple):
    """An FA flow with scalar output and exponential loss, as arrays.

    `start` is all weights W_1 .. W_{H+1}, flattened, in a row, `feedback` all matrices B_2 .. B_{H+1} likewise, and
    `widths` are r, m_1 .. m_H, 1. The inputs are reduced to their span, which is exact (theorems/README.md, section 1).
    """

    inputs: NDArray
    labels: NDArray
    feedback: NDArray
    slope: float
    start: NDArray
    t_final: float
    widths: tuple[int, ...]

    @property
    def arrays(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Inputs, labels, feedback and start."""
        return self.inputs, self.labels, self.feedback, self.start


class TimedRun(NamedTuple):
    """The weights at the end, flattened, the time taken, how often the velocity was evaluated, and time to compile."""

    end: NDArray
    seconds: float
    evaluations: int
    compilation: float = 0.0


def problem(flow: Flow, weights: NetworkWeights, t_final: float) -> Arrays:
    """The flow for its peers.

    Raises:
        ValueError: if it is not FA with exponential loss and scalar output.
    """
    if not is_one_of(flow.rule, FeedbackAlignment) or flow.loss != "exponential":
        raise ValueError(f"flow must be FA with exponential loss, got {type(flow.rule).__name__}, {flow.loss}")
    reduced = reduce(flow, weights)
    layers = reduced.weights.layers
    return Arrays(
        reduced.flow.dataset.inputs.numpy(),
        flow.dataset.labels.numpy(),
        join(flow.rule.feedback_matrices(weights)).numpy(),
        flow.slope,
        packed(reduced.weights),
        t_final,
        (layers[0].shape[-1], *(layer.shape[-2] for layer in layers)),
    )


def packed(weights: NetworkWeights) -> NDArray:
    """All weights in a row."""
    return join(weights.layers).numpy()


PROBE = 256
"""Steps on which the time of a step of diffrax is measured: it is limited by steps, not by the clock."""


def velocity(
    xp: Any, inputs: Any, labels: Any, feedback: Any, slope: float, state: Any, widths: Sequence[int]
) -> Any:  # fmt: skip
    """d theta / dt as functions of `xp`: numpy, torch or jax.numpy."""
    n, weights, matrices = len(inputs), _split(state, widths), _split(feedback, widths[1:])
    signals, slopes = [inputs], []
    for layer in weights[:-1]:
        z = signals[-1] @ layer.T
        slopes.append(xp.where(z > 0, xp.ones_like(z), slope * xp.ones_like(z)))
        signals.append(slopes[-1] * z)
    outputs = (signals[-1] @ weights[-1].T)[:, 0]
    error = (labels * xp.exp(-labels * outputs) / n)[:, None]
    moved = [(error.T @ signals[-1]).reshape(-1)]
    for matrix, derivative, below in zip(matrices[::-1], slopes[::-1], signals[-2::-1], strict=True):
        error = derivative * (error @ matrix)
        moved.insert(0, (error.T @ below).reshape(-1))
    return xp.concatenate(moved)


def _split(flat: Any, widths: Sequence[int]) -> list[Any]:
    """Matrices flattened in a row, each with as many columns as its width, and as many rows as the next one."""
    found, start = [], 0
    for columns, rows in itertools.pairwise(widths):
        found.append(flat[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return found


def _counted(rate: Callable[[Any], Any], limit: float) -> tuple[Callable[[Any, Any], Any], list[float]]:
    """The rate as a function of time and state, and a list that grows with every evaluation: when it was.

    Raises:
        TimeoutError: when it is asked for after more than `limit` seconds.
    """
    called = [time.perf_counter()]

    def counted(_: Any, state: Any) -> Any:
        called.append(time.perf_counter())
        if called[-1] - called[0] > limit:
            raise TimeoutError(f"no end after {limit:g} s")
        return rate(state)

    return counted, called


def by_torchdiffeq(method: str, problem: Arrays, rtol: float, limit: float) -> TimedRun:
    """torchdiffeq's odeint."""
    inputs, labels, feedback, start = (torch.from_numpy(array) for array in problem.arrays)
    rate, called = _counted(
        lambda state: velocity(torch, inputs, labels, feedback, problem.slope, state, problem.widths), limit
    )
    times = torch.tensor([0.0, problem.t_final], dtype=torch.float64)
    with torch.inference_mode():
        states = odeint(rate, start, times, rtol=rtol, atol=1e-2 * rtol, method=method)
    assert isinstance(states, torch.Tensor)
    return TimedRun(states[-1].numpy(), time.perf_counter() - called[0], len(called) - 1)


def by_scipy(method: str, problem: Arrays, rtol: float, limit: float) -> TimedRun:
    """scipy.integrate.solve_ivp."""
    inputs, labels, feedback, start = problem.arrays
    rate, called = _counted(
        lambda state: velocity(np, inputs, labels, feedback, problem.slope, state, problem.widths), limit
    )
    found = solve_ivp(rate, (0.0, problem.t_final), start, method, rtol=rtol, atol=1e-2 * rtol)
    return TimedRun(found.y[:, -1], time.perf_counter() - called[0], len(called) - 1)


def by_diffrax(method: str, problem: Arrays, rtol: float, limit: float) -> TimedRun:
    """diffrax.diffeqsolve, compiled before the time is taken."""
    (run,) = by_diffrax_together(method, [problem], rtol, limit)
    return run


def by_diffrax_together(method: str, problems: Sequence[Arrays], rtol: float, limit: float) -> list[TimedRun]:
    """An ensemble of problems of one shape under jax.vmap; steps are limited to what takes about `limit` seconds."""
    jax: Any = importlib.import_module("jax")  # optional, and slow to import
    stacked = _stacked(problems)
    with jax.enable_x64(True):
        arrays = [jax.numpy.asarray(array) for array in (*stacked.arrays, rtol)]

        def timed(most: int) -> tuple[Any, Any, Any, float, float]:
            """At most so many steps: the states reached, how many steps, whether they led to the end; and the times."""
            ready, compilation = _find_compiled(method, stacked, most)
            started = time.perf_counter()
            ends, steps, ended = ready(*arrays)
            ends.block_until_ready()
            return ends, steps, ended, time.perf_counter() - started, compilation

        timed(PROBE)  # the first run is slower
        *_, steps, ended, seconds, _ = timed(PROBE)
        most = PROBE if ended.all() else max(PROBE, int(limit / seconds * int(steps.max())))
        ends, steps, ended, seconds, compilation = timed(most)
        if not ended.all():
            raise TimeoutError(f"no end after {int(steps.max())} steps, {seconds:.0f} s")
        return _shared(np.asarray(ends), seconds, [int(count) * _stages(method) for count in steps], compilation)


def _stages(method: str) -> int:
    """Evaluations for each step."""
    tableau = getattr(importlib.import_module("diffrax"), method).tableau
    return tableau.num_stages - int(tableau.fsal)


Shape = tuple[str, int, int, tuple[int, ...], float, float]
_COMPILED: dict[Shape, dict[int, tuple[Callable[..., Any], float]]] = {}
"""What diffrax has compiled, and the time it took, by method and shape of the problems, and by the limit of steps."""


def _find_compiled(method: str, stacked: Arrays, most: int) -> tuple[Callable[..., Any], float]:
    """The ensemble compiled, with about so many steps at most: a tenth fewer to a fifth more."""
    count, samples, _ = stacked.inputs.shape
    known = _COMPILED.setdefault((method, count, samples, stacked.widths, stacked.slope, stacked.t_final), {})
    near = [limit for limit in known if limit == most or (limit > PROBE and 0.9 < limit / most < 1.2)]
    if not near:
        started = time.perf_counter()
        compiled = _compile_by_diffrax(method, stacked, most)
        known[most] = compiled, time.perf_counter() - started
    return known[near[0] if near else most]


def _compile_by_diffrax(method: str, stacked: Arrays, most: int) -> Callable[..., Any]:
    """Inputs, labels, feedback, starts and the tolerance to ends, numbers of steps, and whether the end was reached."""
    diffrax: Any = importlib.import_module("diffrax")
    jax: Any = importlib.import_module("jax")
    slope, widths = stacked.slope, stacked.widths
    term = diffrax.ODETerm(lambda _, state, args: velocity(jax.numpy, args[0], args[1], args[2], slope, state, widths))
    solver = getattr(diffrax, method)()

    def run(inputs: Any, labels: Any, feedback: Any, start: Any, rtol: Any) -> Any:
        control = diffrax.PIDController(rtol=rtol, atol=1e-2 * rtol)
        solution = diffrax.diffeqsolve(
            term, solver, 0.0, stacked.t_final, None, start, (inputs, labels, feedback), stepsize_controller=control,
            saveat=diffrax.SaveAt(t1=True), max_steps=most, throw=False,
        )  # fmt: skip
        return solution.ys[-1], solution.stats["num_steps"], solution.result == diffrax.RESULTS.successful

    def run_alone(inputs: Any, labels: Any, feedback: Any, start: Any, rtol: Any) -> Any:
        return [out[None] for out in run(inputs[0], labels[0], feedback[0], start[0], rtol)]

    # vmap makes every branch of a single one a selection: not for one alone
    together = jax.vmap(run, in_axes=(0, 0, 0, 0, None)) if len(stacked.inputs) > 1 else run_alone
    arrays = [jax.numpy.asarray(array) for array in (*stacked.arrays, 1e-3)]
    return jax.jit(together).lower(*arrays).compile()


def by_torchode_together(problems: Sequence[Arrays], rtol: float, limit: float) -> list[TimedRun]:
    """torchode's Dopri5, which gives every trajectory steps of its own."""
    torchode: Any = importlib.import_module("torchode")
    stacked = _stacked(problems)
    inputs, labels, feedback, start = (torch.from_numpy(array) for array in stacked.arrays)
    each = torch.func.vmap(partial(velocity, torch), in_dims=(0, 0, 0, None, 0, None))
    rate, called = _counted(lambda state: each(inputs, labels, feedback, stacked.slope, state, stacked.widths), limit)
    term = torchode.ODETerm(rate)
    control = torchode.IntegralController(atol=1e-2 * rtol, rtol=rtol, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
    times = torch.full((len(problems),), stacked.t_final, dtype=torch.float64)
    with torch.no_grad():
        found = solver.solve(torchode.InitialValueProblem(y0=start, t_start=torch.zeros_like(times), t_end=times))
    seconds = time.perf_counter() - called[0]
    return _shared(found.ys[:, -1].numpy(), seconds, found.stats["n_f_evals"].tolist())


def _stacked(problems: Sequence[Arrays]) -> Arrays:
    first, columns = problems[0], [np.stack(column) for column in zip(*(p.arrays for p in problems), strict=True)]
    inputs, labels, feedback, start = columns
    return first._replace(inputs=inputs, labels=labels, feedback=feedback, start=start)


def _shared(ends: NDArray, seconds: float, evaluations: list[int], compilation: float = 0.0) -> list[TimedRun]:
    """The runs of an ensemble, with the time divided among them."""
    share = seconds / len(ends)
    return [TimedRun(end, share, count, compilation) for end, count in zip(ends, evaluations, strict=True)]


Peer = Callable[[Arrays, float, float], TimedRun]
"""Of a problem, rtol and a limit in seconds, beyond which it raises TimeoutError."""

PEERS: dict[str, Peer] = {
    **{f"torchdiffeq {method}": partial(by_torchdiffeq, method) for method in ("dopri5", "dopri8")},
    **{f"scipy {method}": partial(by_scipy, method) for method in ("RK45", "DOP853", "LSODA")},
}
if importlib.util.find_spec("diffrax"):
    PEERS |= {f"diffrax {method}": partial(by_diffrax, method) for method in ("Tsit5", "Dopri8")}

Together = Callable[[Sequence[Arrays], float, float], list[TimedRun]]
"""Of an ensemble of problems of one shape, as `Peer`."""

TOGETHER: dict[str, Together] = {}
if importlib.util.find_spec("diffrax"):
    TOGETHER |= {f"diffrax {method}, vmap": partial(by_diffrax_together, method) for method in ("Tsit5", "Dopri8")}
if importlib.util.find_spec("torchode"):
    TOGETHER |= {"torchode Dopri5": by_torchode_together}
