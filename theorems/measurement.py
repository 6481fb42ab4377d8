"""The margin of a claim over the whole of a run, and its error (theorems/README.md, section 9).

A claim says that numerator >= c denominator. It is decided in this cleared form, which is smooth on a piece; its
margin, numerator / (c denominator) - 1, is what is shown. A branch-and-bound over time: on each piece a lower bound is
read off the polynomials through the nodes, and pieces that could hold the smallest value are halved and observed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim import Solution
from flowsim.solution import Pieces
from theorems.integrals import Before, Rate, add_integral
from theorems.observation import Observation, in_pairs, in_parts, observe
from theorems.pieces import accumulate, chosen, extreme, halves, twice
from theorems.polynomial import lower_bound
from theorems.thresholds import EQUALITY_ERROR, HALVINGS, LEVEL, RESOLVED, RESOLVED_RELATIVE, ROUNDING_PER_STEP


class NoMarginError(ValueError):
    """A claim has no finite margin on a run: nothing can be decided."""


class Compared(NamedTuple):
    """What a claim compares, in cleared form: `excess` = numerator - c denominator, and `size` = c denominator >= 0.

    Both `nodes x pieces x parts`, and smooth on a piece: sums and products of what is smooth, not quotients by what may
    come near 0. The claim is excess >= 0, or excess = 0; its margin is excess / size.
    """

    excess: Float[Tensor, "nodes pieces parts"]
    size: Float[Tensor, "nodes pieces parts"]

    def of_pieces(self, which: slice) -> Compared:
        """On some of the pieces."""
        return Compared(self.excess[:, which], self.size[:, which])


def alone(values: Float[Tensor, "nodes pieces parts"]) -> Compared:
    """Values that are compared with 1."""
    return Compared(values, torch.ones_like(values))


def ratio(numerator: Float[Tensor, "nodes pieces"], denominator: Float[Tensor, "*some pieces"]) -> Compared:
    """numerator >= denominator, with one part."""
    return Compared((numerator - denominator).unsqueeze(-1), denominator.expand_as(numerator).unsqueeze(-1))


Values = Callable[[Observation], Compared]


@dataclass(frozen=True)
class Claim:
    """One conclusion of a statement, as numbers along a run.

    Args:
        name: the conclusion as a formula.
        kind: "inequality": the excess must be positive everywhere; "equality": it must vanish.
        values: of an observation.
        constant: what the claim says of an observable o is o > constant, and its margin is o / constant - 1. One
            number per trajectory, or per trajectory and part.
        squares: the claim is o > constant of numbers of either sign, and what is compared are o |o| and constant^2: a
            norm is not smooth where it comes near 0, and its square is. The margin is that of o.
    """

    name: str
    kind: Literal["inequality", "equality"]
    values: Values
    constant: Callable[[Solution], Float[Tensor, "ensemble *parts"]] | None = None
    squares: bool = False


def ratios_of(claim: Claim, compared: Compared) -> Float[Tensor, "nodes pieces parts"]:
    """The ratios of a claim, minus one, as its margin shows them."""
    ratios = compared.excess / compared.size
    return _root(ratios) if claim.squares else ratios


@dataclass(frozen=True, eq=False)
class Margin:
    """The margin of a claim on each trajectory of an ensemble, over [0, T].

    Args:
        margin: the smallest ratio of an inequality (less its error: errors grow in time); minus the largest deviation
            of an equality.
        surely: the smallest that it may be, by the errors of the run, of rounding, and between the nodes.
        time: where the margin sits.
        part: which part has it.
        violated: whether the excess is below 0 by more than its error somewhere, and by RESOLVED for an inequality; or
            deviates from 0 by more than its error and EQUALITY_ERROR.
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

    The error at a time is the largest difference between what is compared along the solution and along the companion,
    up to that time, over the claim's parts (over all times for an equality), with that of the integral, and rounding.

    Args:
        claims: what is claimed.
        solution: the run.
        rate: the claims' `Observation.integral` is its integral from 0.

    Raises:
        NoMarginError: if a number that is compared is not finite.
    """
    before = None if rate is None else Before.of(rate, solution)
    everything = _Parts(solution.pieces, solution.pieces, before)
    readings: list[list[_Readings]] = [[] for _ in claims]
    for part, pair in in_pairs(solution):
        with everything.some(part).integrated(pair):
            for claim, found in zip(claims, readings, strict=True):
                found.append(_read(claim, *pair))
    searches = [
        _Search(claim, solution, everything, _with_errors(_joined(found), claim, solution))
        for claim, found in zip(claims, readings, strict=True)
    ]
    under_way = searches
    for halving in range(HALVINGS + 1):
        under_way = [search for search in under_way if search.goes_on(last=halving == HALVINGS)]
        if not under_way:
            break
        _read_halves(under_way, solution)
    return [search.found for search in searches]


def infimum(values: Values, solution: Solution) -> Float[Tensor, " ensemble"]:
    """The infimum of an observable excess / size over [0, T] on each trajectory, less its error bound.

    Its size at the start, unless that is 0, is what differences are compared with.
    """
    whose = torch.arange(solution.batch_shape.numel(), device=solution.pieces.start.device)
    start = torch.zeros_like(whose, dtype=solution.pieces.start.dtype)
    excess, size = values(observe(solution, Pieces(whose, start, start)))
    unit = (excess / size).abs().amax((0, 2))
    unit = torch.where(unit > 0, unit, 1.0)

    def relative(seen: Observation) -> Compared:
        excess, size = values(seen)
        return Compared(excess, size * seen.of(unit).unsqueeze(-1))

    return unit * measure([Claim("infimum", "inequality", relative)], solution)[0].surely


@dataclass(frozen=True, eq=False)
class _Parts:
    """Parts of whole pieces, and the integral before each of them, if there is a rate."""

    pieces: Pieces
    whole: Pieces
    before: Before | None

    def some(self, which: slice | Tensor) -> _Parts:
        """Some of them."""
        before = None if self.before is None else self.before.some(which)
        return _Parts(chosen(self.pieces, which), chosen(self.whole, which), before)

    def halves(self) -> _Parts:
        """Both halves of each, `before` still that of what was halved."""
        before = self.before and replace(self.before, values=twice(self.before.values, 2))
        return _Parts(halves(self.pieces), Pieces(*map(twice, self.whole)), before)

    @classmethod
    def joined(cls, several: Sequence[_Parts]) -> _Parts:
        """Those of several."""
        pieces, whole = (
            Pieces(*map(torch.cat, zip(*columns, strict=True)))
            for columns in ([parts.pieces for parts in several], [parts.whole for parts in several])
        )
        before = several[0].before
        if before is not None:
            known = [parts.before.values for parts in several if parts.before is not None]
            before = replace(before, values=torch.cat(known, 2))
        return cls(pieces, whole, before)

    @contextmanager
    def integrated(self, pair: tuple[Observation, Observation]) -> Iterator[None]:
        """Give observations of these parts their integral for a while: they are kept for claims with other rates."""
        if self.before is None:
            yield
            return
        for seen, (integral, error) in zip(pair, self.before.values, strict=True):
            add_integral(seen, self.before.rate, integral, error)
        yield
        for seen in pair:
            del seen.integral, seen.integral_error


# --- what is read off pieces ---


@dataclass(frozen=True, eq=False)
class _Readings:
    """What is read off pieces for a claim.

    Args:
        smallest: the smallest ratio at the nodes, with its time and part.
        bound: a lower bound of the ratio for all times of the piece, by its polynomials.
        error: the difference to the companion, relative to the largest size on the piece.
        lever: the largest size on the piece, relative to the smallest that it may have there.
    """

    smallest: Float[Tensor, " pieces"]
    time: Float[Tensor, " pieces"]
    part: Int[Tensor, " pieces"]
    bound: Float[Tensor, " pieces"]
    error: Float[Tensor, " pieces"]
    lever: Float[Tensor, " pieces"]

    def some(self, which: Tensor) -> _Readings:
        """Of some of the pieces."""
        return _Readings(*(getattr(self, item.name)[which] for item in fields(self)))


def _read(claim: Claim, here: Observation, there: Observation, own: slice = slice(None)) -> _Readings:
    """The readings of a claim from the solution and the companion, off its own of the pieces.

    With r the smallest ratio at the nodes, d >= 0 how far excess - r size may come below 0, and s > 0 the least that
    size may be, the ratio is at least r - d / s on the piece.
    """
    compared, other = claim.values(here).of_pieces(own), claim.values(there).of_pieces(own)
    excess = compared.excess if claim.kind == "inequality" else -compared.excess.abs()
    size = compared.size
    nodes, pieces, parts = excess.shape
    ratios = (excess / size).permute(1, 0, 2).reshape(pieces, nodes * parts)
    smallest, index = ratios.min(-1)
    proper = torch.isfinite(excess).all() and torch.isfinite(ratios).all() and (size.amax(0) > 0).all()
    if not proper:
        raise NoMarginError(f"the claim {claim.name!r} has no finite margin on this problem")
    least = ratios.reshape(pieces, nodes, parts).amin(1)
    off = (compared.excess - other.excess).abs() + least.abs() * (size - other.size).abs()
    if hasattr(here, "integral"):
        off = off + _by_quadrature(claim, here, own, compared, least)
    largest = size.amax(0)
    below, lowest = _bounds(excess, size, least)
    least_size = torch.minimum(lowest, size.amin(0))
    lever = torch.where(least_size > 0, largest / least_size, torch.inf)
    slack = torch.where(below > 0, below / least_size.clamp(min=0), 0.0)
    return _Readings(
        smallest=smallest,
        time=here.times[:, own].gather(0, (index // parts).unsqueeze(0)).squeeze(0),
        part=index % parts,
        bound=(least - slack).amin(-1),
        error=(off.amax(0) / largest).amax(-1),
        lever=lever.amax(-1),
    )


def _bounds(
    excess: Float[Tensor, "nodes pieces parts"], size: Tensor, least: Float[Tensor, "pieces parts"]
) -> tuple[Float[Tensor, "pieces parts"], Float[Tensor, "pieces parts"]]:
    """How far excess - least size may come below 0 on a piece, and a lower bound of the size there."""
    above = excess - least * size
    below = -lower_bound(above.flatten(1)).reshape(least.shape)
    return below, lower_bound(size.flatten(1)).reshape(least.shape)


def _by_quadrature(claim: Claim, seen: Observation, own: slice, compared: Compared, least: Tensor) -> Tensor:
    """What the quadrature error of the integral changes in what is compared."""
    integral = seen.integral
    seen.integral = integral + seen.integral_error
    shifted = claim.values(seen).of_pieces(own)
    seen.integral = integral
    return (shifted.excess - compared.excess).abs() + least.abs() * (shifted.size - compared.size).abs()


def _with_errors(readings: _Readings, claim: Claim, solution: Solution) -> _Readings:
    """The readings with the errors accumulated along the run."""
    trajectory = solution.pieces.trajectory
    errors = accumulate(readings.error, trajectory, lambda rows: rows.cummax(1).values)
    if claim.kind == "equality":
        errors = extreme(errors, trajectory, solution.batch_shape.numel(), "amax")[trajectory]
    return replace(readings, error=errors)


class _Search:
    """The branch and bound of a claim, for all trajectories at once, from the readings of all pieces.

    Args:
        parts: that could hold the smallest margin.
        readings: off these.
        least: the smallest ratio less its error so far; `margin`, `time` and `part` are those that it is of.
        seen: the smallest ratio so far.
        surely, violated: as in `Margin`, of the parts that are done with.
    """

    def __init__(self, claim: Claim, solution: Solution, everything: _Parts, readings: _Readings) -> None:
        self.claim, self.parts, self.readings = claim, everything, readings
        self.inequality = claim.kind == "inequality"
        self.steps, self.count = solution.statistics["steps"].reshape(-1), solution.batch_shape.numel()
        start = readings.smallest.new_full((self.count,), torch.inf)
        self.least, self.seen, self.surely, self.margin, self.time = (start.clone() for _ in range(5))
        self.part = torch.zeros_like(everything.pieces.trajectory[: self.count])
        self.violated = torch.zeros_like(start, dtype=torch.bool)

    @property
    def found(self) -> Margin:
        """The margin, once nothing is open."""
        found = Margin(self.margin, torch.minimum(self.surely, self.least), self.time, self.part, self.violated)
        return _of_roots(found) if self.claim.squares else found

    def goes_on(self, last: bool) -> bool:
        """Take in the readings; whether pieces are still open, unless this is the last round: then halve these."""
        error = self._error()
        self._take(error)
        if not self.inequality:
            self._be_sure_of(self.readings.smallest - error)
            return False
        open_ = self._wanting(error) & (not last)
        self._be_sure_of(torch.where(open_, torch.inf, self.readings.bound - error))
        self.parts = self.parts.some(open_).halves()
        self.readings = self.readings.some(open_)
        return bool(open_.any())

    def read(self, parts: _Parts, readings: _Readings) -> None:
        """Take the halves, with the integral before them, and the readings off them.

        Their error is that of the run so far, and their own: at the bottom of a dip sizes are small.
        """
        self.parts = parts
        self.readings = replace(readings, error=torch.maximum(twice(self.readings.error), readings.error))

    def _error(self) -> Float[Tensor, " pieces"]:
        """The error of the ratios, with rounding."""
        readings = self.readings
        rounding = ROUNDING_PER_STEP * torch.finfo(self.least.dtype).eps * self.steps[self.parts.pieces.trajectory]
        return (readings.error + rounding * (1 + readings.smallest.abs())) * (
            readings.lever if self.inequality else 1.0
        )

    def _take(self, error: Float[Tensor, " pieces"]) -> None:
        """The smallest ratios so far, and whether they violate the claim."""
        readings, trajectory = self.readings, self.parts.pieces.trajectory
        sure = readings.smallest - error
        beyond = error + RESOLVED if self.inequality else error.clamp(min=EQUALITY_ERROR)
        self.violated[trajectory[readings.smallest < -beyond]] = True
        # where the size may be 0 between the nodes the value at a node is its own bound
        known = torch.where(torch.isfinite(sure), sure, readings.smallest)
        self.seen = torch.minimum(self.seen, extreme(readings.smallest, trajectory, self.count, "amin"))
        lowest = torch.minimum(self.least, extreme(known, trajectory, self.count, "amin"))
        better = torch.nonzero((known == lowest[trajectory]) & (known < self.least[trajectory])).squeeze(-1).flip(0)
        owner = trajectory[better]  # of several equal ones the first stays, being written last
        self.margin[owner], self.time[owner], self.part[owner] = (
            column[better] for column in (readings.smallest, readings.time, readings.part)
        )
        self.least = lowest

    def _be_sure_of(self, values: Float[Tensor, " pieces"]) -> None:
        self.surely = torch.minimum(self.surely, extreme(values, self.parts.pieces.trajectory, self.count, "amin"))

    def _wanting(self, error: Float[Tensor, " pieces"]) -> Bool[Tensor, " pieces"]:
        """Where a smaller ratio could be, and a shorter piece would tell."""
        readings, pieces, least = self.readings, self.parts.pieces, self.least
        near = (RESOLVED_RELATIVE * least.abs() + RESOLVED)[pieces.trajectory]
        divisible = (pieces.end - pieces.start) > 4 * torch.finfo(least.dtype).eps * pieces.end
        # where sizes hardly vary a shorter piece has no smaller error, and what is below the error is noise
        below = self.seen[pieces.trajectory] - torch.maximum(near, error)
        told = (readings.lever <= LEVEL) & (readings.bound >= below)
        return (readings.bound - error < least[pieces.trajectory] - near) & ~told & divisible


def _read_halves(searches: Sequence[_Search], solution: Solution) -> None:
    """Read claims off the halves that they are searched on, all of which are observed together."""
    parts = _Parts.joined([search.parts for search in searches])
    ends = list(itertools.accumulate(len(search.parts.pieces.start) for search in searches))
    bounds = list(zip([0, *ends[:-1]], ends, strict=True))
    found: list[list[_Readings]] = [[] for _ in searches]
    read = []
    for part, pair in in_parts(solution, parts.pieces, parts.whole):
        here = parts.some(part)
        if here.before is not None:
            here = replace(here, before=here.before.of_halves(pair))
        read.append(here)
        count = len(here.pieces.start)
        owns = [slice(max(first - part.start, 0), min(last - part.start, count)) for first, last in bounds]
        some = [column for column in zip(searches, owns, found, strict=True) if column[1].start < column[1].stop]
        with here.integrated(pair):
            for search, own, readings in some:
                readings.append(_read(search.claim, *pair, own))
    parts = _Parts.joined(read)
    for search, (first, last), readings in zip(searches, bounds, found, strict=True):
        search.read(parts.some(slice(first, last)), _joined(readings))


def _of_roots(margin: Margin) -> Margin:
    """The margin of o / c - 1 from that of o |o| / c^2 - 1, which is a monotone function of it."""
    return Margin(_root(margin.margin), _root(margin.surely), margin.time, margin.part, margin.violated)


def _root(value: Tensor) -> Tensor:
    return (1 + value).sign() * (1 + value).abs().sqrt() - 1


def _joined(found: Sequence[_Readings]) -> _Readings:
    return _Readings(*[torch.cat([getattr(some, item.name) for some in found]) for item in fields(_Readings)])
