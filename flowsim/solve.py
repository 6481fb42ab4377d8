"""One entry for all integrators."""

from __future__ import annotations

from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

from flowsim.flow import Flow
from flowsim.integrators import Settings, StoppedError, event, runge_kutta
from flowsim.reduction import reduce
from flowsim.solution import LOOSER, IntegrationError, Solution
from flowsim.validation import require_count, require_positive
from flowsim.weights import AnyWeights, require_finite

INTEGRATORS = {"event": event.integrate, **dict.fromkeys(runge_kutta.METHODS, runge_kutta.integrate)}
"""The integrator of each method."""


def solve(
    flow: Flow,
    weights: AnyWeights,
    t_final: float,
    *,
    method: str = "event",
    rtol: float = 1e-10,
    atol: float = 1e-12,
    max_steps: int = 100_000,
    progress: bool = False,
) -> Solution[AnyWeights]:
    """Solve d theta / dt = -fa(theta), theta(0) = weights, on [0, t_final].

    Data, feedback and weights may carry batch dimensions `*batch` that broadcast against each other; every trajectory
    of the ensemble has steps of its own, and its answer does not depend on the others. The flow is first reduced to
    the span of the inputs, which is exact.

    Args:
        flow: data, rule, loss and slope.
        weights: initial weights, `Weights` or `DeepWeights`.
        t_final: end of the time interval, above 0.
        method: "event", the event-driven integrator for two-layer networks; or an adaptive solver of torchdiffeq for
            any depth: dopri5, dopri8, bosh3, fehlberg2 or adaptive_heun.
        rtol: relative tolerance per step, in the maximum norm over a trajectory's weights; RMS norm with torchdiffeq.
        atol: absolute tolerance per step.
        max_steps: steps allowed per trajectory; with torchdiffeq, rejected ones included.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for arguments that do not fit each other, their rules, or the method.
        IntegrationError: if a trajectory cannot go on (overflow of the loss, steps below rounding, more than
            max_steps steps); it hands over what was reached.

    >>> from flowsim import Dataset, SignFeedbackAlignment, Weights
    >>> flow = Flow(Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1]), SignFeedbackAlignment())
    >>> solution = solve(flow, Weights(torch.eye(2), torch.tensor([1.0, -1.0])), t_final=10.0)
    >>> flow.risk(solution.evaluate([0.0, 10.0]))[1] < 0.2
    tensor(True)
    """
    t_final, rtol, atol = (
        require_positive(name, value) for name, value in [("t_final", t_final), ("rtol", rtol), ("atol", atol)]
    )
    require_count("max_steps", max_steps)
    if method not in INTEGRATORS:
        raise ValueError(f"method must be one of {', '.join(INTEGRATORS)}, got {method!r}")
    require_finite(weights)
    batch_shape = flow.require_fit(weights)
    if 0 in batch_shape:
        raise ValueError(f"weights must hold at least one trajectory, got batch shape {tuple(batch_shape)}")
    device = {tensor.device for tensor in (flow.dataset.inputs, *weights.layers)}
    if len(device) > 1:
        raise ValueError(f"weights must be on the device of the inputs, got {sorted(map(str, device))}")
    return _solved(flow, weights, batch_shape, t_final, Settings(method, rtol, atol, max_steps), progress=progress)


def _solved(
    flow: Flow, weights: AnyWeights, batch_shape: torch.Size, t_final: float, settings: Settings,
    *, progress: bool = False, turned: bool = False,
) -> Solution[AnyWeights]:  # fmt: skip
    """Solve on the flattened and reduced ensemble, in turned coordinates or not."""
    ensemble = flow.map_matrices(
        weights,
        lambda matrix: matrix.expand(*batch_shape, *matrix.shape[-2:]).reshape(-1, *matrix.shape[-2:]),
    )
    reduction = reduce(*ensemble, turned=turned)
    looser = replace(
        settings, rtol=LOOSER * settings.rtol, atol=LOOSER * settings.atol, max_steps=2 * settings.max_steps
    )  # fmt: skip
    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with torch.inference_mode(), Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(f"solving {batch_shape.numel()} x [0, {t_final:g}]", total=batch_shape.numel() * t_final)
        try:
            path = INTEGRATORS[settings.method](
                reduction.flow, reduction.weights, t_final, settings, lambda gained: bar.advance(task, gained)
            )
        except StoppedError as stop:
            reached = None
            if stop.path:
                shape, until = torch.Size(), stop.time
                alone, start = ensemble[0].map_matrices(ensemble[1], lambda matrix: matrix[stop.index])
                reached = Solution(
                    alone, until, shape, stop.path, reduction.only(stop.index),
                    solve_looser=lambda: _solved(alone, start, shape, until, looser, turned=True),
                )  # fmt: skip
            raise IntegrationError(stop.time, stop.reason, stop.index, reached) from None
    return Solution(
        flow, t_final, batch_shape, path, reduction,
        solve_looser=lambda: _solved(flow, weights, batch_shape, t_final, looser, turned=True),
    )  # fmt: skip
