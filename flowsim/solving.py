"""One entry for all integrators."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.errors import IntegrationError, IntegrationInterrupt
from flowsim.exchange import as_dataset
from flowsim.flow import Flow
from flowsim.integrators import INTERRUPTED, Path, Settings, event, runge_kutta, unnoticed
from flowsim.integrators.event.crawl import CrawlingWarning
from flowsim.progress import reporting
from flowsim.reduction import Reduction, reduce
from flowsim.rule_check import require_consistent
from flowsim.saving import read, save
from flowsim.solution import Solution, Solver, flattened
from flowsim.validation import require_count, require_positive, shown
from flowsim.weights import AnyWeights, NetworkWeights, require_finite

INTEGRATORS = {"event": event.INTEGRATOR, **dict.fromkeys(runge_kutta.METHODS, runge_kutta.INTEGRATOR)}
"""The integrator of each method."""

TIMES = ("t", "log")
"""The variables of time."""


def solve(
    flow: Flow,
    weights: AnyWeights,
    t_final: float,
    *,
    method: str = "event",
    time: str = "t",
    rtol: float = 1e-10,
    atol: float = 1e-12,
    max_steps: int = 100_000,
    progress: bool = False,
    throw: bool = True,
) -> Solution[AnyWeights]:
    """Solve d theta / dt = -fa(theta) - decay theta, theta(0) = weights, on [0, t_final].

    With time="log" the time is s = log(1 + t), d theta / ds = e^s d theta / dt: t_final and every time of the solution
    are s, its velocity is d theta / ds, and t may be beyond all floating-point numbers, the loss below them.

    Data, feedback and weights may carry batch dimensions `*batch` that broadcast against each other; every trajectory
    of the ensemble has steps of its own, and its answer does not depend on the others. The flow is first reduced to
    the span of the inputs, which is exact.

    A neuron whose |w.x| at the start is at most 64 units of rounding of |w| |x| starts on that kink: it leaves a
    repelling one to the active side, whatever the sign of w.x, and the error estimate does not show that.

    The solution keeps copies of its own: whatever happens to the weights given afterwards, it stays what it is. No
    gradient flows through it; tensors that require one are taken as they are.

    Args:
        flow: data, rule, loss, slope and decay.
        weights: initial weights, `Weights` or `DeepWeights`.
        t_final: end of the time interval, above 0; of the variable that `time` says.
        method: "event", the event-driven integrator; or an adaptive solver of torchdiffeq, which stops where neurons
            slide: dopri5, dopri8, bosh3, fehlberg2 or adaptive_heun.
        time: "t", or "log" for s = log(1 + t): method "event", on the CPU, rules and losses of flowsim, of which the
            exponential, the logistic and the polynomial ones.
        rtol: relative tolerance per step, in the maximum norm over a trajectory's weights; RMS norm with torchdiffeq.
        atol: absolute tolerance per step.
        max_steps: steps allowed per trajectory; with torchdiffeq, rejected ones included.
        progress: whether to show on stderr how far it is: a bar on a terminal, elsewhere a line now and then.
        throw: whether a trajectory that cannot go on, or an interruption from the keyboard, is an error. If not, the
            solution says in its `status` where each trajectory stopped and why. All others go on to the end either way,
            and do not notice.

    Warns:
        CrawlingWarning: if a trajectory hardly moves and takes many steps all the same, once.

    Raises:
        ValueError: for arguments that do not fit each other, their rules, or the method; for a rule of one's own that
            contradicts its feedback.
        IntegrationError: if a trajectory cannot go on (overflow of the loss, steps below rounding, more than
            max_steps steps, or as many to be expected where it crawls); it hands over what all of them reached.
        IntegrationInterrupt: a KeyboardInterrupt, which hands that over too.

    >>> from flowsim import Dataset, SignFeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1]), SignFeedbackAlignment())
    >>> solution = solve(flow, Weights(torch.eye(2), torch.tensor([1.0, -1.0])), t_final=10.0)
    >>> flow.risk(solution.evaluate([0.0, 10.0]))[1] < 0.2
    tensor(True)
    """
    if not isinstance(flow, Flow):
        raise ValueError(f"flow must be a flowsim.Flow, got {type(flow).__name__}: the order is flow, weights, t_final")
    t_final = require_positive("t_final", t_final)
    settings = _settings_of(method, rtol, atol, max_steps, time)
    if not isinstance(progress, bool):
        raise ValueError(f"progress must be True or False, got {shown(progress)}")
    require_finite(weights)
    batch_shape = flow.require_fit(weights)
    if 0 in batch_shape:
        raise ValueError(f"weights must hold at least one trajectory, got batch shape {tuple(batch_shape)}")
    device = _device_of(flow, weights)
    # as it is solved, with matrices of its own: a rule that cannot be taken apart says so
    require_consistent(flow.rule.map_matrices(weights, torch.detach), weights, batch_shape)
    weights = weights.map(lambda tensor: tensor.detach().clone())
    ends = torch.full((batch_shape.numel(),), t_final, dtype=torch.float64, device=device)
    return _handed_over(_from_start(flow, weights, batch_shape, ends, settings, progress=progress), throw)


def _settings_of(method: Any, rtol: Any, atol: Any, max_steps: Any, time: Any) -> Settings:
    """Settings as they were given.

    Raises:
        ValueError: naming the one that is wrong, or does not go with the method.
    """
    rtol, atol = require_positive("rtol", rtol), require_positive("atol", atol)
    max_steps = require_count("max_steps", max_steps)
    if not isinstance(method, str) or method not in INTEGRATORS:
        raise ValueError(f"method must be one of {', '.join(INTEGRATORS)}, got {shown(method)}")
    if not isinstance(time, str) or time not in TIMES:
        raise ValueError(f"time must be one of {', '.join(TIMES)}, got {shown(time)}")
    if time == "log" and method != "event":
        raise ValueError(f"time 'log' goes with method 'event', got method={method!r}; use time='t'")
    return Settings(method, rtol, atol, max_steps, time=time)


def _device_of(flow: Flow, weights: NetworkWeights) -> torch.device:
    """The device that data, weights and feedback are on."""
    tensors = flow.dataset.inputs, *weights.layers, *flow.rule.feedback_matrices(weights)
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"weights and feedback must be on the device of the inputs, got {sorted(map(str, devices))}")
    return devices.pop()


def _from_start(
    flow: Flow, weights: AnyWeights, batch_shape: torch.Size, ends: Float[Tensor, " ensemble"], settings: Settings,
    *, progress: bool = False, turned: bool = False,
) -> Solution[AnyWeights]:  # fmt: skip
    """Solve on the flattened and reduced ensemble, in turned coordinates or not."""
    reduction = reduce(
        *flow.map_matrices(weights, lambda matrix: flattened(matrix.detach(), batch_shape)), turned=turned
    )
    integrator = INTEGRATORS[settings.method]
    with torch.inference_mode():
        path = integrator.begin(reduction.flow, reduction.weights, settings)
    path = _proceeded(path, ends, settings, progress)
    return solved(flow, weights, settings, batch_shape, path, reduction)


def _proceeded(path: Path, ends: Float[Tensor, " ensemble"], settings: Settings, progress: bool) -> Path:
    proceed = INTEGRATORS[settings.method].proceed
    with torch.inference_mode(), _noticed(ends) if progress else nullcontext(unnoticed) as advanced:
        return proceed(path, ends, settings, advanced)


@contextmanager
def _noticed(ends: Float[Tensor, " ensemble"]) -> Iterator[Callable[[float], None]]:
    """What to call with each share of the work on a trajectory that was done: it shows how far all of them are."""
    done = 0.0
    with reporting() as tell:

        def gained(share: float) -> None:
            nonlocal done
            done += share
            tell(min(done / len(ends), 1.0), f"solving {len(ends)} x [0, {ends.max().item():g}]")

        yield gained


def solved(
    flow: Flow, weights: AnyWeights, settings: Settings, batch_shape: torch.Size, path: Path,
    reduction: Reduction[AnyWeights],
) -> Solution[AnyWeights]:  # fmt: skip
    """The solution that a path is, whose companion is solved up to where each trajectory got."""
    # not a closure: it can be pickled
    companion = partial(_companion, flow, weights, batch_shape, path.reached.clone(), settings.looser)
    return Solution(flow, weights, settings, batch_shape, path, reduction, SOLVER, companion)


def _companion(
    flow: Flow, weights: AnyWeights, batch_shape: torch.Size, ends: Float[Tensor, " ensemble"], settings: Settings
) -> Solution[AnyWeights]:
    """A second solve, of which nobody is warned a second time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrawlingWarning)
        return _from_start(flow, weights, batch_shape, ends, settings, turned=True)


