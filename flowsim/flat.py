"""Matrices as one row of numbers: flattened one behind another, and taken apart again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def join(matrices: Sequence[Tensor]) -> Tensor:
    """Return matrices `*batch x p x q` flattened row-major, one behind another.

    >>> join([torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6]])])
    tensor([1, 2, 3, 4, 5, 6])
    """
    return torch.cat([matrix.flatten(-2) for matrix in matrices], -1)


def split(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the matrices `*batch x p x q` of the given shapes that `join` put one behind another.

    >>> split(torch.arange(6), [(2, 2), (1, 2)])[1]
    tensor([[4, 5]])
    """
    ends = list(itertools.accumulate((rows * columns for rows, columns in shapes), initial=0))
    return [
        flat[..., first:last].unflatten(-1, shape)
        for shape, (first, last) in zip(shapes, itertools.pairwise(ends), strict=True)
    ]
