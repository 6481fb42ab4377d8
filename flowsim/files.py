"""Files: read where they are files, and written whole or not at all, whatever is there before."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

EXPANSION, ALLOWANCE = 100, 2**28
"""Compressed arrays may take so many times the bytes of their file, or so many bytes: a small file that fills the
memory is no problem of anybody's."""


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
    except FileExistsError:
        raise ValueError(f"{option} {path} must be a folder, got a file: name another") from None
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
