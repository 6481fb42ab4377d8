"""Search for counterexamples: minimise the margins of the statements over data, weights and feedback.

An instance is a point of the unit cube, which a target maps to a problem that meets its hypotheses by construction.
Restarts at random points alternate with descents from the best of them. What is found is a file for `--data`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
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
from flowsim.files import write_npz
from flowsim.validation import require_positive
from theorems import equation_1, lemma_5_4, own_data, proposition_5_3, proposition_5_7, theorem_5_2
from theorems.check import Check, Statement, Verdict, check
from theorems.ensembles import ATOL, RTOL, MarginRule
from theorems.measurement import NoMarginError, along
from theorems.observation import INTEGRALS, observe

SMALL = 1e-6
"""How near instances come to limits where margins vanish: |w_j|^2 / 2 relative to b_j v_j, b_j v_j itself, entries of
inputs that are all positive, inner products of nearly orthogonal ones. Nearer, margins drop below what is resolved."""

RESOLVED = {"inequality": 1e-7, "equality": 1e-15}
"""Margins are compared on a logarithmic scale down to here, and linearly through 0."""

RESTARTS, DESCENTS, ITERATIONS = 64, 4, 60
"""Random points of a round, how many of them descend, and how far."""

DIFFERENCE = 1e-5
"""Step of the difference quotients, in the unit cube."""

MAX_STEPS = 2000
"""An instance that needs more is given up."""

DataKind = Literal["any", "separable", "orthogonally separable", "boundary", "nearly orthogonal"]
Gaps = Literal["any", "admissible"]
Spent = Callable[[int], float]
"""The share of its budget that a search has spent after so many evaluations: it ends at 1."""


@dataclass(frozen=True)
class Target:
    """What is searched: a statement under a rule, on data of a kind.

    Args:
        statement: whose smallest margin is minimised.
        rule: FA, or sign-FA with scale 1.
        data: the inputs that instances have.
        gaps: "admissible": every c_j >= 0 for FA, sum_j c_j > 0 for sign-FA; or "any".
        claims: how many of the statement's claims are minimised; the others, if any, follow from those of another target.
    """

    statement: Statement
    rule: MarginRule
    data: DataKind
    gaps: Gaps = "admissible"
    claims: int = 100

    @property
    def case(self) -> str:
        """The name among the statement's targets."""
        return f"{'FA' if self.rule == 'fa' else 'sign-FA'}, {self.data} data"

    @property
    def file(self) -> str:
        """The name of the file for what is found."""
        return re.sub(r"\W+", "_", f"{self.statement.name} {self.case}".lower()) + ".npz"


_THEOREM_5_1 = next(statement for statement in own_data.STATEMENTS if statement.name == "theorem_5_1")
_RULES: tuple[MarginRule, ...] = ("fa", "sign-fa")
_DATA_OF_5_7: dict[DataKind, Statement] = {
    "orthogonally separable": proposition_5_7.SEPARABLE,
    "boundary": proposition_5_7.BOUNDARY,
    "nearly orthogonal": proposition_5_7.NEARLY_ORTHOGONAL,
    "separable": proposition_5_7.ANY_SEPARABLE,
}

TARGETS: list[Target] = [
    *(Target(equation_1.STATEMENT, rule, "any", "any") for rule in _RULES),
    *(Target(_THEOREM_5_1, rule, "separable") for rule in _RULES),  # where a mu > 0 exists
    *(Target(theorem_5_2.STATEMENT, rule, "any", "any") for rule in _RULES),
    Target(proposition_5_3.STATEMENT, "sign-fa", "any", "any"),
    Target(lemma_5_4.STATEMENT, "fa", "any"),
    *(Target(statement, rule, kind) for kind, statement in _DATA_OF_5_7.items() for rule in _RULES),
]
"""As `--data` checks them, with exponential loss."""


class Setting(NamedTuple):
    """What the instances of one ensemble share. There are more dimensions than samples, so that any Gram matrix exists."""

    samples: int
    width: int
    slope: float
    t_final: float


class Found(NamedTuple):
    """The tightest instance of a target, as `--data` judges the file."""

    statement: str
    case: str
    claim: str
    margin: float | None
    error_bound: float | None
    verdict: Verdict
    evaluations: int
    file: Path


# --- from the unit cube to instances ---


