"""Problems and runs as .npz files; used from the shell."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROBLEM_KEYS = ("inputs", "labels", "hidden", "output")
"""inputs (n, d), labels (n), hidden (m, d), output (m); for FA also feedback (m)."""


def read_npz(path: str | Path, required: Iterable[str] = PROBLEM_KEYS) -> dict[str, NDArray]:
    """Return the arrays of an .npz file.

    Raises:
        ValueError: if the file cannot be read as .npz, or lacks one of the required keys.

    >>> read_npz("missing.npz")
    Traceback (most recent call last):
        ...
    ValueError: missing.npz cannot be read: No such file or directory
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array, not named ones")
            arrays = {key: archive[key] for key in archive.files}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz file of numbers: {error}") from None
    for key in required:
        if key not in arrays:
            raise ValueError(f"{path} lacks the key {key!r}; it has {', '.join(sorted(arrays)) or 'none'}")
    return arrays


def write_npz(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write an .npz file, whole or not at all.

    Raises:
        ValueError: if the file cannot be written.
    """
    path = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
