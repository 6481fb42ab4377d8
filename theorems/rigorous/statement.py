"""Statements on enclosed runs, their cases, and verdicts: proved, refuted or undecided (README.md, section 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from theorems import check as measured
from theorems.check import Check, DoesNotApplyError, Role
from theorems.rigorous.claims import Decision, EnclosedRun, Hypothesis, Nonnegative
from theorems.rigorous.equality import Equal
from theorems.rigorous.instance import Instance

BITS = 128
"""Of the balls of cases; more where these do not suffice to take the next step."""

FINE_BITS = 192
"""Of those with equalities, which are proved to 30 digits, or with margins near 1e-23."""

Claim = Nonnegative | Equal

Judged = tuple[EnclosedRun, list[Hypothesis], dict[str, Decision]]
"""A run, and a statement's hypotheses and claims on it."""


@dataclass(frozen=True)
class Statement:
    """A statement of the paper on enclosed runs: what it assumes and claims, of `paper`'s name, title and formula."""

    paper: measured.Statement
    hypotheses: Callable[[EnclosedRun], list[Hypothesis]]
    claims: Callable[[EnclosedRun], Sequence[Claim]]

    @property
    def name(self) -> str:
        """The module's name."""
        return self.paper.name

    @property
    def title(self) -> str:
        """Its number and subject."""
        return self.paper.title

    @property
    def beyond(self) -> bool:
        """Whether it goes beyond the paper."""
        return self.paper.beyond


@dataclass(frozen=True)
class Case:
    """A statement on instances: a theorem case meets the hypotheses; a control breaks one of them."""

    statement: Statement
    label: str
    role: Role
    runs: Sequence[Callable[[], Instance]]
    bits: int = BITS

    def examined(self, number: int) -> Judged:
        """A run of the case, judged; errors as in `check`."""
        return _judged(self.statement, self.label, self.role, EnclosedRun(self.runs[number](), self.bits))

    def combined(self, runs: Sequence[Judged]) -> Check:
        """The check of the case, from all its runs in order."""
        return _combined(self.statement, self.label, self.role, runs)


def check(statement: Statement, label: str, role: Role, runs: Iterable[EnclosedRun]) -> Check:
    """Decide a statement on runs.

    A theorem is proved if every claim is on every run, and refuted if one is not on one. A control is refuted only if
    a claim is on every run.

    Raises:
        DoesNotApplyError: if a theorem's hypotheses do not hold, or are not proved to.
        Undecided: if a run cannot be enclosed.
        ValueError: if a control breaks no hypothesis.
    """
    return _combined(statement, label, role, [_judged(statement, label, role, run) for run in runs])


def _combined(statement: Statement, label: str, role: Role, found: Sequence[Judged]) -> Check:
    every = [decision for _, _, decisions in found for decision in decisions.values()]
    refuted = [any(decision.holds is False for decision in decisions.values()) for _, _, decisions in found]
    if any(refuted) if role == "theorem" else all(refuted):
        verdict = "refuted"
    else:
        verdict = "proved" if all(decision.holds for decision in every) else "undecided"
    claims = {
        name: min((_described(decisions[name], number) for number, (_, _, decisions) in enumerate(found)), key=_lowest)
        for name in found[0][2]
    }
    worst = min(claims.values(), key=_lowest)
    low, high = map(float, worst["interval"])
    return Check(
        name=statement.name,
        case=label,
        role=role,
        verdict=verdict,
        margin=(low + high) / 2,
        error_bound=(high - low) / 2,
        trajectories=len(found),
        details={
            "hypotheses": {item.name: item.described for _, hypotheses, _ in found for item in hypotheses},
            "claims": claims,
            "runs": [_run(run) for run, _, _ in found],
        },
        beyond=statement.beyond,
    )


def _judged(statement: Statement, label: str, role: Role, run: EnclosedRun) -> Judged:
    """A run with its hypotheses and claims."""
    hypotheses = statement.hypotheses(run)
    if role == "theorem" and not all(item.holds for item in hypotheses):
        raise DoesNotApplyError(statement.name, hypotheses)
    if role == "control" and all(item.holds is not False for item in hypotheses):
        raise ValueError(f"the control {statement.name}: {label} is not proved to break a hypothesis")
    return run, hypotheses, {claim.name: claim.decide(run) for claim in statement.claims(run)}


def _described(decision: Decision, number: int) -> dict[str, Any]:
    """A decision, for JSON."""
    return {
        "verdict": decision.verdict,
        "interval": decision.value,
        "time": decision.time,
        "part": decision.part,
        "trajectory": number,
    }


def _lowest(described: dict[str, Any]) -> tuple[int, float]:
    """The order of decisions, the worst first."""
    return ["refuted", "undecided", "proved"].index(described["verdict"]), float(described["interval"][0])


def _run(run: EnclosedRun) -> dict[str, Any]:
    """A run and its enclosure, for JSON."""
    instance, enclosure = run.instance, run.enclosure
    return {
        "samples": instance.samples,
        "dimension": len(instance.inputs[0]),
        "widths": [instance.width],
        "slope": float(instance.slope),
        "t_final": float(instance.t_final),
        "rule": instance.rule,
        "loss": instance.loss,
        "bits": enclosure.bits,
        "steps": len(enclosure.steps),
        "events": len(enclosure.events),
    }
