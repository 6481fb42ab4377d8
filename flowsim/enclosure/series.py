"""Taylor coefficients of the flow within a mode, in balls.

With H_ij = phi' z_ij and the rows G_ji of `Mode.drives`, and index k for the coefficient of t^k,

    zeta_k = U W_k,   f_k = sum_l H_l v_{k-l},   q_k = weight y g_k,
    (k+1) v_{k+1} = sum_l H_l^T q_{k-l},   (k+1) w_{j,k+1} = sum_l b_{j,l} (sum_i q_{i,k-l} G_ji).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flint import arb, arb_mat, fmpq_mat

from flowsim.enclosure.exact import ExactProblem
from flowsim.enclosure.modes import Mode

CHUNK = 16
"""Orders that are kept in one matrix: a product with a part of a matrix is not to be had."""

Row = list[arb]


@dataclass(frozen=True)
class State:
    """Weights of the merged neurons, modes, and what is known to vanish: zeta_jk at a start on the kink.

    `zeros[k, j]` is the order of the zero that zeta of kink k and neuron j has in time; `risen` are the neurons
    whose v_j is exactly 0. `twins` names for each neuron the first of those whose zeta are exact multiples of its own.
    """

    hidden: tuple[tuple[arb, ...], ...]
    output: tuple[arb, ...]
    modes: tuple[Mode, ...]
    twins: tuple[int, ...]
    zeros: dict[tuple[int, int], int] = field(default_factory=dict)
    risen: frozenset[int] = frozenset()


class Convolution:
    """sum_l A_l b_{k-l} with matrices A_l, p x q, and vectors b_l that come one order at a time."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.orders = 0
        self.left: list[arb_mat] = []
        self.right: list[Row] = [[arb(0)] * columns] * (CHUNK - 1)
        self.latest: list[arb_mat] = []

    def append(self, left: Sequence[arb], right: Row) -> None:
        """Take A_k, row after row, and b_k."""
        place = self.orders % CHUNK
        if place == 0:
            self.left.append(arb_mat(self.rows, self.columns * CHUNK))
        chunk, columns = self.left[-1], self.columns
        for index, entry in enumerate(left):
            chunk[index // columns, place * columns + index % columns] = entry
        self.right.append(right)
        stacked = [entry for row in self.right[: -CHUNK - 1 : -1] for entry in row]
        self.latest.append(arb_mat(len(stacked), 1, stacked))
        self.orders += 1

    def term(self) -> Row:
        """The latest coefficient: each chunk times the b that were the latest so many orders ago."""
        total = arb_mat(self.rows, 1)
        for number, chunk in enumerate(self.left):
            total += chunk * self.latest[self.orders - 1 - number * CHUNK]
        return total.entries()


class Expansion:
    """The Taylor coefficients of all that moves, order by order: each attribute is a list over orders of flat rows.

    hidden (m x d), output (m), zeta (kinks x m), margins u (n), g = -l'(u) (n), drives q (n).
    """

    def __init__(self, problem: ExactProblem, state: State) -> None:
        self.problem, self.state = problem, state
        samples, neurons = problem.samples, problem.neurons
        self.hidden: list[Row] = [[entry for row in state.hidden for entry in row]]
        self.output: list[Row] = [list(state.output)]
        self.zeta: list[Row] = []
        self.margins: list[Row] = []
        self.drives: list[Row] = []
        self.normals = arb_mat(problem.normals.transpose())
        self.factors = [
            [arb(mode.slopes[i] * sample.factor) for mode in state.modes] for i, sample in enumerate(samples)
        ]
        self.counts = [arb(neuron.count) for neuron in neurons]
        self.gates = arb_mat(beside([mode.drives for mode in state.modes]))
        self.weights = [arb(sample.label * sample.weight) for sample in samples]
        self.labels = [arb(sample.label) for sample in samples]
        self.terms = [problem.loss.terms() for _ in samples]
        for terms in self.terms:
            next(terms)
        self.outputs = Convolution(len(samples), len(neurons))
        self.learning = Convolution(len(neurons), len(samples))
        self.back = [Convolution(problem.dimension, 1) for _ in neurons] if feedback_moves(problem) else None
        self.feedback = fixed_feedback(problem, state.modes)

    @property
    def order(self) -> int:
        """The number of coefficients of the weights that are known."""
        return len(self.output)

    def extend(self, order: int) -> None:
        """Go on to so many coefficients."""
        while self.order < order:
            self._next()

    def complete(self) -> None:
        """Take the last coefficients of zeta and u as well, those of the order that the weights have."""
        while len(self.zeta) < self.order:
            self._forward()

    def _next(self) -> None:
        self.complete()
        k = self.order
        drives = self.drives[-1]
        pulls = (arb_mat(1, len(drives), drives) * self.gates).entries()
        self.output.append([entry / k for entry in self.learning.term()])
        self.hidden.append([entry / k for entry in self._carried(pulls)])

    def _forward(self) -> None:
        """Zeta, outputs, margins and drives of the next order."""
        k, problem, neurons = len(self.zeta), self.problem, len(self.counts)
        weights = arb_mat(neurons, problem.dimension, self.hidden[k])
        zeta = (weights * self.normals).transpose().entries()
        for place, mode in enumerate(self.state.modes):
            for kink in mode.held:
                zeta[kink * neurons + place] = arb(0)
        for (kink, place), times in self.state.zeros.items():
            if k < times:
                zeta[kink * neurons + place] = arb(0)
        self.zeta.append(zeta)
        active = [
            [arb(0)] * neurons if sample.kink is None
            else [a * b for a, b in zip(row, zeta[sample.kink * neurons : (sample.kink + 1) * neurons], strict=True)]
            for sample, row in zip(problem.samples, self.factors, strict=True)
        ]  # fmt: skip
        counted = [a * b for a, b in zip(self.counts, self.output[k], strict=True)]
        self.outputs.append([entry for row in active for entry in row], counted)
        self.margins.append([y * f for y, f in zip(self.labels, self.outputs.term(), strict=True)])
        slopes = [terms.send(u) for terms, u in zip(self.terms, self.margins[-1], strict=True)]
        self.drives.append([weight * g for weight, g in zip(self.weights, slopes, strict=True)])
        self.learning.append([row[j] for j in range(neurons) for row in active], self.drives[-1])

    def _carried(self, pulls: Row) -> Row:
        """B_j times sum_i q_i G_ji, as series."""
        d = self.problem.dimension
        if self.back is None:
            return [b * pull for j, b in enumerate(self.feedback) for pull in pulls[j * d : (j + 1) * d]]
        for j, product in enumerate(self.back):
            product.append(pulls[j * d : (j + 1) * d], [self.output[len(self.drives) - 1][j]])
        return [entry for product in self.back for entry in product.term()]


def feedback_moves(problem: ExactProblem) -> bool:
    """Whether b_j = v_j."""
    return not problem.fixed and not problem.follows_signs


def fixed_feedback(problem: ExactProblem, modes: Sequence[Mode]) -> Row:
    """The b_j of a mode, where they stand still: fixed, or s times a sign. Empty under GD."""
    if feedback_moves(problem):
        return []
    if problem.scale is not None:
        return [mode.sign * arb(problem.scale) for mode in modes]
    return [arb(neuron.feedback) for neuron in problem.neurons if neuron.feedback is not None]


def beside(matrices: Sequence[fmpq_mat]) -> fmpq_mat:
    """Matrices with equally many rows, side by side."""
    rows = matrices[0].nrows()
    entries = [matrix[r, c] for r in range(rows) for matrix in matrices for c in range(matrix.ncols())]
    return fmpq_mat(rows, sum(matrix.ncols() for matrix in matrices), entries)
