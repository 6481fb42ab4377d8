"""Checks of arguments: each error names the argument, its value and the rule it broke, in one line."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsim.messages import first_line

LARGEST = 2**31
"""Numbers that an array may have (17 GB); counts above are taken for mistakes."""

SEED_COUNT = 2**32
"""So many seeds torch's generator tells apart: of a larger one it takes the last 32 bits."""


def shown(value: Any) -> str:
    """Return `value` in one short line, for an error.

    >>> shown([1] * 100), shown(10**400)
    ('[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,...', 'an integer of 1329 bits')
    """
    if isinstance(value, int) and abs(value) >= 2**128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        return f"{type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else line[:55] + "..."


def as_real(name: str, value: Any) -> Tensor:
    """Return `value` as a new float64 tensor, on the device it is on.

    Here tensors of the caller's enter: a copy, that nobody else writes into, and without what autograd knows of it.

    Raises:
        ValueError: if `value` is not an array of real numbers.

    >>> as_real("inputs", [[1, 2]])
    tensor([[1., 2.]], dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        return _as_real_tensor(name, value)
    if isinstance(value, (list, tuple)) and any(isinstance(entry, Tensor) for entry in value):
        entries = [as_real(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
        if len({entry.shape for entry in entries}) > 1:
            raise ValueError(f"{name} must be an array of real numbers, got rows of different lengths")
        if len({entry.device for entry in entries}) > 1:
            raise ValueError(f"{name} must be on one device, got rows on several")
        return torch.stack(entries)
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError):
        raise ValueError(f"{name} must be an array of real numbers, got rows of different lengths") from None
    except Exception as error:  # whatever an object of another library does when it is asked for an array
        got = f"{type(value).__name__}: {first_line(error)}"
        raise ValueError(f"{name} must be an array of real numbers, got {got}") from None
    if array.dtype.kind not in "iuf":
        entry = shown(array.ravel()[:1].tolist())
        raise ValueError(f"{name} must be an array of real numbers, got {entry} of {array.dtype}")
    return torch.from_numpy(array.astype(np.float64, order="C"))


def _as_real_tensor(name: str, value: Tensor) -> Tensor:
    if value.is_complex() or value.dtype == torch.bool or value.is_quantized:
        raise ValueError(f"{name} must be an array of real numbers, got dtype {value.dtype}")
    if value.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got layout {value.layout}: use {name}.to_dense()")
    if value.is_meta:
        raise ValueError(f"{name} must hold numbers, got a tensor on the device meta, which holds none")
    return value.detach().to(torch.float64, copy=True)


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


def as_indices(name: str, value: Any, count: int, device: torch.device) -> Tensor:
    """Return `value`, an integer or an array of integers from 0 to count - 1, as a tensor on the device.

    Raises:
        ValueError: if it is not.

    >>> as_indices("trajectory", [0, 2], 3, torch.device("cpu"))
    tensor([0, 2])
    """
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be an array of integers, got {shown(value)}") from None
    if tensor.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) and tensor.numel():
        raise ValueError(f"{name} must be an array of integers, got dtype {tensor.dtype}: use {name}.long()")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise ValueError(f"{name} must be a dense array of integers, got {shown(value)}")
    unknown = tensor[(tensor < 0) | (tensor >= count)]
    if len(unknown):
        raise ValueError(f"{name} must be a number from 0 to {count - 1}, got {unknown[0].item()}")
    return tensor.to(device, torch.long)


def as_number(value: Any) -> float:
    """Return a real number, or an array of one number without dimensions, as a float; NaN if it is something else.

    >>> as_number(np.float32(0.5)), as_number(torch.tensor(2)), as_number(10**400), as_number(True)
    (0.5, 2.0, inf, nan)
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        if isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided):
            return math.nan
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf  # of either sign: no limit is that large


