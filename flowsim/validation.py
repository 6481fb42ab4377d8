"""Checks of arguments: each error names the argument, its value and the rule it broke, in one line."""

import math
import operator
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_real(name: str, value: Any) -> Tensor:
    """Return `value` as a new float64 tensor, on the device it is on.

    Here tensors of the caller's enter: a copy, that nobody else writes into, and without what autograd knows of it.

    Raises:
        ValueError: if `value` is not an array of real numbers.

    >>> as_real("inputs", [[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise ValueError(f"{name} must be an array of real numbers, got dtype {value.dtype}")
        return value.detach().to(torch.float64, copy=True)
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError):
        raise ValueError(f"{name} must be an array of real numbers, got rows of different lengths") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be an array of real numbers, got {array.ravel()[:1].tolist()} of {array.dtype}")
    return torch.from_numpy(array.astype(np.float64, order="C"))


def as_finite(name: str, value: Any) -> Tensor:
    """Return `value` as a new float64 tensor, as `as_real` does; every entry must be finite.

    Raises:
        ValueError: if `value` is not an array of real numbers, or holds a NaN or an infinity.

    >>> as_finite("inputs", [1.0, float("inf")])
    Traceback (most recent call last):
        ...
    ValueError: inputs must be finite, got inf at index (1,)
    """
    tensor = as_real(name, value)
    bad = torch.nonzero(~torch.isfinite(tensor))
    if len(bad):
        index = tuple(bad[0].tolist())
        raise ValueError(f"{name} must be finite, got {tensor[index].item()} at index {index}")
    return tensor


def require_positive(name: str, value: Any) -> float:
    """Return `value` as a float; it must be finite and above 0.

    Raises:
        ValueError: if it is not.

    >>> require_positive("t_final", 2)
    2.0
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def require_count(name: str, value: int, least: int = 1) -> int:
    """Return `value`; it must be an integer of at least `least`.

    Raises:
        ValueError: if it is not.

    >>> require_count("samples", 3)
    3
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return count
