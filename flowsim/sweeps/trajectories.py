"""The trajectories of a sweep: the flow and the initial weights of each, and many of them as one ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flowsim import data, weights
from flowsim.flow import Flow
from flowsim.problems import Init, Problem, Source, problem
from flowsim.rules import FeedbackAlignment
from flowsim.sweeps.grid import Cell, Member
from flowsim.sweeps.keys import AnyGrid, as_grid
from flowsim.validation import require_count


def problem_of(grid: AnyGrid, trajectory: int) -> Problem:
    """Return the flow and the initial weights of a trajectory of a sweep, to solve it again and look at it.

    Args:
        grid: of the sweep.
        trajectory: its number, as in the column of that name.

    Raises:
        ValueError: if there is no such trajectory, or there are no such data or weights.

    >>> grid = {"samples": 4, "dimension": 3, "kappa": 0.1, "width": [5, 6], "seeds": 10, "t_final": 1.0}
    >>> problem_of(grid, 13).weights
    Weights(hidden (6, 3), output (6,))
    """
    known = as_grid(grid)
    cell, member = known.trajectory(require_count("trajectory", trajectory, least=0, most=known.trajectories - 1))
    return made(cell, member, known.label)


def made(cell: Cell, member: Member, label: str | None) -> Problem:
    """The problem of one trajectory: its seed is that of the data, of the weights and of the feedback.

    Raises:
        ValueError: if there are no such data or weights.
    """
    dataset = cell.data.dataset(member.seed, label)
    init = Init("gaussian", cell.width, member.seed, member.scale)
    if member.gap is not None:
        init = Init("gaps", cell.width, member.seed, member.scale, member.gap)
    return problem(Source(cell.data.name, dataset, "", {}, {}), cell.rule, cell.loss, cell.slope, init)


def ensemble(problems: Sequence[Problem]) -> Problem:
    """Problems of one cell as one: an ensemble, where they have the same data only these once."""
    flows = [each.flow for each in problems]
    first, datasets, rule = flows[0], [flow.dataset for flow in flows], flows[0].rule
    dataset = datasets[0] if all(each is datasets[0] for each in datasets) else data.stack(datasets)
    if isinstance(rule, FeedbackAlignment):
        matrices = [flow.rule.feedback_matrices(each.weights) for flow, each in zip(flows, problems, strict=True)]
        rule = FeedbackAlignment(tuple(torch.stack(several) for several in zip(*matrices, strict=True)))
    return Problem(
        Flow(dataset, rule, first.loss, first.slope),
        weights.stack([each.weights for each in problems]),
    )
