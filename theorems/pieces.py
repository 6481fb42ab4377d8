"""Pieces of time: some of them, their halves, and numbers on pieces taken together along each trajectory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim.solution import Pieces


def chosen(pieces: Pieces, which: slice | Tensor) -> Pieces:
    """Some of the pieces."""
    return Pieces(*(column[which] for column in pieces))


def halves(pieces: Pieces) -> Pieces:
    """Every piece in two, one half after the other."""
    middle = (pieces.start + pieces.end) / 2
    start = torch.stack([pieces.start, middle], -1).reshape(-1)
    end = torch.stack([middle, pieces.end], -1).reshape(-1)
    return Pieces(twice(pieces.trajectory), start, end)


def twice(columns: Tensor, dimension: int = -1) -> Tensor:
    """Every entry two times along the dimension of the pieces, one after the other, as their halves stand."""
    return torch.repeat_interleave(columns, 2, dimension)


def accumulate(
    values: Float[Tensor, "pieces *parts"], trajectory: Int[Tensor, " pieces"], scan: Callable[[Tensor], Tensor]
) -> Float[Tensor, "pieces *parts"]:
    """A cumulative operation, the scan of rows over dimension 1, along each trajectory.

    >>> accumulate(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]), lambda rows: rows.cumsum(1))
    tensor([1., 3., 3.])
    """
    counts = torch.bincount(trajectory)
    place = torch.arange(len(trajectory), device=trajectory.device) - (counts.cumsum(0) - counts)[trajectory]
    table = values.new_zeros(len(counts), int(counts.max()), *values.shape[1:])
    table[trajectory, place] = values
    return scan(table)[trajectory, place]


def extreme(
    values: Float[Tensor, " pieces"], trajectory: Int[Tensor, " pieces"], count: int, reduction: str
) -> Float[Tensor, " ensemble"]:
    """The smallest ("amin") or largest ("amax") value of each trajectory; infinity or minus infinity if it has none."""
    start = values.new_full((count,), torch.inf if reduction == "amin" else -torch.inf)
    return start.scatter_reduce(0, trajectory, values, reduction)
