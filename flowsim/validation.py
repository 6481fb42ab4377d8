"""Checks of arguments: each error names the argument, its value and the rule it broke, in one line."""

import math
import operator
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_real(name: str, value: Any) -> Tensor:
    """Return `value` as a float64 tensor, on the device it is on.

    Raises:
        ValueError: if `value` is not an array of real numbers.

    >>> as_real("inputs", [[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise ValueError(f"{name} must be an array of real numbers, got dtype {value.dtype}")
        return value.to(torch.float64)
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError):
        raise ValueError(f"{name} must be an array of real numbers, got rows of different lengths") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be an array of real numbers, got {array.ravel()[:1].tolist()} of {array.dtype}")
    return torch.from_numpy(array.astype(np.float64, order="C"))


def as_finite(name: str, value: Any) -> Tensor:
    """Return `value` as a float64 tensor on the device it is on; every entry must be finite.

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


def as_per_neuron(name: str, value: Any, like: Tensor) -> Tensor:
    """Return `value` as a finite tensor of the shape `*batch x m` of `like`, on its device.

    Raises:
        ValueError: if it is neither a number nor of a shape that broadcasts to that.

    >>> as_per_neuron("gaps", 0.5, torch.zeros(2))
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    tensor = as_finite(name, value).to(like.device)
    try:
        return tensor.expand_as(like)
    except RuntimeError:
        wanted, got = tuple(like.shape), tuple(tensor.shape)
        raise ValueError(f"{name} must be a number or of shape (*batch, m) = {wanted}, got {got}") from None


def as_nonzero(name: str, value: Any, like: Tensor) -> Tensor:
    """The same, no entry being 0.

    Raises:
        ValueError: if one is, or as above.

    >>> as_nonzero("signs", [1, 0], torch.zeros(2))
    Traceback (most recent call last):
        ...
    ValueError: signs must not be 0, got 0 at index (1,)
    """
    tensor = as_per_neuron(name, value, like)
    if (tensor == 0).any():
        raise ValueError(f"{name} must not be 0, got 0 at index {tuple(torch.nonzero(tensor == 0)[0].tolist())}")
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
