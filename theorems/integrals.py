"""Integrals over time of what is observed, by Lobatto quadrature on every piece, and how far it is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim import Solution
from theorems.observation import Observation, in_pairs, in_turn
from theorems.pieces import accumulate
from theorems.polynomial import FEWER, INTEGRAL_ROUNDINGS, INTEGRALS

Rate = Callable[[Observation], Float[Tensor, "nodes pieces *parts"]]
"""What is integrated over time: a number, or several, such as one for each neuron."""


def integrals_before(
    rate: Rate, solution: Solution
) -> tuple[Float[Tensor, "pieces *parts"], Float[Tensor, "pieces *parts"]]:
    """The integral of the rate from 0 to the start of each piece, and its error so far."""
    parts = [_integrated(seen, rate) for _, seen in in_turn(solution)]
    return _summed_before(parts, solution.pieces.trajectory)


def _summed_before(
    chunks: Sequence[tuple[Tensor, Tensor]], trajectory: Int[Tensor, " pieces"]
) -> tuple[Float[Tensor, "pieces *parts"], Float[Tensor, "pieces *parts"]]:
    """The integral before each piece and its error, from those over each piece of all chunks."""
    over = [torch.cat([column[-1] for column in columns]) for columns in zip(*chunks, strict=True)]
    integral, error = (accumulate(column, trajectory, _of_those_before) for column in over)
    return integral, error


def _of_those_before(rows: Float[Tensor, "ensemble pieces *parts"]) -> Float[Tensor, "ensemble pieces *parts"]:
    """Sums of the entries before each: the sum up to it, less it, would be rounding where the entries grow fast."""
    return torch.nn.functional.pad(rows, (0, 0) * (rows.ndim - 2) + (1, -1)).cumsum(1)


def add_integral(
    observation: Observation, rate: Rate, before: Float[Tensor, "pieces *parts"], error: Float[Tensor, "pieces *parts"]
) -> None:
    """Give the observation its `integral`: that of the rate from 0 to the start of each piece, and on to its nodes."""
    over, off = _integrated(observation, rate)
    observation.integral, observation.integral_error = before + over, error + off


def _integrated(observation: Observation, rate: Rate) -> tuple[Tensor, Tensor]:
    """The integral of the rate from the start of each piece to its nodes, and its error.

    That is how far a rule of lower degree is off up to there, and the rounding of one piece, 0 at its start. Rounding
    of sums over pieces is that of `thresholds.ROUNDING_PER_STEP`.
    """
    values = rate(observation)
    lengths = (observation.pieces.end - observation.pieces.start).reshape(-1, *[1] * (values.ndim - 2))
    over, fewer = (torch.tensordot(table.to(values), values, 1) * lengths for table in (INTEGRALS, FEWER))
    rounding = INTEGRAL_ROUNDINGS * torch.finfo(values.dtype).eps * lengths * values.abs().amax(0)
    error = (over - fewer).abs().cummax(0).values
    error[1:] += rounding
    return over, error


@dataclass(frozen=True, eq=False)
class Before:
    """The integral of a rate from 0 to the start of each piece and its error, along the solution and the companion."""

    rate: Rate
    values: Float[Tensor, "curves 2 pieces *parts"]

    @classmethod
    def of(cls, rate: Rate, solution: Solution) -> Before:
        """Of all pieces of a solution."""
        parts = [[_integrated(seen, rate) for seen in pair] for _, pair in in_pairs(solution)]
        curves = [_summed_before(curve, solution.pieces.trajectory) for curve in zip(*parts, strict=True)]
        return cls(rate, torch.stack([torch.stack(curve) for curve in curves]))

    def some(self, which: slice | Tensor) -> Before:
        """Of some of the pieces."""
        return replace(self, values=self.values[:, :, which])

    def of_halves(self, pair: tuple[Observation, Observation]) -> Before:
        """Of halves, given that of their whole pieces twice: the second half starts where the first ends."""
        over = torch.stack([torch.stack([column[-1] for column in _integrated(seen, self.rate)]) for seen in pair])
        values = self.values.clone()
        values[:, :, 1::2] += over[:, :, ::2]
        return replace(self, values=values)
