"""Equalities along a run: by how much both sides may differ, over the whole of [0, T]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from flint import arb, ctx

from flowsim.enclosure.points import Point, around
from flowsim.enclosure.steps import Step
from theorems.rigorous.claims import Decision, EnclosedRun, Observable
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
    """The claim that all `differences`, plus the integral of `rate` from 0, are 0 on [0, T].

    Deviations are relative to `size`.
    """

    name: str
    differences: Callable[[Point[Any]], list[Any]]
    size: arb
    rate: Observable = lambda point: 0 * point.time

    def decide(self, run: EnclosedRun) -> Decision:
        """Prove that no deviation exceeds EQUAL, or that one is not 0."""
        with ctx.workprec(run.enclosure.bits):
            found = [pair for step in self._deviations(run) for pair in enumerate(step)]
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

    def _deviations(self, run: EnclosedRun) -> Iterator[list[Deviation]]:
        """Those of each step, by part."""
        past = arb(0)
        for step in run.enclosure.steps:
            radius = (step.length / 2).upper()
            added, *totals = _expanded(run, step, radius, self._observed)
            before = past - added.at(-radius)
            yield [
                Deviation(
                    (before + total.at(arb(0, radius))) / self.size,
                    (before + total.at(arb(0))) / self.size,
                    step.start + radius,
                )
                for total in totals
            ]
            past = before + added.at(step.length - radius)

    def _observed(self, point: Point[Any]) -> list[Any]:
        """The integral of the rate, and its sums with the differences: what cancels does so term by term."""
        integral = self.rate(point).integral()
        return [integral, *(difference + integral for difference in self.differences(point))]


class _Polynomial(NamedTuple):
    """A Taylor polynomial about the middle of a step, whose last coefficient is that at all times of the step."""

    coefficients: list[arb]

    def at(self, time: arb) -> arb:
        """All values at times in a ball, counted from the middle, within the step."""
        total = arb(0)
        for coefficient in reversed(self.coefficients):
            total = total * time + coefficient
        return total


def _expanded(
    run: EnclosedRun, step: Step, radius: arb, observed: Callable[[Point[Any]], list[Any]]
) -> list[_Polynomial]:
    """What is observed, about the middle of a step."""
    problem, order = run.enclosure.problem, 3 * step.disc.order // 5
    cap, ctx.cap = ctx.cap, order + 1  # terms that series keep
    try:
        close, wide = map(observed, around(problem, step, radius, [arb(0), radius], order + 1))
    finally:
        ctx.cap = cap
    if not all(series.prec > order for series in (*close, *wide)):
        raise AssertionError(f"{order + 1} coefficients are needed")
    return [
        _Polynomial([*(near[k] for k in range(order)), far[order]])
        for near, far in zip(close, wide, strict=True)
    ]  # fmt: skip
