"""Checks a certificate of a run and of claims about it: python -m flowsim.enclosure.checker FILE.json.

It stands alone: it needs this file, python-flint and a certificate (flowsim/README.md, "Certificate"), and shares no
code with what wrote it. It searches for nothing. All that it has to find is in the file, and what it finds there it
only believes after a proof in ball arithmetic. Time in a step is counted in units of the radius of its disc, on which
the series of that step converge, so that the norm of a series is the sum of its absolute coefficients.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from math import perm
from operator import add, sub
from typing import Any

from flint import arb, arb_mat, arb_poly, ctx, fmpq, fmpq_mat

FORMAT = "flowsim certificate 1"

SLOPES = {
    "exponential": lambda u: (-u).exp(),
    "logistic": lambda u: 1 / (1 + u.exp()),
    "squared": lambda u: 1 - u,
}
"""G = -l'(u)."""

FIELDS: dict[str, set[str]] = {
    **{name: set() for name in ("risk", "descent", "alignment")},
    "dominance": {"alpha"},
    **{name: {"neuron", "negated"} for name in ("sign", "gap")},
}
"""What a claim about each observable says besides bounds."""

VALUES = {
    "exponential": lambda u: (-u).exp(),
    "logistic": lambda u: (1 + (-u).exp()).log(),
    "squared": lambda u: (1 - u) ** 2 / 2,
}
"""L(u)."""


class Rejected(Exception):  # noqa: N818
    """A certificate that does not prove what it says: what is wrong, and where."""


def require(holds: bool, where: str, what: str) -> None:
    """Reject the certificate unless something holds."""
    if not holds:
        raise Rejected(f"{where}: {what}")


def exact(text: str) -> fmpq:
    """A rational "-3/7", or "-1fp-9" for -0x1f / 2^9.

    >>> exact("-3/7"), exact("-1fp-9")
    (-3/7, -31/512)
    """
    if "p" in text:
        mantissa, exponent = text.split("p")
        return fmpq(int(mantissa, 16)) * fmpq(2) ** int(exponent)
    top, _, bottom = text.partition("/")
    return fmpq(int(top), int(bottom or "1"))


def dyadic(text: str) -> arb:
    """The number "-1fp-9" as a ball of radius 0, at any precision."""
    mantissa, exponent = text.split("p")
    return arb((int(mantissa, 16), int(exponent)))


def ball(text: str) -> arb:
    """The ball with the middle and radius given, two dyadic numbers."""
    middle, radius = map(dyadic, text.split(" "))
    return arb(middle, radius)


# What is to be solved


@dataclass(frozen=True)
class Kink:
    """The inputs on one line through 0: x_i = factor_i times the normal, so that z_ij = factor_i normal . w_j."""

    normal: tuple[fmpq, ...]
    factors: dict[int, fmpq]


@dataclass(frozen=True)
class Neuron:
    """Weights at the start, the feedback where it is fixed, and how many neurons have these."""

    hidden: tuple[fmpq, ...]
    output: fmpq
    feedback: fmpq | None
    count: int


class CertifiedProblem:
    """The data of a certificate, in rational numbers."""

    def __init__(self, data: dict[str, Any]) -> None:
        rows = [[exact(entry) for entry in row] for row in data["inputs"]]
        self.samples, self.dimension = len(rows), len(rows[0])
        self.inputs = fmpq_mat(rows)
        self.labels = [arb(int(label)) for label in data["labels"]]
        require(len(self.labels) == len(rows) and set(data["labels"]) <= {-1, 1}, "data", "labels")
        self.slope, self.loss = exact(data["slope"]), data["loss"]
        require(self.loss in SLOPES and 0 <= self.slope <= 1, "data", "the loss or the slope is of no known kind")
        self.scale = None if data["scale"] is None else exact(data["scale"])
        require(self.scale is None or (self.scale > 0 and data["feedback"] is None), "data", "there are two rules")
        self.moves = self.scale is None and data["feedback"] is None
        output = [exact(entry) for entry in data["output"]]
        hidden = [tuple(exact(entry) for entry in row) for row in data["hidden"]]
        feedback = [None] * len(output) if data["feedback"] is None else [exact(entry) for entry in data["feedback"]]
        require(all(len(row) == self.dimension for row in hidden), "data", "the hidden weights")
        every = list(zip(hidden, output, feedback, strict=True))
        self.neurons = [Neuron(*neuron, count) for neuron, count in Counter(every).items()]
        self.merged = [list(dict.fromkeys(every)).index(neuron) for neuron in every]
        self.kinks = [] if self.slope == 1 else list(_kinks(rows))

    def starts_on(self, j: int) -> set[int]:
        """The kinks that a neuron is on at t = 0."""
        return {k for k, kink in enumerate(self.kinks) if _inner(kink.normal, self.neurons[j].hidden) == 0}

    @cached_property
    def twins(self) -> list[int]:
        """For each neuron the first whose zeta / |b_j| are its own at t = 0, with b_j of the same sign.

        They stay so: dw_j / b_j is a sum that depends on the sides of w_j only. Under sign-FA that holds as long as no
        v_j has changed its sign, under GD not at all.
        """
        first: dict[tuple[Any, ...], int] = {}
        found = []
        for j, neuron in enumerate(self.neurons):
            b = neuron.feedback or fmpq(0)
            if self.scale is not None:
                b = fmpq((neuron.output > 0) - (neuron.output < 0))
            places = (_inner(kink.normal, neuron.hidden) / abs(b) for kink in self.kinks if b)
            found.append(first.setdefault((b > 0, *places), j) if b else j)
        return found


