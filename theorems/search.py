"""Search for counterexamples: minimise the margins of the statements over data, weights and feedback.

An instance is a point of the unit cube, which a target maps to a problem that meets its hypotheses by construction.
Rounds of random points alternate with descents from the best one and from any. What is found is a file for `--data`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import normalize

from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    IntegrationError,
    SignFeedbackAlignment,
    Solution,
    Weights,
    solve,
)
from flowsim.npz import write_npz
from flowsim.problems import read_source
from flowsim.progress import Tell, reporting
from flowsim.validation import require_positive
from theorems import (
    any_start,
    equation_1,
    lemma_5_4,
    margin_growth,
    own_data,
    proposition_5_3,
    proposition_5_7,
    theorem_5_2,
)
from theorems.check import Check, Statement, check
from theorems.ensembles import ATOL, RTOL, MarginRule
from theorems.guarded import guarded, reason, undecided
from theorems.measurement import along, ratios_of
from theorems.observation import observe
from theorems.polynomial import INTEGRALS

SMALL, UNEQUAL = 1e-6, 1e-3
"""How near instances come to limits where margins vanish, nearer than which they drop below what `measure` resolves.
SMALL: |w_j|^2 / 2 relative to b_j v_j, components of inputs, inner products of nearly orthogonal ones. UNEQUAL: the
b_j v_j of an instance, relative to each other."""

RESOLVED = {"inequality": 1e-7, "equality": 1e-15}
"""Margins are compared on a logarithmic scale down to here, and linearly through 0."""

RESTARTS = 128
"""Random points of a round."""

DIFFERENCE = 1e-5
"""Step of the difference quotients, in the unit cube."""

STAGNATION = 1e-3
"""A descent ends with a step that gains less, relative to the height: others get further in the same time."""

MAX_STEPS = 2000
"""An instance that needs more is given up."""

DataKind = Literal["any", "separable", "orthogonally separable", "boundary", "nearly orthogonal"]
Gaps = Literal["any", "admissible", "each"]


@dataclass(frozen=True)
class Target:
    """What is searched: a statement under a rule, on data of a kind.

    Args:
        statement: whose smallest margin is minimised.
        rule: FA, or sign-FA with scale 1.
        data: the inputs that instances have.
        gaps: "admissible": every c_j >= 0 for FA, sum_j c_j > 0 for sign-FA; "each": every c_j >= 0; or "any".
        loss: its name.
    """

    statement: Statement
    rule: MarginRule
    data: DataKind
    gaps: Gaps = "admissible"
    loss: str = "exponential"

    @property
    def case(self) -> str:
        """The name among the statement's targets."""
        more = [f"{self.loss} loss"] * (self.loss != "exponential") + ["each c_j >= 0"] * (self.gaps == "each")
        return ", ".join(["FA" if self.rule == "fa" else "sign-FA", f"{self.data} data", *more])

    @property
    def file(self) -> str:
        """The name of the file for what is found."""
        return re.sub(r"\W+", "_", f"{self.statement.name} {self.case}".lower()) + ".npz"


_THEOREM_5_1 = next(statement for statement in own_data.STATEMENTS if statement.name == "theorem_5_1")
_RULES: tuple[MarginRule, ...] = ("fa", "sign-fa")


def _of_the_paper(statement: Statement) -> Statement:
    """Proposition 5.7 with the paper's two claims only.

    The sharper ones beyond the paper follow from those on separable data (section 7), and are searched there. They are
    tighter, so that beside them the paper's would not be minimised.
    """
    return replace(statement, claims=statement.claims[:2])


_NICE_DATA: dict[DataKind, Statement] = {
    "orthogonally separable": _of_the_paper(proposition_5_7.SEPARABLE),
    "boundary": _of_the_paper(proposition_5_7.BOUNDARY),
    "nearly orthogonal": _of_the_paper(proposition_5_7.NEARLY_ORTHOGONAL),
}

