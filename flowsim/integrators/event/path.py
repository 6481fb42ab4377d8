"""The solution of the event-driven integrator: its steps, and what can be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from flowsim.flow import Flow
from flowsim.integrators.event.front import Front, Mode
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.roots import powers
from flowsim.integrators.event.scratch import Scratch
from flowsim.integrators.event.series import Series, Sliding, summed, taylor
from flowsim.solution import Events
from flowsim.weights import NetworkWeights, Weights

CHUNK = 2**22
"""Taylor coefficients of weights, summed at so many at a time in dense output, to bound its memory."""


@dataclass(frozen=True, eq=False)
class Record:
    """The start of a step, for the trajectories that took one."""

    index: Int[Tensor, " some"]
    time: Float[Tensor, " some"]
    hidden: Float[Tensor, "some m r"]
    output: Float[Tensor, "some k m"]
    side: Int[Tensor, "some n m"]
    sign: Int[Tensor, "some k m"]


@dataclass(frozen=True, eq=False)
class EventPath:
    """The starts of all steps, with the mode. The series of a step is computed again when it is asked for."""

    flow: Flow
    weights: NetworkWeights
    kinks: Kinks
    order: int
    t_final: float
    records: list[Record]
    terms: Int[Tensor, " ensemble"]

    def append(self, front: Front, moving: Bool[Tensor, " ensemble"]) -> None:
        """Take note of the starts of steps, of the trajectories that move."""
        if not moving.any():
            return
        if not moving.all():
            front = front.of_trajectories(torch.nonzero(moving).squeeze(-1))
        weights, mode = front.weights, front.mode
        self.records.append(Record(front.index, front.time, weights.hidden, weights.output, mode.side, mode.sign))

    def only(self, index: int, t_final: float) -> EventPath:
        """The path of one trajectory, up to the time that it reached."""
        records = []
        for record in self.records:
            some = record.index == index
            if some.any():
                parts = {item.name: getattr(record, item.name)[some] for item in fields(Record)}
                records.append(Record(**{**parts, "index": torch.zeros_like(parts["index"])}))
        one = torch.tensor([index], device=self.terms.device)
        flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[one])
        kinks = self.kinks.of_trajectories(one)
        return EventPath(flow, weights, kinks, self.order, t_final, records, self.terms[one])

    @cached_property
    def steps(self) -> Steps:
        """The steps of all trajectories in order."""
        counts = [len(record.index) for record in self.records]
        device = self.kinks.inputs.device
        trajectory = torch.cat([record.index for record in self.records])
        time = torch.cat([record.time for record in self.records])
        number = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
        first = torch.tensor([0, *counts[:-1]], device=device).cumsum(0)
        place = torch.arange(len(time), device=device) - first[number]
        order = torch.argsort(trajectory, stable=True)  # records are in order of time
        ensemble = len(self.kinks.inputs)
        count = torch.bincount(trajectory, minlength=ensemble)
        return Steps(
            order, trajectory[order], time[order], number[order], place[order], count, count.cumsum(0) - count
        )  # fmt: skip

    def _starts(self, which: Int[Tensor, " some"]) -> tuple[Weights, Mode]:
        """State and mode at the start of some steps, given in increasing order of their records."""
        number, place = self.steps.number[which], self.steps.place[which]
        records, counts = torch.unique_consecutive(number, return_counts=True)
        parts = [
            [getattr(self.records[record], name)[chosen] for name in ("hidden", "output", "side", "sign")]
            for record, chosen in zip(records.tolist(), place.split(counts.tolist()), strict=True)
        ]
        hidden, output, side, sign = (torch.cat(column) for column in zip(*parts, strict=True))
        return Weights(hidden, output), Mode(side, sign)

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
        return self.steps.trajectory, self.steps.time

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
            series, unit = self._series(distinct, steps.end(distinct, self.t_final) - steps.time[distinct])
            share = (asked[part] - steps.time[which[part]]) / unit[inverse]
            monomials = powers(share, self.order)
            if derivative:
                orders = torch.arange(1, self.order + 1, dtype=share.dtype, device=share.device)
                monomials = functional.pad(orders * monomials[:, :-1] / unit[inverse].unsqueeze(-1), (1, 0))
            layers[0][part] = summed(series.hidden[:, inverse], monomials).mT
            layers[1][part] = summed(series.output[:, inverse], monomials)
        return layers

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
            torch.cat([getattr(record, name) for record in self.records])[order] for name in ("side", "sign")
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
        return {"steps": self.steps.count, "terms": self.terms.clone(), "crossings": crossed, "slides": entered}


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of an ensemble, ordered by trajectory, then time.

    Args:
        order: their order in the concatenated records.
        trajectory, time: of each step, at its start.
        number, place: of the record, and within it.
        count, first: of each trajectory, how many steps, and the first of them.
    """

    order: Int[Tensor, " steps"]
    trajectory: Int[Tensor, " steps"]
    time: Float[Tensor, " steps"]
    number: Int[Tensor, " steps"]
    place: Int[Tensor, " steps"]
    count: Int[Tensor, " ensemble"]
    first: Int[Tensor, " ensemble"]

    def before(self, trajectory: Int[Tensor, " times"], times: Float[Tensor, " times"]) -> Int[Tensor, " times"]:
        """The last step of the trajectory that starts at or before the time."""
        low, high = self.first[trajectory], self.first[trajectory] + self.count[trajectory]
        while bool((high - low > 1).any()):  # bisection, all at once
            middle = (low + high) // 2
            right = self.time[middle.clamp(max=len(self.time) - 1)] <= times
            open_ = high - low > 1
            low, high = torch.where(open_ & right, middle, low), torch.where(open_ & ~right, middle, high)
        return low

    def end(self, which: Int[Tensor, " some"], t_final: float) -> Float[Tensor, " some"]:
        """Where steps end."""
        following = (which + 1).clamp(max=len(self.time) - 1)
        own = (which + 1 < len(self.time)) & (self.trajectory[following] == self.trajectory[which])
        return torch.where(own, self.time[following], torch.full_like(self.time[which], t_final))
