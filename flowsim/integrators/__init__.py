"""Integrators: modules or packages with an `INTEGRATOR`, which `flowsim.solving` finds by the method's name.

    event           Taylor series between events
    runge_kutta     torchdiffeq's adaptive Runge-Kutta methods, for networks of any depth

    begin(flow, weights, settings) -> Path
    proceed(path, ends, settings, advanced) -> Path

take a flattened ensemble (one batch dimension everywhere). `begin` is the path of no steps; `proceed` goes on with
every trajectory from where it is to an end of its own, and calls `advanced` now and then with the share of its work
done, in sum over the trajectories. Where one cannot go on it stops, with a reason, and the others do not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from flowsim.events import Events
from flowsim.flow import Flow
from flowsim.weights import NetworkWeights

LOOSER = 30.0
"""Ratio of a companion's tolerances to those of the solution that it estimates the error of."""

INTERRUPTED = "interrupted from the keyboard"
"""The reason of trajectories that can go on."""


@dataclass(frozen=True)
class Settings:
    """How to integrate: method, tolerances per step, steps allowed per trajectory; for whom, and in which time."""

    method: str
    rtol: float
    atol: float
    max_steps: int
    companion: bool = False
    time: str = "t"

    @property
    def logarithmic(self) -> bool:
        """Whether time is s = log(1 + t)."""
        return self.time == "log"

    @property
    def symbol(self) -> str:
        """What the time is called."""
        return "s" if self.logarithmic else "t"

    @property
    def looser(self) -> Settings:
        """Those of the companion, which may take twice as many steps."""
        return replace(
            self, rtol=LOOSER * self.rtol, atol=LOOSER * self.atol, max_steps=2 * self.max_steps, companion=True
        )


@runtime_checkable
class Path(Protocol):
    """What an integrator returns: the curves of a flattened ensemble in the coordinates they were integrated in."""

    @property
    def reached(self) -> Tensor:
        """The time up to which each trajectory can be asked."""
        ...

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """Why each trajectory stopped before its end; None if it did not."""
        ...

    def of_trajectories(self, some: Tensor) -> Path:
        """The path of some trajectories, in this order."""
        ...

    def evaluate(self, trajectory: Tensor, times: Tensor) -> NetworkWeights:
        """The weights of trajectories (at least one), each at a time of its own."""
        ...

    def velocity(self, trajectory: Tensor, times: Tensor) -> NetworkWeights:
        """d theta / dt of trajectories (at least one), each at a time of its own."""
        ...

    def pattern(self, trajectory: Tensor, times: Tensor) -> tuple[Tensor, ...]:
        """The activation pattern of each hidden layer of trajectories (at least one), each at a time of its own."""
        ...

    def starts(self) -> tuple[Tensor, Tensor]:
        """Trajectories and the starts of pieces on which they are smooth, ordered by trajectory, then time."""
        ...

    def events(self) -> Events:
        """The kinks and sign changes met."""
        ...

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Counts of work, one entry per trajectory."""
        ...


class Integrator(NamedTuple):
    """The two functions of an integrator."""

    begin: Callable[[Flow, NetworkWeights, Settings], Path]
    proceed: Callable[[Any, Float[Tensor, " ensemble"], Settings, Callable[[float], None]], Path]


def unnoticed(share: float) -> None:
    """Nobody is told of the progress."""


def smallest_margin(flow: Flow, weights: NetworkWeights) -> Float[Tensor, "*batch"]:
    """The smallest y f of each trajectory; with classes, of the outputs at the right class."""
    return (flow.outputs(weights) * flow.dataset.targets).sum(-1).amin(-1)


def too_steep(lowest: Float[Tensor, ""]) -> str:
    """Why a run cannot start, given its smallest margin."""
    return f"the velocity overflows: the loss is too steep at the smallest margin y f = {lowest.item():.4g}"
