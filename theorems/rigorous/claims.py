"""What a statement assumes and claims of an enclosed run, and how that is proved or refuted (README.md, section 12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flint import arb, ctx

from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.exact import rational
from flowsim.enclosure.infimum import Infimum
from flowsim.enclosure.points import Point, around, descent_product, risk
from theorems.hypothesis import RULE_IS
from theorems.rigorous.decimals import DIGITS as SHOWN
from theorems.rigorous.decimals import Interval, interval, lower_end, rounded, upper_end
from theorems.rigorous.instance import Instance, Rule, enclosed

DIGITS = 16
"""To which infima are enclosed, relatively to themselves."""

PIECES = 1000
"""Of time that a branch and bound looks at, at most."""

Observable = Callable[[Point[Any]], Any]


@dataclass(frozen=True)
class EnclosedRun:
    """An instance and its enclosure."""

    instance: Instance
    bits: int

    @property
    def enclosure(self) -> Enclosure:
        """The proved enclosure of the solution.

        Raises:
            Undecided: where there is none.
        """
        return enclosed(self.instance, self.bits)

    def at_start(self, observable: Observable) -> arb:
        """The observable at t = 0."""
        with ctx.workprec(self.enclosure.bits):
            return observable(self.enclosure.at(0))

    def law_at_start(self, law: Callable[[Point[Any]], list[Any]]) -> list[arb]:
        """What a law says is conserved, at t = 0."""
        with ctx.workprec(self.enclosure.bits):
            return law(self.enclosure.at(0))

    def infimum(self, observable: Observable) -> Infimum:
        """The infimum over [0, T]; at an event both limits count."""
        return self.enclosure.infimum(observable, digits=DIGITS, pieces=PIECES)

    def lower_bounds(self, observables: Sequence[Observable]) -> list[arb]:
        """Bounds from below over [0, T], from one ball per step."""
        with ctx.workprec(self.enclosure.bits):
            found = [arb.pos_inf()] * len(observables)
            for step in self.enclosure.steps:
                half = (step.length / 2).upper()
                (point,) = around(self.enclosure.problem, step, half, [half], 1)
                values = [seen(point)[0] for seen in observables]
                lows = [value.lower() if value.is_finite() else arb.neg_inf() for value in values]
                found = [min(pair) for pair in zip(found, lows, strict=True)]
            return found


@dataclass(frozen=True)
class Hypothesis:
    """What a statement assumes: whether it holds on a run, None if that is not decided, and by how much if by any."""

    name: str
    holds: bool | None
    slack: Interval | None = None

    @property
    def shown(self) -> str:
        """The slack, for an error."""
        return self.slack[0] if self.slack else "none"

    @property
    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {"holds": self.holds, "slack": self.slack}


def exactly(name: str, slack: Fraction, *, strict: bool = False) -> Hypothesis:
    """The hypothesis slack >= 0, or slack > 0 if strict, of a rational number.

    >>> exactly("gamma > 0", Fraction(0), strict=True).holds
    False
    """
    ends = rounded(slack, SHOWN, up=False), rounded(slack, SHOWN, up=True)
    return Hypothesis(name, slack > 0 if strict else slack >= 0, ends)


def nowhere_negative(name: str, least: Infimum) -> Hypothesis:
    """The hypothesis that an observable with this infimum is nowhere negative."""
    return Hypothesis(name, _sign(least), interval(least.lower, least.upper))


def above_zero(name: str, least: Infimum) -> Hypothesis:
    """The hypothesis that an observable with this infimum is positive everywhere, by more than some number."""
    low, high = lower_end(least.lower), upper_end(least.upper)
    holds = True if low is not None and low > 0 else False if high is not None and high <= 0 else None
    return Hypothesis(name, holds, interval(least.lower, least.upper))


def is_rule(run: EnclosedRun, *rules: Rule) -> Hypothesis:
    """The hypothesis that the learning rule is one of the given."""
    return Hypothesis(f"{RULE_IS}{' or '.join(rules)}", run.instance.rule in rules)


@dataclass(frozen=True)
class Decision:
    """How a claim comes out: proved (True), refuted (False) or neither, with the interval and when that says so."""

    holds: bool | None
    value: Interval
    time: Interval
    part: int

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "proved", False: "refuted", None: "undecided"}[self.holds]


@dataclass(frozen=True)
class Nonnegative:
    """The claim that each of some observables is nowhere negative on [0, T].

    `mean_of`: the observable whose means over [0, t] the only part has, so that its infimum is a bound from below, too.
    """

    name: str
    parts: Sequence[Observable]
    mean_of: Observable | None = None

    def decide(self, run: EnclosedRun) -> Decision:
        """Enclose the smallest infimum of the parts: the claim is proved if it is not below 0, refuted if it is."""
        part, least = self._least(run)
        return Decision(
            _sign(least), interval(least.lower, least.upper), interval(least.time, least.time), part
        )  # fmt: skip

    def _least(self, run: EnclosedRun) -> tuple[int, Infimum]:
        """The part with the smallest infimum; those that stay above the infimum of another need no search."""
        if len(self.parts) == 1:
            least = run.infimum(self.parts[0])
            if self.mean_of is None or least.lower >= 0:
                return 0, least
            return 0, Infimum(max(least.lower, run.infimum(self.mean_of).lower), least.upper, least.time)
        bounds = run.lower_bounds(self.parts)
        order = sorted(range(len(self.parts)), key=lambda part: float(bounds[part]))
        part, least = order[0], run.infimum(self.parts[order[0]])
        for other in order[1:]:
            if bounds[other] > least.upper:
                continue
            found = run.infimum(self.parts[other])
            if found.lower < least.lower:
                part, least = other, Infimum(found.lower, min(found.upper, least.upper), found.time)
            elif found.upper < least.upper:
                least = Infimum(least.lower, found.upper, least.time)
        return part, least


def mean_rate(run: EnclosedRun, alpha: int) -> Observable:
    """The mean over [0, t] of the dominance ratio <grad, fa> / L^alpha, by Equation (1) a difference over t.

    (L(t)^(1-alpha) - L(0)^(1-alpha)) / ((alpha-1) t), or log(L(0) / L(t)) / t for alpha = 1. About t = 0 that is 0 / 0,
    and coefficient k of the mean, int_0^1 s^k r_k(s t) ds with r_k that of the ratio, is in the enclosure of r_k
    on [0, t] over k + 1.
    """
    initial = run.at_start(risk)

    def mean(point: Point[Any]) -> Any:
        first, is_series = (point.time[0], True) if hasattr(point.time, "coeffs") else (point.time, False)
        if first.contains(0):
            ratio = dominance_ratio(alpha)(point)
            return type(ratio)([c / (k + 1) for k, c in enumerate(ratio.coeffs())], ratio.prec) if is_series else ratio
        now = risk(point)
        if alpha == 1:
            return (initial.log() - now.log()) / point.time
        return (1 / now ** (alpha - 1) - 1 / initial ** (alpha - 1)) / ((alpha - 1) * point.time)

    return mean


def dominance_ratio(alpha: int) -> Observable:
    """<grad, fa> / L^alpha."""
    return lambda point: descent_product(point) / risk(point) ** alpha


def excess_over(observable: Observable, constant: Fraction) -> Observable:
    """Observable / constant - 1, for a constant above 0."""
    factor = rational(constant)  # made a ball at the precision of the run
    return lambda point: observable(point) / arb(factor) - 1


def _sign(least: Infimum) -> bool | None:
    """Whether an infimum is proved to be at least 0, or to be below; None for neither."""
    low, high = lower_end(least.lower), upper_end(least.upper)
    if low is not None and low >= 0:
        return True
    return False if high is not None and high < 0 else None