TARGETS: list[Target] = [
    *(Target(equation_1.STATEMENT, rule, "any", "any") for rule in _RULES),
    *(Target(_THEOREM_5_1, rule, "separable") for rule in _RULES),  # where a mu > 0 exists
    *(Target(theorem_5_2.STATEMENT, rule, "any", "any") for rule in _RULES),
    Target(proposition_5_3.STATEMENT, "sign-fa", "any", "any"),
    Target(lemma_5_4.STATEMENT, "fa", "any"),
    *(Target(statement, rule, kind) for kind, statement in _NICE_DATA.items() for rule in _RULES),
    *(Target(proposition_5_7.ANY_SEPARABLE, rule, "separable") for rule in _RULES),
    *(Target(proposition_5_7.LOGISTIC, rule, "separable", loss="logistic") for rule in _RULES),
    *(Target(equation_1.ANGLE, rule, "any", "each") for rule in _RULES),
    Target(any_start.STATEMENT, "fa", "separable", "any"),
    *(Target(margin_growth.STATEMENT, rule, "any", "each") for rule in _RULES),
    *(Target(margin_growth.DESCENT, rule, "any", "each", "logistic") for rule in _RULES),
]
"""As `--data` checks them, with exponential loss unless said."""

SEARCHED = tuple(dict.fromkeys(target.statement.name for target in TARGETS))
"""The names of the statements that are searched."""


class Setting(NamedTuple):
    """What the instances of an ensemble share. They have n + 1 dimensions, so that any Gram matrix of theirs exists."""

    samples: int
    width: int
    slope: float
    t_final: float


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


# --- from the unit cube to instances ---


def _blocks(setting: Setting) -> dict[str, tuple[int, ...]]:
    """The shapes of what a point of the cube holds; signs come last, since derivatives by them vanish."""
    n, m, d = setting.samples, setting.width, setting.samples + 1
    return {
        "inputs": (n, d),
        "radii": (n, 1),
        "closeness": (1, 1),
        "hidden": (m, d),
        "products": (m,),
        "shares": (m,),
        "feedback": (m,),
        "labels": (n,),
        "output signs": (m,),
        "feedback signs": (m,),
    }


def dimension(setting: Setting) -> int:
    """The dimension of the cube."""
    return sum(math.prod(shape) for shape in _blocks(setting).values())


def _continuous(setting: Setting) -> int:
    """The number of coordinates that are no signs."""
    return dimension(setting) - setting.samples - 2 * setting.width


Blocks = dict[str, Float[Tensor, "points *shape"]]


def _geometric(unit: Tensor, low: float, high: float) -> Tensor:
    """From low at 0 to high at 1, on a logarithmic scale."""
    return low * (high / low) ** unit


def _sign(unit: Tensor) -> Tensor:
    return torch.where(unit < 0.5, -1.0, 1.0).to(unit)


def _signed(unit: Tensor) -> Tensor:
    """From -1 to 1."""
    return 2 * unit - 1


def _gathered(unit: Float[Tensor, "points n *d"], near: Float[Tensor, "points 1 1"]) -> Tensor:
    """Samples drawn towards the first."""
    return unit[:, :1] + near * (unit - unit[:, :1])


def _signed_inputs(kind: DataKind, setting: Setting, at: Blocks) -> Float[Tensor, "points n d"]:
    """y_i x_i. Up to rotation, every data set of the kind has such a form.

    Where all inputs are alike, or orthogonal, and of one norm, mu is attained; "closeness" says how far from there.
    """
    n, unit, sizes = setting.samples, at["inputs"], at["radii"]
    near = _geometric(at["closeness"], SMALL, 1 - SMALL)
    radii = _geometric(sizes if kind in ("any", "separable") else _gathered(sizes, near), 0.3, 2.0)
    identity = torch.eye(n, n + 1).to(unit)
    if kind == "nearly orthogonal":
        # (n - 1) |x_i.x_k| < gamma^2 R^2: the Gram matrix is diagonally dominant
        off = torch.tril(_signed(unit), -1)[..., :n] * near
        off = (setting.slope * radii.amin(-2, keepdim=True)) ** 2 / (n - 1) * (off + off.mT)
        return torch.linalg.cholesky(torch.diag_embed(radii.squeeze(-1) ** 2) + off) @ identity
    if kind == "orthogonally separable":
        rows = _geometric(_gathered(unit, near), SMALL, 1.0)  # see below
    elif kind == "boundary":
        # a matrix M >= 0, also entry by entry, is S S^T with S >= 0 of n columns if n <= 4 (Maxfield and Minc 1962)
        rows = _geometric(unit, SMALL, 1.0) * torch.where(identity == 1, 1.0, near)
    elif kind == "separable":  # along a separator, positive
        rows = torch.cat([_geometric(unit[..., :1], 0.05, 1.0), _signed(unit[..., 1:])], -1)
    else:
        rows = _signed(unit)
    return radii * normalize(rows, dim=-1)


