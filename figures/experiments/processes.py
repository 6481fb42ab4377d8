"""Many runs on all cores: a process for each, with one thread, and the longest runs first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO, Any

from flowsim.executor import cores, execute, tell
from flowsim.progress import reporting

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


def carry_out(
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
    shares, over = dict.fromkeys(range(len(runs)), 0.0), 0
    with reporting(stream) as report:

        def told(task: Task, share: float) -> None:
            shares[task[0]] = max(shares[task[0]], share)
            spent = sum(run.cost * shares[number] for number, run in enumerate(waiting))
            report(spent / sum(run.cost for run in waiting), f"{over} of {len(runs)} runs")

        tasks = ((number, run.function, run.arguments()) for number, run in enumerate(waiting))
        count = min(processes or cores(), max(1, len(runs)))
        for task, future in execute(_carry_out_one, tasks, workers=count, patience=PATIENCE, told=told):
            over += 1
            told(task, 1.0)
            yield waiting[task[0]], future


Task = tuple[int, Callable[..., Any], tuple[Any, ...]]
"""The number of a run, its function, and the arguments."""


def _carry_out_one(task: Task) -> Any:
    """In another process: a run."""
    _, function, arguments = task
    return function(*arguments, tell)
