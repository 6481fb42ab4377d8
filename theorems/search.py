"""Search for counterexamples: minimise the margins of the statements over data, weights and feedback.

The targets are those of `theorems.targets`, and an instance is a point of the unit cube (`theorems.instances`). Rounds
of random points alternate with descents from the best one and from any. What is found is a file for `--data`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.optimize import minimize
from torch import Tensor

from flowsim import Flow, IntegrationError, Solution, Weights, solve
from flowsim.npz import write_npz
from flowsim.problems import read_source
from flowsim.progress import Tell, reporting
from flowsim.validation import require_positive
from theorems import own_data
from theorems.check import Check, Statement, check
from theorems.ensembles import ATOL, RTOL
from theorems.guarded import guarded, reason, undecided
from theorems.instances import Arrays, Setting, arrays_of, continuous, dimension, instances
from theorems.measurement import ratios_of
from theorems.observation import observe
from theorems.pieces import accumulate
from theorems.polynomial import INTEGRALS
from theorems.tables import empty_grid, short
from theorems.targets import TARGETS, Target

LINEAR_BELOW = {"inequality": 1e-7, "equality": 1e-15}
"""Margins are compared on a logarithmic scale down to here, and linearly through 0."""

RESTARTS = 128
"""Random points of a round."""

DIFFERENCE = 1e-5
"""Step of the difference quotients, in the unit cube."""

STAGNATION = 1e-3
"""A descent ends with a step that gains less, relative to the height: others get further in the same time."""

MAX_STEPS = 2000
"""An instance that needs more is given up."""


@dataclass(frozen=True)
class Found:
    """The tightest instance of a target.

    Args:
        check: of the target's claims, as `--data` makes it of the file; undecided if there is none.
        evaluations: instances tried.
        file: the instance.
        lost: why the file could not be written, if so.
    """

    check: Check
    evaluations: int
    file: Path
    lost: str | None = None

    @property
    def claim(self) -> str:
        """The tightest claim, and where in the run; or why the file cannot be solved or measured."""
        claims = self.check.details.get("claims")
        if claims is None:
            return self.check.details["reason"]
        name = min(claims, key=lambda claim: claims[claim]["margin"])
        return f"{name} ({claims[name]['place']})"

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "statement": self.check.name,
            "case": self.check.case,
            "claim": self.claim,
            "margin": self.check.margin,
            "error_bound": self.check.error_bound,
            "verdict": self.check.verdict,
            "evaluations": self.evaluations,
            "file": str(self.file),
        }


# --- margins of an ensemble ---


def _solved(flow: Flow, weights: Weights, t_final: float) -> tuple[Solution[Weights] | None, Tensor]:
    """The solution of those problems of an ensemble that can be solved, and which these are."""
    which = torch.arange(weights.batch_shape.numel(), device=weights.hidden.device)
    while len(which):
        some = flow.map_matrices(weights, lambda matrix, which=which: matrix[which])
        try:
            return solve(*some, t_final, rtol=RTOL, atol=ATOL, max_steps=MAX_STEPS), which
        except IntegrationError as stop:
            which = which[torch.arange(len(which), device=which.device) != stop.index]
    return None, which


def _smallest(statement: Statement, solution: Solution) -> Float[Tensor, " ensemble"]:
    """The smallest value of the claims at the nodes of the pieces.

    Without error bounds, and without what lies between the nodes: a tenth of the time of `measure`.
    """
    pieces = solution.pieces
    seen = observe(solution, pieces)
    if statement.rate is not None:
        over = INTEGRALS.to(pieces.start) @ statement.rate(seen) * (pieces.end - pieces.start)
        seen.integral = accumulate(over[-1], pieces.trajectory, lambda rows: rows.cumsum(1)) - over[-1] + over
    values = [
        (found if claim.kind == "inequality" else -found.abs()).amin((0, 2))
        for claim in statement.claims
        for found in [ratios_of(claim, claim.values(seen))]
    ]
    least = pieces.start.new_full((solution.batch_shape.numel(),), torch.inf)
    return least.scatter_reduce(0, pieces.trajectory, torch.stack(values).amin(0), "amin")


def margins(target: Target, setting: Setting, points: Float[Tensor, "points k"]) -> Float[Tensor, " points"]:
    """The margins at points of the cube; infinite where the problem cannot be solved, or has no margin."""
    solution, which = _solved(*instances(target, setting, points), setting.t_final)
    found = points.new_full((len(points),), torch.inf)
    if solution is not None:
        # a companion is asked for by constants that are measured along the run; its errors do not matter here
        itself = replace(solution, solve_looser=lambda: solution)
        found[which] = _smallest(target.statement, itself).nan_to_num(nan=torch.inf)
    return found


# --- minimisation ---


class OutOfBudgetError(Exception):
    """The budget of a search is spent."""


@dataclass
class Hunt:
    """The search on one target: what it has found so far.

    Args:
        target: what is searched.
        spent: the share of its budget that a hunt has spent; it ends at 1.
        device: where ensembles are solved.
        margin: the smallest so far.
        tightest: its problem, as `--data` reads it.
        evaluations: problems solved so far.
    """

    target: Target
    spent: Callable[[Hunt], float]
    device: str = "cpu"
    margin: float = math.inf
    tightest: Arrays = field(default_factory=dict)
    evaluations: int = 0

    def run(self) -> None:
        """Rounds of restarts and descents, each in a setting of its own, until the budget is spent."""
        generator = torch.Generator().manual_seed(0)
        try:
            while True:
                self._round(generator)
        except OutOfBudgetError:
            pass

    def _round(self, generator: torch.Generator) -> None:
        setting = _draw_setting(generator)
        points = torch.rand(RESTARTS, dimension(setting), generator=generator, dtype=torch.float64)
        self._descend(setting, points[self.evaluate(setting, points).argmin()])
        self._descend(setting, points[0])  # the best ones are near the known limits; this one need not be

    def evaluate(self, setting: Setting, points: Float[Tensor, "points k"]) -> Float[Tensor, " points"]:
        """The margins at points, of which the smallest is kept.

        Raises:
            OutOfBudgetError: if the budget is spent.
        """
        if self.spent(self) >= 1:
            raise OutOfBudgetError
        points = points.to(self.device)
        found = margins(self.target, setting, points)
        self.evaluations += len(points)
        best = int(found.argmin())
        if found[best] < self.margin:
            self.margin = found[best].item()
            self.tightest = arrays_of(self.target, setting, points[best])
        return found.cpu()

    def _descend(self, setting: Setting, start: Float[Tensor, " k"]) -> None:
        """L-BFGS-B in the cube; the difference quotients of a gradient are one ensemble.

        Margins are minima over time and neurons, and not smooth, but methods without derivatives do worse: in 15 s
        for Proposition 5.7 on separable data, the margin comes down to 1e-6 with L-BFGS-B, to 5e-4 with COBYQA, to 1e-4
        with random points alone, and to 0.2 with Powell's method and Nelder-Mead. Those solve one problem at a time; an
        ensemble of fifty costs two or three times as much.
        """
        moving, scale = continuous(setting), LINEAR_BELOW[self.target.statement.claims[0].kind]
        signs = start[moving:]

        def value_and_gradient(coordinates: np.ndarray) -> tuple[float, np.ndarray]:
            point = torch.cat([torch.from_numpy(coordinates), signs])
            inwards = torch.where(point[:moving] < 0.5, DIFFERENCE, -DIFFERENCE)
            steps = torch.cat([torch.diag(inwards), inwards.new_zeros(moving, len(signs))], -1)
            found = self.evaluate(setting, torch.cat([point.unsqueeze(0), point + steps]))
            heights = (found / scale).clamp(max=1e30).asinh()
            slopes = torch.where(found[1:].isfinite(), (heights[1:] - heights[0]) / inwards, 0.0)
            return heights[0].item(), slopes.numpy()

        minimize(
            value_and_gradient,
            start[:moving].numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * moving,
            options={"ftol": STAGNATION},
        )


def _draw_setting(generator: torch.Generator) -> Setting:
    """A random setting: n = 2..4, m = 2..4, slope in [0.1, 1], T in [0.1, 3]."""
    samples, width = torch.randint(2, 5, (2,), generator=generator).tolist()
    slope, t_final = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return Setting(samples, width, 0.1 + 0.9 * slope, 0.1 * 30**t_final)


# --- searching all targets ---


def recheck(target: Target, file: Path, device: str) -> Check:
    """The check that `--data` makes of a file, of the target's claims."""

    def decide() -> Check:
        solve = own_data.runs(read_source(str(file), device=device), target.loss)[target.rule]
        return check(target.statement, target.case, "theorem", [solve()])

    return guarded(target.statement, target.case, "theorem", decide)


