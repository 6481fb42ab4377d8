"""The arrays of a file, each checked when it is asked for: that it is there, its shape, and what its entries may be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowsim.validation import require_count, require_positive


class CheckedArrays:
    """The arrays of a file: each is checked when it is asked for, and all must have been.

    What is wrong is a ValueError of one line that names the key.

    >>> file = CheckedArrays({"steps": np.array([3, -1])})
    >>> file.counts("steps", (2,))
    Traceback (most recent call last):
        ...
    ValueError: steps must hold numbers of at least 0
    """

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:
        self.arrays, self.unread = arrays, set(arrays)

    def has(self, key: str) -> bool:
        """Whether there is such an array."""
        return key in self.arrays

    def require_all_read(self) -> None:
        """Check that nothing else is there."""
        if self.unread:
            raise ValueError(f"it has keys that do not belong to one: {', '.join(sorted(self.unread))}")

    def _array(self, key: str, kinds: str, shape: tuple[int | None, ...] | None) -> NDArray:
        if key not in self.arrays:
            raise ValueError(f"it lacks the key {key!r}")
        self.unread.discard(key)
        array = self.arrays[key]
        if array.dtype.kind not in kinds:
            raise ValueError(f"{key} has the wrong type of entries, {array.dtype}")
        if shape is not None and (
            array.ndim != len(shape)
            or any(wanted not in (None, found) for wanted, found in zip(shape, array.shape, strict=True))
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{key} must have shape ({wanted}), got {array.shape}")
        return array

    def text(self, key: str, allowed: Collection[str] | None = None) -> str:
        """A word, one of those allowed."""
        word = str(self._array(key, "U", ()).item())
        if allowed is not None and word not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {word[:80]!r}")
        return word

    def texts(self, key: str) -> list[str]:
        """Several texts."""
        return [str(word) for word in self._array(key, "U", (None,))]

    def integer(self, key: str, least: int = 0) -> int:
        """A number."""
        return require_count(key, self._array(key, "iu", ()).item(), least)

    def positive(self, key: str) -> float:
        """A number above 0."""
        return require_positive(key, self._array(key, "f", ()).item())

    def numbers(self, key: str, shape: tuple[int | None, ...] | None = None, finite: bool = True) -> Tensor:
        """Real numbers."""
        array = self._array(key, "fiu", shape).astype(np.float64)
        if finite and not np.isfinite(array).all():
            raise ValueError(f"{key} must be finite")
        return torch.from_numpy(array)

    def at_least_zero(self, key: str, shape: tuple[int | None, ...]) -> Tensor:
        """Numbers that are not negative."""
        numbers = self.numbers(key, shape)
        if (numbers < 0).any():
            raise ValueError(f"{key} must not be negative")
        return numbers

    def numbered(self, name: str) -> Iterator[Tensor]:
        """name[0], name[1], .. as many as there are."""
        index = 0
        while self.has(f"{name}[{index}]"):
            yield self.numbers(f"{name}[{index}]")
            index += 1

    def counts(self, key: str, shape: tuple[int | None, ...]) -> Tensor:
        """Whole numbers that are not negative."""
        array = self._array(key, "iu", shape)
        if array.size and not (array.min() >= 0 and array.max() < 2**62):
            raise ValueError(f"{key} must hold numbers of at least 0")
        return torch.from_numpy(array.astype(np.int64))

    def small(self, key: str, shape: tuple[int | None, ...], least: int, most: int) -> Tensor:
        """Small whole numbers."""
        array = self._array(key, "iu", shape)
        if array.size and not (array.min() >= least and array.max() <= most):
            raise ValueError(f"{key} must hold numbers from {least} to {most}")
        return torch.from_numpy(array.astype(np.int8))
