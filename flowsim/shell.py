"""What the commands have in common: their version, what they print, and how they end."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import flowsim
from flowsim.errors import IntegrationError
from flowsim.files import unwritten

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


class CommandLine(argparse.ArgumentParser):
    """A command line that says what is wrong with its arguments in one line, as all errors are said."""

    def error(self, message: str) -> NoReturn:
        """Say it, and end the process with exit status 2."""
        complain(f"{message}; {self.prog} --help says more")
        sys.exit(2)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--version`, which prints one line."""
    parser.add_argument(
        "--version", action="version", version=f"flowsim {flowsim.__version__}", help="print the version and exit"
    )


def say(text: str) -> bool:
    """Print on standard output; return whether that could be written (a full disk, a closed pipe)."""
    try:
        print(text, flush=True)
    except OSError as error:
        complain(unwritten("standard output", error))
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


class Mistake(NamedTuple):
    """A mistake of this program's own: where, the error in one line, and its traceback."""

    where: str
    error: str
    traceback: str


def mistake(where: str, error: BaseException) -> Mistake:
    """An error as a mistake of this program's own.

    >>> mistake("lemma_5_4", KeyError("w")).error
    "KeyError: 'w'"
    """
    line = " ".join("".join(traceback.format_exception_only(error)).split())
    return Mistake(where, line, "".join(traceback.format_exception(error)))


@dataclass
class Attempts:
    """Several things that are all tried, and what came of those that failed, to be said in the end.

    Args:
        lost: outputs that could not be written.
        stopped: flows that could not be solved.
        mistakes: this program's own.

    >>> failed = Attempts()
    >>> with failed.at("first.json"):
    ...     raise PermissionError(13, "Permission denied")
    >>> with failed.at("second.json"):
    ...     pass
    >>> failed.lost, failed.status
    (['first.json cannot be written: Permission denied'], 2)
    """

    lost: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    @contextlib.contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Try one, and go on if it fails."""
        try:
            yield
        except OSError as error:
            self.lost.append(unwritten(what, error))
        except IntegrationError as error:
            self.stopped.append(f"{what}: {error}")
        except Exception as error:
            self.mistakes.append(mistake(what, error))

    @property
    def status(self) -> int:
        """The exit status: 2 if an output is lost, else 1 if something else failed, else 0."""
        return 2 if self.lost else int(bool(self.stopped or self.mistakes))

    def report(self) -> None:
        """Say what failed on standard error, own mistakes below their tracebacks."""
        for line in [*self.lost, *self.stopped]:
            complain(line)
        for found in self.mistakes:
            report(found)


def report(found: Mistake) -> None:
    """Print an own mistake, for which no input is to blame, below its traceback."""
    print(f"{found.traceback}internal error in {found.where}: {found.error} (please report)", file=sys.stderr)


def leave(command: str, main: Callable[[], int], interrupted: str) -> NoReturn:
    """End the process with the status that `main` returns, or 1 where it raises an error that it does not expect.

    SIGTERM, by which a queue or a system that shuts down ends a process, is Ctrl-C to it.

    Args:
        command: its name, for such an error.
        main: the command.
        interrupted: what is said after Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = main()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        if is_out_of_memory(error):
            complain(f"{command}: there is not enough memory")
        else:
            report(mistake(command, error))
        status = 1
    try:
        sys.stdout.flush()
    except OSError:  # it was said; Python would try again, and end with a status of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    gc.freeze()  # the system takes back what is left; Python would look through all of it first, for half a second
    sys.exit(status)
