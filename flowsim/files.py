"""Problems and runs as .npz files; used from the shell."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
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
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} is not an .npz file of named arrays but a single array")
        with archive:
            arrays = {key: archive[key] for key in archive.files}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not an .npz file that can be read: {error}") from None
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is not an .npz file of numbers") from None
    for key in required:
        if key not in arrays:
            raise ValueError(f"{path} lacks the key {key!r}; it has {', '.join(sorted(arrays)) or 'none'}")
    return arrays


def require_writable(option: str, path: str | None) -> None:
    """Check before a long run that its result can be written to `path`, if one is given.

    Raises:
        ValueError: if the folder does not exist or cannot be written to, or the path is a folder.

    >>> require_writable("--output", "no/such/folder/run.npz")
    Traceback (most recent call last):
        ...
    ValueError: --output no/such/folder/run.npz cannot be written: no/such/folder is not a folder to write to
    """
    if path is None:
        return
    folder = Path(path).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError(f"{option} {path} cannot be written: {folder} is not a folder to write to")
    if Path(path).is_dir():
        raise ValueError(f"{option} {path} cannot be written: it is a folder")


def make_folder(option: str, path: str | Path) -> Path:
    """Make a folder for results, where there is none yet, and return it.

    Raises:
        ValueError: if it cannot be made, or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written: no permission to write to the folder")
    return folder


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all is written, or is removed: whole or not at all."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_npz(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write an .npz file, whole or not at all.

    Raises:
        ValueError: if the file cannot be written.
    """
    try:
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
