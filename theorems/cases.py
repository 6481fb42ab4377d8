"""The cases of all statements, and running them, in several processes where there are many.

A case that cannot be decided, for whatever reason, is undecided; the others are decided as if it were not there.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import torch

from flowsim import IntegrationError, Undecided
from flowsim.shell import is_out_of_memory, mistake
from theorems import equation_1, lemma_5_4, proposition_5_3, proposition_5_7, theorem_5_1, theorem_5_2, weight_sharing
from theorems.check import Case, Check, DoesNotApplyError, Role, Statement
from theorems.ensembles import Scope
from theorems.measurement import NoMarginError

if TYPE_CHECKING:
    from theorems.rigorous import statement as rigorous

    AnyCase = Case | weight_sharing.Case | rigorous.Case
    AnyStatement = Statement | rigorous.Statement

MODULES = {
    "equation_1": equation_1,
    "theorem_5_1": theorem_5_1,
    "theorem_5_2": theorem_5_2,
    "proposition_5_3": proposition_5_3,
    "lemma_5_4": lemma_5_4,
    "proposition_5_7": proposition_5_7,
    "weight_sharing": weight_sharing,
}

OF_FLOWS = tuple(name for name in MODULES if name != "weight_sharing")
"""Statements on flows of fully connected networks: they can be checked on data of one's own, searched, and proved."""

FEW = 25
"""So many cases are run in this process: starting others takes as long."""

Place = tuple[str, int]
"""A case: the name of its statement, and its number there; what it holds cannot be sent to another process."""


def outcome(case: AnyCase) -> Check:
    """The check of a case; where that fails it is undecided, with the reason."""
    return guarded(case.statement, case.label, case.role, case.decided)


def guarded(statement: AnyStatement, label: str, role: Role, decide: Callable[[], Check]) -> Check:
    """The check that `decide` makes; where that fails it is undecided, with the reason."""
    try:
        return decide()
    except Exception as stop:
        return undecided(statement, label, role, reason(stop))


def undecided(statement: AnyStatement, label: str, role: Role, why: dict[str, str]) -> Check:
    """The check of a case that could not be solved or measured."""
    return Check(statement.name, label, role, "undecided", None, None, 0, dict(why))


def reason(stop: Exception) -> dict[str, str]:
    """Why there is no verdict, for its details; with `error` and `traceback` for a mistake of this program's own.

    >>> reason(NoMarginError("the loss overflows"))
    {'reason': 'the loss overflows'}
    """
    if isinstance(stop, (IntegrationError, NoMarginError, DoesNotApplyError, Undecided)):
        return {"reason": str(stop)}
    if is_out_of_memory(stop):
        return {"reason": "there is not enough memory"}
    _, error, traceback = mistake("", stop)
    return {"reason": f"internal error: {error}", "error": error, "traceback": traceback}


def places(names: Sequence[str], scope: Scope) -> list[Place]:
    """The cases of the named statements, in order."""
    return [(name, number) for name in names for number in range(len(cases_of(name, scope)))]


def decided(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check]]:
    """Run cases; each is handed over when it, or the group that it is in, is decided, whichever ends first."""
    alone = len(places) <= FEW or scope.device != "cpu"
    return _one_by_one(places, scope) if alone else _in_processes(places, scope)


def cases_of(name: str, scope: Scope) -> Sequence[AnyCase]:
    """The cases of a statement, those that are proved or those that are measured."""
    if not scope.rigorous:
        return MODULES[name].cases(scope)
    return importlib.import_module(f"theorems.rigorous.{name}").cases(scope)  # they need python-flint


def _case(place: Place, scope: Scope) -> AnyCase:
    name, number = place
    return cases_of(name, scope)[number]


def _one_by_one(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check]]:
    for place in places:
        yield place, outcome(_case(place, scope))


def _in_processes(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check]]:
    """One process for each core; cases on the same ensembles go to the same one, which solves them once.

    If a process dies, as by a system that runs out of memory, the pool takes the others down with it, and it is not
    known on which case. Those that are left then run one at a time, each in a process of its own.
    """
    together: dict[object, list[Place]] = {}
    for place in places:
        first = _case(place, scope).runs[0]
        key = getattr(first, "func", first), getattr(first, "args", ()), str(getattr(first, "keywords", ""))
        together.setdefault(key, []).append(place)
    groups = sorted(together.values(), key=len, reverse=True)
    left: list[Place] = []
    with _workers(min(len(os.sched_getaffinity(0)), len(groups))) as pool:
        futures = {_submitted(pool, group, scope): group for group in groups}
        for done in as_completed(futures):
            try:
                yield from done.result()
            except Exception:  # of the pool: those of cases are caught there
                left += futures[done]
    for place in left:
        yield place, _by_itself(place, scope)


def _by_itself(place: Place, scope: Scope) -> Check:
    try:
        with _workers(1) as pool:
            ((_, check),) = _submitted(pool, [place], scope).result()
            return check
    except BrokenProcessPool:
        why = {"reason": "its process died; the system may have run out of memory"}
    except Exception as stop:  # its check could not be sent
        why = reason(stop)
    case = _case(place, scope)
    return undecided(case.statement, case.label, case.role, why)


Decided = list[tuple[Place, Check]]


def _submitted(pool: ProcessPoolExecutor, group: Sequence[Place], scope: Scope) -> Future[Decided]:
    """What a group will come to; Ctrl-C waits meanwhile, and never gets to processes that are started here.

    It is for this process to act on it, and end the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_of_group, group, scope)
    except BrokenProcessPool as stop:  # already
        failed: Future[Decided] = Future()
        failed.set_exception(stop)
        return failed
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with one thread each; they end at once if this one goes on to something else."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _of_group(places: Sequence[Place], scope: Scope) -> Decided:
    return list(_one_by_one(places, scope))