def _kinks(rows: list[list[fmpq]]) -> Iterable[Kink]:
    found: dict[tuple[fmpq, ...], dict[int, fmpq]] = {}
    for i, row in enumerate(rows):
        if any(row):
            lead = next(entry for entry in row if entry)
            found.setdefault(tuple(entry / lead for entry in row), {})[i] = lead
    return (Kink(normal, factors) for normal, factors in found.items())


def _inner(left: Iterable[fmpq], right: Iterable[fmpq]) -> fmpq:
    return sum((a * b for a, b in zip(left, right, strict=True)), fmpq(0))


class Mode:
    """How one neuron moves: f is the sum of v_j G w_j over neurons, and dw_j/dt = b_j G^T q, with one matrix G.

    `text` has one letter per sample: + and - are signs of z, 0 slides, a and i stay at z = 0 with the active or the
    inactive slope, since nothing drives z. `sign` is that of b_j.
    """

    def __init__(self, problem: CertifiedProblem, text: str, sign: int) -> None:
        self.problem, self.text, self.sign = problem, text, sign
        require(len(text) == problem.samples and set(text) <= set("+-0ai"), "mode", f"{text!r} is none")
        self.sides: list[int | None] = []
        for kink in problem.kinks:
            sides = {_side(text[i], factor) for i, factor in kink.factors.items()}
            require(len(sides) == 1, "mode", f"{text!r} has one kink on two sides")
            self.sides.append(sides.pop())
        self.slid = [k for k, side in enumerate(self.sides) if side == 0]
        self.rests = [k for k, side in enumerate(self.sides) if side is None]
        self.held = {*self.slid, *self.rests}

    @cached_property
    def free(self) -> fmpq_mat:
        """phi' x per sample, without what slides."""
        slopes = {"+": fmpq(1), "a": fmpq(1), "-": self.problem.slope, "i": self.problem.slope, "0": fmpq(0)}
        factors = [slopes[letter] if self.problem.kinks else fmpq(1) for letter in self.text]
        return fmpq_mat([[a * x for x in row] for a, row in zip(factors, self.problem.inputs.tolist(), strict=True)])

    @cached_property
    def gates(self) -> fmpq_mat:
        """G: phi' x, projected onto the kinks that are slid along."""
        return self.free * projection(self.problem, self.slid)

    @cached_property
    def holds(self) -> dict[int, list[fmpq]]:
        """Per kink slid along, the drive p / b that keeps z there, as sum over samples: U U^T p = -U r."""
        if not self.slid:
            return {}
        normals = _normals(self.problem, self.slid)
        found = -(normals * normals.transpose()).inv() * normals * self.free.transpose()
        return dict(zip(self.slid, found.tolist(), strict=True))

    def end(self, k: int, side: int) -> list[fmpq]:
        """The drive p / b that the samples of a kink have on one side of it, as sum over samples."""
        slope, row = self.problem.slope, [fmpq(0)] * self.problem.samples
        for i, factor in self.problem.kinks[k].factors.items():
            row[i] = factor if side * factor > 0 else slope * factor
        return row

    def attraction(self, k: int) -> list[fmpq]:
        """Positive where the drives on both sides of a kink push towards it."""
        return self.signed(self.end(k, -1), self.end(k, 1))

    def rooms(self, k: int) -> tuple[list[fmpq], list[fmpq]]:
        """Positive while the drive that holds is between those of the upper and the lower side."""
        return self.signed(self.holds[k], self.end(k, 1)), self.signed(self.end(k, -1), self.holds[k])

    def signed(self, left: list[fmpq], right: list[fmpq]) -> list[fmpq]:
        """(left - right) times the sign of b_j."""
        return [self.sign * (a - b) for a, b in zip(left, right, strict=True)]

    def together(self, k: int) -> dict[int, fmpq]:
        """The kinks that come to 0 with one, and their zeta as multiples of its: parallel along what is slid on."""
        across = (_normals(self.problem, range(len(self.sides))) * projection(self.problem, self.slid)).tolist()
        lead = next((c for c, entry in enumerate(across[k]) if entry), None)
        if lead is None:
            raise Rejected("event: its kink says nothing along those slid on")
        ratios = {other: row[lead] / across[k][lead] for other, row in enumerate(across) if other not in self.held}
        return {o: a for o, a in ratios.items() if a and across[o] == [a * entry for entry in across[k]]}


def _side(letter: str, factor: fmpq) -> int | None:
    return {"+": 1, "-": -1, "0": 0}[letter] * (1 if factor > 0 else -1) if letter in "+-0" else None


def weighted(row: Iterable[fmpq], balls: Sequence[arb]) -> arb:
    """The sum of balls with exact factors."""
    return reduce(add, (arb(a) * one for a, one in zip(row, balls, strict=True) if a), arb(0))


def _normals(problem: CertifiedProblem, kinks: Iterable[int]) -> fmpq_mat:
    return fmpq_mat([list(problem.kinks[k].normal) for k in kinks])


def projection(problem: CertifiedProblem, kinks: Sequence[int]) -> fmpq_mat:
    """Onto the weights that are orthogonal to the normals of these kinks."""
    d = problem.dimension
    identity = fmpq_mat(d, d, [int(r == c) for r in range(d) for c in range(d)])
    if not kinks:
        return identity
    normals = _normals(problem, kinks)
    require(normals.rank() == len(kinks), "mode", "kinks slid along are not independent")
    return identity - normals.transpose() * (normals * normals.transpose()).inv() * normals


# Power series on the disc |s| < 1 with norm |a| = sum |a_k|


