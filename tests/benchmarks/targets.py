"""What was to be reached, beside what was."""

from collections.abc import Iterator
from typing import NamedTuple

from accuracy import EXACT_RTOL
from problems import BASE, HARD, SINGLE, SLIDING
from results import LOOSE, TIGHT, Results, fit_growth

TIMES_AS_FAST = {TIGHT: 10.0, LOOSE: 3.0}
"""Times as fast as the fastest peer, alone, by the error."""

TIMES_AS_FAST_TOGETHER = 20.0
OF_ARITHMETIC = 3.0
OF_TWO_THREADS = 1.7
SECONDS = {
    **{name: 0.3 for name, setting in HARD.items() if setting.kind == SLIDING},
    "3 layers (8, 7)": 0.05, "4 layers (8, 7, 6)": 0.2, "3 layers (50, 50)": 10.0,
}  # fmt: skip
"""At most so many seconds a trajectory."""

EXACT_ERROR = 1e-10
"""On exact solutions, of size 1, with less than 100 steps at 1e-12."""


class Target(NamedTuple):
    """What was to be reached, and what was; None where it was not measured."""

    what: str
    wanted: float
    measured: float | None
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it was."""
        return self.measured is not None and (
            self.measured >= self.wanted if self.at_least else self.measured <= self.wanted
        )

    @property
    def line(self) -> str:
        """A row of the table."""
        sign, measured = ("≥" if self.at_least else "≤"), "" if self.measured is None else f"{self.measured:.3g}"
        return f"| {self.what} | {sign} {self.wanted:g} | {measured} | {'yes' if self.met else 'no'} |"


def list_targets(results: Results) -> Iterator[Target]:
    """Targets beside what was measured."""
    for goal, wanted in TIMES_AS_FAST.items():
        for name in SINGLE:
            what = f"{name}: times as fast as the fastest peer, error {goal:g}"
            yield Target(what, wanted, results.ratio(name, goal=goal), True)
    for count in results.ensembles:
        what = f"{count} together: times as fast as the fastest peer"
        yield Target(what, TIMES_AS_FAST_TOGETHER, results.ratio(BASE, count), True)
    for each in results.arithmetic:
        if each.problem == BASE:
            yield Target(f"{BASE}: time over the arithmetic limit", OF_ARITHMETIC, each.ratio, False)
    for count in results.ensembles:
        one, two = results.ours(BASE, count), results.ours(BASE, count, threads=2)
        if one and two:
            yield Target(f"{count} together: two threads over one", OF_TWO_THREADS, one.seconds / two.seconds, True)
    for name, wanted in SECONDS.items():
        ours = results.ours(name)
        yield Target(f"{name}: seconds a trajectory", wanted, ours.seconds if ours else None, False)
    for exact in results.exact:
        yield Target(f"{exact.solution}: error at {EXACT_RTOL:g}", EXACT_ERROR, exact.error, False)
    for name, slope in fit_growth(results).items():
        yield Target(f"cost per event ~ (n r m)^a, {name}: a", 1.0, slope, False)
