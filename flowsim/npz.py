"""Arrays as .npz files: what is damaged or hostile is refused in one line and little memory; nothing is unpickled."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.files import opened, require_plausible, unwritten, whole
from flowsim.messages import first_line

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that numpy writes. The others are unpacked by `zipfile` all at once, however much that is."""

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Readers of the header of an array, by version; version 3 is for names of fields that are not ASCII."""

KINDS = "biufcUS"
"""Kinds of dtypes that are read: numbers and text. Python objects would have to be unpickled."""


def read_npz(path: str | Path, required: Iterable[str]) -> dict[str, NDArray]:
    """Return the arrays of an .npz file.

    Nothing is unpickled. Before memory is taken for an array, the size that it declares is compared with what is
    stored. A file with one array that cannot be read is refused, whether that array is required or not.

    Raises:
        ValueError: if the file cannot be read as .npz, or lacks one of the required keys.

    >>> read_npz("missing.npz", ["inputs"])
    Traceback (most recent call last):
        ...
    ValueError: missing.npz cannot be read: No such file or directory
    """
    with opened(path) as file:
        arrays = _arrays(path, file, os.fstat(file.fileno()).st_size)
    require_keys(path, arrays, required)
    return arrays


def require_keys(path: str | Path, arrays: Mapping[str, NDArray], required: Iterable[str]) -> None:
    """Check that an .npz file has these keys.

    Raises:
        ValueError: if it lacks one.

    >>> require_keys("data.npz", {"inputs": np.ones((1, 1))}, ["inputs", "labels"])
    Traceback (most recent call last):
        ...
    ValueError: data.npz lacks the key 'labels'; it has inputs
    """
    for key in required:
        if key not in arrays:
            names = ", ".join(map(_shown, sorted(arrays)[:10])) + (", ..." if len(arrays) > 10 else "")
            raise ValueError(f"{path} lacks the key {key!r}; it has {names or 'none'}")


def _arrays(path: str | Path, file: BinaryIO, size: int) -> dict[str, NDArray]:
    """The arrays by key."""
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
        raise ValueError(f"{path} is not an .npz file of named arrays but a single array; write it with numpy.savez")
    with _readable(f"{path} is not an .npz file that can be read"):
        archive = zipfile.ZipFile(file)
    require_plausible(path, sum(entry.file_size for entry in archive.infolist()), size)
    arrays: dict[str, NDArray] = {}
    for entry in archive.infolist():
        key = entry.filename.removesuffix(".npy")
        if key in arrays:
            raise ValueError(f"{path} is not an .npz file that can be read: it has the key {_shown(key)} twice")
        arrays[key] = _array(f"{path} is not an .npz file of numbers: {_shown(key)}", archive, entry)
    return arrays


def _array(refused: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray:
    """One array; errors begin with `refused`, which names the file and the key."""
    if entry.compress_type not in COMPRESSIONS:
        raise ValueError(f"{refused} is compressed by method {entry.compress_type}; write it with numpy.savez")
    with _readable(f"{refused} cannot be read"), archive.open(entry) as content:
        version = np.lib.format.read_magic(content)
        if version not in HEADERS:
            raise ValueError(f"its format is of version {version[0]}.{version[1]}")
        shape, _, dtype = HEADERS[version](content)
        stored = entry.file_size - content.tell()
    if dtype.kind not in KINDS:
        raise ValueError(f"{refused} holds {dtype.name if dtype.names is None else 'records'}, not numbers")
    if math.prod(shape) * dtype.itemsize != stored:
        declared = f"{shape} of {dtype}"[:200]
        raise ValueError(f"{refused} declares an array {declared}, and has {stored} bytes")
    with _readable(f"{refused} cannot be read"), archive.open(entry) as content:
        return np.lib.format.read_array(content, allow_pickle=False)


@contextlib.contextmanager
def _readable(refused: str) -> Iterator[None]:
    """Within, whatever `zipfile` and numpy raise on a damaged file is a ValueError of one line; they raise anything."""
    try:
        yield
    except MemoryError:
        raise ValueError(f"{refused}: there is not enough memory") from None
    except Exception as error:
        raise ValueError(f"{refused}: {first_line(error)[:200]}") from None


def _shown(key: str) -> str:
    """A key as it can be printed in one line."""
    return (key if key.isprintable() else repr(key))[:100] or "''"


def write_npz(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write an .npz file, whole or not at all.

    Raises:
        ValueError: if the file cannot be written.
    """
    try:
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
    except OSError as error:
        raise ValueError(unwritten(path, error)) from None
