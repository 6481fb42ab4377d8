"""The mode at t = 0 (flowsim/README.md, section 10)."""

from __future__ import annotations

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.decide import begin_decision
from flowsim.integrators.event.compiled.problem import (
    FORWARD,
    PHASE,
    QUEUED,
    SIGNED,
    SIGNING,
    STEPPING,
    TRIES,
    has_scalar_top,
    is_dead,
    is_kink,
    locate,
    place,
    set_side,
)
from flowsim.integrators.event.compiled.products import copy, fill
from flowsim.integrators.event.compiled.projection import is_near
from flowsim.integrators.event.compiled.series import go_forward, set_slopes


@compiled
def start_mode(problem, state, work):
    """Sides and signs at t = 0, the first ones by the weights; what these do not tell is to be decided."""
    above = problem.at_weights[1]
    for p in range(state.sign.shape[0]):
        weight = state.weights[above + p]
        state.sign[p] = 1 if weight > 0 else (-1 if weight < 0 else 0)
    _set_all_sides(problem, state)
    state.plan[PHASE], state.plan[TRIES], state.plan[QUEUED] = STEPPING, 0, 0
    if problem.slope < 1:
        _set_first_sides(problem, state, work)
    if problem.rule == SIGNED or (problem.rule == FORWARD and has_scalar_top(problem)):
        state.plan[PHASE] = SIGNING
    elif state.plan[QUEUED] > 0:
        begin_decision(state)


@compiled
def _set_all_sides(problem, state):
    """All neurons active at all kinks; what has none is never active."""
    fill(state.side, -1)
    for q in range(state.side.shape[0]):
        l, i, _ = locate(problem, q)
        if is_kink(problem, l, i):
            set_side(problem, state.side, q, 1)


@compiled
def _set_first_sides(problem, state, work):
    """The signs of the pre-activations; an input 0 is never active, nor what nothing gets to.

    Neurons that start on a kink go into the queue; from a repelling one they leave to the active side where they can.
    """
    copy(work.W[0], state.weights)
    count = 0
    for l in range(1, problem.widths.shape[0] - 1):
        set_slopes(problem, state.side, work.slopes)
        go_forward(problem, work, 0, l)
        for j in range(problem.widths[l]):
            for i in range(problem.inputs.shape[0]):
                q = place(problem, l, i, j)
                state.side[q] = 1 if work.z[0, q] > 0 else -1
                if not is_kink(problem, l, i) or is_dead(problem, state.side, l, i):
                    continue
                if is_near(problem, work, state.weights, q):
                    state.queue[count] = q
                    count += 1
    for at in range(count):
        set_side(problem, state.side, state.queue[at], 1)
    state.plan[QUEUED] = count


@compiled
def set_first_signs(problem, state, work):
    """The signs of weights that are 0, by their velocity: layer by layer from the top down, as feedback is known."""
    above = problem.at_weights[1]
    l = problem.widths.shape[0] - 1 - state.plan[TRIES]
    for p in range(problem.at_weights[l - 1], problem.at_weights[l]):
        if state.weights[p] == 0 and work.W[1, p] != 0:
            state.sign[p - above] = 1 if work.W[1, p] > 0 else -1
            state.sign_contact[p - above] = 1
    state.plan[TRIES] += 1
    if l == 2:
        state.plan[PHASE] = STEPPING
        if state.plan[QUEUED] > 0:
            begin_decision(state)
