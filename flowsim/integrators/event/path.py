"""The solution of the event-driven integrator: its steps, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim.events import Events
from flowsim.flow import Flow
from flowsim.integrators.event.kernel import Kernel, Reasons
from flowsim.integrators.event.records import COLUMNS, Front, Record
from flowsim.weights import NetworkWeights

CHUNK = 2**22
"""Taylor coefficients of weights, summed at so many at a time in dense output, or entries of modes compared at so many
at a time, to bound memory."""


@dataclass(frozen=True, eq=False)
class EventPath:
    """The starts of all steps, with the mode. The kernel computes the series of a step again when it is asked for.

    `front` is where the trajectories ended, all of them, and `reasons` why some did not get to the end.
    """

    flow: Flow
    weights: NetworkWeights
    order: int
    records: tuple[Record, ...]
    front: Front
    reasons: Reasons
    kernel: Kernel
    logarithmic: bool = False

    @property
    def reached(self) -> Float[Tensor, " ensemble"]:
        """The time up to which each trajectory can be asked."""
        return self.front.time

    def of_trajectories(self, some: Int[Tensor, " some"]) -> EventPath:
        """The path of some trajectories, in this order."""
        counts, first = self.steps.count[some], self.steps.first[some]
        own = torch.repeat_interleave(torch.arange(len(some), device=some.device), counts)
        which = first[own] + torch.arange(len(own), device=some.device) - (counts.cumsum(0) - counts)[own]
        flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[some])
        front = self.front.of_trajectories(some)
        moved = front.steps[own] > 0  # the others get theirs again
        record = replace(self._rows(which[moved]), index=own[moved])
        reasons = tuple(self.reasons[index] for index in some.tolist())
        return EventPath(flow, weights, self.order, (record,), front, reasons, self.kernel, self.logarithmic)

    # --- steps ---

    @cached_property
    def _blocks(self) -> list[Record]:
        """The records, and one for trajectories without a step, which answers for t = 0."""
        unmoved, front = torch.nonzero(self.front.steps == 0).squeeze(-1), self.front
        states = (column[unmoved] for column in (front.time, front.time, front.weights, front.side, front.sign))
        return [*self.records, Record(front.layout, unmoved, *states)]

    @cached_property
    def steps(self) -> Steps:
        """The steps of all trajectories in order."""
        counts = [len(block.index) for block in self._blocks]
        device = self.reached.device
        trajectory, time, opens = (
            torch.cat([getattr(block, name) for block in self._blocks]) for name in ("index", "time", "opens")
        )
        number = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
        first = torch.tensor([0, *counts[:-1]], device=device).cumsum(0)
        place = torch.arange(len(time), device=device) - first[number]
        order = torch.argsort(trajectory, stable=True)  # records are in order of time
        count = torch.bincount(trajectory, minlength=len(self.reached))
        return Steps(
            order, trajectory[order], time[order], opens[order], number[order], place[order],
            count, count.cumsum(0) - count,
        )  # fmt: skip

    def _columns(self, which: Int[Tensor, " some"], *names: str) -> list[Tensor]:
        """Columns of the records of some steps."""
        number = self.steps.number[which]
        order = torch.argsort(number, stable=True)
        blocks, counts = torch.unique_consecutive(number[order], return_counts=True)
        places = self.steps.place[which[order]].split(counts.tolist())
        pairs = [(self._blocks[block], place) for block, place in zip(blocks.tolist(), places, strict=True)]
        pairs = pairs or [(self._blocks[-1], order)]
        back = torch.argsort(order)
        return [torch.cat([getattr(block, name)[place] for block, place in pairs])[back] for name in names]

    def _rows(self, which: Int[Tensor, " some"]) -> Record:
        """Some steps as one block."""
        return Record(self.front.layout, *self._columns(which, *COLUMNS))

    def starts(self) -> tuple[Int[Tensor, " steps"], Float[Tensor, " steps"]]:
        """The trajectory and the start of every step, ordered by trajectory, then time."""
        moved = self.front.steps[self.steps.trajectory] > 0
        return self.steps.trajectory[moved], self.steps.time[moved]

    # --- dense output ---

    def evaluate(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> NetworkWeights:
        """The weights of trajectories, each at a time of its own."""
        return self._sum_series(trajectory, times, derivative=False)

    def velocity(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> NetworkWeights:
        """d theta / dt of trajectories, each at a time of its own: while sliding, the Filippov velocity."""
        return self._sum_series(trajectory, times, derivative=True)

    def _sum_series(self, trajectory: Tensor, times: Tensor, derivative: bool) -> NetworkWeights:
        steps, layout = self.steps, self.front.layout
        which = steps.find(trajectory, times)
        # neighbours share records, and steps
        order = torch.argsort(steps.number[which] * len(steps.time) + which, stable=True)
        sums = self.front.weights.new_empty(len(times), layout.parameters)
        for part in order.split(max(1, CHUNK // (self.order * layout.parameters))):
            distinct, inverse = torch.unique_consecutive(which[part], return_inverse=True)
            length = steps.end(distinct, self.reached) - steps.time[distinct]
            length = torch.where(length > 0, length, 1.0)
            share = (times[part] - steps.time[which[part]]) / length[inverse]
            starts = self._rows(distinct)
            sums[part] = self.kernel.evaluate(
                self.flow, starts, length, inverse, share, self.order, derivative, self.logarithmic
            )  # fmt: skip
        return self.weights.with_layers(layout.split_weights(sums))

    def pattern(self, trajectory: Int[Tensor, " some"], times: Float[Tensor, " some"]) -> tuple[Tensor, ...]:
        """The activation pattern of trajectories, each at a time of its own: 0 for sliding samples."""
        if self.flow.slope == 1:  # no kinks
            weights = self.evaluate(trajectory, times)
            flow, _ = self.flow.map_matrices(self.weights, lambda matrix: matrix[trajectory])
            return tuple(layer.sign().to(torch.int8) for layer in flow.pre_activations(weights))
        (side,) = self._columns(self.steps.find(trajectory, times), "side")
        return tuple(self.front.layout.split_sides(side))

    # --- events ---

    def events(self) -> Events:
        """Changes of the mode from one step to the next."""
        return self._events

    @cached_property
    def _events(self) -> Events:
        names = ("side", "sign") if self.flow.rule.at_zero == "jumps" else ("side",)
        last = torch.cat(self._columns(self.steps.first, *names), 1)  # nothing changes at the first step
        columns = []
        for step, index, after in self._modes(names):
            first = torch.cat([index.new_ones(1).bool(), index[1:] != index[:-1]])[: len(index)]
            before = torch.where(first.unsqueeze(-1), last[index], after.roll(1, 0))
            row, entry = torch.nonzero(before != after, as_tuple=True)
            columns.append((step[row], entry, before[row, entry], after[row, entry]))
            ends = first.roll(-1)
            last[index[ends]] = after[ends]
        step, entry, before, after = (torch.cat(column) for column in zip(*columns, strict=True))
        in_order = torch.argsort(step, stable=True)
        step, entry = step[in_order], entry[in_order]
        layer, sample, neuron = self.front.layout.places.to(entry.device)[:, entry]
        return Events(
            self.steps.time[step], self.steps.trajectory[step], layer, sample, neuron,
            before[in_order], after[in_order],
        )  # fmt: skip

    def _modes(self, names: tuple[str, ...]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Number, trajectory and mode of some steps after another: of a few records each, ordered by trajectory."""
        groups, size = [[]], 0
        for block in self._blocks:
            if size >= CHUNK:
                groups, size = [*groups, []], 0
            groups[-1].append(block)
            size += sum(getattr(block, name).numel() for name in names)
        numbers = torch.argsort(self.steps.order).split([sum(len(block.index) for block in group) for group in groups])
        for group, number in zip(groups, numbers, strict=True):
            mode = torch.cat([torch.cat([getattr(block, name) for name in names], 1) for block in group])
            index = torch.cat([block.index for block in group])
            order = torch.argsort(index, stable=True)
            yield number[order], index[order], mode[order]

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Per trajectory: steps; Taylor coefficients computed; kinks crossed; times that a sample began to slide."""
        events = self.events()
        count = len(self.reached)
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

    def find(self, trajectory: Int[Tensor, " times"], times: Float[Tensor, " times"]) -> Int[Tensor, " times"]:
        """The last step of the trajectory that answers for the time; its first, where none has opened."""
        opened, keys = self._in_order
        key = trajectory * (len(opened) + 1) + torch.searchsorted(opened, times, right=True)
        return torch.maximum(torch.searchsorted(keys, key) - 1, self.first[trajectory])

    @cached_property
    def _in_order(self) -> tuple[Float[Tensor, " steps"], Int[Tensor, " steps"]]:
        """The times at which steps of all trajectories open, in order; and for each step a number, in order, too.

        That is by trajectory first, then by how many open before it. It opens no later than a time if these are fewer
        than all that do.
        """
        opened = self.opens.sort().values
        return opened, self.trajectory * (len(opened) + 1) + torch.searchsorted(opened, self.opens)

    def end(self, which: Int[Tensor, " some"], reached: Float[Tensor, " ensemble"]) -> Float[Tensor, " some"]:
        """Where steps end: the last of a trajectory at the time that it reached."""
        following = (which + 1).clamp(max=len(self.time) - 1)
        own = (which + 1 < len(self.time)) & (self.trajectory[following] == self.trajectory[which])
        return torch.where(own, self.time[following], reached[self.trajectory[which]])
