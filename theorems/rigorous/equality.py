"""Equalities along a run: by how much both sides may differ, over the whole of [0, T]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from flint import arb, ctx

from flowsim.enclosure.points import Point, around
from flowsim.enclosure.steps import Step
from theorems.rigorous.claims import Decision, Observable, Run
from theorems.rigorous.decimals import interval, upper_end

EQUAL = Fraction(1, 10**30)
"""An equality is proved up to this, relative to the size of what is compared: it is a theorem that it is exact."""


class Deviation(NamedTuple):
    """Of the sides of an equality: anywhere in a step, and at its middle."""

    anywhere: arb
    at_middle: arb
    middle: arb


@dataclass(frozen=True)
class Equal:
    """The claim that each difference, plus the integral of `rate` from 0, is 0 on [0, T].

    Deviations are relative to `size`.
    """

    name: str
    parts: Sequence[Observable]
    size: arb
    rate: Observable = lambda point: 0 * point.time

    def decide(self, run: Run) -> Decision:
        """Prove that no deviation exceeds EQUAL, or that one is not 0."""
        with ctx.workprec(run.enclosure.bits):
            found = [(number, one) for number, part in enumerate(self.parts) for one in self._deviations(run, part)]
            part, most = max(found, key=lambda item: item[1].at_middle.abs_lower())
            if not most.at_middle.contains(0):
                when = interval(most.middle, most.middle)
                return Decision(False, interval(most.at_middle, most.at_middle), when, part)
            part, widest = max(found, key=lambda item: item[1].anywhere.abs_upper())
            largest = upper_end(widest.anywhere.abs_upper())
            holds = True if largest is not None and largest <= EQUAL else None
            return Decision(
                holds, interval(widest.anywhere, widest.anywhere), interval(arb(0), run.enclosure.t_final), part
            )

    def _deviations(self, run: Run, difference: Observable) -> Iterator[Deviation]:
        """Those of all steps."""
        past = arb(0)
        for step in run.enclosure.steps:
            radius = (step.length / 2).upper()
            compared = _Expanded(run, step, radius, difference)
            added = _Expanded(run, step, radius, lambda point: self.rate(point).integral())
            before, anywhere = past - added.at(-radius), arb(0, radius)
            yield Deviation(
                (before + compared.at(anywhere) + added.at(anywhere)) / self.size,
                (before + compared.at(arb(0)) + added.at(arb(0))) / self.size,
                step.start + radius,
            )
            past = before + added.at(step.length - radius)


class _Expanded:
    """The Taylor polynomial of an observable about the time `radius` of a step, with Lagrange's remainder."""

    def __init__(self, run: Run, step: Step, radius: arb, observable: Observable) -> None:
        self.order = 3 * step.disc.order // 4  # of curves that are known up to disc.order, less than all
        problem, count = run.enclosure.problem, self.order + 1
        self.known = _series(observable, around(problem, step, radius, arb(0), count), count)
        self.rest = _series(observable, around(problem, step, radius, radius, count), count)[self.order]

    def at(self, time: arb) -> arb:
        """The observable at all times in a ball, counted from the middle, within the step."""
        total = self.rest
        for coefficient in reversed(self.known[: self.order]):
            total = total * time + coefficient
        return total


def _series(observable: Observable, point: Point[Any], count: int) -> list[arb]:
    """So many coefficients of an observable."""
    cap, ctx.cap = ctx.cap, count
    try:
        series = observable(point)
    finally:
        ctx.cap = cap
    if series.prec < count:
        raise AssertionError(f"{count} coefficients are needed, {series.prec} are known")
    return [series[k] for k in range(count)]
