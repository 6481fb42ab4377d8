"""All steps of a run, at as many bits as it needs."""

from __future__ import annotations

from flint import arb, ctx

from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.exact import ExactProblem, Number, rational
from flowsim.enclosure.roots import Unseparated
from flowsim.enclosure.series import Expansion, State
from flowsim.enclosure.start import start
from flowsim.enclosure.steps import Step, advance
from flowsim.errors import Undecided
from flowsim.validation import require_count, require_positive

MOST_BITS = 1024
"""Bits are not doubled beyond."""

MOST_STEPS = 100_000

WIDEST = 2.0**-20
"""Balls wider than that are of no use."""


def enclose_problem(
    problem: ExactProblem, t_final: Number, *, bits: int = 256, beginning: State | None = None
) -> Enclosure:
    """Enclose the solution of a problem on [0, t_final].

    `beginning` replaces the exact start by one in balls, which stands for all that are in it and have the
    modes, zeros and twins that it says they have.

    Raises:
        ValueError: for a t_final that is not above 0, or fewer than 53 bits.
        Undecided: as `flowsim.enclose` says.
    """
    require_positive("t_final", t_final)
    bits = require_count("bits", bits, least=53)
    while True:
        try:
            with ctx.workprec(bits):
                return Enclosure(problem, bits, arb(rational(t_final)), tuple(_steps(problem, t_final, beginning)))
        except Undecided as undecided:
            if undecided.final or 2 * bits > MOST_BITS:
                raise
        bits *= 2


def _steps(problem: ExactProblem, t_final: Number, beginning: State | None) -> list[Step]:
    """The steps at the bits of the context."""
    steps: list[Step] = []
    end, time, share = arb(rational(t_final)), arb(0), 0.8
    state = beginning
    for _ in range(MOST_STEPS):
        try:
            state = state or start(problem)
            step, state, share = advance(Expansion(problem, state), time, end - time, share)
        except (Unseparated, Undecided) as error:
            raise Undecided(str(error), float(time.mid()), final=getattr(error, "final", False)) from error
        steps.append(step)
        if step.radius > WIDEST:
            raise Undecided("the balls have become too wide to be of use", float(time.mid()))
        if state is None:
            return steps
        time = step.end
    raise Undecided(f"more than {MOST_STEPS} steps are needed", float(time.mid()))