@dataclass(frozen=True)
class Series:
    """Balls for the coefficients below `order`, and a bound of the norm of all others."""

    poly: arb_poly
    tail: arb
    order: int

    @cached_property
    def sizes(self) -> tuple[arb, arb]:
        """|a_0| and the norm of a - a_0."""
        first, *others = self.poly.coeffs() or [arb(0)]
        return abs(first).upper(), sum(map(abs, others), self.tail).upper()

    def __add__(self, other: Series) -> Series:
        return Series(self.poly + other.poly, (self.tail + other.tail).upper(), self.order)

    def __mul__(self, other: Series) -> Series:
        return Series((self.poly * other.poly).truncate(self.order), self.product_tail(other), self.order)

    def product_tail(self, other: Series) -> arb:
        """That of a b = a_0 b + b_0 a + (a - a_0)(b - b_0) - a_0 b_0."""
        (a, a_rest), (b, b_rest) = self.sizes, other.sizes
        return (a * other.tail + b * self.tail + a_rest * b_rest).upper()

    def times(self, factor: Any) -> Series:
        """A multiple by a number."""
        return Series(self.poly * arb(factor), (self.tail * abs(arb(factor))).upper(), self.order)

    def integral(self, first: arb) -> Series:
        """first + the integral from 0: the terms of order k - 1 >= order - 1 are divided by k >= order."""
        last = self.order - 1
        tail = ((abs(self.poly[last]) + self.tail) / self.order).upper()
        return Series(self.poly.truncate(last).integral() + first, tail, self.order)

    def divided(self, times: int) -> Series:
        """Divided by s^times, for a series that is known to vanish at 0 so often."""
        return Series(self.poly.right_shift(times), self.tail, self.order - times)

    def rest(self, reach: arb, derivative: int = 0) -> arb:
        """A ball with all values of a derivative of the part beyond `order`, for |s| <= reach <= 1/2.

        With x = reach, l! / (l - k)! x^(l - k) falls with l >= order as (l + 1) / (l + 1 - k) <= 2 there.
        """
        size = self.tail * perm(self.order, derivative) * reach ** (self.order - derivative)
        return arb(0, size.upper())

    def at(self, time: arb) -> arb:
        """The values at all times in a ball, in mean value form."""
        middle = time.mid()
        slope = self.poly.derivative()(time) if time.rad() > 0 else arb(0)
        return self.poly(middle) + slope * (time - middle) + self.rest(abs(time).upper())

    def on(self, low: arb, high: arb) -> tuple[arb, list[arb], list[arb]]:
        """Half the length of a piece; values, slopes and second derivatives in its middle; and those all over it."""
        middle = ((low + high) / 2).mid()
        radius = (high - middle).union(middle - low).upper()
        poly, inside, over = self.poly(arb_poly([middle, 1])), [], []
        for derivative in range(3):
            rest = self.rest(high, derivative)
            inside.append(poly[0] + rest)
            over.append(poly(arb(0, radius)) + rest)
            poly = poly.derivative()
        return radius, inside, over


def bounds_of_sums(matrix: fmpq_mat, bounds: Sequence[arb]) -> list[arb]:
    """Bounds of sums of things with these bounds, with the factors in the rows of a matrix."""
    return [weighted(map(abs, row), bounds).upper() for row in matrix.tolist()]


def combined(matrix: fmpq_mat, series: Sequence[Series]) -> list[Series]:
    """Sums of series, with the factors in the rows of a matrix."""
    order = series[0].order
    rows = arb_mat(matrix) * arb_mat([[one.poly[k] for k in range(order)] for one in series])
    tails = bounds_of_sums(matrix, [one.tail for one in series])
    return [Series(arb_poly(row), tail, order) for row, tail in zip(rows.tolist(), tails, strict=True)]


def inner(left: Iterable[Series], right: Iterable[Series]) -> Series:
    """The sum of products."""
    return reduce(add, (a * b for a, b in zip(left, right, strict=True)))


Pieces = list[tuple[arb, arb]]
"""Of a step: where each begins and ends."""


def pieces_of(length: arb, fractions: Sequence[str]) -> Pieces:
    """The pieces into which fractions 0 < .. < 1 cut [0, length]."""
    ends = [arb(0), *map(dyadic, fractions), arb(1)]
    require(all(a < b for a, b in pairwise(ends)), "pieces", "they are not in order")
    return [(a.lower(), b.upper()) for a, b in pairwise(length * end for end in ends)]


def positive(f: Series, low: arb, high: arb) -> bool:
    """Whether f is proved positive on a piece: by its range, by its slope, or as a convex function by a tangent."""
    radius, (value, slope, _), (values, slopes, bends) = f.on(low, high)
    if values > 0:
        return True
    if slopes > 0 or slopes < 0:
        return bool(f.at(low if slopes > 0 else high) > 0)
    return bool(bends > 0 and value - abs(slope) * radius > 0)


def falls(f: Series, low: arb, high: arb) -> bool:
    """Whether f has a negative slope on a piece."""
    return bool(f.on(low, high)[2][1] < 0)


# One step


