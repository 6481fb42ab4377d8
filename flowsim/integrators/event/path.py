"""The solution of the event-driven integrator: its steps, and what can be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from flowsim.events import Events
from flowsim.flow import Flow
from flowsim.integrators.event.front import Front, Mode
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.roots import powers
from flowsim.integrators.event.scratch import Scratch
from flowsim.integrators.event.series import Series, Sliding, summed, taylor
from flowsim.weights import NetworkWeights, Weights

CHUNK = 2**22
"""Taylor coefficients of weights, summed at so many at a time in dense output, to bound its memory."""


@dataclass(frozen=True, eq=False)
class Record:
    """The start of steps: one of each of some trajectories, or all of each, ordered by trajectory, then time.

    `opens` is the first time that the step answers for. It is its start, but where a run was extended, the time of the
    junction belongs to the step before, as it did before that.
    """

    index: Int[Tensor, " some"]
    time: Float[Tensor, " some"]
    opens: Float[Tensor, " some"]
    hidden: Float[Tensor, "some m r"]
    output: Float[Tensor, "some k m"]
    side: Int[Tensor, "some n m"]
    sign: Int[Tensor, "some k m"]

    @classmethod
    def of(cls, front: Front, resumed: Float[Tensor, " some"]) -> Record:
        """The steps that start at a front; `resumed` is the time from which a trajectory was extended, or -1."""
        later = torch.nextafter(front.time, front.time.new_tensor(torch.inf))
        opens = torch.where(front.time == resumed, later, front.time)
        weights, mode = front.weights, front.mode
        return cls(front.index, front.time, opens, weights.hidden, weights.output, mode.side, mode.sign)


@dataclass(frozen=True, eq=False)
class EventPath:
    """The starts of all steps, with the mode. The series of a step is computed again when it is asked for.

    `front` is where the trajectories ended, all of them, and `reasons` why some did not get to the end.
    """

    flow: Flow
    weights: NetworkWeights
    kinks: Kinks
    order: int
    records: tuple[Record, ...]
    front: Front
    reasons: tuple[str | None, ...]

    @property
    def reached(self) -> Float[Tensor, " ensemble"]:
        """The time up to which each trajectory can be asked."""
        return self.front.time

    def of_trajectories(self, some: Int[Tensor, " some"]) -> EventPath:
        """The path of some trajectories, in this order."""
        counts, first = self.steps.count[some], self.steps.first[some]
        own = torch.repeat_interleave(torch.arange(len(some), device=some.device), counts)
        which = first[own] + torch.arange(len(own), device=some.device) - (counts.cumsum(0) - counts)[own]
        columns = self._columns()
        parts = {name: column[self.steps.order[which]] for name, column in columns.items()}
        flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[some])
        front = self.front.of_trajectories(some)
        moved = front.steps[own] > 0  # the others get theirs again
        record = Record(**{name: part[moved] for name, part in parts.items()} | {"index": own[moved]})
        return EventPath(
            flow, weights, self.kinks.of_trajectories(some), self.order, (record,),
            replace(front, index=torch.arange(len(some), device=some.device)),
            tuple(self.reasons[index] for index in some.tolist()),
        )  # fmt: skip

    @cached_property
    def _all_records(self) -> list[Record]:
        """The records, and one for trajectories without a step, which answers for t = 0."""
        unmoved = self.front.of_trajectories(torch.nonzero(self.front.steps == 0).squeeze(-1))
        return [*self.records, Record.of(unmoved, torch.full_like(unmoved.time, -1.0))]

    def _columns(self) -> dict[str, Tensor]:
        """The fields of all records."""
        return {
            item.name: torch.cat([getattr(record, item.name) for record in self._all_records])
            for item in fields(Record)
        }

    @cached_property
    def steps(self) -> Steps:
        """The steps of all trajectories in order."""
        counts = [len(record.index) for record in self._all_records]
        device = self.kinks.inputs.device
        trajectory, time, opens = (
            torch.cat([getattr(record, name) for record in self._all_records]) for name in ("index", "time", "opens")
        )
        number = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
        first = torch.tensor([0, *counts[:-1]], device=device).cumsum(0)
        place = torch.arange(len(time), device=device) - first[number]
        order = torch.argsort(trajectory, stable=True)  # records are in order of time
        ensemble = len(self.kinks.inputs)
        count = torch.bincount(trajectory, minlength=ensemble)
        return Steps(
            order, trajectory[order], time[order], opens[order], number[order], place[order],
            count, count.cumsum(0) - count,
        )  # fmt: skip

    def _starts(self, which: Int[Tensor, " some"]) -> tuple[Weights, Mode]:
        """State and mode at the start of some steps, given in increasing order of their records."""
        number, place = self.steps.number[which], self.steps.place[which]
        records, counts = torch.unique_consecutive(number, return_counts=True)
        parts = [
            [getattr(self._all_records[record], name)[chosen] for name in ("hidden", "output", "side", "sign")]
            for record, chosen in zip(records.tolist(), place.split(counts.tolist()), strict=True)
        ]
        hidden, output, side, sign = (torch.cat(column) for column in zip(*parts, strict=True))
        return Weights.sharing(hidden, output), Mode(side, sign)

    def evaluate(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> NetworkWeights:
        """The weights of trajectories, each at a time of its own."""
        return self.weights.with_layers(self._terms_at(trajectory, times, derivative=False))

    def velocity(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> NetworkWeights:
        """d theta / dt of trajectories, each at a time of its own: while sliding, the Filippov velocity."""
        return self.weights.with_layers(self._terms_at(trajectory, times, derivative=True))

    def pattern(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> tuple[Tensor, ...]:
        """The activation pattern of trajectories, each at a time of its own: 0 for sliding samples."""
        if self.flow.slope == 1:  # no kinks
            weights = self.evaluate(trajectory, times)
            flow, _ = self.flow.map_matrices(self.weights, lambda matrix: matrix[trajectory])
            return tuple(layer.sign().to(torch.int8) for layer in flow.pre_activations(weights))
        which, order = self._steps_at(trajectory, times)
        _, mode = self._starts(which[order])
        side = self.kinks.of_trajectories(self.steps.trajectory[which[order]]).of_samples(mode.side)
        pattern = torch.empty_like(side)
        pattern[order] = side
        return (pattern,)

    def starts(self) -> tuple[Int[Tensor, " steps"], Float[Tensor, " steps"]]:
        """The trajectory and the start of every step, ordered by trajectory, then time."""
        moved = self.front.steps[self.steps.trajectory] > 0
        return self.steps.trajectory[moved], self.steps.time[moved]

    def _steps_at(self, trajectory: Tensor, times: Tensor) -> tuple[Int[Tensor, " some"], Int[Tensor, " some"]]:
        """The steps that contain the times, and an order in which neighbours share records, and steps."""
        which = self.steps.before(trajectory, times)
        return which, torch.argsort(self.steps.number[which] * len(self.steps.time) + which, stable=True)

    def _terms_at(self, trajectory: Tensor, asked: Tensor, derivative: bool) -> list[Tensor]:
        which, order = self._steps_at(trajectory, asked)
        steps = self.steps
        shapes = [layer.shape[1:] for layer in self.weights.layers]
        layers = [asked.new_empty(len(asked), *shape) for shape in shapes]
        numbers = self.order * sum(shape.numel() for shape in shapes)
        for part in order.split(max(1, CHUNK // numbers)):
            distinct, inverse = torch.unique_consecutive(which[part], return_inverse=True)
            series, unit = self._series(distinct, steps.end(distinct, self.reached) - steps.time[distinct])
            share = (asked[part] - steps.time[which[part]]) / unit[inverse]
            monomials = powers(share, self.order)
            if derivative:
                orders = torch.arange(1, self.order + 1, dtype=share.dtype, device=share.device)
                monomials = functional.pad(orders * monomials[:, :-1] / unit[inverse].unsqueeze(-1), (1, 0))
            layers[0][part] = summed(series.hidden[:, inverse], monomials).mT
            layers[1][part] = summed(series.output[:, inverse], monomials)
            if not derivative:  # at their start the terms of a series may be infinite
                self._put_starts(layers, which, part[share == 0])
        return layers

    def _put_starts(self, layers: list[Tensor], which: Tensor, at_start: Tensor) -> None:
        """Put the states at the starts of steps, as they are, to their places."""
        if at_start.numel():
            state, _ = self._starts(which[at_start])
            for layer, exact in zip(layers, state.layers, strict=True):
                layer[at_start] = exact

    def _series(self, which: Int[Tensor, " steps"], length: Tensor) -> tuple[Series, Tensor]:
        trajectory = self.steps.trajectory[which]
        weights, mode = self._starts(which)
        flow, _ = self.flow.map_matrices(self.weights, lambda matrix: matrix[trajectory])
        kinks = self.kinks.of_trajectories(trajectory)
        sliding = Sliding.of(kinks, mode.side, ((mode.side == 0) & kinks.exists.unsqueeze(-1)).any(1))
        unit = torch.where(length > 0, length, 1.0)
        scratch = Scratch(length.dtype, length.device)
        return taylor(flow, kinks, weights, mode, sliding, unit, self.order, scratch), unit

    def events(self) -> Events:
        """Changes of the mode from one step to the next."""
        return self._events

    @cached_property
    def _events(self) -> Events:
        order = self.steps.order
        sides, signs = (
            torch.cat([getattr(record, name) for record in self._all_records])[order] for name in ("side", "sign")
        )
        later = torch.nonzero(self.steps.trajectory[1:] == self.steps.trajectory[:-1]).squeeze(-1) + 1
        exists = (self.flow.dataset.inputs != 0).any(-1)
        columns = []
        for part in later.split(max(1, CHUNK // sides[0].numel())):
            trajectory = self.steps.trajectory[part]
            kinks = self.kinks.of_trajectories(trajectory)
            before, after = kinks.of_samples(sides[part - 1]), kinks.of_samples(sides[part])
            changed = (before != after) & exists[trajectory].unsqueeze(-1)
            step, sample, neuron = torch.nonzero(changed, as_tuple=True)
            columns.append((part[step], sample, neuron, before[changed], after[changed]))
            if self.flow.rule.at_zero == "jumps":
                before, after = signs[part - 1], signs[part]
                step, _, neuron = torch.nonzero(before != after, as_tuple=True)
                columns.append(
                    (part[step], torch.full_like(step, -1), neuron, before[before != after], after[before != after])
                )
        if not columns:
            none = torch.zeros(0, dtype=torch.long, device=order.device)
            columns.append((none, none, none, sides.new_zeros(0), sides.new_zeros(0)))
        step, sample, neuron, before, after = (torch.cat(column) for column in zip(*columns, strict=True))
        in_order = torch.argsort(step, stable=True)
        step, sample, neuron = step[in_order], sample[in_order], neuron[in_order]
        return Events(
            self.steps.time[step], self.steps.trajectory[step], torch.ones_like(step), sample, neuron,
            before[in_order], after[in_order],
        )  # fmt: skip

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Per trajectory: steps; Taylor coefficients computed; kinks crossed; times that a sample began to slide."""
        events = self.events()
        count = len(self.kinks.inputs)
        crossed, entered = (
            torch.bincount(events.trajectory[mask & (events.sample >= 0)], minlength=count)
            for mask in (events.before * events.after == -1, events.after == 0)
        )
        return {
            "steps": self.front.steps.clone(), "terms": self.order * self.front.rounds,
            "crossings": crossed, "slides": entered,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of an ensemble, ordered by trajectory, then time.

    Args:
        order: their order in the concatenated records.
        trajectory, time, opens: of each step, as in its record.
        number, place: of the record, and within it.
        count, first: of each trajectory, how many steps, and the first of them.
    """

    order: Int[Tensor, " steps"]
    trajectory: Int[Tensor, " steps"]
    time: Float[Tensor, " steps"]
    opens: Float[Tensor, " steps"]
    number: Int[Tensor, " steps"]
    place: Int[Tensor, " steps"]
    count: Int[Tensor, " ensemble"]
    first: Int[Tensor, " ensemble"]

    def before(self, trajectory: Int[Tensor, " times"], times: Float[Tensor, " times"]) -> Int[Tensor, " times"]:
        """The last step of the trajectory that answers for the time."""
        low, high = self.first[trajectory], self.first[trajectory] + self.count[trajectory]
        while bool((high - low > 1).any()):  # bisection, all at once
            middle = (low + high) // 2
            right = self.opens[middle.clamp(max=len(self.time) - 1)] <= times
            open_ = high - low > 1
            low, high = torch.where(open_ & right, middle, low), torch.where(open_ & ~right, middle, high)
        return low

    def end(self, which: Int[Tensor, " some"], reached: Float[Tensor, " ensemble"]) -> Float[Tensor, " some"]:
        """Where steps end: the last of a trajectory at the time that it reached."""
        following = (which + 1).clamp(max=len(self.time) - 1)
        own = (which + 1 < len(self.time)) & (self.trajectory[following] == self.trajectory[which])
        return torch.where(own, self.time[following], reached[self.trajectory[which]])
