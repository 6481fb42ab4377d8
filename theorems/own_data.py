"""The statements on a problem of your own: which hypotheses hold, with which constants, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from flowsim import Dataset, Flow, Solution, Weights, solve
from flowsim.problems import Init, Source, number_of, problem, slope_of
from flowsim.validation import require_positive
from theorems import (
    any_start,
    equation_1,
    implicit_bias,
    lemma_5_4,
    linear_networks,
    margin_growth,
    never_obtuse,
    no_plateau,
    proposition_5_3,
    proposition_5_7,
    theorem_5_1,
    theorem_5_2,
)
from theorems.check import Check, Statement, check
from theorems.ensembles import ATOL, RTOL
from theorems.hypothesis import Hypothesis

STATEMENTS: list[Statement] = [
    equation_1.STATEMENT,
    equation_1.ANGLE,
    theorem_5_1.statement(2, theorem_5_1.mu_measured(2, 0.99)),
    theorem_5_2.STATEMENT,
    proposition_5_3.STATEMENT,
    lemma_5_4.STATEMENT,
    proposition_5_7.SEPARABLE,
    proposition_5_7.BOUNDARY,
    proposition_5_7.NEARLY_ORTHOGONAL,
    proposition_5_7.ANY_SEPARABLE,
    proposition_5_7.LOGISTIC,
    any_start.STATEMENT,
    margin_growth.DESCENT,
    margin_growth.STATEMENT,
    never_obtuse.COLUMNS,
    linear_networks.MATRIX,
    no_plateau.STATEMENT,
    no_plateau.DESCENT,
    implicit_bias.STATEMENT,
]
"""Theorem 5.1 takes for mu 99 % of the infimum of the dominance ratio along the run."""


KINDS = {
    "orthogonally separable": "orthogonally separable",
    "so, or on the boundary": "boundary",
    "linearly separable": "separable",
    "nearly orthogonal": "nearly orthogonal",
}
"""What data are said to be, and the kind of Proposition 5.7 that this is."""

WIDTH, NARROW = 8, 4
"""Of weights that are made up, and where runs are enclosed."""

T_FINAL = 10.0


def start(dataset: Dataset, width: int, seed: int = 0) -> Init:
    """Weights that meet the hypotheses on starts: all c_j > 0, with |w_j| |x_i| of about 1 / sqrt(m).

    >>> str(start(Dataset([[3.0, 4.0]], [1]), 16))
    'gaps, width 16, seed 0, scale 0.05, gap 0.05'
    """
    radius = dataset.inputs.norm(dim=-1).max().item()
    scale = 1.0 if radius == 0 else width**-0.5 / radius
    return Init("gaps", (width,), seed, scale=float(f"{scale:.3g}"))  # as it is printed


def problems(
    source: Source, loss: str = "exponential", init: Init | None = None
) -> tuple[dict[str, tuple[Flow, Weights]], float]:
    """The problem in a file by rule, and t_final: sign-FA, GD, and FA if there are feedback weights or an `init`.

    Optional keys of an .npz file: `slope` (default 0.3), `t_final` (default 10). Without another the loss is
    exponential, as in Proposition 5.7.

    Raises:
        ValueError: if something is missing, does not fit, or has not labels of two values.
    """
    if source.dataset.classes is not None:
        classes = source.dataset.classes
        raise ValueError(f"{source.path} must have labels of two values for the statements, got {classes} classes")
    slope, t_final = slope_of(source), require_positive("t_final", number_of(source, "t_final", T_FINAL))
    rules = ["sign-fa", "gd"] if init is None and "feedback" not in source.weights else ["fa", "sign-fa", "gd"]
    found = {}
    for rule in rules:
        flow, weights = problem(source, rule, loss, slope, init)
        assert isinstance(weights, Weights), "a file has two layers, and so has an init of one width"
        found[rule] = flow, weights
    return found, t_final


def runs(
    source: Source, loss: str = "exponential", init: Init | None = None, *, progress: bool = False
) -> dict[str, Callable[[], Solution]]:
    """How to solve the problem in a file, by rule; errors as in `problems`."""
    found, t_final = problems(source, loss, init)
    return {
        rule: partial(solve, *_ensemble_of_one(*problem), t_final, rtol=RTOL, atol=ATOL, progress=progress)
        for rule, problem in found.items()
    }


def _ensemble_of_one(flow: Flow, weights: Weights) -> tuple[Flow, Weights]:
    return flow.map_matrices(weights, lambda matrix: matrix.unsqueeze(0))


def constants(solution: Solution) -> dict[str, float]:
    """The separability constants of the data."""
    dataset = solution.flow.dataset
    values: dict[str, torch.Tensor] = {
        "kappa": dataset.kappa,
        "rho": dataset.rho,
        "R": dataset.squared_radius.sqrt(),
        "max |x_i|": dataset.inputs.norm(dim=-1).amax(-1),
        "SVM margin": dataset.svm_margin,
    }
    return {name: value.item() for name, value in values.items()}


def kinds(solution: Solution) -> dict[str, dict[str, dict[str, Any]]]:
    """What decides whether the data are of each kind."""
    return {name: described(proposition_5_7.data_hypotheses(kind, solution)) for name, kind in KINDS.items()}


def decided(statement: Statement, label: str, solution: Solution) -> Check:
    """The check of a statement on the problem; errors as in `check`."""
    return check(statement, label, "theorem", [solution])


def described(hypotheses: list[Hypothesis]) -> dict[str, dict[str, Any]]:
    """Hypotheses by name: whether they hold, and with which slack."""
    return {item.name: {"holds": item.holds, "slack": item.slack.min().item()} for item in hypotheses}
