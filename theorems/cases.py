"""The cases of all statements, and running them, in several processes where there are many.

A case that cannot be decided, for whatever reason, is undecided; the others are decided as if it were not there.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from flowsim.executor import ProcessDiedError, execute
from theorems import (
    any_start,
    direct_feedback,
    discrete_signs,
    equation_1,
    implicit_bias,
    kernel_regime,
    lemma_5_4,
    linear_networks,
    margin_growth,
    never_obtuse,
    no_plateau,
    proposition_5_3,
    proposition_5_7,
    theorem_5_1,
    theorem_5_2,
    weight_decay,
    weight_sharing,
)
from theorems.check import Case, Check
from theorems.ensembles import Scope
from theorems.findings import Finding, answered, questions, unanswered
from theorems.guarded import guarded, reason, undecided

if TYPE_CHECKING:
    from theorems.rigorous import statement as rigorous

    AnyCase = Case | weight_sharing.Case | discrete_signs.Case | rigorous.Case

MODULES = {
    "equation_1": equation_1,
    "theorem_5_1": theorem_5_1,
    "theorem_5_2": theorem_5_2,
    "proposition_5_3": proposition_5_3,
    "lemma_5_4": lemma_5_4,
    "proposition_5_7": proposition_5_7,
    "any_start": any_start,
    "margin_growth": margin_growth,
    "no_plateau": no_plateau,
    "weight_decay": weight_decay,
    "discrete_signs": discrete_signs,
    "never_obtuse": never_obtuse,
    "linear_networks": linear_networks,
    "kernel_regime": kernel_regime,
    "direct_feedback": direct_feedback,
    "implicit_bias": implicit_bias,
    "weight_sharing": weight_sharing,
}

_NOT_OF_FILES = "weight_sharing", "weight_decay", "direct_feedback", "discrete_signs", "kernel_regime"
OF_FLOWS = tuple(name for name in MODULES if name not in _NOT_OF_FILES)
"""Statements on the flows that a file of data describes: they can be checked on data of one's own."""

PROVED = tuple(name for name in MODULES if importlib.util.find_spec(f"theorems.rigorous.{name}"))
"""Those that can be proved on runs that are enclosed."""

FEW = 25
"""So many cases are run in this process: starting others takes as long."""

BUNDLE = 4
"""So many cases on ensembles of their own are sent to a process together: some are decided sooner than sent."""

FINDINGS = "findings"

Place = tuple[str, int]
"""A case: the name of its statement, and its number there. Or a question about the named statements: FINDINGS, and its
number. What they hold cannot be sent to another process."""

Results = list[tuple[Place, Check | Finding]]


def decide(case: AnyCase) -> Check:
    """The check of a case; where that fails it is undecided, with the reason."""
    return decide_together([case])[0]


def decide_together(together: Sequence[AnyCase]) -> list[Check]:
    """The checks of cases, run by run: what was observed of a run is there for all cases that are on it."""
    examined: list[list[Any]] = [[] for _ in together]
    failed: dict[int, Check] = {}
    numbers = range(max(len(case.runs) for case in together))
    for number, (place, case) in itertools.product(numbers, enumerate(together)):
        if number < len(case.runs) and place not in failed:
            try:
                examined[place].append(case.examined(number))
            except Exception as stop:
                failed[place] = undecided(case.statement, case.label, case.role, reason(stop))
    return [
        failed.get(place) or guarded(case.statement, case.label, case.role, partial(case.combined, examined[place]))
        for place, case in enumerate(together)
    ]


def places(names: Sequence[str], scope: Scope) -> list[Place]:
    """The cases of the named statements, in order."""
    return [(name, number) for name in names for number in range(len(cases_of(name, scope)))]


def asked(names: Sequence[str], scope: Scope) -> list[Place]:
    """The questions about the named statements, in order: runs that are enclosed answer none."""
    every = [] if scope.rigorous else questions(MODULES)
    return [(FINDINGS, number) for number, question in enumerate(every) if question.statement in names]


def results(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check | Finding]]:
    """Decide cases and answer questions; each is handed over when it, or the group that it is in, is done."""
    few = sum(name != FINDINGS for name, _ in places) <= FEW
    here = few or scope.device != "cpu"
    return _one_by_one(places, scope) if here else _in_processes(places, scope)


def cases_of(name: str, scope: Scope) -> Sequence[AnyCase]:
    """The cases of a statement, those that are proved or those that are measured."""
    if not scope.rigorous:
        return MODULES[name].cases(scope)
    return importlib.import_module(f"theorems.rigorous.{name}").cases(scope)  # they need python-flint


def _case(place: Place, scope: Scope) -> AnyCase:
    name, number = place
    return cases_of(name, scope)[number]


def _one_by_one(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check | Finding]]:
    for place in places:
        yield from _of_group([place], scope)


def _of_group(places: Sequence[Place], scope: Scope) -> Results:
    """The results of one question, or of cases."""
    if places[0][0] == FINDINGS:
        return [(place, answered(questions(MODULES)[place[1]], scope.seeds, scope.device)) for place in places]
    return list(zip(places, decide_together([_case(place, scope) for place in places]), strict=True))


def _groups(places: Sequence[Place], scope: Scope) -> list[list[Place]]:
    """What one process does at a time: what stays together, the most first, then a few others of a statement."""
    together: dict[object, list[Place]] = {}
    for place in places:
        together.setdefault(_company(place, scope), []).append(place)
    alone: dict[str, list[Place]] = {}
    for group in together.values():
        if len(group) == 1:
            alone.setdefault(group[0][0], []).extend(group)
    few = [own[first : first + BUNDLE] for own in alone.values() for first in range(0, len(own), BUNDLE)]
    return sorted((group for group in together.values() if len(group) > 1), key=len, reverse=True) + few


def _company(place: Place, scope: Scope) -> object:
    """What is the same for all that stay together: the ensemble that the runs of a case begin with.

    Weight sharing stays together, too: its optimizers load a part of torch that takes each process a second.
    """
    name, _ = place
    if name == weight_sharing.STATEMENT.name:
        return name
    if name == FINDINGS:
        return place
    first = _case(place, scope).runs[0]
    return getattr(first, "func", first), getattr(first, "args", ()), str(getattr(first, "keywords", ""))


def _in_processes(places: Sequence[Place], scope: Scope) -> Iterator[tuple[Place, Check | Finding]]:
    """One process for each core; cases on the same ensembles go to the same one, which solves and observes them once.

    If a process dies on a group, as by a system that runs out of memory, it is not known on which case: each of them
    is decided by itself then.
    """
    of_group, left = partial(_of_group, scope=scope), []
    for group, done in execute(of_group, _groups(places, scope)):
        if len(group) > 1 and done.exception() is not None:
            left += [[place] for place in group]
        else:
            yield from _decided(group, done, scope)
    if left:
        for group, done in execute(of_group, left):
            yield from _decided(group, done, scope)


def _decided(group: Sequence[Place], done: Future[Results], scope: Scope) -> Results:
    """The results of a group, or what is said of its only place where it has none."""
    try:
        return done.result()
    except ProcessDiedError as stop:
        why = {"reason": str(stop)}
    except Exception as stop:  # its result could not be sent
        why = reason(stop)
    (place,) = group
    if place[0] == FINDINGS:
        return [(place, unanswered(questions(MODULES)[place[1]], why))]
    case = _case(place, scope)
    return [(place, undecided(case.statement, case.label, case.role, why))]