def keep(hunt: Hunt, folder: Path) -> Found:
    """Write what a hunt has found, and judge it."""
    target, file = hunt.target, folder / hunt.target.file
    try:
        write_npz(file, hunt.tightest)
    except ValueError as error:
        none = undecided(target.statement, target.case, "theorem", {"reason": str(error)})
        return Found(none, hunt.evaluations, file, str(error))
    return Found(recheck(target, file, hunt.device), hunt.evaluations, file)


def search(minutes: float, names: Sequence[str], device: str, folder: Path, console: Console) -> Iterator[Found]:
    """Search the targets of the named statements, the time shared equally.

    After Ctrl-C comes what was found on the target at hand, then the interrupt; a search that fails is an undecided
    check beside what it had found.

    Raises:
        ValueError: if the minutes are not positive.
    """
    require_positive("minutes", minutes)
    folder.mkdir(parents=True, exist_ok=True)
    targets = [target for target in TARGETS if target.statement.name in names]
    violated: list[Found] = []
    try:
        with reporting(console.file) as tell:
            for found in _hunt_all(targets, 60 * minutes / len(targets), device, folder, tell):
                violated += [found] if found.check.verdict == "violated" else []
                yield found
    finally:
        for item in violated:
            console.print(f"[bold red]counterexample[/] to {item.check.name}, {item.check.case}: {item.file}")


