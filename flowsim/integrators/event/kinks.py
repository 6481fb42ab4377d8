"""Kinks of a two-layer network, and the slopes phi' that the sides of the neurons give.

The kink of input x and neuron j is the hyperplane w_j . x = 0. The *side* of a neuron at a kink is 1 (active), -1
(inactive), or 0 while it slides along it. flowsim/README.md, section 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators.event.tolerances import LENGTHS, NEARLY_PARALLEL, PARALLEL
from flowsim.scaling import scaled_rows, times_power


@dataclass(frozen=True, eq=False)
class Kinks:
    """Which samples share a kink: x_i = ratio_i x_k with k = first_i, the first input parallel to x_i.

    A kink bears the number of its first sample. `exists` marks these; an input 0 has no kink. `length` is |x_i|;
    `distinct`: whether no two inputs share a kink.

    >>> kinks = Kinks.of(torch.tensor([[[1.0, 2.0], [0.0, 1.0], [-2.0, -4.0], [0.0, 0.0]]], dtype=torch.float64))
    >>> kinks.first, kinks.exists
    (tensor([[0, 1, 0, 3]]), tensor([[ True,  True, False, False]]))
    >>> kinks.ratio
    tensor([[ 1.,  1., -2.,  1.]], dtype=torch.float64)
    """

    inputs: Float[Tensor, "ensemble n r"]
    length: Float[Tensor, "ensemble n"]
    first: Int[Tensor, "ensemble n"]
    ratio: Float[Tensor, "ensemble n"]
    exists: Bool[Tensor, "ensemble n"]
    distinct: bool

    @classmethod
    def of(cls, inputs: Float[Tensor, "ensemble n r"]) -> Kinks:
        """The kinks of the inputs.

        Raises:
            ValueError: if an input is so long or short that its square may over- or underflow on the way of a neuron.
        """
        rows, exponent = scaled_rows(inputs)  # parallel inputs are told whatever their lengths
        length = times_power(torch.linalg.vector_norm(rows, dim=-1), exponent.squeeze(-1))
        _require_moderate(length)
        gram = rows @ rows.mT
        squared = gram.diagonal(dim1=-2, dim2=-1)
        nonzero = squared > 0
        # candidates by their cosine, which is less sharp than the distance from the line
        nearly = gram.square() >= (1 - NEARLY_PARALLEL) * squared.unsqueeze(-1) * squared.unsqueeze(-2)
        nearly &= (nonzero.unsqueeze(-1) & nonzero.unsqueeze(-2)).tril(-1)
        trajectory, late, early = torch.nonzero(nearly, as_tuple=True)
        ratios = gram[trajectory, late, early] / squared[trajectory, early]
        distance = (rows[trajectory, late] - ratios.unsqueeze(-1) * rows[trajectory, early]).norm(dim=-1)
        parallel = distance <= PARALLEL * squared[trajectory, late].sqrt()
        ratios = times_power(ratios, (exponent[trajectory, late] - exponent[trajectory, early]).squeeze(-1))
        trajectory, late, early, ratios = (item[parallel] for item in (trajectory, late, early, ratios))
        samples = torch.arange(inputs.shape[-2], device=inputs.device)
        first, ratio = samples.expand(inputs.shape[:-1]).clone(), torch.ones_like(squared)
        # the earliest parallel input of a sample is itself a first one
        earliest = torch.full_like(gram, torch.inf).index_put((trajectory, late, early), early.to(gram)).amin(-1)
        shared = torch.isfinite(earliest)
        first[shared] = earliest[shared].long()
        table = torch.zeros_like(gram).index_put((trajectory, late, early), ratios)
        ratio[shared] = table.gather(-1, first.unsqueeze(-1)).squeeze(-1)[shared]
        own = first == samples
        return cls(inputs, length, first, ratio, nonzero & own, bool(own.all()))

    def of_trajectories(self, index: Int[Tensor, " some"]) -> Kinks:
        """The kinks of some trajectories."""
        return Kinks(
            self.inputs[index],
            self.length[index],
            self.first[index],
            self.ratio[index],
            self.exists[index],
            self.distinct,
        )

    def slopes(self, side: Int[Tensor, "ensemble n m"], slope: float) -> Float[Tensor, "ensemble n m"]:
        """phi'(z_ij): 1 for active, slope for inactive samples; 0 while z_ij = 0 slides and phi(z_ij) stays 0."""
        side = self.of_samples(side).to(self.inputs.dtype)
        return side.clamp(min=slope) * side.abs()

    def of_samples(self, side: Int[Tensor, "ensemble n m"]) -> Int[Tensor, "ensemble n m"]:
        """The side of every sample, from that of its kink."""
        if self.distinct:
            return side
        shared = side.gather(1, self.first.unsqueeze(-1).expand_as(side))
        return torch.where(self.ratio.unsqueeze(-1) > 0, shared, -shared)

    def ends(
        self, trajectory: Int[Tensor, " rows"], kink: Int[Tensor, "rows k"], error: Float[Tensor, "rows n *terms"],
        slope: float,
    ) -> tuple[Float[Tensor, "rows k *terms"], Float[Tensor, "rows k *terms"]]:  # fmt: skip
        """The drives p on the active and on the inactive side of kinks: sum_i ratio_i phi'_i E_i over their samples."""
        if self.distinct:
            index = kink.reshape(*kink.shape, *[1] * (error.ndim - 2)).expand(*kink.shape, *error.shape[2:])
            own = error.gather(1, index)
            return own, slope * own
        ratio = self.ratio[trajectory].unsqueeze(1)
        member = ratio * (self.first[trajectory].unsqueeze(1) == kink.unsqueeze(-1))
        forward, backward = member.clamp(min=0), member.clamp(max=0)
        terms = error.flatten(2) if error.ndim > 2 else error.unsqueeze(-1)
        active = (forward + slope * backward) @ terms
        inactive = (slope * forward + backward) @ terms
        shape = (*kink.shape, *error.shape[2:])
        return active.reshape(shape), inactive.reshape(shape)


_KINKS: WeakKeyDictionary[Flow, Kinks] = WeakKeyDictionary()
"""The kinks of flows that are in use."""


def find_kinks(flow: Flow) -> Kinks:
    """The kinks of a flattened ensemble's inputs, computed once for each flow.

    Raises:
        ValueError: as `Kinks.of`.
    """
    if flow not in _KINKS:
        _KINKS[flow] = Kinks.of(flow.dataset.inputs)
    return _KINKS[flow]


def _require_moderate(length: Float[Tensor, "ensemble n"]) -> None:
    shortest, longest = LENGTHS
    outside = length[(length > 0) & ~((length >= shortest) & (length <= longest))]
    if len(outside):
        raise ValueError(
            f"inputs must have lengths from {shortest:g} to {longest:g}, or 0, for method 'event', got "
            f"{outside[0].item():g}: multiply them by some c, and divide weights and feedback by sqrt(c), t_final by c"
        )


def list_columns(mask: Bool[Tensor, "rows n"]) -> tuple[Int[Tensor, "rows k"], Bool[Tensor, "rows k"]]:
    """The columns that are set in each row, first, and which entries of this list are set.

    >>> list_columns(torch.tensor([[False, True, True], [True, False, False]]))
    (tensor([[1, 2],
            [0, 1]]), tensor([[ True,  True],
            [ True, False]]))
    """
    most = int(mask.sum(-1).max()) if len(mask) else 0
    index = mask.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :most]
    return index, mask.gather(1, index)
