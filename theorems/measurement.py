"""The margin of a claim over the whole of a run, and its error (theorems/README.md, section 9).

A branch-and-bound over time. On each piece a lower bound is read off the Legendre coefficients of the polynomial that
passes through the nodes: the smallest Bernstein coefficient of its part of low degree, less the sizes of the others.
Pieces that could hold the smallest value are halved and observed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim import Solution
from flowsim.solution import Pieces
from theorems.observation import BERNSTEIN, INTEGRALS, LEGENDRE, Observation, in_chunks, observe

ROUNDING_PER_STEP = 16
"""Roundings of a weight per step: the terms of a series, or the stages of a step, are summed for the state and again in
dense output."""

CLOSE, CLOSE_ABSOLUTE = 1e-6, 1e-7
"""The lower bound is near enough to the smallest value found, relative to it or absolutely. The difference counts as
error. Values are relative to the size of what is compared; so near to 0, some are rounding, and an inequality is not
violated."""

HALVINGS = 40
"""Rounds of halving at most."""


class NoMarginError(ValueError):
    """A claim has no finite margin on a run: nothing can be decided."""


Values = Callable[[Observation], Float[Tensor, "nodes pieces parts"]]
Rate = Callable[[Observation], Float[Tensor, "nodes pieces"]]


@dataclass(frozen=True)
class Claim:
    """One conclusion of a statement, as numbers along a run.

    Args:
        name: the conclusion as a formula.
        kind: "inequality": all values must be positive; "equality": all must vanish.
        values: of an observation, relative to the size of what is compared.
        constant: what the claim says of an observable o is o > constant, and its values are o / constant - 1. One
            number per trajectory, or per trajectory and part.
    """

    name: str
    kind: Literal["inequality", "equality"]
    values: Values
    constant: Callable[[Solution], Float[Tensor, "ensemble *parts"]] | None = None


@dataclass(frozen=True, eq=False)
class Margin:
    """The margin of a claim on each trajectory of an ensemble, over [0, T].

    Args:
        margin: the smallest value of an inequality (less its error: errors grow in time); minus the largest deviation
            of an equality.
        surely: the smallest that it may be, by the errors of the run, of rounding, and between the nodes.
        time: where the margin sits.
        part: which part has it.
        violated: whether the margin is below 0 by more than its error somewhere, and by 1e-7 for an inequality.
    """

    margin: Float[Tensor, " ensemble"]
    surely: Float[Tensor, " ensemble"]
    time: Float[Tensor, " ensemble"]
    part: Int[Tensor, " ensemble"]
    violated: Bool[Tensor, " ensemble"]

    @property
    def error(self) -> Float[Tensor, " ensemble"]:
        """The error bound of the margin."""
        return self.margin - self.surely


def measure(claims: Sequence[Claim], solution: Solution, rate: Rate | None = None) -> list[Margin]:
    """The margins of claims along a solution, of a flattened ensemble.

    The error of an observable at a time is the largest difference between it along the solution and along the
    companion, up to that time, over the claim's parts (over all times for an equality), and rounding.

    Args:
        claims: what is claimed.
        solution: the run.
        rate: the claims' `Observation.integral` is its integral from 0.
    """
    pieces, companion = solution.pieces, solution.companion
    before = [None if rate is None else integrals_before(rate, curve, solution) for curve in (solution, companion)]
    readings: list[list[_Readings]] = [[] for _ in claims]
    for part in in_chunks(solution, pieces):
        here, there = (observe(curve, chosen(pieces, part), solution) for curve in (solution, companion))
        for observation, integral in zip((here, there), before, strict=True):
            if rate is not None and integral is not None:
                add_integral(observation, rate, integral[part])
        for claim, found in zip(claims, readings, strict=True):
            values, compared = claim.values(here), claim.values(there)
            difference = (values - compared).abs().amax((0, 2))
            found.append(_Readings.of(_signed(claim, values), here.times, difference))
    margins = []
    for claim, found in zip(claims, readings, strict=True):
        margins.append(_margin(claim, _with_errors(_joined(found), claim, solution), solution, rate, before[0]))
    return margins


def infimum(values: Values, solution: Solution) -> Float[Tensor, " ensemble"]:
    """The infimum of an observable over [0, T] on each trajectory, less its error bound.

    Its size at the start, unless that is 0, is what differences are compared with.
    """
    whose = torch.arange(solution.batch_shape.numel(), device=solution.pieces.start.device)
    start = torch.zeros_like(whose, dtype=solution.pieces.start.dtype)
    size = values(observe(solution, Pieces(whose, start, start), solution)).abs().amax((0, 2))
    size = torch.where(size > 0, size, 1.0)
    relative = Claim("infimum", "inequality", lambda seen: values(seen) / seen.of(size).unsqueeze(-1))
    return size * measure([relative], solution)[0].surely


def along(
    values: Float[Tensor, " pieces"], trajectory: Int[Tensor, " pieces"], scan: Callable[[Tensor], Tensor]
) -> Float[Tensor, " pieces"]:
    """A cumulative operation (over dimension 1) along each trajectory.

    >>> along(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]), lambda rows: rows.cumsum(1))
    tensor([1., 3., 3.])
    """
    counts = torch.bincount(trajectory)
    place = torch.arange(len(trajectory), device=trajectory.device) - (counts.cumsum(0) - counts)[trajectory]
    table = values.new_zeros(len(counts), int(counts.max()))
    table[trajectory, place] = values
    return scan(table)[trajectory, place]


@dataclass(frozen=True, eq=False)
class _Readings:
    """What is read off pieces for a claim.

    The smallest value at the nodes with its time and part, a lower bound for all times of the piece, and the error of
    both.
    """

    smallest: Float[Tensor, " pieces"]
    time: Float[Tensor, " pieces"]
    part: Int[Tensor, " pieces"]
    bound: Float[Tensor, " pieces"]
    error: Float[Tensor, " pieces"]

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "nodes pieces parts"],
        times: Float[Tensor, "nodes pieces"],
        error: Float[Tensor, " pieces"],
    ) -> _Readings:
        """Of the values at the nodes."""
        nodes, pieces, parts = values.shape
        smallest, index = values.permute(1, 0, 2).reshape(pieces, nodes * parts).min(-1)
        time = times.gather(0, (index // parts).unsqueeze(0)).squeeze(0)
        flat = values.reshape(nodes, pieces * parts)
        lowest = flat.amin(0)  # taken off: rounding then is that of the changes within the piece
        coefficients = LEGENDRE.to(flat) @ (flat - lowest)
        low, rest = coefficients.split([len(BERNSTEIN), nodes - len(BERNSTEIN)])
        bound = lowest + (BERNSTEIN.to(flat) @ low).amin(0) - rest.abs().sum(0)
        bound = bound.reshape(pieces, parts).amin(-1)
        return cls(smallest, time, index % parts, bound, error)


def _signed(claim: Claim, values: Tensor) -> Tensor:
    return values if claim.kind == "inequality" else -values.abs()


def chosen(pieces: Pieces, which: slice | Tensor) -> Pieces:
    """Some of the pieces."""
    return Pieces(*(column[which] for column in pieces))


def integrals_before(rate: Rate, curve: Solution, mode_of: Solution) -> Float[Tensor, " pieces"]:
    """The integral of the rate from 0 to the start of each piece."""
    pieces, parts = mode_of.pieces, []
    for part in in_chunks(mode_of, pieces):
        some = chosen(pieces, part)
        parts.append(_over(some, rate(observe(curve, some, mode_of))))
    over = torch.cat(parts)
    return along(over, pieces.trajectory, lambda rows: rows.cumsum(1)) - over


def add_integral(observation: Observation, rate: Rate, before: Float[Tensor, " pieces"]) -> None:
    """Give the observation its `integral`: that of the rate from 0 to the start of each piece, and on to its nodes."""
    lengths = observation.pieces.end - observation.pieces.start
    observation.integral = before + INTEGRALS.to(before) @ rate(observation) * lengths


def _over(pieces: Pieces, values: Float[Tensor, "nodes pieces"]) -> Float[Tensor, " pieces"]:
    """The integral over each piece."""
    return INTEGRALS[-1].to(values) @ values * (pieces.end - pieces.start)


def _with_errors(readings: _Readings, claim: Claim, solution: Solution) -> _Readings:
    """The readings with the errors accumulated along the run."""
    trajectory, steps = solution.pieces.trajectory, solution.statistics["steps"].reshape(-1)
    errors = along(readings.error, trajectory, lambda rows: rows.cummax(1).values)
    if claim.kind == "equality":
        errors = _per_trajectory(errors, trajectory, len(steps), "amax")[trajectory]
    per_step = ROUNDING_PER_STEP * torch.finfo(errors.dtype).eps
    rounding = per_step * steps[trajectory] * (1 + readings.smallest.abs())
    bound = readings.bound if claim.kind == "inequality" else readings.smallest
    return _Readings(readings.smallest, readings.time, readings.part, bound, errors + rounding)


def _margin(
    claim: Claim, readings: _Readings, solution: Solution, rate: Rate | None, before: Float[Tensor, " pieces"] | None
) -> Margin:
    """Branch and bound, for all trajectories at once, from the readings of all pieces."""
    pieces = solution.pieces
    count = solution.batch_shape.numel()
    if not (torch.isfinite(readings.smallest).all() and torch.isfinite(readings.error).all()):
        raise NoMarginError(f"the claim {claim.name!r} has no finite margin on this problem")
    least = readings.smallest.new_full((count,), torch.inf)
    surely, margin, time = least.clone(), least.clone(), least.clone()
    part, violated = torch.zeros_like(pieces.trajectory[:count]), torch.zeros_like(least, dtype=torch.bool)
    unresolved = CLOSE_ABSOLUTE if claim.kind == "inequality" else 0.0
    for halving in range(HALVINGS + 1):
        trajectory = pieces.trajectory
        sure = readings.smallest - readings.error
        violated[trajectory[readings.smallest < -(readings.error + unresolved)]] = True
        lowest = torch.minimum(least, _per_trajectory(sure, trajectory, count, "amin"))
        better = torch.nonzero((sure == lowest[trajectory]) & (sure < least[trajectory])).squeeze(-1).flip(0)
        owner = trajectory[better]  # of several equal ones the first stays, being written last
        margin[owner], time[owner], part[owner] = (
            column[better] for column in (readings.smallest, readings.time, readings.part)
        )
        least = lowest
        bound = readings.bound - readings.error
        near = CLOSE * least.abs() + CLOSE_ABSOLUTE
        open_ = (bound < (least - near)[trajectory]) & (halving < HALVINGS)
        surely = torch.minimum(surely, _per_trajectory(bound[~open_], trajectory[~open_], count, "amin"))
        if not open_.any():
            break
        pieces, before = _halves(chosen(pieces, open_)), None if before is None else _twice(before[open_])
        readings = _read_halves(claim, solution, pieces, rate, before, _twice(readings.error[open_]))
    return Margin(margin, torch.minimum(surely, least), time, part, violated)


def _read_halves(
    claim: Claim,
    solution: Solution,
    pieces: Pieces,
    rate: Rate | None,
    before: Float[Tensor, " pieces"] | None,
    errors: Float[Tensor, " pieces"],
) -> _Readings:
    """Read the claim off halves of pieces; `before`, the integral up to the whole piece, is brought up to the half."""
    found = []
    for part in in_chunks(solution, pieces):  # a half and the other are in the same chunk
        some = chosen(pieces, part)
        observation = observe(solution, some, solution)
        if rate is not None and before is not None:
            before[part][1::2] += _over(some, rate(observation))[::2]
            add_integral(observation, rate, before[part])
        found.append(_Readings.of(_signed(claim, claim.values(observation)), observation.times, errors[part]))
    return _joined(found)


def _joined(found: Sequence[_Readings]) -> _Readings:
    return _Readings(*[torch.cat([getattr(some, item.name) for some in found]) for item in fields(_Readings)])


def _twice(column: Tensor) -> Tensor:
    return torch.repeat_interleave(column, 2)


def _halves(pieces: Pieces) -> Pieces:
    middle = (pieces.start + pieces.end) / 2
    start = torch.stack([pieces.start, middle], -1).reshape(-1)
    end = torch.stack([middle, pieces.end], -1).reshape(-1)
    return Pieces(_twice(pieces.trajectory), start, end)


def _per_trajectory(
    values: Float[Tensor, " pieces"], trajectory: Int[Tensor, " pieces"], count: int, reduction: str
) -> Float[Tensor, " ensemble"]:
    """The smallest ("amin") or largest ("amax") value of each trajectory; infinity or minus infinity if it has none."""
    start = values.new_full((count,), torch.inf if reduction == "amin" else -torch.inf)
    return start.scatter_reduce(0, trajectory, values, reduction)
