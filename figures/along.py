"""Curves of what the theorems observe along a run: at the nodes of its pieces, with both limits where it jumps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from theorems.integrals import Rate, add_integral, integrals_before
from theorems.observation import observe
from theorems.pieces import chosen

Curve = tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]
"""Times and values."""


def along(
    solution: Solution, observables: Mapping[str, Rate], rate: Rate | None = None
) -> list[dict[str, Curve]]:  # fmt: skip
    """The curves of observables along each trajectory of the flattened ensemble.

    Args:
        solution: the run.
        observables: by name.
        rate: the observation's `integral` is its integral from 0.
    """
    before = None if rate is None else integrals_before(rate, solution)
    found = []
    for trajectory in range(solution.batch_shape.numel()):
        which = torch.nonzero(solution.pieces.trajectory == trajectory).squeeze(-1)
        seen = observe(solution, chosen(solution.pieces, which))
        if rate is not None and before is not None:
            add_integral(seen, rate, *(column[which] for column in before))
        found.append(
            {name: (seen.times.T.reshape(-1), value(seen).T.reshape(-1)) for name, value in observables.items()}
        )
    return found
