"""Verdicts: what a hypothesis, a statement and a check are (theorems/README.md, section 9)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from flowsim import Solution
from theorems.hypothesis import Hypothesis, all_hold
from theorems.integrals import Rate
from theorems.measurement import Claim, Margin, NoMarginError, measure
from theorems.observation import require_plain_time
from theorems.thresholds import BESIDE, EQUALITY_ERROR
from theorems.validity import along_the_run

Verdict = Literal["holds", "violated", "undecided", "proved", "refuted"]
"""The last two, and undecided, are those of enclosed runs (`theorems.rigorous`)."""
Role = Literal["theorem", "control"]


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, or beyond it: where it is found, what it assumes, what it claims.

    Args:
        name: the module's name.
        title: the statement's number and subject.
        formula: what it says, in LaTeX.
        hypotheses: its own, measured on a solution.
        claims: its conclusions; the first one with a constant is compared with it in tables.
        rate: of the integral that claims use.
        constants: of the statement on a solution, by name, to be reported.
        beyond: whether it goes beyond the paper.
        decay: whether it is about flows with their weight decay, which else is no part of what should move the weights.
    """

    name: str
    title: str
    formula: str
    hypotheses: Callable[[Solution], list[Hypothesis]]
    claims: Sequence[Claim]
    rate: Rate | None = None
    constants: Callable[[Solution], dict[str, Tensor]] = lambda solution: {}
    beyond: bool = False
    decay: bool = False


@dataclass(frozen=True)
class Case:
    """A statement on ensembles: a theorem case meets the hypotheses; a control breaks one of them.

    Trajectories of one ensemble have one shape; a case has an ensemble for each width, number of samples and slope.
    """

    statement: Statement
    label: str
    role: Role
    runs: Sequence[Callable[[], Solution]]

    def examined(self, number: int) -> Examined:
        """Solve a run of the case and measure; errors as in `examined`, and `flowsim.IntegrationError`."""
        return examined(self.statement, self.label, self.role, self.runs[number]())

    def combined(self, ensembles: Sequence[Examined]) -> Check:
        """The check of the case, from all its runs in order."""
        return combined(self.statement, self.label, self.role, ensembles)


def control(label: str, statement: Statement, run: Callable[[], Solution]) -> Case:
    """A control of one run."""
    return Case(statement, label, "control", [run])


@dataclass(frozen=True)
class Check:
    """The outcome of a case, as `python -m theorems --json` writes it."""

    name: str
    case: str
    role: Role
    verdict: Verdict
    margin: float | None
    error_bound: float | None
    trajectories: int
    details: dict[str, Any] = field(default_factory=dict)
    beyond: bool = False

    @property
    def as_expected(self) -> bool:
        """Whether a theorem holds or is proved, or a control is violated or refuted."""
        return self.verdict in (("holds", "proved") if self.role == "theorem" else ("violated", "refuted"))


class DoesNotApplyError(ValueError):
    """The hypotheses of the statement of that name do not hold; `hypotheses` has all of them, measured or proved."""

    def __init__(self, name: str, hypotheses: Sequence[Any]) -> None:
        super().__init__(name, hypotheses)  # what pickle makes it of again
        self.name, self.hypotheses = name, hypotheses

    def __str__(self) -> str:
        broken = [f"{item.name} (slack {item.shown})" for item in self.hypotheses if not item.holds]
        return f"{self.name} does not apply: {'; '.join(broken)}"


def holds(claim: Claim, margin: Margin) -> Bool[Tensor, " ensemble"]:
    """Where the margin exceeds its error; for an equality, where the deviation is below a small error."""
    if claim.kind == "inequality":
        return margin.surely > 0
    return (margin.margin >= -margin.error) & (margin.error <= EQUALITY_ERROR)


def verdict(claims: Sequence[Claim], margins: Sequence[Sequence[Margin]], role: Role) -> Verdict:
    """Combine the margins of ensembles, one for each claim.

    A theorem holds if every claim holds on every trajectory, and is violated if one is. A control is violated only if
    every trajectory violates a claim.
    """
    violated = torch.cat([torch.stack([margin.violated for margin in run]).any(0) for run in margins])
    if violated.any() if role == "theorem" else violated.all():
        return "violated"
    every = all(holds(claim, margin).all() for run in margins for claim, margin in zip(claims, run, strict=True))
    return "holds" if every else "undecided"


def check(statement: Statement, label: str, role: Role, solutions: Iterable[Solution]) -> Check:
    """Decide a statement on ensembles; errors as in `examined`."""
    return combined(statement, label, role, [examined(statement, label, role, solution) for solution in solutions])


@dataclass(frozen=True, eq=False)
class Examined:
    """What a statement comes to on one ensemble: its hypotheses, the margins of its claims, and both for JSON."""

    hypotheses: Sequence[Hypothesis]
    margins: Sequence[Margin]
    described: dict[str, Any]


