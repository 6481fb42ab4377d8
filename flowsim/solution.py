"""What a solve hands back: dense output, error estimate, events, statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.reduction import Reduction
from flowsim.validation import as_finite, as_indices
from flowsim.weights import AnyWeights, NetworkWeights

LOOSER = 30.0
"""Ratio of the companion's tolerances to the solution's."""


@dataclass(frozen=True, eq=False)
class Events:
    """Where the velocity jumps: the neuron of hidden layer `layer` goes over from one side of a kink to another.

    `before` and `after` are 1 (active, z > 0), -1 (inactive, z < 0) or 0 (sliding, z stays 0) for the `sample` and
    `neuron`. Under sign-FA also where an outgoing weight of the neuron changes its sign from `before` to `after`, and
    with it the feedback; `sample` is then -1. One entry per event, ordered by trajectory (in the flattened ensemble),
    then time; layers count from 1, samples, neurons and trajectories from 0.
    """

    time: Float[Tensor, " events"]
    trajectory: Int[Tensor, " events"]
    layer: Int[Tensor, " events"]
    sample: Int[Tensor, " events"]
    neuron: Int[Tensor, " events"]
    before: Int[Tensor, " events"]
    after: Int[Tensor, " events"]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def kind(self) -> list[str]:
        """Of each event: "crossing", "sliding entry", "sliding exit", or "sign change"."""
        kinds = torch.where(self.after == 0, 1, torch.where(self.before == 0, 2, 0))
        kinds = torch.where(self.sample < 0, 3, kinds)
        names = ("crossing", "sliding entry", "sliding exit", "sign change")
        return [names[kind] for kind in kinds.tolist()]


class Path(Protocol):
    """What an integrator returns: the curves of a flattened ensemble in the coordinates they were integrated in."""

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


Curve = Callable[[Tensor, Tensor], NetworkWeights]
Times = float | list[float] | Float[Tensor, "*times"]
Trajectory = int | list[int] | Int[Tensor, "*times"]


class Pieces(NamedTuple):
    """Pieces of time of trajectories of the flattened ensemble, ordered by trajectory, then time."""

    trajectory: Int[Tensor, " pieces"]
    start: Float[Tensor, " pieces"]
    end: Float[Tensor, " pieces"]


@dataclass(frozen=True, eq=False)
class Solution(Generic[AnyWeights]):
    """The solution of a flow on [0, t_final].

    Made by `flowsim.solve`; `t_final` is the time reached. `statistics` holds counts per trajectory.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights, solve
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> solution = solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0)
    >>> solution.evaluate([0.0, 1.0, 2.0]).hidden.shape
    torch.Size([3, 1, 1])
    >>> at_end = solution.evaluate(2.0)
    >>> abs(at_end.output - at_end.hidden[0] ** 2 / 2).item() < 1e-9  # Theorem 5.2: b v - |w|^2 / 2 stays 0
    True
    """

    flow: Flow
    t_final: float
    batch_shape: torch.Size
    path: Path
    reduction: Reduction[AnyWeights]
    solve_looser: Callable[[], Solution[AnyWeights]]

    def evaluate(self, times: Times, trajectory: Trajectory | None = None) -> AnyWeights:
        """Return the weights at the given times, `*times x *batch x m x d` (and likewise for the output).

        With `trajectory`, shaped like the times, only those of one trajectory of the flattened ensemble at each time,
        `*times x m x d`.

        Raises:
            ValueError: if a time lies outside [0, t_final], or there is no such trajectory.
        """
        return self._weights(self.path.evaluate, self.reduction.lift, times, trajectory)

    def velocity(self, times: Times, trajectory: Trajectory | None = None) -> AnyWeights:
        """Return d theta / dt at the given times, shaped like the weights.

        Along kinks that a neuron slides on it is the Filippov velocity, which `Flow.velocity` does not know.
        Arguments and errors as for `evaluate`.
        """
        return self._weights(self.path.velocity, self.reduction.lift_velocity, times, trajectory)

    def pattern(self, times: Times, trajectory: Trajectory | None = None) -> tuple[Int[Tensor, "*batch n m"], ...]:
        """Return the activation pattern of each hidden layer, `*times x *batch x n x m`.

        1 where z_ij > 0, -1 where z_ij < 0, and 0 where neuron j slides along the kink of sample i. A neuron that rests
        on a kink without sliding, as a dead one with slope 0 may, has the side whose slope it keeps. With Runge-Kutta
        methods, and with slope 1, where there are no kinks: the sign of z_ij. Arguments and errors as for `evaluate`.
        """
        whose, asked, shape = self._asked(times, trajectory)
        count = len(asked)
        layers = self.path.pattern(*_at_least_one(whose, asked))
        return tuple(layer[:count].reshape(*shape, *layer.shape[-2:]) for layer in layers)

    @cached_property
    def start(self) -> AnyWeights:
        """The weights at t = 0, `*batch x m x d`."""
        return self.evaluate(0.0)

    @cached_property
    def pieces(self) -> Pieces:
        """The pieces of time on which each trajectory is smooth: from step to step, and so from event to event."""
        trajectory, start = self.path.starts()
        following = torch.cat([start[1:], start.new_full((1,), self.t_final)])
        last = torch.cat([trajectory[1:] != trajectory[:-1], trajectory.new_ones(1).bool()])
        return Pieces(trajectory, start, following.masked_fill(last, self.t_final))

    def flow_of(self, trajectory: Int[Tensor, " some"]) -> Flow:
        """The flow with data and feedback of some trajectories of the flattened ensemble."""
        trajectory = as_indices("trajectory", trajectory, self.batch_shape.numel(), self.flow.dataset.inputs.device)

        def chosen(matrix: Tensor) -> Tensor:
            return matrix.expand(*self.batch_shape, *matrix.shape[-2:]).reshape(-1, *matrix.shape[-2:])[trajectory]

        return self.flow.map_matrices(self.start, chosen)[0]

    @cached_property
    def companion(self) -> Solution[AnyWeights]:
        """The same problem solved with tolerances LOOSER times as large.

        It is solved in turned coordinates too, so that its rounding errors are others. Whatever is observed along both
        estimates its own error: the two differ by about the companion's error, and that is expected to be above this
        solution's. An estimate, not a guarantee (theorems/README.md, section 10). Solved at the first use.
        """
        return self.solve_looser()

    def error(self, times: float | list[float] | Float[Tensor, "*times"]) -> AnyWeights:
        """Return the absolute error of the weights at the given times, estimated by the companion.

        One number per layer, time and trajectory, the same for all weights of the layer: the largest difference to the
        companion, and 8 units of rounding of the largest weight. For rtol up to 1e-3: beyond, the event-driven
        integrator takes both with series of the same order.

        Raises:
            ValueError: if a time lies outside [0, t_final].
        """
        here, there = self.evaluate(times), self.companion.evaluate(times)
        errors = []
        for layer, other in zip(here.layers, there.layers, strict=True):
            size = layer.abs().amax((-2, -1), keepdim=True)
            difference = (layer - other).abs().amax((-2, -1), keepdim=True)
            errors.append((difference + 8 * torch.finfo(layer.dtype).eps * size).expand_as(layer))
        return here.with_layers(errors)

    @cached_property
    def events(self) -> Events:
        """The kinks and sign changes met, see `Events`."""
        return self.path.events()

    @property
    def statistics(self) -> dict[str, Int[Tensor, "*batch"]]:
        """Counts of work per trajectory.

        "steps"; with the event-driven integrator also "terms" (Taylor coefficients computed, without those for dense
        output), "crossings" of kinks and "slides" (times that a sample began to slide after t = 0); with Runge-Kutta
        methods "rejected" steps and "evaluations" of the velocity.
        """
        return {name: count.reshape(self.batch_shape) for name, count in self.path.statistics.items()}

    def _weights(
        self,
        curve: Curve,
        lift: Callable[[NetworkWeights, Tensor], AnyWeights],
        times: Times,
        trajectory: Trajectory | None,
    ) -> AnyWeights:
        whose, asked, shape = self._asked(times, trajectory)
        count = len(asked)
        whose, asked = _at_least_one(whose, asked)
        weights = lift(curve(whose, asked), whose)
        return weights.with_layers(
            [layer[:count].reshape(*shape, *layer.shape[-2:]) for layer in weights.layers]
        )  # fmt: skip

    def _asked(self, times: Times, trajectory: Trajectory | None) -> tuple[Tensor, Tensor, torch.Size]:
        """Trajectories and times, flattened, and the shape that the answer has in front."""
        values = as_finite("times", times).to(self.flow.dataset.inputs.device)
        outside = values[(values < 0) | (values > self.t_final)]
        if len(outside):
            raise ValueError(f"times must lie in [0, t_final] = [0, {self.t_final:g}], got {outside[0].item():g}")
        count = self.batch_shape.numel()
        if trajectory is None:
            everyone = torch.arange(count, device=values.device).expand(values.numel(), count)
            asked = values.reshape(-1, 1).expand_as(everyone)
            return everyone.reshape(-1), asked.reshape(-1), torch.Size((*values.shape, *self.batch_shape))
        trajectory = as_indices("trajectory", trajectory, count, values.device)
        if trajectory.shape != values.shape:
            raise ValueError(
                f"trajectory must be shaped like the times, {tuple(values.shape)}, got {tuple(trajectory.shape)}"
            )
        return trajectory.reshape(-1), values.reshape(-1), values.shape


def _at_least_one(trajectory: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Paths are asked for one time at least, and there may be none."""
    return (trajectory, times) if len(times) else (trajectory.new_zeros(1), times.new_zeros(1))


class IntegrationError(RuntimeError):
    """A solve that could not go on. `time` and `reason` say where and why; `solution` is what was reached by then.

    `time` and `solution` belong to the trajectory that failed: `index` in the flattened ensemble. `solution` is None
    if not a single step was taken.
    """

    def __init__(self, time: float, reason: str, index: int, solution: Solution | None) -> None:
        super().__init__(f"trajectory {index} stopped at t = {time:.6g}: {reason}")
        self.time, self.reason, self.index, self.solution = time, reason, index, solution