def _weights(target: Target, at: Blocks) -> tuple[Float[Tensor, "points m"], Weights]:
    """b (for FA) and the weights, from sizes P_j = |b_j v_j| and from |w_j|^2 / 2 relative to them."""
    products, shares = _geometric(at["products"], UNEQUAL, 1.0), _geometric(at["shares"], SMALL, 0.99)
    hidden, signs = _signed(at["hidden"]), _sign(at["output signs"])
    feedback = signs * _geometric(at["feedback"], 0.3, 3.0)
    if target.gaps == "any":
        feedback = feedback * _sign(at["feedback signs"])
        shares = 4 * shares
    if target.rule == "fa" or target.gaps == "each":
        rows = normalize(hidden, dim=-1) * (2 * shares * products).sqrt().unsqueeze(-1)
        return feedback, Weights(rows, signs * products / (feedback.abs() if target.rule == "fa" else 1))
    whole = normalize(hidden.flatten(1), dim=-1).reshape(hidden.shape)
    squared = 2 * shares[:, 0] * products.sum(-1)
    return feedback, Weights(whole * squared.sqrt()[:, None, None], signs * products)


def instances(target: Target, setting: Setting, points: Float[Tensor, "points k"]) -> tuple[Flow, Weights]:
    """The problems of points of the cube, as an ensemble. They meet the target's hypotheses wherever the points are."""
    sizes = {name: math.prod(shape) for name, shape in _blocks(setting).items()}
    parts = zip(_blocks(setting).items(), points.split(list(sizes.values()), -1), strict=True)
    at = {name: part.reshape(-1, *shape) for (name, shape), part in parts}
    labels = _sign(at["labels"])
    dataset = Dataset(labels.unsqueeze(-1) * _signed_inputs(target.data, setting, at), labels)
    feedback, weights = _weights(target, at)
    rule = FeedbackAlignment(feedback) if target.rule == "fa" else SignFeedbackAlignment()
    return Flow(dataset, rule, target.loss, setting.slope), weights


Problem = dict[str, np.ndarray | float]


def problem(target: Target, setting: Setting, point: Float[Tensor, " k"]) -> Problem:
    """The instance of a point, as `--data` reads it."""
    flow, weights = instances(target, setting, point.unsqueeze(0))
    tensors = {"inputs": flow.dataset.inputs, "labels": flow.dataset.labels, **weights.tensors}
    if target.rule == "fa":
        (feedback,) = flow.rule.feedback_matrices(weights)
        tensors["feedback"] = feedback.squeeze(-2)
    arrays = {name: tensor[0].cpu().numpy() for name, tensor in tensors.items()}
    return {**arrays, "slope": setting.slope, "t_final": setting.t_final}


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
        seen.integral = along(over[-1], pieces.trajectory, lambda rows: rows.cumsum(1)) - over[-1] + over
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
    tightest: Problem = field(default_factory=dict)
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
        setting = _setting(generator)
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
            self.tightest = problem(self.target, setting, points[best])
        return found.cpu()

    def _descend(self, setting: Setting, start: Float[Tensor, " k"]) -> None:
        """L-BFGS-B in the cube; the difference quotients of a gradient are one ensemble.

        Margins are minima over time and neurons, and not smooth, but methods without derivatives do worse: in 15 s
        for Proposition 5.7 on separable data, the margin comes down to 1e-6 with L-BFGS-B, to 5e-4 with COBYQA, to 1e-4
        with random points alone, and to 0.2 with Powell's method and Nelder-Mead. Those solve one problem at a time; an
        ensemble of fifty costs two or three times as much.
        """
        moving, scale = _continuous(setting), RESOLVED[self.target.statement.claims[0].kind]
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


def _setting(generator: torch.Generator) -> Setting:
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
            for number, target in enumerate(targets):
                spent = _clock(60 * minutes / len(targets), partial(_of_all, tell, number, len(targets)))
                for found in _hunted(Hunt(target, spent, device), folder):
                    violated += [found] if found.check.verdict == "violated" else []
                    yield found
    finally:
        for item in violated:
            console.print(f"[bold red]counterexample[/] to {item.check.name}, {item.check.case}: {item.file}")


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
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("tightest instance found", "claim", "verdict"):
        grid.add_column(heading)
    for heading in ("margin", "error", "tried"):
        grid.add_column(heading, justify="right", no_wrap=True)
    colours = {"holds": "green", "undecided": "yellow", "violated": "bold red"}
    for item in found:
        check = item.check
        margin, error = ("-" if value is None else f"{value:.1e}" for value in (check.margin, check.error_bound))
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        grid.add_row(f"{check.name}: {check.case}", escape(item.claim), verdict, margin, error, str(item.evaluations))
    return grid
