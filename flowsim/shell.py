"""What the commands have in common: their version, what they print, and how they end."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


def add_version(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--version`, which prints one line."""
    version = f"flowsim {importlib.metadata.version('flowsim')}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")


def say(text: str) -> bool:
    """Print on standard output; return whether that could be written (a full disk, a closed pipe)."""
    try:
        print(text, flush=True)
    except OSError as error:
        complain(f"standard output cannot be written: {error.strerror or error}")
        return False
    return True


def complain(message: str) -> None:
    """Print an error in one line on standard error."""
    print(f"error: {message}", file=sys.stderr)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: torch's for the CPU has no type of its own.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("memory"))
    (True, False)
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "out of memory" in str(error))
    )


def internal_error(where: str, error: BaseException) -> str:
    """A mistake of this program's own, in one line.

    >>> internal_error("lemma_5_4", KeyError("w"))
    "internal error in lemma_5_4: KeyError: 'w' (please report)"
    """
    (*_, last) = traceback.format_exception_only(error)
    return f"internal error in {where}: {' '.join(last.split())} (please report)"


def report(where: str, error: BaseException) -> None:
    """Print an own mistake with its traceback on standard error: nobody's input is to blame."""
    print("".join(traceback.format_exception(error)) + internal_error(where, error), file=sys.stderr)


def leave(command: str, main: Callable[[], int], interrupted: str) -> NoReturn:
    """End the process with the status that `main` returns, or 1 where it raises an error that it does not expect.

    Args:
        command: its name, for such an error.
        main: the command.
        interrupted: what is said after Ctrl-C.
    """
    try:
        status = main()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        if is_out_of_memory(error):
            complain(f"{command}: there is not enough memory")
        else:
            report(command, error)
        status = 1
    try:
        sys.stdout.flush()
    except OSError:  # it was said; Python would try again, and end with a status of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
