"""The exact start: which neurons sit on kinks, and the modes in which they leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flint import arb, fmpq

from flowsim.enclosure.exact import ExactProblem
from flowsim.enclosure.modes import Mode, decide, linear
from flowsim.enclosure.series import State, feedback_moves
from flowsim.errors import Undecided


def start(problem: ExactProblem) -> State:
    """Return the initial state with the mode of each neuron.

    Raises:
        Undecided: if a neuron may go on in several ways.
    """
    places = [_places(problem, neuron.hidden) for neuron in problem.neurons]
    drives = _drives(problem, places)
    modes = [_mode(problem, j, places[j], drives) for j in range(len(problem.neurons))]
    zeros = {
        (kink, j): 1 for j, row in enumerate(places) for kink, zeta in enumerate(row)
        if problem.bent and zeta == 0 and kink not in modes[j].held
    }  # fmt: skip
    return State(
        hidden=tuple(tuple(map(arb, neuron.hidden)) for neuron in problem.neurons),
        output=tuple(arb(neuron.output) for neuron in problem.neurons),
        modes=tuple(modes),
        twins=find_twins(problem, places),
        zeros=zeros,
        risen=frozenset(j for j, neuron in enumerate(problem.neurons) if neuron.output == 0),
    )


def find_twins(problem: ExactProblem, places: Sequence[Sequence[fmpq]]) -> tuple[int, ...]:
    """For each neuron the first whose zeta are those of its own times b_k / b_j > 0 at t = 0, and so ever after.

    dw_j/dt is b_j times a sum that depends on w_j by its sides only. Under sign-FA that is so while v_j and v_k have
    the same sign, and 0 is none. Under GD v_j changes: there are none.
    """
    first: dict[tuple[Any, ...], int] = {}
    found = []
    for j, (neuron, row) in enumerate(zip(problem.neurons, places, strict=True)):
        b = neuron.feedback or fmpq(0)
        if problem.follows_signs:
            b = fmpq(sign_of(neuron.output))
        found.append(first.setdefault((sign_of(b), *(zeta / abs(b) for zeta in row)), j) if b else j)
    return tuple(found)


def sign_of(number: fmpq | arb) -> int:
    """The sign of a number, 0 for a ball that has none.

    >>> sign_of(fmpq(-1, 3)), sign_of(arb(0, 1))
    (-1, 0)
    """
    return 1 if number > 0 else -1 if number < 0 else 0


def _places(problem: ExactProblem, hidden: tuple[fmpq, ...]) -> list[fmpq]:
    """Zeta of each kink."""
    normals = problem.normals
    return [sum((normals[kink, c] * entry for c, entry in enumerate(hidden)), fmpq(0)) for kink in range(problem.kinks)]


def _activation(problem: ExactProblem, i: int, row: list[fmpq]) -> fmpq:
    """phi(z) of sample i."""
    sample = problem.samples[i]
    if sample.kink is None:
        return fmpq(0)
    return problem.slope_on(sample, sign_of(row[sample.kink])) * sample.factor * row[sample.kink]


def _drives(problem: ExactProblem, places: list[list[fmpq]]) -> list[arb]:
    """The drives q of the samples."""
    found = []
    for i, sample in enumerate(problem.samples):
        terms = (
            n.count * n.output * _activation(problem, i, row) for n, row in zip(problem.neurons, places, strict=True)
        )
        margin = arb(sample.label * sum(terms, fmpq(0)))
        found.append(arb(sample.label * sample.weight) * problem.loss.slope(margin))
    return found


def _mode(problem: ExactProblem, j: int, row: list[fmpq], drives: list[arb]) -> Mode:
    neuron = problem.neurons[j]
    sign = sign_of(neuron.output if neuron.feedback is None else neuron.feedback)
    if sign == 0 and problem.follows_signs:
        sign = sign_of(linear([_activation(problem, i, row) for i in range(len(problem.samples))], drives))
        if sign == 0:
            raise Undecided(f"v_j = 0 and dv_j/dt are not proved to take a sign (neuron {problem.neuron_of.index(j)})")
    met = [kink for kink, zeta in enumerate(row) if zeta == 0]
    mode = Mode(problem, tuple(sign_of(zeta) or 1 for zeta in row), frozenset(), sign)
    if not met or not problem.bent:
        return mode
    if sign == 0 and feedback_moves(problem):
        raise Undecided(f"a neuron with v_j = 0 sits on kinks (neuron {problem.neuron_of.index(j)})")
    return decide(mode, met, drives)