def _handed_over(solution: Solution[AnyWeights], throw: bool) -> Solution[AnyWeights]:
    """The solution, or the error that has it."""
    reasons = solution.path.reasons
    stopped = [index for index, reason in enumerate(reasons) if reason is not None]
    if not (throw and stopped):
        return solution
    if INTERRUPTED in reasons:
        raise IntegrationInterrupt(solution)
    index = stopped[0]
    time, reason = solution.path.reached[index].item(), reasons[index]
    assert reason is not None
    raise IntegrationError(time, reason, index, solution if solution.t_final > 0 else None)


def load(path: str | os.PathLike[str]) -> Solution:
    """Return the solution that `Solution.save` wrote to a file, on the CPU.

    Raises:
        ValueError: if the file cannot be read, or holds anything else, or something that does not fit the rest.

    >>> load("missing.npz")
    Traceback (most recent call last):
        ...
    ValueError: missing.npz cannot be read: No such file or directory
    """
    return solved(*read(path))


def extended(solution: Solution[AnyWeights], t_final: float, *, progress: bool, throw: bool) -> Solution[AnyWeights]:
    """`Solution.extend`."""
    end, reached = require_positive("t_final", t_final), solution.path.reached
    if end <= solution.t_final and solution.status.ended.all():
        raise ValueError(f"t_final must be later than the end of the solution, {solution.t_final!r}, got {end!r}")
    path = _proceeded(solution.path, reached.clamp(min=end), solution.settings, progress)
    return _handed_over(
        solved(solution.flow, solution.weights, solution.settings, solution.batch_shape, path, solution.reduction),
        throw,
    )


def selected(solution: Solution[AnyWeights], index: Any) -> Solution[AnyWeights]:
    """`Solution[index]`."""
    shape = solution.batch_shape
    if not shape:
        raise IndexError(f"a solution of one trajectory has no batch dimension to index, got {index!r}")
    device = solution.path.reached.device
    chosen = torch.arange(shape.numel(), device=device).reshape(shape)[index]
    if not chosen.numel():
        raise ValueError(f"the index must select one trajectory at least of batch shape {tuple(shape)}, got {index!r}")

    def part(matrix: Tensor) -> Tensor:
        return flattened(matrix, shape)[chosen]

    flow, weights = solution.flow.map_matrices(solution.weights, part)
    some = chosen.reshape(-1)
    return solved(
        flow, weights, solution.settings, chosen.shape, solution.path.of_trajectories(some),
        solution.reduction.of_trajectories(some),
    )  # fmt: skip


SOLVER = Solver(extended, selected, save, as_dataset)
"""What solutions made here ask."""
