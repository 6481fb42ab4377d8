"""The cases of all statements, and running them, in several processes where there are many."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowsim import IntegrationError
from theorems import equation_1, lemma_5_4, proposition_5_3, proposition_5_7, theorem_5_1, theorem_5_2
from theorems.check import Case, Check, Role, Statement, run
from theorems.ensembles import Scope
from theorems.measurement import NoMarginError

MODULES = {
    "equation_1": equation_1,
    "theorem_5_1": theorem_5_1,
    "theorem_5_2": theorem_5_2,
    "proposition_5_3": proposition_5_3,
    "lemma_5_4": lemma_5_4,
    "proposition_5_7": proposition_5_7,
}

FEW = 25
"""So many cases are run in this process: starting others takes as long."""

Place = tuple[str, int]
"""A case: the name of its statement, and its number there; what it holds cannot be sent to another process."""


def outcome(case: Case) -> Check:
    """The check of a case; where it cannot be solved or measured it is undecided, with the reason."""
    try:
        return run(case)
    except (IntegrationError, NoMarginError) as stop:
        return undecided(case.statement, case.label, case.role, stop)


def undecided(statement: Statement, label: str, role: Role, stop: Exception) -> Check:
    """The check of a case that could not be solved or measured."""
    return Check(statement.name, label, role, "undecided", None, None, 0, {"reason": str(stop)})


def checks(names: Sequence[str], scope: Scope, console: Console) -> list[Check]:
    """Run the cases of the named statements, with a progress bar; in order, whichever ends first."""
    places = [(name, number) for name in names for number in range(len(MODULES[name].cases(scope)))]
    alone = len(places) <= FEW or scope.device != "cpu"
    found: dict[Place, Check] = {}
    columns = TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(places))
        for place, check in _one_by_one(places, scope) if alone else _in_processes(places, scope):
            found[place] = check
            bar.advance(task)
    return [found[place] for place in places]


def _one_by_one(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check]]:
    for name, number in places:
        yield (name, number), outcome(MODULES[name].cases(scope)[number])


def _in_processes(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check]]:
    """One process for each core; cases on the same ensembles go to the same one, which solves them once."""
    together: dict[object, list[Place]] = {}
    for name, number in places:
        first = MODULES[name].cases(scope)[number].runs[0]
        key = getattr(first, "func", first), getattr(first, "args", ()), str(getattr(first, "keywords", ""))
        together.setdefault(key, []).append((name, number))
    groups = sorted(together.values(), key=len, reverse=True)
    pool = ProcessPoolExecutor(
        min(len(os.sched_getaffinity(0)), len(groups)),
        multiprocessing.get_context("spawn"),
        torch.set_num_threads,
        (1,),
    )
    try:
        for done in as_completed([pool.submit(_of_group, group, scope) for group in groups]):
            yield from done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _of_group(places: Sequence[Place], scope: Scope) -> list[tuple[Place, Check]]:
    return list(_one_by_one(places, scope))
