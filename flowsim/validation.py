"""Checks of arguments: each error names the argument, its value and the rule it broke, in one line."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_finite(name: str, value: Any) -> Tensor:
    """Return `value` as a float64 tensor on the device it is on; every entry must be finite.

    Raises:
        ValueError: if `value` is not numeric, or holds a NaN or an infinity.

    >>> as_finite("inputs", [[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))  # lists become float64
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {type(value).__name__}: {error}") from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be an array of real numbers, got dtype {tensor.dtype}")
    tensor = tensor.to(torch.float64)
    bad = torch.nonzero(~torch.isfinite(tensor))
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(f"{name} must be finite, got {tensor[index].item()} at index {index}")
    return tensor


def require_positive(name: str, value: float) -> float:
    """Return `value` as a float; it must be finite and above 0.

    Raises:
        ValueError: if it is not.

    >>> require_positive("t_final", 2)
    2.0
    """
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def require_count(name: str, value: int) -> int:
    """Return `value`; it must be an integer of at least 1.

    Raises:
        ValueError: if it is not.

    >>> require_count("samples", 3)
    3
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value
