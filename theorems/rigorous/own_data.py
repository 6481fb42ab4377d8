"""The statements on a problem of your own, proved: which hypotheses hold, exactly, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch

from flowsim import FeedbackAlignment, Flow, SignFeedbackAlignment, Weights
from flowsim.losses import named
from theorems.check import Check
from theorems.own_data import KINDS
from theorems.rigorous import (
    equation_1,
    lemma_5_4,
    proposition_5_3,
    proposition_5_7,
    theorem_5_1,
    theorem_5_2,
)
from theorems.rigorous.claims import EnclosedRun, Hypothesis
from theorems.rigorous.decimals import DIGITS, Interval, rounded
from theorems.rigorous.instance import Instance, Vector
from theorems.rigorous.statement import Statement, check

BITS = 256
"""Of the balls; more where these do not suffice."""

STATEMENTS: list[Statement] = [
    equation_1.STATEMENT,
    theorem_5_1.statement(2, partial(theorem_5_1.mu_measured, 2, Fraction(99, 100))),
    theorem_5_2.STATEMENT,
    proposition_5_3.STATEMENT,
    lemma_5_4.STATEMENT,
    *proposition_5_7.STATEMENTS.values(),
]
"""Those of `theorems.own_data`. Theorem 5.1 takes for mu 99 % of a lower bound of the dominance ratio along the run."""


def runs(problems: dict[str, tuple[Flow, Weights]], t_final: float) -> dict[str, Callable[[], EnclosedRun]]:
    """The problems by rule, with what floats they have taken for the rational numbers that these are."""
    return {rule: partial(_enclosed, instance_of(*problem, t_final)) for rule, problem in problems.items()}


def _enclosed(instance: Instance) -> EnclosedRun:
    """The run, enclosed already: if that is not possible, it is said once."""
    run = EnclosedRun(instance, BITS)
    _ = run.enclosure
    return run


def instance_of(flow: Flow, weights: Weights, t_final: float) -> Instance:
    """A problem of one trajectory, exactly."""
    rule = flow.rule
    feedback = rule.feedback_matrices(weights)[0] if isinstance(rule, FeedbackAlignment) else None
    return Instance(
        inputs=_rows(flow.dataset.inputs),
        labels=tuple(int(label) for label in flow.dataset.labels.flatten().tolist()),
        hidden=_rows(weights.hidden),
        output=_vector(weights.output),
        slope=Fraction(flow.slope),
        t_final=Fraction(t_final),
        loss=named(flow.loss).name,
        feedback=None if feedback is None else _vector(feedback),
        scale=Fraction(rule.scale) if isinstance(rule, SignFeedbackAlignment) else None,
    )


def _vector(numbers: torch.Tensor) -> Vector:
    return tuple(map(Fraction, numbers.flatten().tolist()))


def _rows(matrix: torch.Tensor) -> tuple[Vector, ...]:
    return tuple(map(_vector, matrix.reshape(-1, matrix.shape[-1])))


def decided(statement: Statement, label: str, run: EnclosedRun) -> Check:
    """The check of a statement on the problem; errors as in `check`."""
    return check(statement, label, "theorem", [run])


def described(hypotheses: Sequence[Hypothesis]) -> dict[str, dict[str, Any]]:
    """Hypotheses by name: whether they hold, and with which slack."""
    return {item.name: item.described for item in hypotheses}


def constants(run: EnclosedRun) -> dict[str, Interval]:
    """The separability constants of the data."""
    instance = run.instance
    values = {"kappa": instance.kappa, "R^2": instance.squared_radius, "SVM margin^2": instance.squared_svm_margin}
    if instance.squared_radius > 0:
        values["rho"] = instance.rho
    return {name: (rounded(value, DIGITS, up=False), rounded(value, DIGITS, up=True)) for name, value in values.items()}


def kinds(run: EnclosedRun) -> dict[str, dict[str, dict[str, Any]]]:
    """What decides whether the data are of each kind."""
    return {name: described(proposition_5_7.data_hypotheses(kind, run.instance)) for name, kind in KINDS.items()}
