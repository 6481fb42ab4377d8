"""Kinks of a two-layer network: on which side each neuron is, and where it goes from a kink.

The kink of input x and neuron j is the hyperplane w_j . x = 0. The *side* of a neuron at a kink is 1 (active), -1
(inactive), or 0 while it slides along it. theorems/README.md, section 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PARALLEL = 1e-13
"""Inputs are parallel if x_i - c x_k is at most so long, relative to x_i."""

ZERO = 1e-13
"""A speed dz/dt is taken for 0 if it is at most so large, relative to the sum of the sizes of what adds up to it."""

BLOCKED = 1e-15
"""A drive is taken for an end of its interval if it is so near, relative to the interval. Well below ZERO."""


@dataclass(frozen=True, eq=False)
class Kinks:
    """Which samples share a kink: x_i = ratio_i x_k with k = first_i, the first input parallel to x_i.

    A kink bears the number of its first sample. `exists` marks these; an input 0 has no kink.

    >>> kinks = Kinks.of(torch.tensor([[[1.0, 2.0], [0.0, 1.0], [-2.0, -4.0], [0.0, 0.0]]], dtype=torch.float64))
    >>> kinks.first, kinks.ratio, kinks.exists
    (tensor([[0, 1, 0, 3]]), tensor([[ 1.,  1., -2.,  1.]], dtype=torch.float64), tensor([[ True,  True, False, False]]))
    """

    inputs: Float[Tensor, "ensemble n r"]
    first: Int[Tensor, "ensemble n"]
    ratio: Float[Tensor, "ensemble n"]
    exists: Bool[Tensor, "ensemble n"]

    @classmethod
    def of(cls, inputs: Float[Tensor, "ensemble n r"]) -> Kinks:
        """The kinks of the inputs."""
        gram = inputs @ inputs.mT
        squared = gram.diagonal(dim1=-2, dim2=-1)
        nonzero = squared > 0
        # candidates by their cosine, which is less sharp than the distance from the line
        nearly = gram.square() >= (1 - 1e-9) * squared.unsqueeze(-1) * squared.unsqueeze(-2)
        nearly &= (nonzero.unsqueeze(-1) & nonzero.unsqueeze(-2)).tril(-1)
        trajectory, late, early = torch.nonzero(nearly, as_tuple=True)
        ratios = gram[trajectory, late, early] / squared[trajectory, early]
        distance = (inputs[trajectory, late] - ratios.unsqueeze(-1) * inputs[trajectory, early]).norm(dim=-1)
        parallel = distance <= PARALLEL * squared[trajectory, late].sqrt()
        trajectory, late, early, ratios = (item[parallel] for item in (trajectory, late, early, ratios))
        samples = torch.arange(inputs.shape[-2], device=inputs.device)
        first, ratio = samples.expand(inputs.shape[:-1]).clone(), torch.ones_like(squared)
        # the earliest parallel input of a sample is itself a first one
        earliest = torch.full_like(gram, torch.inf).index_put((trajectory, late, early), early.to(gram)).amin(-1)
        shared = torch.isfinite(earliest)
        first[shared] = earliest[shared].long()
        table = torch.zeros_like(gram).index_put((trajectory, late, early), ratios)
        ratio[shared] = table.gather(-1, first.unsqueeze(-1)).squeeze(-1)[shared]
        return cls(inputs, first, ratio, nonzero & (first == samples))

    @cached_property
    def distinct(self) -> bool:
        """Whether every sample has a kink of its own."""
        return bool((self.first == torch.arange(self.first.shape[-1], device=self.first.device)).all())

    def of_trajectories(self, index: Int[Tensor, " some"]) -> Kinks:
        """The kinks of some trajectories."""
        return Kinks(self.inputs[index], self.first[index], self.ratio[index], self.exists[index])

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


def listed(mask: Bool[Tensor, "rows n"]) -> tuple[Int[Tensor, "rows k"], Bool[Tensor, "rows k"]]:
    """The columns that are set in each row, first, and which entries of this list are set.

    >>> listed(torch.tensor([[False, True, True], [True, False, False]]))
    (tensor([[1, 2],
            [0, 1]]), tensor([[ True,  True],
            [ True, False]]))
    """
    most = int(mask.sum(-1).max()) if len(mask) else 0
    index = mask.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :most]
    return index, mask.gather(1, index)


def filippov_sides(
    normals: Float[Tensor, "rows k r"],
    rest: Float[Tensor, "rows r"],
    active: Float[Tensor, "rows k"],
    inactive: Float[Tensor, "rows k"],
    side: Int[Tensor, "rows k"],
    size: Float[Tensor, " rows"],
) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"], Bool[Tensor, " rows"]]:
    r"""To which side neurons go that sit on kinks: the sides of the Filippov velocity, and the speeds dz/dt there.

    Each row is a neuron at w with w . u_k = 0 for all its kinks k; dw/dt = rest + sum_k p_k u_k, where p_k is
    `active` beyond the kink, `inactive` before it, and in between on it.

    A kink attracts if active < inactive. Over these, dw/dt is the element of least norm of the set-valued drive: the
    solution of min |rest + sum_k p_k u_k|^2, active_k <= p_k <= inactive_k, found by an active-set method
    (bounded least squares, Stark and Parker 1995): at the lower end the neuron becomes active, at the upper end
    inactive, in between it slides. A repelling kink has the side given in `side` if the neuron leaves to that side,
    and the other one if not; each change lowers a potential of the flow, so that this ends.

    Args:
        normals: u_k; rows of 0 do not count.
        rest: the drive of the samples that are not on a kink.
        active, inactive: ends of the drives of those that are.
        side: where to start; 0 for kinks that the neuron slid on before.
        size: sum of the sizes of all contributions to dw/dt, for the rounding error.

    Returns:
        Sides, speeds dz_k/dt (0 where they are not above rounding), and whether the search ended.
    """
    gram = normals @ normals.mT
    length = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    rounding = ZERO * length * size.unsqueeze(-1)
    linear = (normals @ rest.unsqueeze(-1)).squeeze(-1)
    exists = length > 0
    attracts = exists & (active < inactive)
    side = torch.where(attracts | (side != 0), side, side.new_ones(()))
    drive = torch.where(side > 0, active, torch.where(side < 0, inactive, 0.5 * (active + inactive)))
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    near = BLOCKED * (inactive - active)
    speed = linear + (gram @ drive.unsqueeze(-1)).squeeze(-1)
    todo = (side * speed < rounding) & exists  # where it starts is right already if it leaves every kink to its side
    if not todo.any():
        return side, speed, ~todo.any(-1)
    for _ in range(20 + 10 * gram.shape[-1]):
        free = (side == 0) & exists
        fixed = torch.where(free, 0.0, drive)
        right = -(linear + (gram @ fixed.unsqueeze(-1)).squeeze(-1))
        both = free.unsqueeze(-1) & free.unsqueeze(-2)
        matrix = torch.where(both, gram, identity)
        target = torch.linalg.solve(matrix, torch.where(free, right, drive))
        low, high = free & (target <= active + near), free & (target >= inactive - near)
        end = torch.where(low, active, inactive)
        way = target - drive
        share = torch.where(low | high, ((end - drive) / way).nan_to_num(0.0).clamp(0, 1), torch.inf)
        least, which = share.min(-1, keepdim=True)
        stopped = torch.isfinite(least)
        drive = torch.where(free, drive + least.clamp(max=1) * way, drive)
        stopping = torch.zeros_like(free).scatter(1, which, stopped)
        drive = torch.where(stopping, end, drive)
        speed = linear + (gram @ drive.unsqueeze(-1)).squeeze(-1)
        wrong = exists & ~free & (side * speed < -rounding) & ~stopped
        worst = torch.where(wrong & attracts, speed.abs() / length, -1.0).max(-1, keepdim=True)
        freed = torch.zeros_like(free).scatter(1, worst.indices, worst.values > 0)
        crossing = wrong & ~attracts & (worst.values <= 0)
        moved = side
        side = torch.where(stopping, torch.where(low, 1, -1), side)
        side = torch.where(freed, 0, side)
        side = torch.where(crossing, -side, side).to(moved.dtype)
        drive = torch.where(crossing, torch.where(side > 0, active, inactive), drive)
        todo = stopped.squeeze(-1) | freed.any(-1) | crossing.any(-1)
        if not todo.any():
            break
    return side, torch.where(speed.abs() > rounding, speed, 0.0), ~todo
