"""The rest of the power series: a proof that the weights' coefficients beyond the known ones have small norms.

Let E be bounds of the norms |a|_rho of the tails (orders N and more) of all w_j and v_j. The map
a -> a_0 + int F(a) keeps the first N coefficients, which are those of the solution, and takes tails within E to tails
of norm at most (rho / N) F(E), F(E) a majorant of the velocity, since int makes a coefficient of order k - 1 into one
of order k >= N by dividing by k. If that is at most E, applying the map again and again makes the coefficients those
of the solution, one order each time, and all tails stay within E: so are those of the solution, and it exists on the
disc |t| < rho. This is proved for each component by itself.

All numbers here are upper bounds, so that few digits do.
"""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb, arb_mat, arb_poly, ctx

from flowsim.enclosure.curve import Curve, Disc
from flowsim.enclosure.series import Expansion, Row, feedback_moves

DIGITS = 64
"""Bits of the bounds."""

SLACK = 1.05
"""Bounds are taken so much larger than what they must exceed."""

TRIES = 12
"""Iterations by which bounds are looked for."""


@dataclass(frozen=True)
class Tails:
    """Bounds of the tails' norms on a disc, flat as in `Expansion`; those of the drives are of their whole norms."""

    disc: Disc
    hidden: Row
    output: Row
    zeta: Row
    drives: Row

    @property
    def largest(self) -> arb:
        """Of all weights."""
        return max(self.hidden + self.output, key=lambda bound: bound.mid(), default=arb(0))


class Majorants:
    """Sizes of the known coefficients: |zeta_0|, |v_0|, and polynomials with the absolute values of the others."""

    def __init__(self, expansion: Expansion) -> None:
        self.expansion = expansion
        self.order = expansion.order
        problem, modes = expansion.problem, expansion.state.modes
        with ctx.workprec(DIGITS):
            self.zeta = _sizes(expansion.zeta[: self.order])
            self.output = _sizes(expansion.output[: self.order])
            self.margins = _sizes(expansion.margins[: self.order])
            self.start = expansion.margins[0]
            self.normals = arb_mat(problem.normals.nrows(), problem.dimension, _upper(arb_mat(problem.normals)))
            self.gates = arb_mat(expansion.gates.nrows(), expansion.gates.ncols(), _upper(expansion.gates))
            self.factors = [[abs(factor).upper() for factor in row] for row in expansion.factors]
            self.feedback = [abs(b).upper() for b in expansion.feedback]
            self.held = [(kink, j) for j, mode in enumerate(modes) for kink in mode.held]

    def tails(self, rho: arb) -> Tails | None:
        """Tails proved on the disc of radius rho, or None if none are found."""
        with ctx.workprec(DIGITS):
            sizes = _Norms(self, rho)
            hidden = [arb(0)] * (len(self.output) * self.expansion.problem.dimension)
            output = [arb(0)] * len(self.output)
            for _ in range(TRIES):
                found = sizes.image(hidden, output)
                if found is None:
                    return None
                if _within(found.hidden, hidden) and _within(found.output, output):
                    return Tails(found.disc, hidden, output, found.zeta, found.drives)
                hidden, output = _enlarged(found.hidden), _enlarged(found.output)
            return None


class _Norms:
    """The majorants at one rho."""

    def __init__(self, majorants: Majorants, rho: arb) -> None:
        self.of, self.disc = majorants, Disc(majorants.order, rho)
        self.zeta = [(first, rest(rho).upper()) for first, rest in majorants.zeta]
        self.output = [(first, rest(rho).upper()) for first, rest in majorants.output]
        self.margins = [rest(rho).upper() for _, rest in majorants.margins]

    def image(self, hidden: Row, output: Row) -> Tails | None:
        """(rho / N) F(E), with the norms of zeta's tails and of q on the way to it; None where F is not bounded."""
        of, problem = self.of, self.of.expansion.problem
        m, d = len(output), problem.dimension
        reached = of.normals * arb_mat(m, d, hidden).transpose()
        zeta = [entry.upper() for entry in reached.entries()]
        for kink, j in of.held:
            zeta[kink * m + j] = arb(0)
        drives = []
        for i in range(len(problem.samples)):
            g = problem.loss.majorant(of.start[i], self.margins[i] + self._margin_tail(i, zeta, output))
            if g is None:
                return None
            drives.append((abs(of.expansion.weights[i]) * g).upper())
        if not all(drive.is_finite() for drive in drives):
            return None
        share = self.disc.rho / self.disc.order
        pulls = (arb_mat(1, len(drives), drives) * of.gates).entries()
        back = [first + rest + tail for (first, rest), tail in zip(self.output, output, strict=True)]
        if not feedback_moves(problem):
            back = of.feedback
        found = [(share * b * pull).upper() for j, b in enumerate(back) for pull in pulls[j * d : (j + 1) * d]]
        learned = [(share * self._learning(j, drives, zeta)).upper() for j in range(m)]
        return Tails(self.disc, found, learned, zeta, drives)

    def _margin_tail(self, i: int, zeta: Row, output: Row) -> arb:
        """That of f_i = sum_j H_ij v_j: a_0 tail_b + b_0 tail_a + |a - a_0| |b - b_0| for each product a b."""
        kink, total, m = self.of.expansion.problem.samples[i].kink, arb(0), len(output)
        if kink is None:
            return total
        for j, factor in enumerate(self.of.factors[i]):
            (z0, z), (v0, v) = self.zeta[kink * m + j], self.output[j]
            z_tail, v_tail = zeta[kink * m + j], output[j]
            product = v0 * z_tail + z0 * v_tail + (z + z_tail) * (v + v_tail)
            total += factor * product * self.of.expansion.problem.neurons[j].count
        return total.upper()

    def _learning(self, j: int, drives: Row, zeta: Row) -> arb:
        """|dv_j/dt|_rho."""
        total, m = arb(0), len(self.output)
        for i, sample in enumerate(self.of.expansion.problem.samples):
            if sample.kink is not None:
                first, rest = self.zeta[sample.kink * m + j]
                total += drives[i] * self.of.factors[i][j] * (first + rest + zeta[sample.kink * m + j])
        return total


def curve(coefficients: list[Row], place: int, tail: arb, disc: Disc) -> Curve:
    """One entry of flat rows as a curve."""
    return Curve(arb_poly([row[place] for row in coefficients[: disc.order]]), tail, disc)


def _sizes(coefficients: list[Row]) -> list[tuple[arb, arb_poly]]:
    """Per entry |a_0| and the polynomial sum_{k >= 1} |a_k| t^k."""
    return [
        (abs(entries[0]).upper(), arb_poly([arb(0)] + [abs(entry).upper() for entry in entries[1:]]))
        for entries in zip(*coefficients, strict=True)
    ]


def _upper(matrix: arb_mat) -> Row:
    return [abs(entry).upper() for entry in matrix.entries()]


def _within(left: Row, right: Row) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True))


def _enlarged(bounds: Row) -> Row:
    return [(SLACK * bound).upper() for bound in bounds]