def _blocks(setting: Setting) -> dict[str, tuple[int, ...]]:
    """The shapes of what a point of the cube holds; signs come last, since derivatives by them vanish."""
    n, m, d = setting.samples, setting.width, setting.samples + 1
    return {
        "inputs": (n, d),
        "radii": (n,),
        "coherence": (1,),
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


def _signed_inputs(
    kind: DataKind, setting: Setting, at: Blocks, radii: Float[Tensor, "points n"]
) -> Float[Tensor, "points n d"]:
    """The directions of y_i x_i. Up to rotation, every data set of the kind has such a form."""
    n, rows = setting.samples, at["inputs"]
    if kind == "separable":  # positive components along a separator
        return normalize(torch.cat([_geometric(rows[..., :1], 0.05, 1.0), _signed(rows[..., 1:])], -1), dim=-1)
    if kind == "nearly orthogonal":
        # x_i.x_k = off_ik R^2 with (n - 1) |off_ik| < gamma^2: the Gram matrix is diagonally dominant
        off = torch.tril(_signed(rows[..., :n]), -1) * _geometric(at["coherence"], SMALL, 1 - SMALL).unsqueeze(-1)
        off = (off + off.mT) * setting.slope**2 / max(n - 1, 1)
        cosines = off * radii.amin(-1)[:, None, None] ** 2 / (radii.unsqueeze(-1) * radii.unsqueeze(-2))
        factor = torch.linalg.cholesky(torch.eye(n).to(rows) + cosines)
        return torch.cat([factor, torch.zeros_like(factor[..., :1])], -1)
    if kind == "any":
        return normalize(_signed(rows), dim=-1)
    # y_i y_k x_i.x_k >= 0. A matrix M >= 0, also entry by entry, is S S^T with S >= 0 of n columns if n <= 4
    # (Maxfield and Minc 1962)
    return normalize(_geometric(rows, SMALL, 1.0), dim=-1)


def _weights(target: Target, at: Blocks) -> tuple[Float[Tensor, "points m"], Weights]:
    """b (for FA) and the weights, from sizes P_j = |b_j v_j| and from |w_j|^2 / 2 relative to them."""
    products, shares = _geometric(at["products"], SMALL, 1.0), _geometric(at["shares"], SMALL, 0.99)
    hidden, signs = _signed(at["hidden"]), _sign(at["output signs"])
    feedback = signs * _geometric(at["feedback"], 0.3, 3.0)
    if target.gaps == "any":
        feedback = feedback * _sign(at["feedback signs"])
        shares = 4 * shares
    if target.rule == "fa":
        rows = normalize(hidden, dim=-1) * (2 * shares * products).sqrt().unsqueeze(-1)
        return feedback, Weights(rows, signs * products / feedback.abs())
    whole = normalize(hidden.flatten(1), dim=-1).reshape(hidden.shape)
    squared = 2 * shares[:, 0] * products.sum(-1)
    return feedback, Weights(whole * squared.sqrt()[:, None, None], signs * products)


def instances(target: Target, setting: Setting, points: Float[Tensor, "points k"]) -> tuple[Flow, Weights]:
    """The ensemble of problems of points of the cube: they meet the hypotheses of the target, wherever the points are."""
    sizes = {name: math.prod(shape) for name, shape in _blocks(setting).items()}
    parts = zip(_blocks(setting).items(), points.split(list(sizes.values()), -1), strict=True)
    at = {name: part.reshape(-1, *shape) for (name, shape), part in parts}
    radii, labels = _geometric(at["radii"], 0.3, 2.0), _sign(at["labels"])
    signed = radii.unsqueeze(-1) * _signed_inputs(target.data, setting, at, radii)
    feedback, weights = _weights(target, at)
    rule = FeedbackAlignment(feedback) if target.rule == "fa" else SignFeedbackAlignment()
    return Flow(Dataset(labels.unsqueeze(-1) * signed, labels), rule, "exponential", setting.slope), weights


def arrays(flow: Flow, weights: Weights, t_final: float, index: int) -> dict[str, np.ndarray | float]:
    """One problem of an ensemble, as `--data` reads it."""
    tensors = {"inputs": flow.dataset.inputs, "labels": flow.dataset.labels, **weights.tensors}
    if isinstance(flow.rule, FeedbackAlignment):
        (feedback,) = flow.rule.feedback_matrices(weights)
        tensors["feedback"] = feedback.squeeze(-2)
    found = {name: tensor[index].cpu().numpy() for name, tensor in tensors.items()}
    return {**found, "slope": float(flow.slope), "t_final": t_final}


# --- margins of an ensemble ---


def _solved(flow: Flow, weights: Weights, t_final: float) -> tuple[Solution[Weights] | None, Tensor]:
    """The solution of those problems of an ensemble that can be solved, and which these are."""
    which = torch.arange(weights.batch_shape.numel(), device=weights.hidden.device)
    while len(which):
        some = flow.map_matrices(weights, lambda matrix: matrix[which])  # noqa: B023
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
    seen = observe(solution, pieces, solution)
    if statement.rate is not None:
        over = INTEGRALS.to(pieces.start) @ statement.rate(seen) * (pieces.end - pieces.start)
        seen.integral = along(over[-1], pieces.trajectory, lambda rows: rows.cumsum(1)) - over[-1] + over
    values = [
        (found if claim.kind == "inequality" else -found.abs()).amin((0, 2))
        for claim in statement.claims
        for found in [claim.values(seen)]
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
        spent: its budget.
        device: where ensembles are solved.
        margin: the smallest so far.
        tightest: its problem, as `--data` reads it.
        evaluations: problems solved so far.
    """

    target: Target
    spent: Spent
    device: str = "cpu"
    margin: float = math.inf
    tightest: dict[str, np.ndarray | float] = field(default_factory=dict)
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
        first = self.evaluate(setting, points).argsort()[:DESCENTS]
        for start in points[first]:
            self._descend(setting, start)

    def evaluate(self, setting: Setting, points: Float[Tensor, "points k"]) -> Float[Tensor, " points"]:
        """The margins at points, of which the smallest is kept.

        Raises:
            OutOfBudgetError: if the budget is spent.
        """
        if self.spent(self.evaluations) >= 1:
            raise OutOfBudgetError
        points = points.to(self.device)
        found = margins(self.target, setting, points)
        self.evaluations += len(points)
        best = int(found.argmin())
        if found[best] < self.margin:
            self.margin = found[best].item()
            self.tightest = arrays(*instances(self.target, setting, points[best : best + 1]), setting.t_final, 0)
        return found.cpu()

    def _descend(self, setting: Setting, start: Float[Tensor, " k"]) -> None:
        """L-BFGS-B in the cube, with difference quotients of which each gradient is one ensemble."""
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
            options={"maxiter": ITERATIONS},
        )


def _setting(generator: torch.Generator) -> Setting:
    """A random setting: n = 2..4, m = 2..4, slope in [0.1, 1], T in [0.1, 3]."""
    samples, width = torch.randint(2, 5, (2,), generator=generator).tolist()
    slope, t_final = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return Setting(samples, width, 0.1 + 0.9 * slope, 0.1 * 30**t_final)


# --- searching all targets ---


def recheck(target: Target, file: Path, device: str) -> Check | None:
    """The check that `--data` makes of a file; None if it cannot be solved or measured there."""
    try:
        solution = own_data.runs(str(file), device)[target.rule]()
        return check(target.statement, target.case, "theorem", [solution])
    except (IntegrationError, NoMarginError):
        return None


def keep(hunt: Hunt, folder: Path) -> Found:
    """Write what a hunt has found, and judge it."""
    file = folder / hunt.target.file
    write_npz(file, hunt.tightest)
    result = recheck(hunt.target, file, hunt.device)
    name, case = hunt.target.statement.name, hunt.target.case
    if result is None:
        return Found(name, case, "-", None, None, "undecided", hunt.evaluations, file)
    claims = result.details["claims"]
    claim = min(claims, key=lambda name: claims[name]["margin"])
    return Found(name, case, claim, result.margin, result.error_bound, result.verdict, hunt.evaluations, file)


def search(minutes: float, names: Sequence[str], device: str, folder: Path, console: Console) -> list[Found]:
    """Search the targets of the named statements, the time shared equally; Ctrl-C ends it with what was found by then.

    Raises:
        ValueError: if the minutes are not positive, or the folder cannot be written to.
    """
    seconds = 60 * require_positive("--search", minutes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder} cannot be made: {error.strerror}") from None
    targets = [target for target in TARGETS if target.statement.name in names]
    found: list[Found] = []
    try:
        for target in targets:
            hunt = Hunt(target, lambda evaluations: 0.0, device)
            try:
                _hunt(hunt, seconds / len(targets), console)
            finally:
                if hunt.tightest:
                    found.append(keep(hunt, folder))
                    if found[-1].verdict == "violated":
                        console.print(f"[bold red]counterexample[/] to {target.statement.title}: {found[-1].file}")
    except KeyboardInterrupt:
        console.print("interrupted")
    return found


def _hunt(hunt: Hunt, seconds: float, console: Console) -> None:
    """Run a hunt for some seconds, with a progress bar."""
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    start = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=seconds)

        def spent(evaluations: int) -> float:
            elapsed = time.perf_counter() - start
            text = f"{hunt.target.statement.name}, {hunt.target.case}: {hunt.margin:.2e}"
            bar.update(task, completed=min(elapsed, seconds), description=text)
            return elapsed / seconds

        hunt.spent = spent
        hunt.run()


def table(found: Sequence[Found]) -> Table:
    """One row per target: how close to 0 its margin was pushed."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("tightest instance found")
    grid.add_column("of the claim")
    for heading in ("verdict", "margin", "error", "tried"):
        grid.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=True)
    for item in found:
        colour = "green" if item.verdict == "holds" else "bold red"
        margin, error = ("-" if value is None else f"{value:.1e}" for value in (item.margin, item.error_bound))
        verdict = f"[{colour}]{item.verdict}[/]"
        grid.add_row(f"{item.statement}: {item.case}", item.claim, verdict, margin, error, str(item.evaluations))
    return grid
