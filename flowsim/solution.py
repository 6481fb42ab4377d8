"""What a solve hands back: dense output, error estimate, events, statistics."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.events import Events
from flowsim.flow import Flow
from flowsim.integrators import Path, Settings
from flowsim.reduction import Reduction
from flowsim.validation import as_finite, as_indices
from flowsim.weights import AnyWeights, NetworkWeights

if TYPE_CHECKING:
    import xarray as xr

ROUNDINGS = 4
"""Times that lie so many units of rounding beyond the end, relative to it, are taken as the end: 0.1 + 0.2 for 0.3."""


class Solver(NamedTuple):
    """What a solution asks of those who make solutions and write them, and who hand themselves in."""

    extended: Callable[..., Any]
    selected: Callable[..., Any]
    save: Callable[..., None]
    as_dataset: Callable[..., Any]


Curve = Callable[[Tensor, Tensor], NetworkWeights]
Times = float | list[float] | Float[Tensor, "*times"]
Trajectory = int | list[int] | Int[Tensor, "*times"]


class Pieces(NamedTuple):
    """Pieces of time of trajectories of the flattened ensemble, ordered by trajectory, then time."""

    trajectory: Int[Tensor, " pieces"]
    start: Float[Tensor, " pieces"]
    end: Float[Tensor, " pieces"]


@dataclass(frozen=True, eq=False, repr=False)
class Status:
    """How each trajectory ended.

    Args:
        time: that it reached.
        reason: why it stopped there before the end, None if it did not (an array of objects).
        symbol: what the time is called.
    """

    time: Float[Tensor, "*batch"]
    reason: np.ndarray
    symbol: str = "t"

    @property
    def ended(self) -> Bool[Tensor, "*batch"]:
        """Whether the trajectory came to the end."""
        ended = [reason is None for reason in self.reason.reshape(-1)]
        return torch.tensor(ended, device=self.time.device).reshape(self.time.shape)

    def __repr__(self) -> str:
        if self.ended.all():
            return f"Status({self.time.numel()} ended)"
        first = int(torch.nonzero(~self.ended.reshape(-1))[0])
        return (
            f"Status({int(self.ended.sum())} of {self.time.numel()} ended; trajectory {first} stopped at "
            f"{self.symbol} = {self.time.reshape(-1)[first].item():.6g}: {self.reason.reshape(-1)[first]})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Generic[AnyWeights]):
    """The solution of a flow on [0, t_final].

    Times are t, or s = log(1 + t) where it was solved with time="log" (`settings.time`), t_final among them.

    Made by `flowsim.solve`. `statistics` holds counts per trajectory, `status` how each of them ended. A trajectory
    that stopped before t_final can be asked up to the time that it reached, and to ask it beyond is an error: ask the
    others by `trajectory=`, or as `solution[solution.status.ended]`.

    An index is one of the ensemble's batch shape, and gives the solution of what is selected, to the last bit.

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
    weights: AnyWeights
    """The initial weights, as they were given."""
    settings: Settings
    batch_shape: torch.Size
    path: Path
    reduction: Reduction[AnyWeights]
    solver: Solver
    solve_looser: Callable[[], Solution[AnyWeights]]

    def __repr__(self) -> str:
        steps, symbol = self.statistics["steps"], self.settings.symbol
        return (
            f"Solution({self.flow!r}, {self.weights!r}, batch {tuple(self.batch_shape)}, "
            f"{symbol}_final={self.t_final:g}, {self.settings.method}, {int(steps.sum())} steps, {self.status!r})"
        )

    def __getitem__(self, index: Any) -> Solution[AnyWeights]:
        return self.solver.selected(self, index)

    def extend(self, t_final: float, *, progress: bool = False, throw: bool = True) -> Solution[AnyWeights]:
        """Return the solution on [0, t_final], which goes on from where this one ends, in the mode that it has there.

        Up to there it is this one, to the last bit. Trajectories that stopped before stay where they are, but for those
        that were interrupted, which go on. As many steps are allowed as before. `progress` and `throw` as in `solve`.

        Raises:
            ValueError: if t_final is not later than what was reached.
            IntegrationError: as in `solve`.
        """
        return self.solver.extended(self, t_final, progress=progress, throw=throw)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the solution to an .npz file, which `flowsim.load` reads.

        Raises:
            ValueError: if the file cannot be written, or for a rule, a loss or a flow that is not flowsim's.
        """
        self.solver.save(self, path)

    def to_xarray(self, times: Times, batch: Sequence[str] | None = None) -> xr.Dataset:
        """Return what is observed at a list of times as an xarray.Dataset, which writes itself as NetCDF or zarr.

        Variables over `time` and the ensemble, all pure numbers: `loss`, `alignment` (over the network, Def. 4.1), the
        weights `hidden` and `output`, `conserved` (Eq. 2) and `pattern`, with dimensions `sample`, `input`, `neuron`
        and, for several outputs, `output_neuron`; of deep networks `layer_1` .., `conserved_1` .., `pattern_1` .., with
        `neuron_1` ... What a rule does not have is left out: alignment under direct feedback past a layer, what is not
        conserved. Attributes say what was solved and how, `long_name` and `units` what each variable is.

        In logarithmic time the coordinate is `log_time`, s = log(1 + t), and `log_loss`, log L, stands in the place of
        the loss, which underflows. Beyond the time `reached` by a trajectory that stopped there is NaN.

        Args:
            times: in [0, t_final].
            batch: names of the ensemble's dimensions, `batch_0` .. if not given.

        Raises:
            ImportError: without the extra `xarray`.
            ValueError: if a time lies outside [0, t_final], or the names do not fit.

        >>> from flowsim import Dataset, FeedbackAlignment, Weights, solve
        >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
        >>> solution = solve(flow, Weights(torch.ones(4, 1, 1), torch.full((4, 1), 0.5)), t_final=2.0)
        >>> dataset = solution.to_xarray([0.0, 1.0, 2.0], batch=["seed"])
        >>> dict(dataset.hidden.sizes), dataset.attrs["rule"]
        ({'time': 3, 'seed': 4, 'neuron': 1, 'input': 1}, 'FeedbackAlignment')
        """
        return self.solver.as_dataset(self, times, batch)

    @cached_property
    def t_final(self) -> float:
        """The end of the interval: the latest time that a trajectory reached."""
        return self.path.reached.max().item()

    @property
    def status(self) -> Status:
        """How each trajectory ended."""
        reasons = np.empty(len(self.path.reasons), dtype=object)
        reasons[:] = self.path.reasons
        shape = tuple(self.batch_shape)
        return Status(self.path.reached.clone().reshape(shape), reasons.reshape(shape), self.settings.symbol)

    def evaluate(self, times: Times, trajectory: Trajectory | None = None) -> AnyWeights:
        """Return the weights at the given times, `*times x *batch x m x d` (and likewise for the output).

        Times beyond t_final by rounding alone, of float32 where they are given in it, are taken as t_final.

        With `trajectory`, shaped like the times, only those of one trajectory of the flattened ensemble at each time,
        `*times x m x d`.

        Raises:
            ValueError: if a time lies outside [0, t_final], a trajectory has not got so far, or there is none.
        """
        return self._weights(self.path.evaluate, self.reduction.lift, times, trajectory)

    def velocity(self, times: Times, trajectory: Trajectory | None = None) -> AnyWeights:
        """Return d theta / dt at the given times, shaped like the weights; d theta / ds in logarithmic time.

        Along kinks that a neuron slides on it is the Filippov velocity, which `Flow.velocity` does not know.
        Arguments and errors as for `evaluate`.
        """
        return self._weights(self.path.velocity, self.reduction.lift_velocity, times, trajectory)

    def pattern(self, times: Times, trajectory: Trajectory | None = None) -> tuple[Int[Tensor, "*batch n _m"], ...]:
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
        last = torch.cat([trajectory[1:] != trajectory[:-1], trajectory.new_ones(1).bool()])[: len(start)]
        return Pieces(trajectory, start, torch.where(last, self.path.reached[trajectory], start.roll(-1)))

    def flow_of(self, trajectory: Int[Tensor, " some"]) -> Flow:
        """The flow with data and feedback of some trajectories of the flattened ensemble."""
        trajectory = as_indices("trajectory", trajectory, self.batch_shape.numel(), self.flow.dataset.inputs.device)

        def chosen(matrix: Tensor) -> Tensor:
            return flattened(matrix, self.batch_shape)[trajectory]

        return self.flow.map_matrices(self.weights, chosen)[0]

    @cached_property
    def companion(self) -> Solution[AnyWeights]:
        """The same problem solved with tolerances 30 times as large.

        It is solved in turned coordinates too, so that its rounding errors are others. Whatever is observed along both
        estimates its own error: the two differ by about the companion's error, and that is expected to be above this
        solution's. An estimate, not a guarantee (flowsim/README.md, section 10). Solved at the first use.
        """
        return self.solve_looser()

    def error(self, times: Times, trajectory: Int[Tensor, "*times"] | None = None) -> AnyWeights:
        """Return the absolute error of the weights at the given times, estimated by the companion.

        One number per layer, time and trajectory, the same for all weights of the layer: the largest difference to the
        companion, what one step is allowed after t = 0 (atol + rtol times the largest weight of all layers), since the
        companion may be in the middle of a step whose error it does not have yet, and 8 units of rounding of the
        layer's largest weight; infinite where the companion stopped before.

        Arguments and errors as for `evaluate`.
        """
        here = self.evaluate(times, trajectory)
        whose, asked, shape = self._asked(times, trajectory)
        reach = self.companion.path.reached[whose]
        there = self.companion.evaluate(torch.minimum(asked, reach), whose)
        beyond = (asked > reach).reshape(*shape, 1, 1)
        sizes = [layer.abs().amax((-2, -1), keepdim=True) for layer in here.layers]
        allowed = self.settings.atol + self.settings.rtol * torch.stack(sizes).amax(0)
        allowed = allowed * (asked > 0).reshape(*shape, 1, 1)
        errors = []
        for layer, other, size in zip(here.layers, there.layers, sizes, strict=True):
            difference = (layer - other.reshape(layer.shape)).abs().amax((-2, -1), keepdim=True)
            difference = difference.masked_fill(beyond, torch.inf)
            errors.append((difference + allowed + 8 * torch.finfo(layer.dtype).eps * size).expand_as(layer))
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
        lift: Callable[[NetworkWeights, Tensor, Tensor, bool], AnyWeights],
        times: Times,
        trajectory: Trajectory | None,
    ) -> AnyWeights:
        whose, asked, shape = self._asked(times, trajectory)
        count = len(asked)
        whose, asked = _at_least_one(whose, asked)
        weights = lift(curve(whose, asked), asked, whose, self.settings.logarithmic)
        return weights.with_layers(
            [layer[:count].reshape(*shape, *layer.shape[-2:]) for layer in weights.layers]
        )  # fmt: skip

    def _asked(self, times: Times, trajectory: Trajectory | None) -> tuple[Tensor, Tensor, torch.Size]:
        """Trajectories and times, flattened, and the shape that the answer has in front.

        Raises:
            ValueError: as `evaluate` says.
        """
        values = as_times(times, self.t_final).to(self.flow.dataset.inputs.device)
        tolerance = 1 + ROUNDINGS * _rounding(times)
        count = self.batch_shape.numel()
        if trajectory is None:
            everyone = torch.arange(count, device=values.device).expand(values.numel(), count)
            asked = values.reshape(-1, 1).expand_as(everyone)
            shape = torch.Size((*values.shape, *self.batch_shape))
            return (*self._within(everyone.reshape(-1), asked.reshape(-1), tolerance), shape)
        trajectory = as_indices("trajectory", trajectory, count, values.device)
        if trajectory.shape != values.shape:
            raise ValueError(
                f"trajectory must be shaped like the times, {tuple(values.shape)}, got {tuple(trajectory.shape)}"
            )
        return (*self._within(trajectory.reshape(-1), values.reshape(-1), tolerance), values.shape)

    def _within(self, whose: Tensor, asked: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Trajectories and times, each of which the trajectory reached."""
        reached = self.path.reached[whose]
        beyond = torch.nonzero(asked > reached * tolerance).flatten()
        if len(beyond):
            first = int(beyond[0])
            index = int(whose[first])
            raise ValueError(
                f"times must lie in [0, {reached[first].item()!r}] for trajectory {index}, "
                f"got {asked[first].item()!r}: it stopped there ({self.path.reasons[index]}); ask the others with "
                "trajectory=, or as solution[solution.status.ended]"
            )
        return whose, torch.minimum(asked, reached)


