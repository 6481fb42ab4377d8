"""Pickles from others, read without running what is in them: plain values and arrays of bytes, nothing else."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_pickle(path: Path) -> Any:
    """What a pickle holds: dicts, lists, text, bytes, numbers, and numpy's arrays of unsigned bytes.

    Bytes of Python 2 stay bytes. Whatever else a pickle asks for, such as to call a function, is refused.

    Raises:
        ValueError: if it cannot be read, or asks for something else.
    """
    try:
        return _Restricted(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        reason = (str(getattr(error, "strerror", None) or error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a pickle of arrays and plain values: {reason[:200]}") from None


class _Restricted(pickle.Unpickler):
    """An unpickler in which the few names that pickles of arrays use stand for functions that can do no harm."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not admitted")
        return ADMITTED[module, name]


def _empty_array(kind: object, shape: object, letter: object) -> NDArray:
    """What an array is before its content is set: numpy always writes this call, with these arguments."""
    if kind is not _ARRAY or shape != (0,) or letter not in ("b", b"b"):
        raise pickle.UnpicklingError("it has an array that does not begin as numpy's do")
    return np.empty(0, np.int8)


def _dtype(name: object, *_: object) -> np.dtype:
    """That of unsigned bytes: its state, which comes next in a pickle, numpy leaves as it is."""
    if name not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"it has an array of {name!r}, not of bytes (u1)")
    return np.dtype("u1")


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it has bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_ARRAY = "numpy.ndarray"
"""Stands for the class, which would make arrays of any size if it were called."""

ADMITTED: dict[tuple[str, str], Callable[..., object] | str] = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("_codecs", "encode"): _encoded,
}
