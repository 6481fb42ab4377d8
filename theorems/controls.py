"""What breaks a hypothesis on purpose, for controls: a run in two parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowsim import Solution
from flowsim.events import Events
from flowsim.integrators import Path
from flowsim.solution import Curve
from flowsim.weights import NetworkWeights


def joined(before: Solution, after: Solution, solve_looser: Callable[[], Solution]) -> Solution:
    """One solution of two, the second starting where the first ends. Its flow is that of the first."""
    return replace(
        before,
        path=_JoinedPath(before.path, after.path, before.t_final),
        solve_looser=solve_looser,
    )


@dataclass(frozen=True, eq=False)
class _JoinedPath:
    before: Path
    after: Path
    junction: float

    @property
    def reached(self) -> Tensor:
        return self.junction + self.after.reached

    @property
    def reasons(self) -> tuple[str | None, ...]:
        return self.after.reasons

    def of_trajectories(self, some: Tensor) -> _JoinedPath:
        return _JoinedPath(self.before.of_trajectories(some), self.after.of_trajectories(some), self.junction)

    def evaluate(self, trajectory: Tensor, times: Tensor) -> NetworkWeights:
        return self._weights(self.before.evaluate, self.after.evaluate, trajectory, times)

    def velocity(self, trajectory: Tensor, times: Tensor) -> NetworkWeights:
        return self._weights(self.before.velocity, self.after.velocity, trajectory, times)

    def pattern(self, trajectory: Tensor, times: Tensor) -> tuple[Tensor, ...]:
        late, early = self._late(times), self.before.pattern(trajectory, times.clamp(max=self.junction))
        return _overwritten(early, late, lambda: self.after.pattern(trajectory[late], times[late] - self.junction))

    def _weights(self, before: Curve, after: Curve, trajectory: Tensor, times: Tensor) -> NetworkWeights:
        late, early = self._late(times), before(trajectory, times.clamp(max=self.junction))
        later = _overwritten(early.layers, late, lambda: after(trajectory[late], times[late] - self.junction).layers)
        return early.with_layers(later)

    def _late(self, times: Tensor) -> Tensor:
        return times >= self.junction

    def starts(self) -> tuple[Tensor, Tensor]:
        trajectory, start = (torch.cat(pair) for pair in zip(self.before.starts(), self._shifted(), strict=True))
        order = torch.argsort(trajectory, stable=True)
        return trajectory[order], start[order]

    def _shifted(self) -> tuple[Tensor, Tensor]:
        trajectory, start = self.after.starts()
        return trajectory, start + self.junction

    def events(self) -> Events:
        early, late = self.before.events(), self.after.events()
        late = replace(late, time=late.time + self.junction)
        columns = {name: torch.cat([getattr(early, name), getattr(late, name)]) for name in vars(early)}
        order = torch.argsort(columns["trajectory"], stable=True)
        return Events(**{name: column[order] for name, column in columns.items()})

    @property
    def statistics(self) -> dict[str, Tensor]:
        return {name: count + self.after.statistics[name] for name, count in self.before.statistics.items()}


def _overwritten(
    layers: tuple[Tensor, ...], where: Tensor, others: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """The layers with those of `others` where the mask says; they are asked for only if there are any."""
    if where.any():
        for layer, other in zip(layers, others(), strict=True):
            layer[where] = other
    return layers
