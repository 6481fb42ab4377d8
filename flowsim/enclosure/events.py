"""What ends a mode: functions that are positive while it lasts, and the first of them to come to 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from flint import arb, fmpq

from flowsim.enclosure.curve import Curve, combine
from flowsim.enclosure.modes import Mode, Row
from flowsim.enclosure.roots import Unseparated, first_zero, is_clear
from flowsim.enclosure.series import Expansion, feedback_moves
from flowsim.enclosure.tails import Tails, curve

Cause = Literal["arrival", "exit up", "exit down", "sign", "turn"]
"""A neuron arrives on kinks; the drive that holds it on one comes to its active or inactive end; b_j jumps; or kinks
that attracted begin to repel, where solutions branch."""


@dataclass(frozen=True)
class Watch:
    """A function that is positive in the mode, divided by the power of t with which it starts at 0.

    It may be that of several neurons: drives that hold are the same combination of the q_i, up to a factor, where
    neurons are on the same sides of all kinks that matter. They leave at once then, exactly.
    """

    cause: Cause
    neurons: tuple[int, ...]
    kinks: tuple[int, ...]
    curve: Curve


def watches(expansion: Expansion, tails: Tails) -> list[Watch]:
    """All functions that must stay positive for the modes to last."""
    drives = [curve(expansion.drives, i, tail, tails.disc) for i, tail in enumerate(tails.drives)]
    found = _exits(expansion.state.modes, drives) if expansion.problem.bent else []
    for j, mode in enumerate(expansion.state.modes):
        if expansion.problem.bent and expansion.state.twins[j] == j:
            found += _arrivals(expansion, tails, j, mode)
        if expansion.problem.follows_signs or (feedback_moves(expansion.problem) and mode.held):
            output = _signed(mode.sign, curve(expansion.output, j, tails.output[j], tails.disc))
            cause: Cause = "turn" if mode.held else "sign"
            found.append(Watch(cause, (j,), (), output.deflated(int(j in expansion.state.risen))))
    return found


def _arrivals(expansion: Expansion, tails: Tails, j: int, mode: Mode) -> list[Watch]:
    """Side times zeta of the kinks that the neuron is not on; those that it reaches together are watched as one.

    So are those of its twins.
    """
    found, seen = [], set(mode.held)
    together_with = tuple(other for other, first in enumerate(expansion.state.twins) if first == j)
    neurons = len(expansion.state.modes)
    for kink in range(expansion.problem.kinks):
        if kink in seen:
            continue
        together = mode.shared(kink)
        seen.update(together)
        place = kink * neurons + j
        zeta = _signed(mode.sides[kink], curve(expansion.zeta, place, tails.zeta[place], tails.disc))
        zeros = expansion.state.zeros.get((kink, j), 0)
        found.append(Watch("arrival", together_with, tuple(together), zeta.deflated(zeros)))
    return found


def _exits(modes: Sequence[Mode], drives: list[Curve]) -> list[Watch]:
    """The room that held drives have to their ends, and the pull of kinks that neurons rest on."""
    rows: dict[tuple[Cause, int, tuple[fmpq, ...]], list[int]] = {}
    for j, mode in enumerate(modes):
        for cause, kink, row in _list_rooms(mode):
            rows.setdefault((cause, kink, _scale(row)), []).append(j)
    return [
        Watch(cause, tuple(neurons), (kink,), _linear(row, drives)) for (cause, kink, row), neurons in rows.items()
    ]  # fmt: skip


def _list_rooms(mode: Mode) -> Iterator[tuple[Cause, int, Row]]:
    for kink in mode.slid:
        up, down = mode.room(kink)
        yield "exit up", kink, up
        yield "exit down", kink, down
    if mode.sign:
        for kink in sorted(mode.resting):
            yield "turn", kink, mode.pull(kink)


def _scale(row: Row) -> tuple[fmpq, ...]:
    """The row over the size of its first entry that is not 0: the same for rows that differ by a positive factor."""
    size = next((abs(entry) for entry in row if entry), fmpq(1))
    return tuple(entry / size for entry in row)


def _linear(row: Sequence[fmpq], drives: list[Curve]) -> Curve:
    return combine(*zip(*((arb(a), drive) for a, drive in zip(row, drives, strict=True) if a), strict=True))


def _signed(sign: int, one: Curve) -> Curve:
    return one if sign > 0 else Curve(-one.polynomial, one.tail, one.disc)


def first_event(watched: Sequence[Watch], end: arb) -> tuple[arb, Watch] | None:
    """The one function that is first to come to 0 on (0, end] and when; None if all stay positive.

    Raises:
        Unseparated: if it is not proved which is the first, or whether there is one.
    """
    first = None
    unclear = [watch for watch in watched if not is_clear(watch.curve, end)]
    for watch in sorted(unclear, key=_guess):
        try:
            time = None if is_clear(watch.curve, end) else first_zero(watch.curve, end)
        except Unseparated as error:
            rival = "" if first is None else f", nor to come after the {_named(first[1])}"
            raise Unseparated(f"{_named(watch)}: {error}{rival}") from error
        if time is None:
            continue
        if first is not None and not time < first[0]:
            raise Unseparated(f"{_named(watch)}: it is not proved to come before or after the {_named(first[1])}")
        first, end = (time, watch), time.upper()
    return first


def _named(watch: Watch) -> str:
    return f"{watch.cause} of neuron {', '.join(map(str, watch.neurons))} on kinks {list(watch.kinks)}"


def _guess(watch: Watch) -> float:
    """Where the tangent at the start comes to 0: to look at likely events first."""
    start, slope = (float(entry.mid()) for entry in (watch.curve.polynomial[0], watch.curve.polynomial[1]))
    return -start / slope if slope < 0 else float("inf")
