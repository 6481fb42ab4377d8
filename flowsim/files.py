"""Problems and runs as .npz files; used from the shell."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROBLEM_KEYS = ("inputs", "labels", "hidden", "output")
"""inputs (n, d), labels (n), hidden (m, d), output (m); for FA also feedback (m)."""

EXPANSION, ALLOWANCE = 100, 2**28
"""Compressed arrays may take so many times the bytes of their file, or so many bytes: a small file that fills the
memory is no problem of anybody's."""

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that numpy writes. The others are unpacked by `zipfile` all at once, however much that is."""

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Readers of the header of an array, by version; version 3 is for names of fields that are not ASCII."""

KINDS = "biufcUS"
"""Kinds of dtypes that are read: numbers and text. Python objects would have to be unpickled."""


def read_npz(path: str | Path, required: Iterable[str] = PROBLEM_KEYS) -> dict[str, NDArray]:
    """Return the arrays of an .npz file.

    Nothing is unpickled. Before memory is taken for an array, the size that it declares is compared with what is
    stored. A file with one array that cannot be read is refused, whether that array is required or not.

    Raises:
        ValueError: if the file cannot be read as .npz, or lacks one of the required keys.

    >>> read_npz("missing.npz")
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


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """A file to be read.

    Raises:
        ValueError: if it cannot be read, or is no regular file.

    >>> with opened("missing.csv"):
    ...     pass
    Traceback (most recent call last):
        ...
    ValueError: missing.csv cannot be read: No such file or directory
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            raise ValueError(f"{path} cannot be read: it is a {_kind(status)}, not a file")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None


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
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{refused}: {reason[:200]}") from None


def require_plausible(path: str | Path, unpacked: int, size: int) -> None:
    """Check that what a file of `size` bytes unpacks to is not out of all proportion.

    Raises:
        ValueError: if it is.

    >>> require_plausible("bomb.npz", unpacked=10**10, size=10**7)
    Traceback (most recent call last):
        ...
    ValueError: bomb.npz has 1e+07 bytes and unpacks to 1e+10, more than 100 times as many: store it uncompressed
    """
    if unpacked > max(ALLOWANCE, EXPANSION * size):
        raise ValueError(
            f"{path} has {size:.4g} bytes and unpacks to {unpacked:.4g}, more than {EXPANSION} times as many: "
            "store it uncompressed"
        )


def _kind(status: os.stat_result) -> str:
    """What a path is that is no regular file."""
    kinds = {stat.S_IFDIR: "directory", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(status.st_mode), "device")


def _shown(key: str) -> str:
    """A key as it can be printed in one line."""
    return (key if key.isprintable() else repr(key))[:100] or "''"


def require_writable(option: str, path: str | Path | None) -> None:
    """Check before a long run that its result can be written to `path`, if one is given, as `whole` does.

    An existing file must be writable itself, although it will be replaced: one that is read-only is meant to be kept.

    Raises:
        ValueError: if the folder does not exist or cannot be written to, or the path is a folder or read-only.

    >>> require_writable("--output", "no/such/folder/run.npz")
    Traceback (most recent call last):
        ...
    ValueError: --output no/such/folder/run.npz cannot be written: no/such/folder is not a folder to write to
    """
    if path is None:
        return
    try:
        status = _status(path)
        if status is None:
            folder = Path(os.path.realpath(path) if os.path.islink(path) else path).parent
            if not (folder.is_dir() and _permits(folder, os.W_OK | os.X_OK)):
                raise ValueError(f"{option} {path} cannot be written: {folder} is not a folder to write to")
        else:
            _require_open(path, status)
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written: {error.strerror}") from None


