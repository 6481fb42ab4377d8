"""Trajectories that are moved on together, as tensors in the shapes that the arithmetic needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flat import join
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.records import Front, Layout
from flowsim.weights import Weights


@dataclass(frozen=True, eq=False)
class Mode:
    """The discrete part of the state of an ensemble.

    Args:
        side: of each kink and neuron, 1 active, -1 inactive, 0 sliding (int8). Of a sample without a kink never 0.
        sign: of the output weights, which is the feedback under sign-FA (int8).
    """

    side: Int[Tensor, "ensemble n m"]
    sign: Int[Tensor, "ensemble k m"]

    def of_trajectories(self, some: Tensor) -> Mode:
        """Some of the trajectories."""
        return Mode(self.side[some], self.sign[some])


@dataclass(frozen=True, eq=False)
class Batch:
    """Some trajectories of an ensemble, and what is needed to go on.

    Args:
        index: their numbers in the ensemble.
        time: reached.
        end: where to stop.
        weights, mode: there.
        size: the largest weight, in absolute value.
        contact: of each kink and neuron: 0 if z != 0; 1 if z = 0 and the neuron leaves at some speed; 2 if z = 0 and
            the speed is 0 too, as after sliding, or not known (int8).
        sign_contact: of each output weight: 0 if it is not 0, or has no sign; else the power of t with which it leaves
            0 (int8).
        unit: of time, about the length of the next step.
        steps: taken.
        rounds: in each of which a series was computed.
        idle: rounds without a step, until now.
    """

    index: Int[Tensor, " ensemble"]
    time: Float[Tensor, " ensemble"]
    end: Float[Tensor, " ensemble"]
    weights: Weights
    mode: Mode
    size: Float[Tensor, " ensemble"]
    contact: Int[Tensor, "ensemble n m"]
    sign_contact: Int[Tensor, "ensemble k m"]
    unit: Float[Tensor, " ensemble"]
    steps: Int[Tensor, " ensemble"]
    rounds: Int[Tensor, " ensemble"]
    idle: Int[Tensor, " ensemble"]

    @classmethod
    def of_front(cls, front: Front, end: Float[Tensor, " ensemble"]) -> Batch:
        """All trajectories of an ensemble, on their way to an end each."""
        layout = front.layout
        hidden, output = (layer.contiguous() for layer in layout.split_weights(front.weights))
        (side,), (contact,) = layout.split_sides(front.side), layout.split_sides(front.contact)
        (sign,), (sign_contact,) = layout.split_signs(front.sign), layout.split_signs(front.sign_contact)
        return cls(
            index=torch.arange(len(end), device=end.device),
            time=front.time,
            end=end,
            weights=Weights.sharing(hidden, output),
            mode=Mode(side, sign),
            size=find_largest((hidden, output)),
            contact=contact,
            sign_contact=sign_contact,
            unit=torch.minimum(front.unit, end),
            steps=front.steps,
            rounds=front.rounds,
            idle=front.idle,
        )

    def as_front(self, layout: Layout, kinks: Kinks) -> Front:
        """Where all trajectories of an ensemble are, which these must be, with the kinks of all."""
        return Front(
            layout=layout,
            time=self.time,
            weights=join(self.weights.layers),
            side=kinks.of_samples(self.mode.side).flatten(1),
            sign=self.mode.sign.flatten(1),
            contact=self.contact.flatten(1),
            sign_contact=self.sign_contact.flatten(1),
            unit=self.unit,
            steps=self.steps,
            rounds=self.rounds,
            idle=self.idle,
        )

    def of_trajectories(self, some: Tensor) -> Batch:
        """Some of the trajectories."""
        return Batch(
            self.index[some],
            self.time[some],
            self.end[some],
            self.weights.map(lambda tensor: tensor[some]),
            self.mode.of_trajectories(some),
            self.size[some],
            self.contact[some],
            self.sign_contact[some],
            self.unit[some],
            self.steps[some],
            self.rounds[some],
            self.idle[some],
        )

    @classmethod
    def of_all(cls, parts: Sequence[Batch]) -> Batch:
        """Parts of an ensemble put together again, ordered by their numbers."""
        order = torch.cat([part.index for part in parts]).argsort()

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(tensors))[order]

        hidden, output = (joined(layers) for layers in zip(*(part.weights.layers for part in parts), strict=True))
        mode = Mode(joined([part.mode.side for part in parts]), joined([part.mode.sign for part in parts]))
        columns = {
            item.name: joined([getattr(part, item.name) for part in parts])
            for item in fields(cls)
            if item.name not in ("weights", "mode")
        }
        return cls(**columns, weights=Weights.sharing(hidden, output), mode=mode)

    def touching(self) -> Bool[Tensor, "ensemble m"]:
        """The neurons that slide on a kink, or that may not have left one."""
        return (self.mode.side.abs().amin(1) == 0) | (self.contact.amax(1) == 2)


def find_largest(layers: Sequence[Tensor]) -> Float[Tensor, "*batch"]:
    """The maximum norm over both layers."""
    first, last = (layer.abs().amax((-2, -1)) for layer in layers)  # ten times as fast as vector_norm
    return torch.maximum(first, last)
