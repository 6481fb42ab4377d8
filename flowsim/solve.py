"""One entry for all integrators."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

from flowsim.flow import Flow
from flowsim.integrators import Settings, StoppedError, runge_kutta
from flowsim.reduction import reduce
from flowsim.solution import LOOSER, IntegrationError, Path, Solution
from flowsim.validation import require_count, require_positive
from flowsim.weights import AnyWeights, require_finite

INTEGRATORS = dict.fromkeys(runge_kutta.METHODS, runge_kutta.integrate)
"""The integrator of each method. One that takes kinks as events, for two-layer networks, has its place here."""


def solve(
    flow: Flow,
    weights: AnyWeights,
    t_final: float,
    *,
    method: str = "dopri5",
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
        method: an adaptive solver of torchdiffeq: dopri5, dopri8, bosh3, fehlberg2 or adaptive_heun.
        rtol: relative tolerance per step, in the RMS norm over a trajectory's weights.
        atol: absolute tolerance per step.
        max_steps: steps allowed per trajectory, rejected ones included.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for arguments that do not fit each other or their rules.
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
    device = {tensor.device for tensor in (flow.dataset.inputs, *weights.layers)}
    if len(device) > 1:
        raise ValueError(f"weights must be on the device of the inputs, got {sorted(map(str, device))}")
    ensemble = flow.map_matrices(
        weights,
        lambda matrix: matrix.expand(*batch_shape, *matrix.shape[-2:]).reshape(-1, *matrix.shape[-2:]),
    )
    reduction = reduce(*ensemble)
    settings = Settings(method, rtol, atol, max_steps)

    def solution(
        flow: Flow, weights: AnyWeights, until: float, path: Path, batch_shape: torch.Size
    ) -> Solution[AnyWeights]:
        return Solution(
            flow, until, batch_shape, path, reduction,
            solve_looser=lambda: solve(
                flow, weights, until, method=method, rtol=LOOSER * rtol, atol=LOOSER * atol, max_steps=max_steps
            ),
        )  # fmt: skip

    columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
    with torch.no_grad(), Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(f"solving {batch_shape.numel()} x [0, {t_final:g}]", total=batch_shape.numel() * t_final)
        try:
            path = INTEGRATORS[method](
                reduction.flow, reduction.weights, t_final, settings, lambda gained: bar.advance(task, gained)
            )
        except StoppedError as stop:
            alone, start = ensemble[0].map_matrices(ensemble[1], lambda matrix: matrix[stop.index])
            reached = solution(alone, start, stop.time, stop.path, torch.Size()) if stop.path else None
            raise IntegrationError(stop.time, stop.reason, stop.index, reached) from None
    return solution(flow, weights, t_final, path, batch_shape)
