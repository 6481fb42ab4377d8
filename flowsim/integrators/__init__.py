"""Integrators: modules or packages with a function `integrate`, which `flowsim.solve` finds by the method's name.

    event           Taylor series between events, for two-layer networks
    runge_kutta     torchdiffeq's adaptive Runge-Kutta methods, for networks of any depth

    integrate(flow, weights, t_final, settings, advanced) -> Path

takes a flattened ensemble (one batch dimension everywhere), calls `advanced` with the time gained after each step, and
raises StoppedError where it cannot go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flowsim.flow import Flow
from flowsim.solution import Path
from flowsim.weights import NetworkWeights


@dataclass(frozen=True)
class Settings:
    """How to integrate: the method, its tolerances per step, and the steps allowed per trajectory."""

    method: str
    rtol: float
    atol: float
    max_steps: int


class StoppedError(Exception):
    """One trajectory of the ensemble could not go on; `path` is what it has gone, None if it took no step."""

    def __init__(self, index: int, time: float, reason: str, path: Path | None) -> None:
        super().__init__(reason)
        self.index, self.time, self.reason, self.path = index, time, reason, path


def smallest_margin(flow: Flow, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
    """The smallest y f of each trajectory; with classes, of the outputs at the right class."""
    return (flow.outputs(weights) * flow.dataset.targets).sum(-1).amin(-1)


def too_steep(lowest: Float[Tensor, ""]) -> str:
    """Why a run cannot start, given its smallest margin."""
    return f"the velocity overflows: the loss is too steep at the smallest margin y f = {lowest.item():.4g}"
