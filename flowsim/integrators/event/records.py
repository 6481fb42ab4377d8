"""What every kernel writes and every reader reads: starts of steps, and where the trajectories are.

Matrices lie flattened in rows, one behind another, whatever the depth of the network; `Layout` takes them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from flowsim.flat import split
from flowsim.flow import Flow
from flowsim.weights import NetworkWeights


@dataclass(frozen=True)
class Layout:
    """The shapes of what is flattened.

    Args:
        samples: n.
        shapes: fan_out and fan_in of each of the layers W_1 .. W_{H+1}.

    >>> layout = Layout(5, ((4, 2), (3, 4), (1, 3)))
    >>> layout.parameters, layout.kinks, layout.entries
    (23, 35, 15)
    """

    samples: int
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, flow: Flow, weights: NetworkWeights) -> Layout:
        """The layout of a network's layers on the samples of a flow."""
        return cls(flow.dataset.samples, tuple((layer.shape[-2], layer.shape[-1]) for layer in weights.layers))

    @property
    def parameters(self) -> int:
        """How many weights there are in all layers."""
        return _count(self.shapes)

    @property
    def kinks(self) -> int:
        """How many pairs of a sample and a hidden neuron there are."""
        return _count(self._sides)

    @property
    def entries(self) -> int:
        """How many weights there are above the first layer."""
        return _count(self.shapes[1:])

    @property
    def _sides(self) -> list[tuple[int, int]]:
        return [(self.samples, width) for width, _ in self.shapes[:-1]]

    def split_weights(self, flat: Float[Tensor, "*batch parameters"]) -> list[Tensor]:
        """W_1 .. W_{H+1}, each `*batch x fan_out x fan_in`."""
        return split(flat, self.shapes)

    def split_sides(self, flat: Int8[Tensor, "*batch kinks"]) -> list[Tensor]:
        """What there is of each kink of the hidden layers 1 .. H, each `*batch x samples x neurons`."""
        return split(flat, self._sides)

    def split_signs(self, flat: Int8[Tensor, "*batch entries"]) -> list[Tensor]:
        """What there is of each entry of W_2 .. W_{H+1}, each shaped like its layer."""
        return split(flat, self.shapes[1:])

    @cached_property
    def places(self) -> Int[Tensor, "3 places"]:
        """Hidden layer (from 1), sample and neuron of each kink, then of each entry above the first layer.

        An entry belongs to the neuron whose outgoing weight it is; its sample is -1.
        """
        parts = []
        for level, (rows, columns) in enumerate(self._sides, 1):
            parts.append(torch.cartesian_prod(torch.tensor([level]), torch.arange(rows), torch.arange(columns)))
        for level, (rows, columns) in enumerate(self.shapes[1:], 1):
            neuron = torch.arange(columns).repeat(rows)
            parts.append(torch.stack([torch.full_like(neuron, level), torch.full_like(neuron, -1), neuron], 1))
        return torch.cat(parts).T


def _count(shapes: Sequence[tuple[int, int]]) -> int:
    return sum(rows * columns for rows, columns in shapes)


@dataclass(frozen=True, eq=False)
class Record:
    """A block of starts of steps: one step each of many trajectories, many of one, or any others.

    Within a block and from block to block the steps of each trajectory are in order of time.

    Args:
        layout: of the network.
        index: of the trajectory in the flattened ensemble.
        time: of the start.
        opens: the first time that the step answers for. It is its start, but where a run was extended, the time of the
            junction belongs to the step before, as it did before that.
        weights: of all layers, there.
        side: of every sample at every hidden neuron within the step: 1 active, -1 inactive, 0 sliding. Samples without
            a kink have -1.
        sign: of the entries of W_2 .. W_{H+1} within the step, which is the feedback under sign-FA.
    """

    layout: Layout
    index: Int[Tensor, " steps"]
    time: Float[Tensor, " steps"]
    opens: Float[Tensor, " steps"]
    weights: Float[Tensor, "steps parameters"]
    side: Int8[Tensor, "steps kinks"]
    sign: Int8[Tensor, "steps entries"]


COLUMNS = tuple(item.name for item in fields(Record) if item.name != "layout")
"""What a record holds of each step."""


def open_steps(time: Float[Tensor, " steps"], resumed: Float[Tensor, " steps"]) -> Float[Tensor, " steps"]:
    """The first times that steps answer for; `resumed` is the time from which a trajectory was extended, or -1.

    >>> open_steps(torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 1.0])) > torch.tensor([0.0, 1.0])
    tensor([False,  True])
    """
    return torch.where(time == resumed, torch.nextafter(time, time.new_tensor(torch.inf)), time)


@dataclass(frozen=True, eq=False)
class Front:
    """Where all trajectories of the flattened ensemble are, and what a kernel needs to go on.

    Args:
        layout: of the network.
        time: reached.
        weights, side, sign: there, as in a record.
        contact: of each kink, 0 if z != 0; else how much is known of how the neuron leaves it, as the kernel says.
        sign_contact: of each entry of W_2 .. W_{H+1}, 0 if it is not 0, or has no sign; else likewise.
        unit: of time, about the length of the next step.
        steps: taken.
        rounds: of the kernel, in each of which a series is computed.
        idle: rounds without a step, until now.
    """

    layout: Layout
    time: Float[Tensor, " ensemble"]
    weights: Float[Tensor, "ensemble parameters"]
    side: Int8[Tensor, "ensemble kinks"]
    sign: Int8[Tensor, "ensemble entries"]
    contact: Int8[Tensor, "ensemble kinks"]
    sign_contact: Int8[Tensor, "ensemble entries"]
    unit: Float[Tensor, " ensemble"]
    steps: Int[Tensor, " ensemble"]
    rounds: Int[Tensor, " ensemble"]
    idle: Int[Tensor, " ensemble"]

    def of_trajectories(self, some: Int[Tensor, " some"]) -> Front:
        """That of some trajectories, in this order."""
        names = (item.name for item in fields(self) if item.name != "layout")
        return replace(self, **{name: getattr(self, name)[some] for name in names})