def _status(path: str | Path) -> os.stat_result | None:
    """What is at a path, links followed; None where a file can be made."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _require_open(path: str | Path, status: os.stat_result) -> None:
    """Check that what exists can be written into, leaving it as it is."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if stat.S_ISREG(status.st_mode):
        os.close(os.open(path, os.O_WRONLY))
    elif not _permits(path, os.W_OK):  # opening it may do something
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _permits(path: str | Path, mode: int) -> bool:
    """Whether this process may do something, as whoever it is now."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def require_distinct(
    outputs: Mapping[str, str | Path | None], inputs: Mapping[str, str | Path | None] | None = None
) -> None:
    """Check that no output is an input, another output, or where standard output or error go; by any of its names.

    Character devices, such as /dev/null, take everything.

    Args:
        outputs: by option; None if it is not given.
        inputs: likewise.

    Raises:
        ValueError: naming both.

    >>> require_distinct({"--json": "x", "--html": "./x"})
    Traceback (most recent call last):
        ...
    ValueError: --html ./x must be another file than --json x
    """
    taken: dict[str, str | Path | int | None] = {**(inputs or {}), "standard output": 1, "standard error": 2}
    for option, path in outputs.items():
        for other, there in taken.items():
            if path is not None and there is not None and _same(path, there):
                name = other if isinstance(there, int) else f"{other} {there}"
                raise ValueError(f"{option} {path} must be another file than {name}")
        taken[option] = path


def _same(path: str | Path, other: str | Path | int) -> bool:
    """Whether two paths, or a path and a descriptor, are the same file, which may not exist yet."""
    try:
        status = os.stat(path)
        return not stat.S_ISCHR(status.st_mode) and os.path.samestat(status, os.stat(other))
    except OSError:
        return not isinstance(other, int) and os.path.realpath(path) == os.path.realpath(other)


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
    if not _permits(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {path} cannot be written: no permission to write to the folder")
    return folder


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path to write to: what it holds in the end becomes the content of `path`, or nothing does if an error comes.

    A new file is made with the mode that the umask says, and an existing one replaced at once by another of its mode
    and owner. Symbolic links are followed. What would not be the same after being replaced is written into, when all
    of the content is there: a device, a FIFO (which somebody must read), a file with several names, one of another
    owner, a mount, and a file in a folder that takes no others.

    Raises:
        OSError: if `path` cannot be written: also if it is read-only, and could be replaced.
    """
    before = _status(path)
    if before is not None:
        _require_open(path, before)
    target = Path(path)
    replaceable = before is None or (stat.S_ISREG(before.st_mode) and before.st_nlink == 1)
    if replaceable and target.is_symlink():
        target = Path(os.path.realpath(target))
    partial, beside = _temporary(target, before, replaceable)
    try:
        yield partial
        if not (beside and _replaced(partial, target, before)):
            _write_into(target, partial)
    finally:
        partial.unlink(missing_ok=True)


def _temporary(path: Path, before: os.stat_result | None, replaceable: bool) -> tuple[Path, bool]:
    """A new, empty file beside `path`, to replace it; or where temporary files are, if it cannot, and False."""
    if replaceable:
        # a name of its own, since one made of a long name may be too long
        partial = path.parent / f".{secrets.token_hex(8)}.partial"
        try:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            if before is not None:
                _take_after(partial, before)
            return partial, True
        except OSError:
            partial.unlink(missing_ok=True)
            if before is None:
                raise
    descriptor, name = tempfile.mkstemp(suffix=".partial")
    os.close(descriptor)
    return Path(name), False


def _take_after(partial: Path, before: os.stat_result) -> None:
    """Give a new file the owner and the mode of another, while it is empty."""
    now = partial.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        os.chown(partial, before.st_uid, before.st_gid)
    os.chmod(partial, stat.S_IMODE(before.st_mode))


def _replaced(partial: Path, path: Path, before: os.stat_result | None) -> bool:
    """Whether `path` has become the file `partial`; a mount, or another's file in a shared folder, cannot."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())  # else after a power cut the name may be there without the content
    try:
        partial.replace(path)
    except OSError:
        if before is None:
            raise
        return False
    return True


def _write_into(path: Path, partial: Path) -> None:
    """Write the content of `partial` into what exists."""
    try:
        # without waiting for a reader, if it is a FIFO
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads it") from None
        raise
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as file, partial.open("rb") as content:
        shutil.copyfileobj(content, file)


def unwritten(what: str | Path, error: OSError) -> str:
    """What could not be written, and why.

    >>> unwritten("run.npz", OSError(errno.ENOSPC, "No space left on device"))
    'run.npz cannot be written: No space left on device'
    """
    return f"{what} cannot be written: {error.strerror or error}"


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
