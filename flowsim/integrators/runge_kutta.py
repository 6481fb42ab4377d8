"""Adaptive Runge-Kutta integration by torchdiffeq, for networks of any depth (flowsim/README.md, section 10)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim.events import Events
from flowsim.flat import join, split
from flowsim.flow import Flow
from flowsim.integrators import INTERRUPTED, Integrator, Settings, smallest_margin, too_steep, unnoticed
from flowsim.progress import Course
from flowsim.weights import NetworkWeights

METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""The solvers of torchdiffeq that control their error; its fixed-step ones would ignore the tolerances."""

OVERFLOW = 1e100
"""Stands for a velocity that is not finite: a trial step that overflows is then rejected, where a NaN would end it."""

CHUNK = 2**22
"""Numbers evaluated at a time in dense output, to bound its memory."""


@dataclass(frozen=True, eq=False)
class Track:
    """One trajectory: its flattened weights at the accepted steps, the last one at the end."""

    times: Float[Tensor, " steps"]
    states: Float[Tensor, "steps parameters"]
    rejected: int
    evaluations: int

    def before(self, times: Float[Tensor, " times"]) -> tuple[Tensor, Tensor]:
        """The states at the last step before each time, and how long ago that was."""
        index = (torch.searchsorted(self.times, times, right=True) - 1).clamp(min=0)
        return self.states[index], times - self.times[index]


def begin(flow: Flow, weights: NetworkWeights, settings: Settings) -> RungeKuttaPath:
    """The path of no steps.

    Args:
        flow: data and feedback with one batch dimension.
        weights: initial weights with one batch dimension.
        settings: solver, tolerances, limit.
    """
    tracks, reasons = [], []
    for index in range(weights.layers[0].shape[0]):
        alone, start = _alone(flow, weights, index)
        state = _packed(start)
        finite = bool(torch.isfinite(_packed(alone.velocity(start))).all())
        tracks.append(Track(state.new_zeros(1), state.unsqueeze(0), 0, 0))
        reasons.append(None if finite else too_steep(smallest_margin(alone, start)))
    return RungeKuttaPath(flow, weights, tuple(tracks), settings, tuple(reasons))


def proceed(
    path: RungeKuttaPath,
    ends: Float[Tensor, " ensemble"],
    settings: Settings,
    advanced: Callable[[float], None] = unnoticed,
) -> RungeKuttaPath:
    """Go on with every trajectory to its end, with steps of its own.

    torchdiffeq advances all that it is given with one common step: taken one at a time, trajectories do not depend
    on each other.

    Args:
        path: what they have gone so far.
        ends: of the time intervals.
        settings: solver, tolerances, limit.
        advanced: called after each step with the share of the work done.
    """
    tracks = list(path.tracks)
    reasons = [None if reason == INTERRUPTED else reason for reason in path.reasons]
    under_way = [
        index
        for index, end in enumerate(ends.tolist())
        if reasons[index] is None and tracks[index].times[-1].item() < end
    ]
    interrupted = False
    for index in under_way:
        if interrupted:
            reasons[index] = INTERRUPTED
            continue
        recorder = _Recorder(*_alone(path.flow, path.weights, index), tracks[index], ends[index], settings, advanced)
        tracks[index], reasons[index] = recorder.run()
        interrupted = reasons[index] == INTERRUPTED
    return RungeKuttaPath(path.flow, path.weights, tuple(tracks), settings, tuple(reasons))


def _alone(flow: Flow, weights: NetworkWeights, index: int) -> tuple[Flow, NetworkWeights]:
    """One trajectory, copied out of the ensemble: products round differently on views aligned differently in memory."""
    return flow.map_matrices(weights, lambda matrix: matrix[index].clone())


