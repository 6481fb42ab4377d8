"""Modes: on which side of its kinks each neuron is, on which it slides, and which mode follows an event.

Everything that moves a neuron is linear in the drives q_i of the samples, with exact rational coefficients that the
sides determine: dw_j/dt = b_j sum_i q_i G_i with the rows G_i of a matrix G. On a kink that it slides along, the
part p of the drive that holds it there is b_j times such a sum, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from flint import arb, fmpq, fmpq_mat

from flowsim.enclosure.exact import ExactProblem
from flowsim.errors import Undecided

MOST_OPEN = 6
"""So many kinks of one neuron that moves may be open at once: all their sign patterns are tried."""

Row = list[fmpq]


@dataclass(frozen=True)
class Mode:
    """The mode of one neuron.

    `sides`: per kink the sign of zeta = w . u where it moves, 0 where it slides. `resting`: kinks on which zeta stays
    0 because nothing at all drives zeta; their side is that whose slope they keep. `sign`: that of b_j.
    """

    problem: ExactProblem
    sides: tuple[int, ...]
    resting: frozenset[int]
    sign: int

    @cached_property
    def slid(self) -> list[int]:
        """The kinks that the neuron slides along."""
        return [kink for kink, side in enumerate(self.sides) if side == 0]

    @cached_property
    def held(self) -> frozenset[int]:
        """The kinks on which zeta stays 0."""
        return self.resting.union(self.slid)

    @cached_property
    def slopes(self) -> Row:
        """phi'(z) per sample; 0 for those on kinks slid along, whose z is 0."""
        return [
            fmpq(0) if sample.kink is None or not self.sides[sample.kink]
            else self.problem.slope_on(sample, self.sides[sample.kink])
            for sample in self.problem.samples
        ]  # fmt: skip

    @cached_property
    def free_drives(self) -> fmpq_mat:
        """phi' x per sample: the drives without those that hold."""
        inputs = self.problem.inputs
        entries = [slope * inputs[i, c] for i, slope in enumerate(self.slopes) for c in range(inputs.ncols())]
        return fmpq_mat(inputs.nrows(), inputs.ncols(), entries)

    @cached_property
    def holds(self) -> fmpq_mat:
        """p / b per kink slid along (rows) as sums over samples: K_SS p = -(U_S . drive of the others)."""
        normals = rows_of(self.problem.normals, self.slid)
        return -((normals * normals.transpose()).inv() * (normals * self.free_drives.transpose()))

    @cached_property
    def drives(self) -> fmpq_mat:
        """G: one row per sample."""
        if not self.slid:
            return self.free_drives
        return self.free_drives + self.holds.transpose() * rows_of(self.problem.normals, self.slid)

    @cached_property
    def speeds(self) -> fmpq_mat:
        """dzeta/dt / b per kink (columns), one row per sample."""
        return self.drives * self.problem.normals.transpose()

    def speed(self, kink: int) -> Row:
        """dzeta/dt / b of one kink, per sample."""
        return [self.speeds[i, kink] for i in range(self.speeds.nrows())]

    def is_driven(self, kink: int) -> bool:
        """Whether anything may drive zeta."""
        return self.sign != 0 and any(self.speed(kink))

    def end(self, kink: int, side: int) -> Row:
        """p / b of the samples of a kink where it has a side, per sample."""
        return [
            sample.factor * self.problem.slope_on(sample, side) if sample.kink == kink else fmpq(0)
            for sample in self.problem.samples
        ]

    def room(self, kink: int) -> tuple[Row, Row]:
        """How far p is from its ends at the active and at the inactive side: both positive while it slides."""
        place = self.slid.index(kink)
        hold = [self.holds[place, i] for i in range(self.holds.ncols())]
        up, down = self.end(kink, 1), self.end(kink, -1)
        return _scaled(self.sign, hold, up), _scaled(self.sign, down, hold)

    def pull(self, kink: int) -> Row:
        """How far its ends are apart, positive where the kink attracts: both sides push towards it."""
        return _scaled(self.sign, self.end(kink, -1), self.end(kink, 1))

    def with_sides(self, sides: Mapping[int, int], resting: frozenset[int] = frozenset()) -> Mode:
        """The mode with other sides of some kinks."""
        changed = tuple(sides.get(kink, side) for kink, side in enumerate(self.sides))
        return Mode(self.problem, changed, resting, self.sign)

    def shared(self, kink: int) -> list[int]:
        """The kinks that zeta reaches together with this one: their normals are parallel along what is slid on."""
        if not self.slid:
            return [kink]
        free = [other for other in range(self.problem.kinks) if other not in self.held]
        return [other for other in free if _parallel(self.across, other, kink)]

    @cached_property
    def across(self) -> fmpq_mat:
        """The normals without their parts along the normals of the kinks slid along: zeta moves by these only."""
        normals = self.problem.normals
        if not self.slid:
            return normals
        held = rows_of(normals, self.slid)
        return normals - normals * held.transpose() * (held * held.transpose()).inv() * held


def rows_of(matrix: fmpq_mat, rows: Sequence[int]) -> fmpq_mat:
    """Some rows of a matrix."""
    return fmpq_mat(len(rows), matrix.ncols(), [matrix[r, c] for r in rows for c in range(matrix.ncols())])


