"""Times at which runs are looked at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FIRST = 1e-6
"""The first time after 0 that a report has where nothing else is said, relative to the last."""


def log_times(first: float, last: float, count: int = 400) -> Float[Tensor, " times"]:
    """0, and times from `first` to `last` that are evenly spaced on a logarithmic axis; of two times 0 and the last.

    >>> log_times(0.1, 10.0, 4).tolist(), log_times(0.1, 10.0, 2).tolist()
    ([0.0, 0.1, 1.0, 10.0], [0.0, 10.0])
    """
    exponents = torch.linspace(0, 1, count - 1, dtype=torch.float64)
    times = first * (last / first) ** exponents
    times[-1] = last  # exactly
    return torch.cat([times.new_zeros(1), times])
