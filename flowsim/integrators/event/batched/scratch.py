"""Memory for the large tensors of a round, used again in the next one."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Blocks of memory by name. On a CPU the pages of fresh memory cost more than the arithmetic done on them.

    What is in a tensor is lost when one of the same name is asked for again.

    >>> scratch = Scratch(torch.float64, torch.device("cpu"))
    >>> first, second = scratch.empty("z", 2, 3), scratch.empty("z", 3)
    >>> second.shape, first.data_ptr() == second.data_ptr()
    (torch.Size([3]), True)
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.blocks: dict[str, Tensor] = {}
        self.tensors: dict[str, Tensor] = {}

    def empty(self, name: str, *shape: int) -> Tensor:
        """A contiguous tensor, not initialised."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            size = math.prod(shape)
            if name not in self.blocks or self.blocks[name].numel() < size:
                self.blocks[name] = torch.empty(size, dtype=self.dtype, device=self.device)
            tensor = self.tensors[name] = self.blocks[name][:size].view(shape)
        return tensor
