"""All that is measured, and what follows from it: the fastest peer, how many times as fast, how the cost grows."""

import math
from dataclasses import dataclass, field

import numpy as np
from accuracy import Convergence, Exact
from limits import Arithmetic, Memory
from measure import GOALS, OURS, Point, Row
from problems import BASE, GROWTH, SETTINGS, SINGLE

LOOSE, TIGHT = GOALS

NONE = "none reaches it"
"""What stands for the fastest peer where none that was tried reaches the error within its limit."""


@dataclass
class Results:
    """All that is measured. `share`: of the time, in which the process had a core."""

    machine: str
    extent: str
    rows: list[Row] = field(default_factory=list)
    arithmetic: list[Arithmetic] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    exact: list[Exact] = field(default_factory=list)
    convergence: list[Convergence] = field(default_factory=list)
    compilation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    share: float = 0.0

    def ours(self, name: str, count: int = 1, threads: int = 1, goal: float = TIGHT) -> Point | None:
        """flowsim's cheapest runs of an ensemble that reach an error."""
        for row in self.rows:
            if (row.problem, row.ensemble, row.method, row.threads) == (name, count, OURS, threads):
                return row.best(goal)
        return None

    def fastest(self, name: str, count: int = 1, goal: float = TIGHT) -> tuple[float, str]:
        """The least time per trajectory of any peer, together or one after another, and which."""
        found = [
            (best.seconds, f"{row.method}, {row.ensemble} together" if row.ensemble > 1 else row.method)
            for row in self.rows
            if row.method != OURS and row.problem == name and row.ensemble in (1, count) and (best := row.best(goal))
        ]
        return min(found, default=(math.inf, NONE))

    def ratio(self, name: str, count: int = 1, threads: int = 1, goal: float = TIGHT) -> float | None:
        """How many times as fast as the fastest peer flowsim is; None where none reaches the error."""
        ours, (seconds, _) = self.ours(name, count, threads, goal), self.fastest(name, count, goal)
        return seconds / ours.seconds if ours and math.isfinite(seconds) else None

    @property
    def ensembles(self) -> list[int]:
        """Sizes of the ensembles of the base problem."""
        return sorted({row.ensemble for row in self.rows if row.problem == BASE and row.ensemble > 1})


def list_growth(results: Results) -> dict[str, list[tuple[str, float, float, float]]]:
    """By what grows: problem, n r m, events, and seconds."""
    lines = {}
    for name in SINGLE | GROWTH:
        ours = results.ours(name)
        if ours and ours.events:
            samples, width = (SETTINGS[name].make.keywords[key] for key in ("samples", "width"))  # type: ignore[attr-defined]
            lines[samples, width] = name, samples**2 * width, ours.events, ours.seconds
    return {
        "m grows": [lines[samples, width] for samples, width in sorted(lines) if samples == 20],
        "n grows": [lines[samples, width] for samples, width in sorted(lines) if width == 50],
    }


def fit_growth(results: Results) -> dict[str, float]:
    """The powers of n r m that the cost per event grows with."""
    fitted = {}
    for growing, lines in list_growth(results).items():
        if len(lines) > 1:
            sizes, costs = zip(*((size, seconds / events) for _, size, events, seconds in lines), strict=True)
            fitted[growing] = float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
    return fitted
