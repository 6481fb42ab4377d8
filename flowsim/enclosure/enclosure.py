"""What is proved about a run: the solution at all times, its events, infima, and the errors of float solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from flint import arb, ctx

from flowsim.enclosure.comparison import Comparison, compare
from flowsim.enclosure.exact import ExactProblem, Number, rational
from flowsim.enclosure.infimum import Infimum, infimum
from flowsim.enclosure.points import Point, at_time
from flowsim.enclosure.steps import Change, Step


class Event(NamedTuple):
    """One event, as in `flowsim.events.Event`, at a time that is a ball.

    `sample` is the first of those that share the kink, -1 where b_j jumps between signs.
    """

    time: arb
    sample: int
    neuron: int
    before: int
    after: int
    kind: str


@dataclass(frozen=True, repr=False)
class Enclosure:
    """A proved enclosure of a solution on [0, t_final], made by `flowsim.enclose`."""

    problem: ExactProblem
    bits: int
    t_final: arb
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        return (
            f"Enclosure([0, {self.t_final.str(6, radius=False)}], {len(self.steps)} steps, {len(self.events)} events, "
            f"{self.bits} bits, radius {self.radius.str(3, radius=False)})"
        )

    @cached_property
    def radius(self) -> arb:
        """The largest radius of a weight at t_final; `step.radius` is that at the start of each step."""
        with ctx.workprec(self.bits):
            end = self.at(self.t_final)
            return max((ball.rad() for ball in (*end.output, *(w for row in end.hidden for w in row))), key=float)

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All events in the order of time; equal neurons have theirs at once."""
        return tuple(
            event
            for step in self.steps
            for change in step.changes
            for event in _named(self.problem, change, step.end)
        )  # fmt: skip

    def at(self, time: Number | arb) -> Point[arb]:
        """The weights at a time: `.hidden`, m rows of d balls, and `.output`, m balls.

        Raises:
            ValueError: if the time does not lie in [0, t_final].
        """
        with ctx.workprec(self.bits):
            asked = time if isinstance(time, arb) else arb(rational(time))
            if not (asked >= 0 and not asked > self.t_final):
                raise ValueError(f"time must lie in [0, {self.t_final.str(6, radius=False)}], got {time}")
            return at_time(self.problem, self.steps, asked)

    def infimum(self, observable: Callable[[Point[Any]], Any], **options: Any) -> Infimum:
        """Enclose the infimum of an observable over [0, t_final]: see `flowsim.enclosure.infimum.infimum`."""
        with ctx.workprec(self.bits):
            return infimum(self.problem, self.steps, observable, **options)

    def compare(self, solution: Any, **options: Any) -> Comparison:
        """The true error of a float solution: see `flowsim.enclosure.comparison.compare`."""
        return compare(self.at, self.t_final, self.bits, solution, **options)


def _named(problem: ExactProblem, change: Change, time: arb) -> list[Event]:
    """The events of a change, one for each of the equal neurons."""
    if change.kink is None:
        sample, kind = -1, "sign change"
    else:
        sample = problem.names[change.kink]
        kind = "sliding entry" if change.after == 0 else "sliding exit" if change.before == 0 else "crossing"
    members = [neuron for neuron, merged in enumerate(problem.neuron_of) if merged == change.neuron]
    return [Event(time, sample, neuron, change.before, change.after, kind) for neuron in members]