def _hunt_all(
    targets: Sequence[Target], seconds: float, device: str, folder: Path, tell: Tell
) -> Iterator[Found]:  # fmt: skip
    """What is found on each target in so many seconds."""
    for number, target in enumerate(targets):
        spent = _clock(seconds, partial(_of_all, tell, number, len(targets)))
        yield from _hunted(Hunt(target, spent, device), folder)


def _hunted(hunt: Hunt, folder: Path) -> Iterator[Found]:
    """Run a hunt; what it has found, also where it is interrupted or fails."""
    target, stopped = hunt.target, None
    try:
        hunt.run()
    except (Exception, KeyboardInterrupt) as stop:
        stopped = stop
    if hunt.tightest:
        yield keep(hunt, folder)
    if isinstance(stopped, Exception):
        why = reason(stopped)
        yield Found(undecided(target.statement, target.case, "theorem", why), hunt.evaluations, folder / target.file)
    elif stopped:
        raise stopped


def _of_all(tell: Tell, number: int, count: int, share: float, doing: str) -> None:
    tell((number + share) / count, doing)


def _clock(seconds: float, tell: Tell) -> Callable[[Hunt], float]:
    """The share of the seconds that have passed since now, which is told."""
    start = time.perf_counter()

    def spent(hunt: Hunt) -> float:
        share = min((time.perf_counter() - start) / seconds, 1.0)
        tell(share, f"{hunt.target.statement.name}, {hunt.target.case}: {hunt.margin:.2e}")
        return share

    return spent


def table(found: Sequence[Found]) -> Table:
    """One row per target: how close to 0 its margin was pushed. Undecided: closer than the check resolves."""
    grid = empty_grid()
    for heading in ("tightest instance found", "claim", "verdict"):
        grid.add_column(heading)
    for heading in ("margin", "error", "tried"):
        grid.add_column(heading, justify="right", no_wrap=True)
    colours = {"holds": "green", "undecided": "yellow", "violated": "bold red"}
    for item in found:
        check = item.check
        margin, error = (short(value, ".1e") for value in (check.margin, check.error_bound))
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        grid.add_row(f"{check.name}: {check.case}", escape(item.claim), verdict, margin, error, str(item.evaluations))
    return grid
