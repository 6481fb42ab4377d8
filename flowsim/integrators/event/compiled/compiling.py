"""How the core is compiled: by numba, once per installation, and again when one of its files changes.

numba looks at the file of a function alone to tell whether what it stored is still right, not at the files of the
functions that it calls. Here what is stored lies in a directory named by all files of the core: by what is in them,
and by their places and times, as numba finds what it stored only for the same file.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from filelock import FileLock
from numba import types
from numba.core.codegen import CPUCodeLibrary
from numba.core.dispatcher import Dispatcher

COMPILED = "compiled"
"""The file that says that everything was compiled and stored."""


def _name(folder: Path) -> str:
    """A hash of all that the compiled code depends on, and of what numba finds it by."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__}".encode())
    for path in sorted([*folder.glob("*.py"), folder.parent / "tolerances.py"]):
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _stored() -> Path:
    """Where compiled code is stored: in numba's cache directory if one is set, in the user's otherwise."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for base in (chosen, os.path.join(home, "flowsim"), os.path.join(tempfile.gettempdir(), f"flowsim-{os.getuid()}")):
        if base:
            folder = Path(base) / f"core-{_name(Path(__file__).parent)}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if os.access(folder, os.W_OK):
                    return folder
            except OSError:
                continue
    folder = Path(tempfile.mkdtemp(prefix="flowsim-")) / f"core-{_name(Path(__file__).parent)}"
    folder.mkdir()
    return folder


STORED = _stored()


def compiled(function: Callable[..., Any] | None = None, *, reassociate: bool = False) -> Any:
    """Compile a function of the core, which only others of the core call.

    Products and sums may be contracted; only with `reassociate` may sums be taken in another order.
    """
    if function is None:
        return lambda given: compiled(given, reassociate=reassociate)
    flags = {"contract", "reassoc"} if reassociate else {"contract"}
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    found = numba.njit(fastmath=flags, error_model="numpy", **options)(function)
    if isinstance(found, Dispatcher):  # where compiling is switched off it is the function
        # another version for each constant that is handed on would be compiled: one for all of its type is enough
        find = found.get_call_template
        found.get_call_template = lambda args, kws: find([types.unliteral(kind) for kind in args], kws)
    return found


ENTRIES: list[str] = []
"""What Python calls, by name."""


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, with all that it calls, and store it; it runs without the lock."""
    ENTRIES.append(function.__qualname__)
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(STORED)  # type: ignore[attr-defined]
    try:
        return numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


@contextmanager
def _only_entries_optimized() -> Iterator[None]:
    """Leave out what numba does to modules of functions that only others call: a third of the time that all takes.

    Each of them is linked into all that call it, up to the entries, and optimized there, with what it was linked to.
    """
    optimize = CPUCodeLibrary._optimize_final_module

    def optimize_entry(self: CPUCodeLibrary) -> None:
        if self.name in ENTRIES:
            optimize(self)

    CPUCodeLibrary._optimize_final_module = optimize_entry
    try:
        yield
    finally:
        CPUCodeLibrary._optimize_final_module = optimize


def compile_once(compile_all: Callable[[], None]) -> None:
    """Compile what is not stored on this machine, and say so on stderr while it lasts; other processes wait.

    A process of its own compiles: what it links in memory rounds otherwise than what it stores, and all are to have the
    same bits.
    """
    done = STORED / COMPILED
    if done.exists():
        return
    with FileLock(STORED / "lock"):
        if done.exists():
            return
        print("flowsim: compiling the event-driven core, once for this installation: a minute", file=sys.stderr)
        ours, theirs = compile_here, compile_all
        program = "; ".join(
            [
                "import signal",
                "signal.signal(signal.SIGINT, signal.SIG_DFL)",  # Ctrl-C is for this process to speak of
                *(f"from {each.__module__} import {each.__name__}" for each in (ours, theirs)),
                f"{ours.__name__}({theirs.__name__})",
            ]
        )
        # this very flowsim, not one that stands in the current directory (hence -P): its place is in the name of STORED
        ours_first = os.pathsep.join([str(Path(__file__).parents[4]), *filter(None, sys.path)])
        paths = {"PYTHONPATH": ours_first, "NUMBA_CACHE_DIR": str(STORED.parent)}
        subprocess.run([sys.executable, "-P", "-c", program], env={**os.environ, **paths}, check=True)
        if not done.exists():
            raise RuntimeError(f"the process that compiles stored elsewhere than in {STORED}")


def compile_here(compile_all: Callable[[], None]) -> None:
    """Compile and store; for a process that does nothing else."""
    with _only_entries_optimized():
        compile_all()
    (STORED / COMPILED).touch()
