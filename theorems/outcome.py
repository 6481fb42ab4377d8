"""What a command does, and what has come out of it when it ends, fails or is interrupted: that much is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from flowsim.progress import Tell, reporting
from flowsim.shell import INTERRUPTED, Attempts, Mistake
from theorems import cases, search
from theorems.cases import MODULES
from theorems.check import Check, DoesNotApplyError
from theorems.ensembles import Scope
from theorems.guarded import reason, undecided


@dataclass
class Outcome:
    """What has come out so far.

    Args:
        source: where runs come from.
        checks: the verdicts.
        more: what else the JSON has.
        found: by a search, with their verdicts.
        failed: outputs that could not be written, and this program's own mistakes.
        interrupted: whether there would be more.
    """

    source: str
    checks: list[Check] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    found: list[search.Found] | None = None
    failed: Attempts = field(default_factory=Attempts)
    interrupted: bool = False

    @property
    def unexpected(self) -> list[Check]:
        """Verdicts that should be others; an instance of a search may be too near to 0 to be decided."""
        if self.found is not None:
            return [item for item in self.checks if item.verdict == "violated"]
        return [item for item in self.checks if not item.as_expected]

    @property
    def status(self) -> int:
        """Of the command: interrupted, or else what failed, or else 1 if a verdict should be another, or if none is."""
        if self.interrupted:
            return INTERRUPTED
        return self.failed.status or int(bool(self.unexpected) or not self.checks)


def collect(command: Callable[[Outcome], None], source: str) -> Outcome:
    """The outcome of a command that fills it in, as far as it comes."""
    into = Outcome(source)
    try:
        with into.failed.at("theorems"):
            command(into)
    except KeyboardInterrupt:
        into.interrupted = True
    where = [(f"{item.name}, {item.case}", item.details) for item in into.checks]
    where += [
        (f"the finding {item['statement']}: {item['broken']}", item["details"])
        for item in into.more.get("findings", [])
    ]
    into.failed.mistakes += [
        Mistake(place, why["error"], why["traceback"]) for place, why in where if "traceback" in why
    ]
    return into


def check_cases(names: Sequence[str], scope: Scope, into: Outcome) -> None:
    """Run the cases of the named statements, and answer the questions about them."""
    found: dict[cases.Place, Any] = {}
    answers: list[dict[str, Any]] = []
    into.more |= {"findings": answers}
    places, asked = cases.places(names, scope), cases.asked(names, scope)
    with reporting() as tell:
        try:
            for place, result in cases.results([*places, *asked], scope):
                found[place] = result
                tell(len(found) / len([*places, *asked]), _progress(found, places, asked))
        finally:
            into.checks = [found[place] for place in places if place in found]
            answers += [dataclasses.asdict(found[place]) for place in asked if place in found]


def _progress(found: Collection[cases.Place], places: Sequence[cases.Place], asked: Sequence[cases.Place]) -> str:
    """How many cases are decided; once all are, how many questions are answered."""
    decided = sum(place in found for place in places)
    answers = len(found) - decided
    if decided < len(places) or answers == 0:
        return f"checking, {decided} of {len(places)} cases"
    return f"findings, {answers} of {len(asked)}"


def check_data(own: Any, runs: Mapping[str, Callable[[], Any]], names: Sequence[str], into: Outcome) -> None:
    """Check the named statements on a problem under each rule; find its constants, and what does not apply.

    `own` is `theorems.own_data`, or `theorems.rigorous.own_data` for runs that are enclosed.
    """
    into.more |= {"data": {}, "kinds": {}, "inapplicable": []}
    statements, order = [item for item in own.STATEMENTS if item.name in names], list(MODULES)
    try:
        for rule, solve in runs.items():
            with reporting() as tell:
                _check_rule(own, rule, solve, statements, into, tell)
    finally:
        into.checks.sort(key=lambda item: order.index(item.name))  # stable: by statement, then rule
        into.more["inapplicable"].sort(key=lambda item: order.index(item["name"]))


def _check_rule(
    own: Any, rule: str, solve: Callable[[], Any], statements: Sequence[Any], into: Outcome, tell: Tell
) -> None:
    labels = [f"{rule}, {statement.title.split(', ', 1)[1]}" for statement in statements]
    try:
        solution = solve()
    except Exception as stop:
        why = reason(stop)
        into.checks += [undecided(*pair, "theorem", why) for pair in zip(statements, labels, strict=True)]
        return
    if not into.more["data"]:
        with into.failed.at("the constants of the data"):
            into.more["data"] = own.constants(solution)
            into.more["kinds"] = own.kinds(solution)
    for number, (statement, label) in enumerate(zip(statements, labels, strict=True)):
        tell(number / len(statements), f"checking {statement.name}, {label}")
        try:
            into.checks.append(own.decided(statement, label, solution))
        except DoesNotApplyError as error:
            hypotheses = own.described(error.hypotheses)
            into.more["inapplicable"].append({"name": statement.name, "case": label, "hypotheses": hypotheses})
        except Exception as stop:
            into.checks.append(undecided(statement, label, "theorem", reason(stop)))


def search_targets(
    minutes: float, names: Sequence[str], device: str, folder: Path, console: Console, into: Outcome
) -> None:
    """Search the targets of the named statements."""
    into.found, into.more = [], {"search": []}
    for item in search.search(minutes, names, device, folder, console):
        into.found.append(item)
        into.checks.append(item.check)
        into.more["search"].append(item.summary())
        into.failed.lost += [item.lost] if item.lost else []