def linear(factors: Sequence[fmpq], balls: Sequence[arb]) -> arb:
    """The sum of products with exact factors; those that are 0 leave no trace.

    >>> linear([fmpq(0), fmpq(1, 2)], [arb(0).exp(), arb(3)]) == 1.5
    True
    """
    return sum((arb(factor) * ball for factor, ball in zip(factors, balls, strict=True) if factor), arb(0))


def _scaled(sign: int, left: Row, right: Row) -> Row:
    return [sign * (a - b) for a, b in zip(left, right, strict=True)]


def _parallel(matrix: fmpq_mat, left: int, right: int) -> bool:
    """Whether two rows are linearly dependent."""
    return rows_of(matrix, [left, right]).rank() < 2


def decide(mode: Mode, open_kinks: Sequence[int], drives: Sequence[arb]) -> Mode:
    """Return the mode in which a neuron goes on that sits on the kinks given, at drives q.

    First, kinks are taken one by one whose side does not depend on what the others allow. The rest must all attract;
    then the solution is unique, and its velocity is that of the one sign pattern that contradicts nothing, strictly:
    all are tried.

    Raises:
        Undecided: if no pattern does so, or several, or a kink may repel.
    """
    mode = mode.with_sides(dict.fromkeys(open_kinks, 1))  # what the sides are now plays no part
    remaining = list(open_kinks)
    while forced := _forced(mode, remaining, drives):
        mode = mode.with_sides(forced)
        remaining = [kink for kink in remaining if kink not in forced]
    if not remaining:
        return mode
    patterns = _patterns(mode, remaining, drives)
    consistent = [found for sides in patterns if (found := _consistent(mode, sides, drives)) is not None]
    if len(consistent) != 1:
        raise Undecided(f"{len(consistent)} modes are proved to be consistent on kinks {remaining}")
    return consistent[0]


def _patterns(mode: Mode, remaining: list[int], drives: Sequence[arb]) -> list[dict[int, int]]:
    """The sign patterns that a neuron may go on in: of one that nothing moves, as b_j = 0, that in which it rests.

    Raises:
        Undecided: if they are too many, or a kink is not proved to attract.
    """
    if mode.sign == 0:
        return [dict.fromkeys(remaining, -1)]
    if len(remaining) > MOST_OPEN:
        raise Undecided(f"a neuron sits on {len(remaining)} kinks at once")
    for kink in remaining:
        pull = linear(mode.pull(kink), drives)
        if not pull > 0:
            raise Undecided(f"a neuron sits on a kink that is not proved to attract (kink {kink})", final=pull < 0)
    return [dict(zip(remaining, sides, strict=True)) for sides in product((1, -1, 0), repeat=len(remaining))]


def _forced(mode: Mode, remaining: list[int], drives: Sequence[arb]) -> dict[int, int]:
    """The kinks in `remaining` whose side is the same whatever the drives of the others are within their ends.

    A side is left for if zeta has a speed of that sign for all drives; a kink is slid along if its zeta is sent back
    from both sides. The speeds are those along the kinks that are slid along already.
    """
    normals = mode.problem.normals
    across = mode.across
    others = [
        fmpq(0) if sample.kink in remaining else slope
        for sample, slope in zip(mode.problem.samples, mode.slopes, strict=True)
    ]
    reach = mode.problem.inputs * across.transpose()
    between = across * normals.transpose()
    ends = {kink: [linear(mode.end(kink, side), drives) for side in (1, -1)] for kink in remaining}
    found = {}
    for kink in remaining:
        speed = linear([slope * reach[i, kink] for i, slope in enumerate(others)], drives)
        for other in remaining:
            if other != kink:
                speed += arb(between[kink, other]) * ends[other][0].union(ends[other][1])
        active, inactive = (mode.sign * (speed + arb(between[kink, kink]) * end) for end in ends[kink])
        if active > 0 and inactive > 0:
            found[kink] = 1
        elif active < 0 and inactive < 0:
            found[kink] = -1
        elif active < 0 and inactive > 0:
            found[kink] = 0
    return dict([*found.items()][:1])


def _consistent(mode: Mode, sides: Mapping[int, int], drives: Sequence[arb]) -> Mode | None:
    """The mode with these sides if it is proved to contradict nothing, else None.

    A kink may also rest at the end of its drives that its side has, where its speed is exactly 0.
    """
    tried = mode.with_sides(sides)
    if rows_of(mode.problem.normals, tried.slid).rank() < len(tried.slid):
        return None  # the drives that hold are not unique
    rests = frozenset(k for k, side in sides.items() if side and not tried.is_driven(k))
    held = [*tried.slid, *rests]
    if tried.slid and rows_of(mode.problem.normals, held).rank() < len(held):
        return None  # neither here
    if any(sides[kink] > 0 for kink in rests):
        return None
    for kink, side in sides.items():
        if side and kink not in rests and not linear(tried.speed(kink), drives) * side * tried.sign > 0:
            return None
        if not side and not all(linear(room, drives) > 0 for room in tried.room(kink)):
            return None
    return tried.with_sides({}, rests)