def require_positive(name: str, value: Any) -> float:
    """Return `value` as a float; it must be finite and above 0.

    Raises:
        ValueError: if it is not.

    >>> require_positive("t_final", 2)
    2.0
    """
    number = as_number(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {shown(value)}")
    return number


def require_not_negative(name: str, value: Any) -> float:
    """Return `value` as a float; it must be finite and not below 0.

    Raises:
        ValueError: if it is not.

    >>> require_not_negative("rho", 0)
    0.0
    """
    number = as_number(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {shown(value)}")
    return number


def require_finite(name: str, value: Any) -> float:
    """Return `value` as a float; it must be finite.

    Raises:
        ValueError: if it is not.

    >>> require_finite("--gap", -0.5)
    -0.5
    """
    number = as_number(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return number


def require_within(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float; it must lie in [low, high].

    Raises:
        ValueError: if it does not.

    >>> require_within("slope", np.float64(0.5), 0, 1)
    0.5
    """
    number = as_number(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {shown(value)}")
    return number


def require_count(name: str, value: Any, least: int = 1, most: int = LARGEST) -> int:
    """Return `value`; it must be an integer of at least `least`, and at most `most`.

    Raises:
        ValueError: if it is not.

    >>> require_count("samples", 3)
    3
    """
    try:
        count = operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # torch raises any of these for a tensor that is no integer
        count = least - 1
    truth = isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.bool_)
    if truth or count < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {shown(value)}")
    if count > most:
        raise ValueError(f"{name} must be an integer of at most {most}, got {shown(value)}")
    return count


def require_seed(value: Any, name: str = "seed") -> int:
    """Return a seed: an integer from 0 to 2^32 - 1.

    Raises:
        ValueError: if it is not.

    >>> require_seed(3)
    3
    """
    return require_count(name, value, least=0, most=SEED_COUNT - 1)


def require_room(names: str, *sizes: int) -> None:
    """Check that an array of these sizes can be had.

    Raises:
        ValueError: if it would hold more than LARGEST numbers.

    >>> require_room("samples and dimension", 2**20, 2**20)
    Traceback (most recent call last):
        ...
    ValueError: samples and dimension must give at most 2147483648 numbers, got 1048576 x 1048576
    """
    if math.prod(sizes) > LARGEST:
        raise ValueError(f"{names} must give at most {LARGEST} numbers, got {' x '.join(map(str, sizes))}")


def as_members(name: str, value: Any, kinds: tuple[type, ...]) -> list:
    """Return `value` as a list; it must hold at least one item, all of the given types.

    Raises:
        ValueError: if it does not.

    >>> as_members("ensemble", (1, 2), (int,))
    [1, 2]
    """
    wanted = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(value, (*kinds, str, bytes)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of {wanted}, got {shown(value)}")
    members = list(value)
    if not members:
        raise ValueError(f"{name} must hold at least one {wanted}, got none")
    for index, member in enumerate(members):
        if not isinstance(member, kinds):
            raise ValueError(f"{name}[{index}] must be a {wanted}, got {shown(member)}")
    return members


def require_alike(name: str, kinds: Sequence[tuple]) -> None:
    """Check that the members of an ensemble have the same shape, and whatever else is in `kinds`.

    Raises:
        ValueError: naming the first that differs from the first one.

    >>> require_alike("ensemble", [(2, 3), (2, 4)])
    Traceback (most recent call last):
        ...
    ValueError: ensemble[1] must be like ensemble[0], (2, 3), got (2, 4)
    """
    for index, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(f"{name}[{index}] must be like {name}[0], {kinds[0]}, got {kind}")


def require_callable(name: str, value: Any) -> Callable:
    """Return `value`; it must be a function.

    Raises:
        ValueError: if it is not.

    >>> require_callable("value", abs) is abs
    True
    """
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {shown(value)}")
    return value


def device_of(name: str) -> str:
    """Return the name of a device that works here, as a command's option `--device` gives it.

    Raises:
        ValueError: if there is no such device.

    >>> device_of("cpu")
    'cpu'
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        if "Expected one of" in str(error):  # a list of twenty, most of which no machine has
            raise ValueError(f"--device must be cpu or cuda, got {name!r}") from None
        raise ValueError(f"--device {name} does not work here: {first_line(error)}") from None
    return name