@dataclass(frozen=True, eq=False)
class RungeKuttaPath:
    """The accepted steps of an ensemble. Inside a step, the dense output is the step retaken at the shorter length."""

    flow: Flow
    weights: NetworkWeights
    tracks: tuple[Track, ...]
    settings: Settings
    reasons: tuple[str | None, ...]

    @property
    def reached(self) -> Float[Tensor, " ensemble"]:
        """The time up to which each trajectory can be asked."""
        return torch.stack([track.times[-1] for track in self.tracks])

    def of_trajectories(self, some: Int[Tensor, " some"]) -> RungeKuttaPath:
        """The path of some trajectories, in this order."""
        flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[some])
        tracks, reasons = zip(*((self.tracks[index], self.reasons[index]) for index in some.tolist()), strict=True)
        return RungeKuttaPath(flow, weights, tracks, self.settings, reasons)

    def evaluate(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> NetworkWeights:
        """The weights of trajectories, each at a time of its own."""

        def states(which: Tensor) -> Tensor:
            whose = trajectory[which]
            start, length = times.new_empty(len(which), self.tracks[0].states.shape[-1]), torch.empty_like(times[which])
            for index in whose.unique().tolist():
                own = whose == index
                start[own], length[own] = self.tracks[index].before(times[which[own]])
            inside = length > 0  # elsewhere the velocity may not be finite
            if inside.any():
                flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[whose[inside]])
                start[inside] = _retaken(flow, weights, start[inside], length[inside], self.settings)
            return start

        which = torch.arange(len(times), device=times.device)
        return _unpacked(self.weights, _in_chunks(states, which, self.tracks[0].states.shape[-1]))

    def velocity(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> NetworkWeights:
        """d theta / dt of trajectories, each at a time of its own."""
        return self._flow_of(trajectory).velocity(self.evaluate(trajectory, times))

    def pattern(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> tuple[Tensor, ...]:
        """The signs of the pre-activations of each hidden layer of trajectories, each at a time of its own."""
        z = self._flow_of(trajectory).pre_activations(self.evaluate(trajectory, times))
        return tuple(layer.sign().to(torch.int8) for layer in z)

    def starts(self) -> tuple[Int[Tensor, " pieces"], Float[Tensor, " pieces"]]:
        """Trajectories and the starts of their pieces: accepted steps, and the events within them."""
        events, parts = self.events(), []
        for index, track in enumerate(self.tracks):
            start = torch.cat([track.times[:-1], events.time[events.trajectory == index]]).unique()
            parts.append((torch.full_like(start, index, dtype=torch.long), start))
        trajectory, start = (torch.cat(column) for column in zip(*parts, strict=True))
        return trajectory, start

    def _flow_of(self, trajectory: Int[Tensor, " some"]) -> Flow:
        return self.flow.map_matrices(self.weights, lambda matrix: matrix[trajectory])[0]

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Accepted steps, rejected steps, and evaluations of the velocity."""
        return {
            "steps": torch.tensor([len(track.times) - 1 for track in self.tracks]),
            "rejected": torch.tensor([track.rejected for track in self.tracks]),
            "evaluations": torch.tensor([track.evaluations for track in self.tracks]),
        }

    def events(self) -> Events:
        """Sign changes between accepted steps of whatever makes the velocity jump, located in the dense output.

        A quantity that changes sign twice within one step is not seen; the error control keeps steps across a
        kink short.
        """
        return self._events

    @cached_property
    def _events(self) -> Events:
        crossings = [self._crossings(index) for index in range(len(self.tracks))]
        columns = [torch.cat(column) for column in zip(*crossings, strict=True)]
        counts = torch.tensor([len(times) for times, *_ in crossings], device=columns[0].device)
        owner = torch.repeat_interleave(torch.arange(len(crossings), device=counts.device), counts)
        return Events(columns[0], owner, *columns[1:])

    def _trajectory(self, index: int) -> tuple[Flow, NetworkWeights]:
        return self.flow.map_matrices(self.weights, lambda matrix: matrix[index])

    def _alone(self, index: int, times: Float[Tensor, " times"]) -> Float[Tensor, "times parameters"]:
        """Flattened weights of one trajectory at its own times."""
        track, problem = self.tracks[index], self._trajectory(index)
        return _in_chunks(
            lambda part: _retaken(*problem, *track.before(part), self.settings), times, track.states.shape[-1]
        )

    def _crossings(self, index: int) -> list[Tensor]:
        """Times, layers, samples, neurons and signs before and after of the events of one trajectory, in time."""
        from scipy.optimize.elementwise import find_root  # noqa: PLC0415, it takes long to load

        track, (flow, weights) = self.tracks[index], self._trajectory(index)
        crossings = []
        for number, (layer, is_kink, values) in enumerate(_switches(flow, _unpacked(weights, track.states))):
            step, row, neuron = torch.nonzero((values[:-1] > 0) != (values[1:] > 0), as_tuple=True)

            def value(time: np.ndarray, i: np.ndarray, j: np.ndarray, number: int = number) -> np.ndarray:
                states = self._alone(index, torch.as_tensor(time).to(track.times))
                _, _, switching = _switches(flow, _unpacked(weights, states))[number]
                return switching[range(len(time)), torch.as_tensor(i), torch.as_tensor(j)].cpu().numpy()

            time = track.times[step]
            if len(step):
                bracket = time.cpu().numpy(), track.times[step + 1].cpu().numpy()
                root = find_root(value, bracket, args=(row.cpu().numpy(), neuron.cpu().numpy()))
                time = torch.as_tensor(root.x).to(time)
            sample = row if is_kink else torch.full_like(row, -1)
            after = torch.where(values[step + 1, row, neuron] > 0, 1, -1).to(torch.int8)
            crossings.append((time, torch.full_like(row, layer), sample, neuron, -after, after))
        columns = [torch.cat(column) for column in zip(*crossings, strict=True)]
        order = torch.argsort(columns[0], stable=True)
        return [column[order] for column in columns]


class _Recorder:
    """The velocity of one trajectory as torchdiffeq calls it, noting what it accepts and rejects on the way."""

    def __init__(
        self, flow: Flow, weights: NetworkWeights, before: Track, end: Tensor, settings: Settings,
        advanced: Callable[[float], None],
    ) -> None:  # fmt: skip
        self.flow, self.weights, self.before, self.end, self.settings = flow, weights, before, end, settings
        self.advanced, self.way = advanced, (end - before.times[-1]).item()
        self.course = Course()
        self.steps: list[tuple[Tensor, Tensor]] = []
        self.rejected = before.rejected
        self.evaluations = before.evaluations

    def __call__(self, time: Tensor, state: Tensor) -> Tensor:
        self.evaluations += 1
        velocity = _packed(self.flow.velocity(_unpacked(self.weights, state)))
        return velocity.nan_to_num(nan=OVERFLOW, posinf=OVERFLOW, neginf=-OVERFLOW)

    def callback_accept_step(self, time: Tensor, state: Tensor, length: Tensor) -> None:
        """Take note that torchdiffeq accepted the step of this length from this state."""
        self.steps.append((time, state))
        left = (self.end - time).item()
        # the last step goes beyond the end
        begun, now = 1 - left / self.way, 1 - max(left - length.item(), 0.0) / self.way
        self.advanced(self.course.gained([begun], now))

    def callback_reject_step(self, time: Tensor, state: Tensor, length: Tensor) -> None:
        """Take note that torchdiffeq rejected the step."""
        self.rejected += 1

    def run(self) -> tuple[Track, str | None]:
        """Integrate to the end. Also: the reason if it stopped before; the last step accepted is lost then."""
        start, time = self.before.states[-1], self.before.times[-1]
        try:
            _integrate(
                self, start, torch.stack([time, self.end]),
                method=self.settings.method, rtol=self.settings.rtol, atol=self.settings.atol,
                options={"max_num_steps": self.settings.max_steps},
            )  # fmt: skip
            last, state = self.steps[-1]
            end = _retaken(self.flow, self.weights, state, self.end - last, self.settings)
            return self._track([*self.steps, (self.end, end)]), None
        except AssertionError as stop:  # this is how torchdiffeq says that it cannot go on
            return self._track(self.steps), self._reason(str(stop))
        except KeyboardInterrupt:
            return self._track(self.steps), INTERRUPTED

    def _track(self, steps: list[tuple[Tensor, Tensor]]) -> Track:
        """The track before, and what was noted since, whose first step starts where that ends."""
        times, states = (torch.stack(column) for column in zip(*(steps or [self._last()]), strict=True))
        return Track(
            torch.cat([self.before.times[:-1], times]), torch.cat([self.before.states[:-1], states]),
            self.rejected, self.evaluations,
        )  # fmt: skip

    def _last(self) -> tuple[Tensor, Tensor]:
        return self.before.times[-1], self.before.states[-1]

    def _reason(self, message: str) -> str:
        """Why torchdiffeq stopped, in the problem's words."""
        if "max_num_steps" in message:
            return (
                f"more than max_steps = {self.settings.max_steps} steps; it may be that a neuron slides on a "
                "kink, which makes a Runge-Kutta method take ever smaller ones"
            )
        state = _unpacked(self.weights, (self.steps or [self._last()])[-1][1])
        speed = _packed(self.flow.velocity(state)).abs().max().item()
        lowest = smallest_margin(self.flow, state).item()
        return (
            f"the step size fell below rounding: velocities reach {speed:.3g} at the smallest margin y f = {lowest:.4g}"
        )


def _switches(flow: Flow, weights: NetworkWeights) -> list[tuple[int, bool, Float[Tensor, "*batch rows neurons"]]]:
    """Whatever makes the velocity jump where it changes sign: hidden layer, whether it is a kink, values.

    Pre-activations, and under sign-FA the outgoing weights, at whose zeros the feedback jumps.
    """
    kinks = [(layer, True, values) for layer, values in enumerate(flow.pre_activations(weights), 1)]
    if flow.rule.at_zero != "jumps":
        return kinks
    return kinks + [(layer, False, values) for layer, values in enumerate(weights.layers[1:], 1)]


def _packed(weights: NetworkWeights) -> Float[Tensor, "*batch parameters"]:
    return join(weights.layers)


def _unpacked(like: NetworkWeights, states: Float[Tensor, "*batch parameters"]) -> NetworkWeights:
    return like.with_layers(split(states, [(layer.shape[-2], layer.shape[-1]) for layer in like.layers]))


def _retaken(flow: Flow, like: NetworkWeights, states: Tensor, lengths: Tensor, settings: Settings) -> Tensor:
    """One step of the solver from each state (`*batch x parameters`), of its own length (`*batch`)."""
    scale = lengths.unsqueeze(-1)
    step = _integrate(
        lambda _, state: scale * _packed(flow.velocity(_unpacked(like, state))),
        states,
        states.new_tensor([0.0, 1.0]),
        method=settings.method,
        rtol=0.0,
        atol=math.inf,  # with no error to control, torchdiffeq takes the first step as it is
        options={"first_step": 1.0},
    )
    return step[-1]


def _integrate(velocity: Callable[..., Tensor], state: Tensor, times: Tensor, **options: Any) -> Tensor:
    """The states at the times, by torchdiffeq."""
    from torchdiffeq import odeint  # noqa: PLC0415, with scipy it takes a fifth of the time to load flowsim

    found = odeint(velocity, state, times, **options)
    assert isinstance(found, Tensor)
    return found


def _in_chunks(function: Callable[[Tensor], Tensor], times: Tensor, numbers: int) -> Tensor:
    """`function` of the times, so many at once that CHUNK numbers result."""
    return torch.cat([function(part) for part in times.split(max(1, CHUNK // numbers))])


INTEGRATOR = Integrator(begin, proceed)