class Step:
    """The solutions from all weights in the balls at the start of a step, as long as the modes last.

    Lists of series are flat: `weights` has all w_j and then all v_j, `flow` their velocities (in units of the disc's
    radius), `active` G_j w_j, `pulls` r_j = G_j^T q. The gradient of the risk by w_j is -v_j r_j.
    """

    def __init__(self, problem: CertifiedProblem, record: dict[str, Any]) -> None:
        self.problem, self.order, self.disc = problem, int(record["order"]), dyadic(record["disc"])
        signs = ["-0+".index(letter) - 1 for letter in record["signs"]]
        self.modes = [Mode(problem, *pair) for pair in zip(record["modes"], signs, strict=True)]
        require(len(self.modes) == len(problem.neurons), "modes", "there is not one for each neuron")
        require(self.order >= 8 and self.disc > 0, "disc", "its order or radius is too small")
        self.begin, self.end = map(dyadic, record["length"])
        require(0 < self.begin <= self.end <= arb(0.5), "length", "it is not within half of the disc")
        self.start = [ball(text) for text in record["start"]]
        require(len(self.start) == len(problem.neurons) * (problem.dimension + 1), "start", "weights are missing")
        self.fixed = [self._feedback(mode, n) for mode, n in zip(self.modes, problem.neurons, strict=True)]
        self.twins = problem.twins  # but for those whose signs have changed: see `check_passes`
        self.expand([dyadic(text) for text in record["tails"]])

    def _feedback(self, mode: Mode, neuron: Neuron) -> arb:
        """b_j, where it stands still."""
        if self.problem.scale is not None:
            require(mode.sign != 0, "signs", "b_j has none")
            return mode.sign * arb(self.problem.scale)
        if neuron.feedback is None:
            return arb(0)
        require(mode.sign == (neuron.feedback > 0) - (neuron.feedback < 0), "signs", "b_j has another one")
        return arb(neuron.feedback)

    @cached_property
    def coefficients(self) -> list[list[list[arb]]]:
        """Those of weights (one order more), active, margins, drives and pulls: rows, order by order."""
        problem, n, d, m = self.problem, self.problem.samples, self.problem.dimension, len(self.modes)
        gates = [arb_mat(mode.gates) for mode in self.modes]
        weights, margins, active, outputs, drives, pulls = [self.start], [], [], [], [], []
        u: list[list[arb]] = [[] for _ in range(n)]
        g: list[list[arb]] = [[] for _ in range(n)]
        for k in range(self.order):
            w, v = weights[k][: m * d], weights[k][m * d :]
            columns = (gate * arb_mat(d, 1, w[j * d : j * d + d]) for j, gate in enumerate(gates))
            active.append(arb_mat(m, n, [entry for column in columns for entry in column.entries()]))
            outputs.append(arb_mat(1, m, [neuron.count * e for neuron, e in zip(problem.neurons, v, strict=True)]))
            f = reduce(add, (output * matrix for output, matrix in zip(reversed(outputs), active, strict=True)))
            margins.append([y * entry for y, entry in zip(problem.labels, f.entries(), strict=True)])
            for i, entry in enumerate(margins[k]):
                u[i].append(entry)
                g[i].append(next_slope(problem.loss, u[i], g[i]))
            drives.append(arb_mat(n, 1, [y * one[k] / n for y, one in zip(problem.labels, g, strict=True)]))
            pulls.append([entry for gate in gates for entry in (gate.transpose() * drives[k]).entries()])
            learned = reduce(add, (matrix * q for matrix, q in zip(active, reversed(drives), strict=True)))
            velocity = self._carried([row[m * d :] for row in weights], pulls) + learned.entries()
            weights.append([self.disc / (k + 1) * entry for entry in velocity])
        return [weights, [a.entries() for a in active], margins, [q.entries() for q in drives], pulls]

    def _carried(self, outputs: list[list[arb]], pulls: list[list[arb]]) -> list[arb]:
        """The latest coefficients of all b_j r_j."""
        d, places = self.problem.dimension, range(len(pulls[0]))
        if not self.problem.moves:
            return [self.fixed[place // d] * pulls[-1][place] for place in places]
        pairs = list(zip(outputs, reversed(pulls), strict=True))
        return [sum((v[place // d] * pull[place] for v, pull in pairs), arb(0)) for place in places]

    def expand(self, tails: list[arb]) -> None:
        """All series, with norms that the given tails of the weights imply."""
        problem, n, d, m = self.problem, self.problem.samples, self.problem.dimension, len(self.modes)
        require(all(tail >= 0 for tail in tails), "tails", "one is negative")
        weights, active, margins, drives, pulls = (list(zip(*rows, strict=True)) for rows in self.coefficients)
        self.weights = self._series(weights, tails)
        gates = [mode.gates for mode in self.modes]
        of_active = [tail for j, gate in enumerate(gates) for tail in bounds_of_sums(gate, tails[j * d : j * d + d])]
        self.active = self._series(active, of_active)
        beyond = []
        for i, u in enumerate(margins):
            rows = zip(problem.neurons, self.active[i::n], self.output, strict=True)
            distance = reduce(add, (neuron.count * a.product_tail(v) for neuron, a, v in rows))
            distance = reduce(add, map(abs, u[1:]), distance).upper()
            norm = slope_norm(problem.loss, SLOPES[problem.loss](u[0]), distance) / n
            beyond.append(reduce(sub, map(abs, drives[i]), norm).upper())  # the norm, less what is known of it
        self.drives = self._series(drives, beyond)
        self.pulls = self._series(pulls, [norm for gate in gates for norm in bounds_of_sums(gate.transpose(), beyond)])
        beyond = [self.back(place // d).product_tail(pull) for place, pull in enumerate(self.pulls)]
        for j in range(m):
            pairs = zip(self.active[j * n : j * n + n], self.drives, strict=True)
            beyond.append(sum((a.product_tail(q) for a, q in pairs), arb(0)))
        velocities = [[k * entry for k, entry in enumerate(row)][1:] for row in weights]
        self.flow = self._series(velocities, [(self.disc * tail).upper() for tail in beyond])

    def _series(self, columns: Sequence[Sequence[arb]], tails: Sequence[arb]) -> list[Series]:
        pairs = zip(columns, tails, strict=True)
        return [Series(arb_poly(list(column[: self.order])), tail, self.order) for column, tail in pairs]

    @property
    def output(self) -> list[Series]:
        """The v_j."""
        return self.weights[len(self.modes) * self.problem.dimension :]

    def part(self, series: list[Series], j: int) -> list[Series]:
        """What belongs to one neuron, of weights w, pulls or flow."""
        return series[j * self.problem.dimension : (j + 1) * self.problem.dimension]

    def back(self, j: int) -> Series:
        """b_j."""
        return self.output[j] if self.problem.moves else Series(arb_poly([self.fixed[j]]), arb(0), self.order)

    def zetas(self, j: int) -> list[Series]:
        """normal . w_j of all kinks."""
        if not self.problem.kinks:
            return []
        return combined(_normals(self.problem, range(len(self.problem.kinks))), self.part(self.weights, j))

    def image(self) -> list[arb]:
        """The tails of theta_0 + the integral of the flow."""
        return [velocity.integral(first).tail for velocity, first in zip(self.flow, self.start, strict=True)]

    def check_tails(self) -> None:
        """Picard's map takes series with these coefficients and tails to such series: one of them is a solution."""
        for place, (tail, one) in enumerate(zip(self.image(), self.weights, strict=True)):
            require(bool(tail <= one.tail), "tails", f"weight {place}: the flow leaves the tail that is claimed")

    def at_end(self, series: Sequence[Series]) -> list[arb]:
        """Values at the end, whose time is a ball."""
        return [one.at(self.begin.union(self.end)) for one in series]


def next_slope(loss: str, u: Sequence[arb], g: Sequence[arb]) -> arb:
    """The coefficient of g(u) of order len(g): g' = -u' g for the exponential loss, -u' (g - g^2) for the logistic."""
    k, known = len(g), arb_poly(list(g))
    if k == 0 or loss == "squared":
        return SLOPES[loss](u[0]) if k == 0 else -u[k]
    factor = known if loss == "exponential" else known - known * known
    return -sum((l * u[l] * factor[k - l] for l in range(1, k + 1)), arb(0)) / k  # noqa: E741


def slope_norm(loss: str, g: arb, distance: arb) -> arb:
    """A bound of |g(u)| from g = g(u_0) and distance >= |u - u_0|.

    |e^{u_0 - u}| <= e^distance and |e^{u - u_0} - 1| <= e^distance - 1. For the logistic loss
    g(u) = g / (1 + (1 - g)(e^{u - u_0} - 1)) = g e^{u_0 - u} / (1 + g (e^{u_0 - u} - 1)).
    """
    if loss == "squared":
        return (abs(g) + distance).upper()
    growth = distance.exp()
    if loss == "exponential":
        return (g * growth).upper()
    bounds = [(top, 1 - share * (growth - 1)) for top, share in ((g, 1 - g), (g * growth, g))]
    usable = [(top / room).upper() for top, room in bounds if room > 0]
    require(bool(usable), "tails", "no bound of the slope of the loss is known on this disc")
    return min(usable, key=lambda bound: bound.mid())


# Events and modes


def watched(step: Step, vanishing: dict[str, int]) -> dict[str, Series]:
    """What is positive as long as the modes last, by name, divided by the powers of s with which it starts at 0."""
    found = {}
    for j, mode in enumerate(step.modes):
        for k, (side, zeta) in enumerate(zip(mode.sides, step.zetas(j), strict=True)):
            if side:
                found[f"{j} {k}"] = zeta.times(side)
            elif side == 0:
                found[f"{j} {k} up"], found[f"{j} {k} down"] = combined(fmpq_mat(mode.rooms(k)), step.drives)
            elif mode.sign or step.problem.moves:
                (found[f"{j} {k} rests"],) = combined(fmpq_mat([mode.attraction(k)]), step.drives)
        if step.problem.scale is not None or (step.problem.moves and mode.held):
            found[f"{j} sign"] = step.output[j].times(mode.sign)
    return {name: series.divided(vanishing.get(name, 0)) for name, series in found.items()}


def check_lasts(step: Step, record: dict[str, Any], vanishing: dict[str, int]) -> None:
    """The modes last to the end of the step, where exactly the event that is claimed takes place."""
    for j, mode in enumerate(step.modes):
        if mode.rests and mode.sign:
            speeds = mode.gates * _normals(step.problem, mode.rests).transpose()
            require(not any(speeds.entries()), f"neuron {j}", "a kink that it rests on has a drive")
            # with the drive 0 of one of its sides, while the other pushes back, to rest is a solution
            held = all(_is_of_one_side(step.problem, mode, k) for k in mode.rests)
            require(held, f"neuron {j}", "a kink that it rests on has two sides")
    meeting, watches = event_names(step, record["event"]), watched(step, vanishing)
    require(meeting <= watches.keys(), "event", "nothing is known of it")
    for name, series in watches.items():
        pieces, where = pieces_of(step.end, record["pieces"].get(name, [])), f"watch {name!r}"
        if name in meeting:
            _check_falls_through(step, series, pieces, where)
        else:
            _check_positive(series, pieces, where, "the end of the step")
    if record["event"] is None:
        require(step.begin.overlaps(step.end) and step.begin >= step.end, "length", "it is not exact, without an event")


def _is_of_one_side(problem: CertifiedProblem, mode: Mode, k: int) -> bool:
    """Whether the slopes of the samples of a kink are those of one of its sides."""
    return len({(mode.text[i] == "a") == (factor > 0) for i, factor in problem.kinks[k].factors.items()}) == 1


def _check_positive(series: Series, pieces: Pieces, where: str, end: str) -> None:
    for low, high in pieces:
        require(positive(series, low, high), where, f"it is not positive up to {end}")


def _check_falls_through(step: Step, series: Series, pieces: Pieces, where: str) -> None:
    """It is positive up to the last piece, where it falls, and has its zero in the time of the event."""
    *before, last = pieces
    _check_positive(series, before, where, "its event")
    require(falls(series, *last), where, "it does not fall at its event")
    crosses = series.at(step.begin) > 0 and series.at(step.end) < 0
    require(bool(crosses), where, "it has no zero in the time of its event")


def event_names(step: Step, event: dict[str, Any] | None) -> set[str]:
    """The watches that come to 0 at an event; several only if they are exact multiples of each other."""
    if event is None:
        return set()
    j = event["neuron"]
    require(j in range(len(step.modes)), "event", "nothing is known of it")
    if event["sample"] is None:
        return {f"{j} sign"}
    k, mode = _kink_of(step.problem, event["sample"]), step.modes[j]
    if mode.sides[k] == 0:
        require(event["to"] in ("up", "down"), "event", "it must say where the slide ends")
        return {f"{i} {k} {event['to']}" for i in find_leaving(step, j, k)}
    require(k not in mode.held, "event", "its neuron rests on that kink")
    for other, ratio in mode.together(k).items():
        same = mode.sides[other] == (mode.sides[k] if ratio > 0 else -(mode.sides[k] or 0))
        require(same, f"neuron {j}", f"kinks {k} and {other} contradict each other")
    twins = [i for i, first in enumerate(step.twins) if first == step.twins[j]]
    return {f"{i} {other}" for i in twins for other in mode.together(k)}


def find_leaving(step: Step, j: int, k: int) -> list[int]:
    """The neurons that leave kink k with neuron j: the rooms of their drives are positive multiples of its."""
    rooms = {i: list(map(_scaled, mode.rooms(k))) for i, mode in enumerate(step.modes) if mode.sides[k] == 0}
    return [i for i, both in rooms.items() if both == rooms[j]]


def _scaled(row: list[fmpq]) -> list[fmpq]:
    """A row by its largest entry: the same for all of its positive multiples."""
    size = max(map(abs, row)) or fmpq(1)
    return [entry / size for entry in row]


def _kink_of(problem: CertifiedProblem, sample: Any) -> int:
    found = [k for k, kink in enumerate(problem.kinks) if sample in kink.factors]
    require(bool(found), "event", "its sample has no kink")
    return found[0]


def check_begins(problem: CertifiedProblem, step: Step) -> dict[str, int]:
    """The modes at t = 0 are those in which the only solution leaves. Returned is what vanishes there."""
    state = [entry for neuron in problem.neurons for entry in neuron.hidden] + [n.output for n in problem.neurons]
    for place, (number, given) in enumerate(zip(state, step.start, strict=True)):
        require(given.contains(number), "start", f"weight {place} of the data is not in its ball")
    drives, vanishing = [one.at(arb(0)) for one in step.drives], {}
    for j, (mode, neuron) in enumerate(zip(step.modes, problem.neurons, strict=True)):
        met = problem.starts_on(j)
        require(mode.held <= met, f"neuron {j}", "it is held on a kink that it is not on")
        check_follows(mode, met, drives, step.output[j].at(arb(0)), f"neuron {j}")
        vanishing |= {f"{j} {k}": 1 for k in met if k not in mode.held}
        if problem.scale is not None and neuron.output == 0:
            vanishing[f"{j} sign"] = 1
    return vanishing


def check_passes(before: Step, event: dict[str, Any] | None, after: Step) -> dict[str, int]:
    """Weights and modes of the next step continue those of the one before. Returned is what vanishes there."""
    for place, (old, new) in enumerate(zip(before.at_end(before.weights), after.start, strict=True)):
        require(new.contains(old), "start", f"weight {place} at the end of the step before is not in its ball")
    names, vanishing = event_names(before, event), {}
    turned = {j for j, (old, new) in enumerate(zip(before.modes, after.modes, strict=True)) if old.sign != new.sign}
    # one that has turned has a number of its own, as have those of which it was the first
    alone = turned | {j for j, first in enumerate(before.twins) if first in turned}
    after.twins = [j if j in alone else first for j, first in enumerate(before.twins)]
    changing = {int(name.split()[0]) for name in names}
    for j, (old, new) in enumerate(zip(before.modes, after.modes, strict=True)):
        same = (old.text, old.sign) == (new.text, new.sign)
        require(j in changing or same, f"neuron {j}", "its mode changes without an event")
        if event is not None and j in changing:
            vanishing |= _check_event(before, event, names, j, new)
    return vanishing


def _check_event(before: Step, event: dict[str, Any], names: set[str], j: int, new: Mode) -> dict[str, int]:
    """The mode of a neuron that has an event is the only one to follow. Returned is what vanishes then."""
    problem, old, where = before.problem, before.modes[j], f"neuron {j}"
    arrived = {k for k in range(len(old.sides)) if f"{j} {k}" in names}
    turns = event["sample"] is None
    left = set() if turns or arrived else {_kink_of(problem, event["sample"])}
    met = old.held | arrived
    sign = -old.sign if turns else new.sign if problem.moves else old.sign
    require(new.sign == sign, where, "b_j has the wrong sign behind the event")
    concerned = {i for k in (met if arrived else left) for i in problem.kinks[k].factors}
    kept = all(a == b for i, (a, b) in enumerate(zip(old.text, new.text, strict=True)) if i not in concerned)
    require(kept, where, "sides change that the event does not concern")
    check_follows(new, met, before.at_end(before.drives), before.at_end(before.output)[j], where)
    if turns:
        return {f"{j} sign": 1}
    if arrived:
        return {f"{j} {k}": 1 for k in met if k not in new.held}
    exits_right = all(new.sides[k] == (1 if event["to"] == "up" else -1) for k in left)
    require(exits_right, where, "it exits to the wrong side")
    return {f"{j} {k}": 2 for k in left}  # with speed 0: the drive of a slide does not jump where it reaches its end


def check_follows(mode: Mode, met: set[int], drives: Sequence[arb], output: arb, where: str) -> None:
    """Only one solution goes on from the kinks that a neuron is on, if the step in this mode is one.

    Kinks whose side does not depend on the drives of the others are settled one after the other. If all that remain
    attract, the velocity is minus a subgradient of a convex function, and solutions are unique.
    """
    if mode.problem.moves and met:
        require(bool(mode.sign * output > 0), where, "v_j has no sign on a kink")
    open_kinks = set(met)
    while open_kinks:
        settled = next((k for k in sorted(open_kinks) if _settled(mode, k, open_kinks, met, drives)), None)
        if settled is None:
            break
        open_kinks.remove(settled)
    for k in sorted(open_kinks):
        if mode.sign:
            attracts = weighted(mode.attraction(k), drives) > 0
            require(bool(attracts), where, f"the mode behind kink {k} is not proved to be the only one")


def _settled(mode: Mode, k: int, open_kinks: set[int], met: set[int], drives: Sequence[arb]) -> bool:
    """Whether kink k goes to the side that it has in the mode, whatever the drives of the open kinks are."""
    problem, side = mode.problem, mode.sides[k]
    if side is None or mode.sign == 0:
        return False
    across = projection(problem, [other for other in mode.slid if other in met and other not in open_kinks])
    normal = across * fmpq_mat([[entry] for entry in problem.kinks[k].normal])
    speed, within = arb(0), {i for other in open_kinks for i in problem.kinks[other].factors}
    for i, reach in enumerate((mode.free * normal).entries()):
        speed += arb(reach) * drives[i] if i not in within and reach else arb(0)
    for other in open_kinks - {k}:
        share = _inner(problem.kinks[other].normal, normal.entries())
        speed += arb(share) * weighted(mode.end(other, 1), drives).union(weighted(mode.end(other, -1), drives))
    own = arb(_inner(problem.kinks[k].normal, normal.entries()))
    above, below = (mode.sign * (speed + own * weighted(mode.end(k, s), drives)) for s in (1, -1))
    if side == 0:
        return bool(above < 0 and below > 0)
    return bool(side * above > 0 and side * below > 0)


# Claims


def descent(step: Step) -> Series:
    """<grad, fa>: the products of minus the gradient, v_j r_j and dv_j/dt, with the velocities."""
    found = []
    for j, neuron in enumerate(step.problem.neurons):
        pace = step.flow[len(step.modes) * step.problem.dimension + j]
        hidden = inner(step.part(step.pulls, j), step.part(step.flow, j)) * step.output[j]
        found.append((hidden.times(1 / step.disc) + (pace * pace).times(1 / step.disc**2)).times(neuron.count))
    return reduce(add, found)


def risk(step: Step) -> Series:
    """L, as L at the start of the step less the integral of <grad, fa> (Eq. 1)."""
    problem, n, total = step.problem, step.problem.samples, arb(0)
    for i, label in enumerate(problem.labels):
        rows = zip(problem.neurons, step.active[i::n], step.output, strict=True)
        output = sum((neuron.count * h.poly[0] * v.poly[0] for neuron, h, v in rows), arb(0))
        total += VALUES[problem.loss](label * output) / n
    return descent(step).times(-step.disc).integral(total)


def alignment(step: Step) -> tuple[Series, Series]:
    """v . b and |v|^2 |b|^2."""
    v, b = step.output, [step.back(j) for j in range(len(step.modes))]
    counts = [neuron.count for neuron in step.problem.neurons]
    vb, vv, bb = (
        inner([one.times(count) for count, one in zip(counts, left, strict=True)], right)
        for left, right in ((v, b), (v, v), (b, b))
    )
    return vb, vv * bb


def quotient(step: Step, claim: dict[str, Any]) -> tuple[Series, Series]:
    """Numerator and (positive) denominator of an observable."""
    name, one = claim["observable"], Series(arb_poly([1]), arb(0), step.order)
    if name in ("sign", "gap"):
        j = step.problem.merged[claim["neuron"]]
        top, hidden = step.back(j) * step.output[j], step.part(step.weights, j)
        if name == "gap":
            top = top.times(0.5 if step.problem.moves else 1) + inner(hidden, hidden).times(-0.5)
        return (top.times(-1) if claim.get("negated") else top), one
    if name == "risk":
        return risk(step), one
    if name == "descent":
        return descent(step), one
    require(name == "dominance" and claim["alpha"] in (1, 2), "claim", f"{name!r} is no known observable")
    return descent(step), risk(step) if claim["alpha"] == 1 else risk(step) * risk(step)


def above(step: Step, claim: dict[str, Any], bound: fmpq) -> tuple[Any, list[Series]]:
    """Series of which all (or any) are positive where the observable is above a bound."""
    if claim["observable"] == "alignment":
        product, lengths = alignment(step)
        excess = product * product + lengths.times(-bound * bound)
        return (all, [product, excess]) if bound >= 0 else (any, [product, excess.times(-1)])
    top, bottom = quotient(step, claim)
    return all, [top + bottom.times(-bound)]


def value(step: Step, claim: dict[str, Any], time: arb) -> arb:
    """The observable at a time."""
    if claim["observable"] == "alignment":
        product, lengths = alignment(step)
        return product.at(time) / lengths.at(time).sqrt()
    top, bottom = quotient(step, claim)
    return top.at(time) / bottom.at(time)


def check_claims(claims: Sequence[dict[str, Any]], steps: int) -> None:
    """Claims say what is proved of them, and no more: a field that an observable does not have would be printed."""
    for claim in claims:
        name = claim["observable"]
        require(name in FIELDS, "claim", f"{name!r} is no known observable")
        given = claim.keys() - {"observable", "lower", "upper", "pieces", "step", "time"}
        require(given == FIELDS[name], "claim", f"{name!r} has other fields than {sorted(FIELDS[name])}")
        if claim["upper"] is not None:
            require(type(claim["step"]) is int and 0 <= claim["step"] < steps, "claim", "its step does not exist")


def check_claim(step: Step, number: int, claim: dict[str, Any], latest: arb, t_final: arb) -> None:
    """The part of a claim that concerns one step, which starts at `latest` or earlier."""
    if claim["lower"] is not None:
        every, series = above(step, claim, exact(claim["lower"]))
        for low, high in pieces_of(step.end, claim["pieces"].get(str(number), [])):
            holds = every(positive(one, low, high) for one in series)
            require(holds, "claim", f"{claim['observable']} is not proved to be above {claim['lower']}")
    if claim["upper"] is not None and claim["step"] == number:
        time = dyadic(claim["time"])
        require(0 <= time <= step.begin, "claim", "its time is not in its step")
        require(bool(latest + step.disc * time <= t_final), "claim", "its time may be behind t_final")
        holds = value(step, claim, time) <= arb(exact(claim["upper"]))
        require(bool(holds), "claim", f"{claim['observable']} is not proved to come below {claim['upper']}")


def verify(certificate: dict[str, Any]) -> list[str]:
    """What a certificate proves, in one line for the run and one for each claim.

    Raises:
        Rejected: if it does not prove it.
    """
    require(certificate.get("format") == FORMAT, "format", f"it must be {FORMAT!r}")
    with digits(int(certificate["bits"])):
        return _verify(certificate)


@contextmanager
def digits(bits: int) -> Iterator[None]:
    """Calculate with so many bits, and with as many terms of power series as are given."""
    before = ctx.prec, ctx.cap
    ctx.prec, ctx.cap = bits, sys.maxsize
    try:
        yield
    finally:
        ctx.prec, ctx.cap = before


def _verify(certificate: dict[str, Any]) -> list[str]:
    problem, before, where = CertifiedProblem(certificate["data"]), None, "step 0"
    time = latest = arb(0)  # of the start of a step: all steps before as short, and as long, as they may be
    records, claims, end = certificate["steps"], certificate["claims"], arb(exact(certificate["t_final"]))
    try:
        for number, record in enumerate(records):
            where = f"step {number}"
            step = Step(problem, record)
            step.check_tails()
            if before is None:
                vanishing = check_begins(problem, step)
            else:
                vanishing = check_passes(before, records[number - 1]["event"], step)
            check_lasts(step, record, vanishing)
            for claim in claims:
                check_claim(step, number, claim, latest, end)
            latest += step.disc * step.end
            before, time = step, time + step.disc * (step.begin if number + 1 < len(records) else step.end)
    except Rejected as error:
        raise Rejected(f"{where}, {error}") from None
    require(bool(end > 0), "t_final", "it must be above 0")
    require(bool(records) and records[-1]["event"] is None, "end", "the last step does not last to the end")
    require(bool(time >= end), "end", f"the steps do not reach t_final = {certificate['t_final']}")
    check_claims(claims, len(records))
    return [_summary(certificate, problem), *map(_claimed, claims)]


def _summary(certificate: dict[str, Any], problem: CertifiedProblem) -> str:
    rule = "GD" if problem.moves else "FA" if problem.scale is None else f"sign-FA with scale {problem.scale}"
    events = sum(record["event"] is not None for record in certificate["steps"])
    return (
        f"verified: {rule}, {problem.loss} loss, slope {problem.slope}, n = {problem.samples}, "
        f"d = {problem.dimension}, m = {len(problem.merged)}, t in [0, {certificate['t_final']}], "
        f"{len(certificate['steps'])} steps, {events} events"
    )


def _claimed(claim: dict[str, Any]) -> str:
    name = claim["observable"] + "".join(f", {key} {claim[key]}" for key in ("alpha", "neuron") if key in claim)
    name = f"minus {name}" if claim.get("negated") else name
    lower = "" if claim["lower"] is None else f" is at least {claim['lower']} at all times"
    upper = "" if claim["upper"] is None else f" is at most {claim['upper']} at some time"
    return f"verified: {name}{lower}{' and' if lower and upper else ''}{upper}"


def main(path: str) -> int:
    """Print what a file proves, or in one line why it does not."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = verify(json.load(file))
    except (Rejected, OSError) as error:
        print(f"rejected: {error}")
        return 1
    except (ArithmeticError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        print(f"rejected: it is not a certificate: {type(error).__name__} {error}")
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