def as_times(times: Times, t_final: float) -> Float[Tensor, "*times"]:
    """Times as float64; those beyond t_final by rounding of their type alone are t_final.

    Raises:
        ValueError: if a time is not a finite number, or lies outside [0, t_final].

    >>> as_times([0.0, 0.1 + 0.2], t_final=0.3)
    tensor([0.0000, 0.3000], dtype=torch.float64)
    """
    values = as_finite("times", times)
    outside = values[(values < 0) | (values > t_final * (1 + ROUNDINGS * _rounding(times)))]
    if len(outside):
        raise ValueError(f"times must lie in [0, t_final] = [0, {t_final!r}], got {outside[0].item()!r}")
    return values.clamp(max=t_final)


def flattened(matrix: Float[Tensor, "*some p q"], batch_shape: torch.Size) -> Float[Tensor, "ensemble p q"]:
    """Matrices that broadcast to an ensemble, as one list."""
    return matrix.expand(*batch_shape, *matrix.shape[-2:]).reshape(-1, *matrix.shape[-2:])


def _rounding(times: object) -> float:
    """The unit of rounding of numbers, by their type."""
    single = getattr(times, "dtype", None) in (torch.float32, np.float32)
    return torch.finfo(torch.float32 if single else torch.float64).eps


def _at_least_one(trajectory: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Paths are asked for one time at least, and there may be none."""
    return (trajectory, times) if len(times) else (trajectory.new_zeros(1), times.new_zeros(1))
