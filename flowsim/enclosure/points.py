"""The solution at a time, in balls, or around it, in series: what observables are functions of.

An observable is written once, against numbers that know + - * / and methods such as sqrt, exp, log: `arb` balls, or
`arb_series` in the time from a point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from flint import arb, arb_series

from flowsim.enclosure.curve import coefficients_of
from flowsim.enclosure.exact import ExactProblem
from flowsim.enclosure.modes import Mode
from flowsim.enclosure.series import feedback_moves, fixed_feedback
from flowsim.enclosure.steps import Step
from flowsim.errors import Undecided

A = TypeVar("A")
"""Arb or arb_series."""


@dataclass(frozen=True, repr=False)
class Point(Generic[A]):
    """The solution at `time`. Lists that end in `_merged` have one entry for each of the different neurons."""

    problem: ExactProblem
    time: A
    hidden_merged: list[list[A]]
    output_merged: list[A]
    modes: tuple[Mode, ...] | None
    """None at an event, where what depends on them jumps."""

    def __repr__(self) -> str:
        time = self.time.str(6, radius=False) if isinstance(self.time, arb) else "a series"
        return f"Point(t = {time}, hidden ({len(self.hidden)}, {len(self.hidden[0])}), output ({len(self.output)}))"

    @property
    def hidden(self) -> list[list[A]]:
        """The rows w_j of all m neurons."""
        return [self.hidden_merged[j] for j in self.problem.neuron_of]

    @property
    def output(self) -> list[A]:
        """The v_j of all m neurons."""
        return [self.output_merged[j] for j in self.problem.neuron_of]

    @property
    def counts(self) -> list[int]:
        """How often each of the merged neurons occurs."""
        return [neuron.count for neuron in self.problem.neurons]

    @cached_property
    def feedback_merged(self) -> list[Any]:
        """b_j of the merged neurons."""
        return self.output_merged if feedback_moves(self.problem) else fixed_feedback(self.problem, self.known_modes)

    @property
    def known_modes(self) -> tuple[Mode, ...]:
        """The modes of the merged neurons.

        Raises:
            Undecided: at an event.
        """
        if self.modes is None:
            raise Undecided("what jumps has no value at an event")
        return self.modes

    @property
    def zero(self) -> Any:
        """0, of the kind that the weights are of: where sums begin."""
        return 0 * cast(Any, self.time)

    @cached_property
    def margins(self) -> list[Any]:
        """u_i = y_i f(x_i) of the merged samples."""
        found = []
        for i, sample in enumerate(self.problem.samples):
            terms = [] if sample.kink is None else [
                arb(mode.slopes[i] * neuron.count * sample.label) * cast(Any, v) * _inner(self._input(i), w)
                for mode, neuron, w, v in zip(
                    self.known_modes, self.problem.neurons, self.hidden_merged, self.output_merged, strict=True
                )
                if sample.kink not in mode.held
            ]  # fmt: skip
            found.append(sum(terms, self.zero))
        return found

    @cached_property
    def drives(self) -> list[Any]:
        """q_i = weight_i y_i g(u_i) of the merged samples."""
        slope = self.problem.loss.slope
        pairs = zip(self.problem.samples, self.margins, strict=True)
        return [arb(sample.label * sample.weight) * slope(u) for sample, u in pairs]

    @cached_property
    def pulls_merged(self) -> list[list[Any]]:
        """r_j = sum_i q_i G_ji, so that dw_j/dt = b_j r_j and the gradient of the risk is -v_j r_j."""
        columns = range(self.problem.dimension)
        return [[_linear(mode.drives, c, self.drives) for c in columns] for mode in self.known_modes]

    @cached_property
    def learning_merged(self) -> list[Any]:
        """dv_j/dt = w_j . r_j."""
        return [_inner(w, r) for w, r in zip(self.hidden_merged, self.pulls_merged, strict=True)]

    def _input(self, i: int) -> list[arb]:
        return [arb(self.problem.inputs[i, c]) for c in range(self.problem.dimension)]


def risk(point: Point[Any]) -> Any:
    """L = sum_i weight_i l(u_i)."""
    problem = point.problem
    return sum(
        (arb(s.weight) * problem.loss.value(u) for s, u in zip(problem.samples, point.margins, strict=True)),
        point.zero,
    )


def descent_product(point: Point[Any]) -> Any:
    """<grad, fa> = -dL/dt = sum_j v_j b_j |r_j|^2 + (dv_j/dt)^2."""
    rows = zip(
        point.counts, point.output_merged, point.feedback_merged, point.pulls_merged, point.learning_merged, strict=True
    )
    return sum((c * (v * b * _inner(r, r) + pace * pace) for c, v, b, r, pace in rows), point.zero)


def conserved(point: Point[Any]) -> list[Any]:
    """Psi(v_j) - |w_j|^2 / 2 of the merged neurons: b_j v_j, or v_j^2 / 2 under GD (Theorem 5.2)."""
    factor = arb(1) / 2 if feedback_moves(point.problem) else arb(1)
    rows = zip(point.feedback_merged, point.output_merged, point.hidden_merged, strict=True)
    return [factor * b * v - _inner(w, w) / 2 for b, v, w in rows]


def alignment(point: Point[Any]) -> Any:
    """cos(v, b)."""
    zero = point.zero
    b, v, counts = point.feedback_merged, point.output_merged, point.counts

    def inner(left: list[Any], right: list[Any]) -> Any:
        return sum((c * x * y for c, x, y in zip(counts, left, right, strict=True)), zero)

    return inner(v, b) / (inner(v, v) * inner(b, b)).sqrt()


def at_time(problem: ExactProblem, steps: Sequence[Step], time: arb) -> Point[arb]:
    """The solution at a time: the union over all steps in which it may lie."""
    found = [at_local(problem, step, time - step.start) for step in steps if step.start <= time <= step.end] or [
        at_local(problem, step, time - step.start) for step in steps if not (time < step.start or time > step.end)
    ]
    first, *others = found
    for other in others:
        rows = zip(first.hidden_merged, other.hidden_merged, strict=True)
        first = Point(
            problem,
            time,
            [_unions(left, right) for left, right in rows],
            _unions(first.output_merged, other.output_merged),
            first.modes if first.modes == other.modes else None,
        )
    return first


def at_local(problem: ExactProblem, step: Step, local: arb) -> Point[arb]:
    """The solution of a step at a time since its start."""
    values = [curve.value(local) for curve in step.hidden]
    rows = _rows(problem, values)
    return Point(problem, step.start + local, rows, [curve.value(local) for curve in step.output], step.state.modes)


def around(problem: ExactProblem, step: Step, middle: arb, radii: Sequence[arb], count: int) -> list[Point[arb_series]]:
    """The solution's first Taylor coefficients about every time of [middle - radius, middle + radius] in a step.

    One point for each radius.
    """
    found, curves = [], (*step.hidden, *step.output)
    for radius, weights in zip(radii, coefficients_of(curves, middle, radii, count), strict=True):
        entries = [arb_series(coefficients, count) for coefficients in weights]
        hidden, output = entries[: len(step.hidden)], entries[len(step.hidden) :]
        time = arb_series([step.start + middle + arb(0, radius), 1][:count], count)
        found.append(Point(problem, time, _rows(problem, hidden), output, step.state.modes))
    return found


def _rows(problem: ExactProblem, entries: list[A]) -> list[list[A]]:
    d = problem.dimension
    return [entries[j * d : (j + 1) * d] for j in range(len(problem.neurons))]


def _unions(left: list[arb], right: list[arb]) -> list[arb]:
    return [a.union(b) for a, b in zip(left, right, strict=True)]


def _inner(left: Sequence[Any], right: Sequence[Any]) -> Any:
    first, *others = (a * b for a, b in zip(left, right, strict=True))
    return sum(others, first)


def _linear(matrix: Any, column: int, drives: list[Any]) -> Any:
    """Sum over the rows of a column times a drive."""
    return sum((arb(matrix[i, column]) * q for i, q in enumerate(drives) if matrix[i, column]), 0 * drives[0])
