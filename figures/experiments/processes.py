"""Many runs on all cores: a process for each, with one thread, and the longest runs first."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, NoReturn

import torch

from flowsim.progress import reporting
from flowsim.shell import submit

LOOK_EVERY = 0.5
"""Seconds between looks at how far the runs are."""

PATIENCE = 20.0
"""Seconds that an ending process has to save where its run is."""

Tell = Callable[[float], None]
"""Takes the share of a run that is done, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Run:
    """What is to be done in a process of its own.

    Args:
        name: in words.
        cost: how long it takes, compared with others.
        function: called with the arguments and a `Tell`.
        arguments: made when its turn comes, as they may be large.
    """

    name: str
    cost: float
    function: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]


def carried_out(
    runs: Sequence[Run], processes: int | None = None, stream: IO[str] | None = None
) -> Iterator[tuple[Run, Future[Any]]]:
    """Each run when it is over, with what it returned or raised, whichever ends first.

    How far all of them are, and how much time is left, is reported meanwhile. Whoever stops taking them, as for Ctrl-C,
    ends the processes; a run in `figures.experiments.training.train` saves where it is before that.

    Args:
        runs: to be carried out, in the order of their cost.
        processes: at a time, one for each core if not given.
        stream: where to report, standard error if not given.
    """
    waiting = sorted(runs, key=lambda run: -run.cost)
    count = min(processes or len(os.sched_getaffinity(0)), max(1, len(runs)))
    shares = dict.fromkeys(range(len(runs)), 0.0)
    flying: dict[Future[Any], int] = {}
    with _pool(count) as (pool, told), reporting(stream) as tell:
        started = over = 0
        while over < len(runs):
            while started < len(runs) and len(flying) < count:
                run = waiting[started]
                flying[submit(pool, _carry_out, started, run.function, run.arguments())] = started
                started += 1
            done, _ = wait(flying, LOOK_EVERY, FIRST_COMPLETED)
            while not told.empty():
                number, share = told.get()
                shares[number] = max(shares[number], share)
            shares |= {flying[future]: 1.0 for future in done}
            over += len(done)
            spent = sum(run.cost * shares[number] for number, run in enumerate(waiting))
            tell(spent / sum(run.cost for run in waiting), f"{over} of {len(runs)} runs")
            for future in done:
                yield waiting[flying.pop(future)], future


@contextlib.contextmanager
def _pool(count: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Processes with one thread each, and what they tell; they end if this one goes on to something else."""
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    told = context.Queue()
    pool = ProcessPoolExecutor(count, context, _begin, (told,))
    try:
        yield pool, told
    except BaseException:
        mine = set(multiprocessing.active_children()) - others
        for process in mine:
            process.terminate()
        for process in mine:
            process.join(PATIENCE)
            process.kill()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# --- in the other processes ---


class _EndedError(BaseException):
    """The process is to end: no run catches it, and each saves where it is on the way."""


_told: Any = None
"""The queue to the process that started this one."""

_busy = False
"""Whether a run is going on here."""


def _begin(told: Any) -> None:
    global _told  # noqa: PLW0603
    _told = told
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    if not _busy:
        os._exit(128 + number)
    raise _EndedError


def _carry_out(number: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    global _busy  # noqa: PLW0603
    try:
        _busy = True
        return function(*arguments, lambda share: _told.put((number, share)))
    except _EndedError:
        sys.stderr.flush()
        os._exit(128 + signal.SIGTERM)
    finally:
        _busy = False