def examined(statement: Statement, label: str, role: Role, solution: Solution) -> Examined:
    """Measure a statement on an ensemble.

    Raises:
        DoesNotApplyError: if a theorem's hypotheses do not hold there.
        NoMarginError: if a claim has no finite margin, or a hypothesis cannot be measured.
        ValueError: if a control breaks no hypothesis; for a solution in logarithmic time.
    """
    require_plain_time(solution)
    hypotheses = hypotheses_of(statement, solution)
    for item in hypotheses:
        if item.slack.isnan().any():
            raise NoMarginError(f"the hypothesis {item.name!r} cannot be measured: a number overflows")
    require_role(statement, label, role, hypotheses)
    margins = measure(statement.claims, solution, statement.rate)
    return Examined(hypotheses, margins, _described(statement, solution, margins))


def require_role(statement: Statement, label: str, role: Role, hypotheses: Sequence[Hypothesis]) -> None:
    """Check that a theorem's hypotheses hold, and that a control breaks one.

    Raises:
        DoesNotApplyError: if a theorem's do not.
        ValueError: if a control breaks none.
    """
    applies = all_hold(hypotheses)
    if role == "theorem" and not applies:
        raise DoesNotApplyError(statement.name, hypotheses)
    if role == "control" and applies:
        raise ValueError(f"the control {statement.name}: {label} breaks no hypothesis")


def combined(statement: Statement, label: str, role: Role, ensembles: Sequence[Examined]) -> Check:
    """The check of a statement from what it comes to on each ensemble: the worst of all."""
    slacks: dict[str, dict[str, Any]] = {}
    for item in itertools.chain.from_iterable(ensemble.hypotheses for ensemble in ensembles):
        before = slacks.get(item.name, {"holds": True, "slack": torch.inf})
        slack = min(item.slack.min().item(), before["slack"])
        slacks[item.name] = {"holds": item.holds and before["holds"], "slack": slack}
    runs = [ensemble.described for ensemble in ensembles]
    claims = {
        claim.name: min((run["claims"][claim.name] for run in runs), key=lambda entry: entry["margin"])
        for claim in statement.claims
    }
    worst = min(claims.values(), key=lambda entry: entry["margin"])
    return Check(
        name=statement.name,
        case=label,
        role=role,
        verdict=verdict(statement.claims, [ensemble.margins for ensemble in ensembles], role),
        margin=worst["margin"],
        error_bound=worst["error_bound"],
        trajectories=sum(run["trajectories"] for run in runs),
        details={"hypotheses": slacks, "claims": claims, "runs": runs},
        beyond=statement.beyond,
    )


def hypotheses_of(statement: Statement, solution: Solution) -> list[Hypothesis]:
    """What a statement assumes, and what every statement does: that the run is a solution of its flow."""
    return [*statement.hypotheses(solution), *along_the_run(solution, statement.decay)]


def _described(statement: Statement, solution: Solution, margins: Sequence[Margin]) -> dict[str, Any]:
    """An ensemble and the margins on it, for JSON."""
    start = solution.start
    pairs = zip(statement.claims, margins, strict=True)
    return {
        "samples": solution.flow.dataset.samples,
        "dimension": solution.flow.dataset.dimension,
        "widths": [layer.shape[-2] for layer in start.layers[:-1]],
        "slope": solution.flow.activation.leaky_slope,
        "t_final": solution.t_final,
        "trajectories": solution.batch_shape.numel(),
        "claims": {claim.name: _worst(claim, margin, solution) for claim, margin in pairs},
        "constants": {name: value.tolist() for name, value in statement.constants(solution).items()},
        "solver": {name: count.tolist() for name, count in solution.statistics.items()},
    }


def _worst(claim: Claim, margin: Margin, solution: Solution) -> dict[str, Any]:
    """The smallest margin of an ensemble: its error bound, where it sits, and the constants claimed and measured."""
    index = int(margin.margin.argmin())
    value, time = margin.margin[index].item(), margin.time[index].item()
    entry = {
        "margin": value,
        "error_bound": margin.error[index].item(),
        "trajectory": index,
        "time": time,
        "place": place(solution, index, time),
    }
    if claim.constant is not None:
        constants = claim.constant(solution)[index]
        claimed = (constants if constants.ndim == 0 else constants[margin.part[index]]).item()
        entry |= {"claimed": claimed, "measured": claimed * (1 + value)}
    return entry


def place(solution: Solution, trajectory: int, time: float) -> str:
    """Where in a run a time is: start, end, at an event (which), or between events."""
    if time == 0:
        return "start"
    events = solution.events
    near = ((events.time - time).abs() <= BESIDE * time) & (events.trajectory == trajectory)
    if near.any():
        event = int(near.nonzero()[0])
        where = f"neuron {events.neuron[event].item()}"
        if events.sample[event] >= 0:
            where += f", sample {events.sample[event].item()}"
        return f"{events.kind[event]} of {where}"
    return "end" if time >= solution.t_final * (1 - BESIDE) else "between events"
