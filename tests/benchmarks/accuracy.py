"""flowsim's errors: against exact solutions, and against its own run at the tightest tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from conformance.test_exact_solutions import (
    N,
    R,
    crossing,
    one_neuron,
    solved_for_z,
    time_of_crossing_run,
    time_of_sliding,
    v_sliding,
)
from measure import TIGHTEST, solve_ours
from problems import SETTINGS
from sample_problems import sliding
from torch import Tensor

from flowsim import Flow, IntegrationError, Solution, Weights, solve

CONVERGENCE = tuple(10.0**-digits for digits in range(6, 13))
TIMES = 61
EXACT_RTOL = 1e-12


@dataclass(frozen=True)
class Exact:
    """The largest error on a solution that is known."""

    solution: str
    error: float


def measure_exact() -> list[Exact]:
    """Errors of solves at 1e-12 on exact solutions (theorems/README.md, section 8)."""

    def tightly(flow: Flow, weights: Weights, t_final: float) -> Solution[Weights]:
        return solve(flow, weights, t_final, rtol=EXACT_RTOL, atol=1e-2 * EXACT_RTOL)

    flow, weights = one_neuron()
    times = torch.linspace(1, 20, 20, dtype=torch.float64)
    z = (tightly(flow, weights, 20.0).evaluate(times).hidden @ flow.dataset.inputs.mT)[:, 0, 0]
    alone = _largest(z, [solved_for_z(time) for time in times.tolist()])

    values = np.linspace(-0.4, 0.9, 14)
    at = tightly(*crossing(-0.5), 20.0).evaluate([time_of_crossing_run(value, -0.5) for value in values])
    crossed = max(
        _largest(R * at.hidden[:, neuron, i], values) for neuron in range(at.hidden.shape[1]) for i in range(N)
    )

    values = np.linspace(0.32, 1.15, 14)
    at = tightly(*sliding(), 5.0).evaluate([time_of_sliding(value) for value in values])
    slid = max(
        _largest(at.output[:, 0], [v_sliding(value) for value in values]),
        _largest(at.hidden[:, 0] @ torch.tensor([0.6, 1.2], dtype=torch.float64), values),
    )
    return [Exact("one active neuron", alone), Exact("12 kinks crossed at once", crossed), Exact("a slide", slid)]


def _largest(found: Tensor, truth: Sequence[float] | np.ndarray) -> float:
    return (found - torch.as_tensor(np.asarray(truth))).abs().max().item()


@dataclass(frozen=True)
class Convergence:
    """The largest errors of any weight over the whole of a run, by tolerance where it ends, and what it met."""

    problem: str
    events: int
    slides: int
    errors: dict[str, float]


def measure_convergence(name: str, rtols: tuple[float, ...] = CONVERGENCE) -> Convergence:
    """Errors at evenly spaced times."""
    times = torch.linspace(0, SETTINGS[name].t_final, TIMES, dtype=torch.float64)
    reference = solve_ours(name, 1, TIGHTEST)
    exact = reference.evaluate(times).layers
    errors = {}
    for rtol in rtols:
        try:
            layers = solve_ours(name, 1, rtol).evaluate(times).layers
        except IntegrationError:
            continue
        errors[f"{rtol:.0e}"] = max((a - b).abs().max().item() for a, b in zip(layers, exact, strict=True))
    counts = {key: int(value.sum()) for key, value in reference.statistics.items()}
    return Convergence(name, counts["crossings"] + counts["slides"], counts["slides"], errors)
