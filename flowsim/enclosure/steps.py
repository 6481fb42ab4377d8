"""One step: a proved Taylor expansion from a state, the event that ends it, and the state behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from flint import arb, ctx

from flowsim.enclosure.curve import Curve, Disc
from flowsim.enclosure.events import Watch, first_event, watches
from flowsim.enclosure.modes import Mode, decide
from flowsim.enclosure.roots import Unseparated
from flowsim.enclosure.series import Expansion, State, feedback_moves
from flowsim.enclosure.start import sign_of
from flowsim.enclosure.tails import Majorants, Tails, curve
from flowsim.errors import Undecided

PROBE = 16
"""Coefficients from which the step is planned."""

ORDER_PER_BIT = 0.38
"""The most coefficients of a step."""

SHRINK = 0.8
"""From one disc tried to the next."""

DISCS = 40
"""Discs tried at most."""


@dataclass(frozen=True)
class Change:
    """A neuron (merged) goes over from one side of a kink to another; kink None: b_j jumps between signs."""

    neuron: int
    kink: int | None
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class Step:
    """The solution on [start, end], balls, end = start + length. Curves are functions of the time since `start`.

    `hidden` is m x d, flat, of merged neurons. `changes` is what happens at the end: nothing, if it is no event.
    """

    start: arb
    length: arb
    end: arb
    state: State
    hidden: tuple[Curve, ...]
    output: tuple[Curve, ...]
    changes: tuple[Change, ...]

    @property
    def disc(self) -> Disc:
        """That of all curves."""
        return self.output[0].disc

    @property
    def radius(self) -> arb:
        """The largest radius of the weights at the start."""
        balls = [*self.state.output, *(entry for row in self.state.hidden for entry in row)]
        return max((ball.rad() for ball in balls), key=float)


def advance(expansion: Expansion, start: arb, remaining: arb, share: float) -> tuple[Step, State | None, float]:
    """Take the next step of at most the remaining time.

    `share` is that of the guessed radius of convergence at which a disc is looked for first. Returned with the step
    are the state behind it, None if it takes all of the remaining time, and the share for the next one.

    Raises:
        Unseparated: where more bits may help.
        Undecided: where the mode behind an event is not unique.
    """
    expansion.extend(PROBE)
    expansion.extend(_planned_order(expansion))
    expansion.complete()
    tails, share = _proved_disc(expansion, remaining, share)
    horizon, last = _horizon(tails, remaining)
    watched = watches(expansion, tails)
    event = first_event(watched, horizon.upper())
    if event is None:
        length, changes = (remaining if last else horizon), ()
        state = None if last else _moved(expansion, tails, length, expansion.state.modes)
    else:
        length, watch = event
        if not length < remaining:
            raise Unseparated("an event is not proved to come before the end")
        state = _behind(expansion, tails, length, watch)
        changes = _changes(expansion.state.modes, state.modes, watch)
    hidden, output = _weights(expansion, tails)
    return Step(start, length, start + length, expansion.state, tuple(hidden), tuple(output), changes), state, share


def _weights(expansion: Expansion, tails: Tails) -> tuple[list[Curve], list[Curve]]:
    hidden = [curve(expansion.hidden, place, tail, tails.disc) for place, tail in enumerate(tails.hidden)]
    output = [curve(expansion.output, place, tail, tails.disc) for place, tail in enumerate(tails.output)]
    return hidden, output


def _moved(expansion: Expansion, tails: Tails, time: arb, modes: Sequence[Mode]) -> State:
    hidden, output = ([one.value(time) for one in curves] for curves in _weights(expansion, tails))
    d = expansion.problem.dimension
    rows = tuple(tuple(hidden[j * d : (j + 1) * d]) for j in range(len(output)))
    return State(rows, tuple(output), tuple(modes), expansion.state.twins)


def _behind(expansion: Expansion, tails: Tails, time: arb, watch: Watch) -> State:
    """The state behind an event: only the neurons that have it may change their modes."""
    moved = _moved(expansion, tails, time, expansion.state.modes)
    modes, zeros = list(moved.modes), {}
    for j in watch.neurons:
        modes[j], held_back = _mode_behind(expansion, tails, time, watch, j, moved.output[j])
        zeros |= {(kink, j): power for kink, power in held_back.items()}
    if watch.cause != "sign":
        return replace(moved, modes=tuple(modes), zeros=zeros)
    (j,) = watch.neurons
    return replace(moved, modes=tuple(modes), twins=_separate(moved.twins, j), risen=frozenset({j}))


def _separate(twins: tuple[int, ...], j: int) -> tuple[int, ...]:
    """The twins when neuron j is alone from now on."""
    others = [other for other, first in enumerate(twins) if first == twins[j] and other != j]
    return tuple(j if k == j else min(others) if k in others else first for k, first in enumerate(twins))


def _mode_behind(
    expansion: Expansion, tails: Tails, time: arb, watch: Watch, j: int, output: arb
) -> tuple[Mode, dict[int, int]]:
    """The mode of neuron j behind its event; the powers of t with which zeta leaves 0, per kink."""
    mode = expansion.state.modes[j]
    if watch.cause == "turn":
        raise Undecided("a kink that a neuron sits on begins to repel: solutions branch", final=True)
    if watch.cause == "sign":
        return replace(mode, sign=-mode.sign), {}
    if watch.cause == "arrival":
        if feedback_moves(expansion.problem):
            mode = replace(mode, sign=sign_of(output))
            if mode.sign == 0:
                raise Unseparated("v_j is not proved to have a sign where its neuron arrives on a kink")
        drives = [curve(expansion.drives, i, tail, tails.disc).value(time) for i, tail in enumerate(tails.drives)]
        met = [*sorted(mode.held), *watch.kinks]
        after = decide(mode, met, drives)
        return after, {kink: 1 for kink in met if kink not in after.held}
    (kink,) = watch.kinks
    after = mode.with_sides({kink: 1 if watch.cause == "exit up" else -1}, mode.resting)
    if any(after.is_driven(other) for other in after.resting):
        raise Undecided("a neuron that leaves a kink begins to drive another one that it rests on", final=True)
    return after, {kink: 2}  # it leaves with speed 0, as its drive does not jump


def _changes(before: Sequence[Mode], after: Sequence[Mode], watch: Watch) -> tuple[Change, ...]:
    found = []
    for j in watch.neurons:
        if watch.cause == "sign":
            found.append(Change(j, None, before[j].sign, after[j].sign))
        pairs = zip(before[j].sides, after[j].sides, strict=True)
        found += [Change(j, kink, old, new) for kink, (old, new) in enumerate(pairs) if old != new]
    return tuple(found)


def _magnitude(ball: arb) -> float:
    """About log2 |ball|."""
    mantissa, exponent = ball.mid().man_exp()
    return int(exponent) + int(abs(mantissa)).bit_length() if mantissa else -inf


def _log_radius(expansion: Expansion) -> float:
    """About log2 of the radius of convergence, from the last two coefficients; inf where nothing moves."""
    parts, last = (expansion.hidden, expansion.output, expansion.margins), expansion.order - 1
    return -max(
        _magnitude(entry) / k for k in (last - 1, last) for part in parts for row in part[k : k + 1] for entry in row
    )


def _planned_order(expansion: Expansion) -> int:
    """Fewer coefficients where an event is near: enough for it to be met at full accuracy."""
    most = max(PROBE, int(ORDER_PER_BIT * ctx.prec))
    gain = _log_radius(expansion) - 1 - _log_first_zero(expansion)
    return max(PROBE, min(most, int(ctx.prec / gain) + 2)) if gain > ctx.prec / most else most


def _log_first_zero(expansion: Expansion) -> float:
    """About log2 of the first time at which a zeta comes to 0 by its tangent; a guess for planning only."""
    neurons, first = len(expansion.state.modes), inf
    for place, (value, slope) in enumerate(zip(expansion.zeta[0], expansion.zeta[1], strict=True)):
        side = expansion.state.modes[place % neurons].sides[place // neurons]
        if side and side * value > 0 and side * slope < 0:
            first = min(first, _magnitude(value) - _magnitude(slope) + 0.5)
    return first


def _proved_disc(expansion: Expansion, remaining: arb, share: float) -> tuple[Tails, float]:
    """The tails on the largest disc tried on which they are proved."""
    majorants = Majorants(expansion)
    guess = _log_radius(expansion)
    radius = arb(2) ** (guess if guess < inf else _magnitude(remaining.upper()) + 2)
    for _ in range(DISCS):
        tails = majorants.tails((radius * share).mid())
        if tails is not None:
            return tails, share / SHRINK
        share *= SHRINK
    raise Unseparated("no disc is found on which the power series are proved to converge")


def _horizon(tails: Tails, remaining: arb) -> tuple[arb, bool]:
    """How far the remainder stays below 2^-bits, or the remaining time, and which of these it is: whether the last."""
    size = _magnitude(tails.largest)
    log_share = -1.0 if size == -inf else min(-1.0, (-ctx.prec - size) / tails.disc.order)
    reach = (tails.disc.rho * arb(2) ** log_share).mid()
    return (reach, False) if reach < remaining else (remaining, True)
