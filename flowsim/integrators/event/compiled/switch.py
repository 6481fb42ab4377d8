"""What happens to the mode at an event, and where it turns out wrong (flowsim/README.md, section 10)."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.decide import begin_decision
from flowsim.integrators.event.compiled.problem import (
    QUEUED,
    is_dead,
    is_deep,
    is_kink,
    layer,
    locate,
    locate_weight,
    place,
    set_side,
    signal,
)
from flowsim.integrators.event.compiled.products import add_scaled, copy, dot, find_length
from flowsim.integrators.event.compiled.projection import gets_nothing, is_near, put_on_kinks
from flowsim.integrators.event.compiled.series import go_forward, set_slopes
from flowsim.integrators.event.compiled.sliding import add_up_ends
from flowsim.integrators.event.compiled.watch import KINK, SIGN, TO_ACTIVE
from flowsim.integrators.event.tolerances import RESTING, THROUGH, ZERO


@compiled
def correct_mode(problem, state, work, slides, ratio, at):
    """Change a mode in which something would happen at once.

    A kink left at speed 0 to the wrong side: a neuron pushed back to it slides, another one leaves to the other side.
    """
    kind, index = work.kind[at], work.which[at]
    if kind == KINK:
        l, i, _ = locate(problem, index)
        if state.contact[index] != 2:
            state.contact[index] = 2  # it was beyond the kink by rounding
        elif gets_nothing(problem, state, work, l, i):
            set_side(problem, state.side, index, -state.side[index])
        elif is_deep(problem):
            state.queue[0], state.plan[QUEUED] = index, 1
            set_side(problem, state.side, index, 0)
            begin_decision(state)
        elif _attracts(problem, work, ratio, index):
            set_side(problem, state.side, index, 0)
            state.contact[index] = 0
        else:
            set_side(problem, state.side, index, -state.side[index])
    elif kind == SIGN:
        _correct_sign(problem, state, work, ratio, index)
    else:
        leave(problem, state, slides.signal[index], kind)


@compiled
def leave(problem, state, q, kind):
    """End a slide: the velocity stays what it is, so that the speed at which the kink is left is 0."""
    set_side(problem, state.side, q, 1 if kind == TO_ACTIVE else -1)
    state.contact[q] = 2


@compiled
def _attracts(problem, work, ratio, q):
    """Whether a kink of the first layer pushes back on both sides, by the first significant term of its interval."""
    l, i, j = locate(problem, q)
    largest = 0.0
    for k in range(work.E.shape[0]):
        active, inactive = add_up_ends(problem, work.E[k], l, i, j)
        largest = max(largest, ratio[k] * abs(inactive - active))
    for k in range(work.E.shape[0]):
        active, inactive = add_up_ends(problem, work.E[k], l, i, j)
        if ratio[k] * abs(inactive - active) > ZERO * largest:
            return inactive > active
    return False


@compiled
def _correct_sign(problem, state, work, ratio, p):
    """The sign of the first significant term that moves the weight, or the other one than it had."""
    at, largest = problem.at_weights[1] + p, 0.0
    for k in range(1, ratio.shape[0]):
        largest = max(largest, ratio[k] * abs(work.W[k, at]))
    for k in range(1, ratio.shape[0]):
        if ratio[k] * abs(work.W[k, at]) > ZERO * largest:
            state.sign[p] = -state.sign[p] if state.sign[p] != 0 else (1 if work.W[k, at] > 0 else -1)
            state.sign_contact[p] = k
            return


@compiled
def switch_mode(problem, state, work, slides, count, share, powers):
    """Begin to choose the mode after the events at the end of a step, up to which the state has gone.

    `powers` are those of the length of the step, whose series still lies in the workspace.
    """
    deep, decide = slides.top > 1, False
    concerned, arrived = np.zeros(problem.widths[1], np.bool_), np.zeros(state.side.shape[0], np.bool_)
    for at in range(count):
        if work.root[at] > share:
            continue
        kind, index = work.kind[at], work.which[at]
        if kind == SIGN:
            l, column = _flip_sign(problem, state, index)
            decide |= _slides(slides, column) if l == 2 and not deep else slides.top > 0
            deep |= l > 2
            concerned[column if l == 2 else 0] = True
        elif kind == KINK:
            l, _, j = locate(problem, index)
            arrived[index] = decide = True
            deep |= l > 1
            concerned[j if l == 1 else 0] = True
        else:
            leave(problem, state, slides.signal[index], kind)
    if decide:
        _fill_queue(problem, state, work, arrived, deep, concerned, powers)
        if not _cross(problem, state, work, powers):
            begin_decision(state)


@compiled
def _flip_sign(problem, state, p):
    """Put a weight that changes its sign to 0, exactly. Return its layer, and its column."""
    at = problem.at_weights[1] + p
    state.weights[at] = 0.0
    state.sign[p], state.sign_contact[p] = -state.sign[p], 1
    l, _, column = locate_weight(problem, at)
    return l, column


@compiled
def _slides(slides, neuron):
    for s in range(slides.signal.shape[0]):
        if slides.layer[s] == 1 and slides.neuron[s] == neuron:
            return True
    return False


@compiled
def _fill_queue(problem, state, work, arrived, deep, concerned, powers):
    """The kinks that the change matters to: in the first layer alone those of the same neuron."""
    before, hidden, count = work.W[0].copy(), problem.widths.shape[0] - 2, 0
    copy(work.W[0], state.weights)
    if deep:
        set_slopes(problem, state.side, work.slopes)
        go_forward(problem, work, 0, hidden)
        _trace_down(problem, state, work, arrived)
        for q in range(arrived.shape[0]):
            if arrived[q]:
                work.slopes[q] = 0.0  # where z = 0 but for rounding
        go_forward(problem, work, 0, hidden)
    else:
        _set_pre_activations(problem, work, concerned)
    for l in range(1, (hidden if deep else 1) + 1):
        for j in range(problem.widths[l]):
            if deep or concerned[j]:
                count = _queue_neuron(problem, state, work, arrived, before, l, j, count)
    state.plan[QUEUED] = count
    for at in range(count):
        _take_heading(problem, state, work, state.queue[at], powers)


@compiled
def _set_pre_activations(problem, work, neurons):
    """z of some neurons of the first layer."""
    W, z = layer(problem, work.W[0], 1), signal(problem, work.z[0], 1)
    for j in range(neurons.shape[0]):
        if neurons[j]:
            for i in range(problem.inputs.shape[0]):
                z[i, j] = dot(problem.inputs[i], W[j])


@compiled
def _queue_neuron(problem, state, work, arrived, before, l, j, count):
    """Its kinks that it arrives at, slides on, or is on up to rounding."""
    for i in range(problem.inputs.shape[0]):
        q = place(problem, l, i, j)
        if not is_kink(problem, l, i):
            continue
        on_it = arrived[q] or state.side[q] == 0
        if not on_it and (is_dead(problem, state.side, l, i) or not is_near(problem, work, before, q)):
            continue
        state.queue[count] = q
        count += 1
    return count


@compiled
def _trace_down(problem, state, work, arrived):
    """Where nothing of a sample gets to a neuron, it arrives at 0 because all below do, maybe a rounding later."""
    for q in range(arrived.shape[0] - 1, -1, -1):
        l, i, _ = locate(problem, q)
        if arrived[q] and gets_nothing(problem, state, work, l, i):
            for j in range(problem.widths[l - 1]):
                below = place(problem, l - 1, i, j)
                if state.side[below] > 0 or (state.side[below] < 0 and problem.slope > 0):
                    arrived[place(problem, l - 1, problem.first[min(l - 2, 1), i], j)] = True


@compiled
def _take_heading(problem, state, work, q, powers):
    """The side that a neuron travels to, as a first guess, unless it travels along the kink or slides.

    By d/dt of the step's polynomials at its end, up to a factor.
    """
    l, i, j = locate(problem, q)
    heading = 0.0
    for k in range(1, powers.shape[0]):
        heading += k * powers[k] * work.z[k, q]
    work.heading[q] = heading
    if state.side[q] == 0:
        return
    r = problem.widths[l - 1]
    row = problem.at_weights[l - 1] + j * r
    W, moves = work.W[0, row : row + r], _differentiate(work.W, row, row + r, powers)
    if l == 1:
        size = math.sqrt(problem.gram[i, i]) * find_length(moves)
    else:
        below = place(problem, l - 1, i, 0)
        a, changes = work.a[0, below : below + r], _differentiate(work.a, below, below + r, powers)
        size = find_length(a) * find_length(moves) + find_length(W) * find_length(changes)
    if abs(heading) > RESTING * size:
        set_side(problem, state.side, q, 1 if heading > 0 else -1)


@compiled
def _cross(problem, state, work, powers):
    """Let a neuron alone on its kink get through it, where that is beyond doubt. Return whether it was.

    Its speed there is that before it and |x|^2 times what its drive jumps by, in shares of the step like the heading.
    """
    q = state.queue[0]
    side = state.side[q]
    if state.plan[QUEUED] != 1 or side == 0 or is_deep(problem):
        return False
    l, i, j = locate(problem, q)
    before, jump = side * work.heading[q], 0.0
    for k in range(work.E.shape[0]):
        active, inactive = add_up_ends(problem, work.E[k], l, i, j)
        jump += powers[k + 1] * (active - inactive)
    jump *= problem.gram[i, i]
    if before + jump < THROUGH * (abs(before) + abs(jump)) or before <= 0:
        return False
    put_on_kinks(problem, state, work, state.queue[:1])
    state.contact[q] = 1
    return True


@compiled
def _differentiate(terms, start, stop, powers):
    """sum_k k powers_k terms_k."""
    out = np.zeros(stop - start)
    for k in range(1, powers.shape[0]):
        add_scaled(out, k * powers[k], terms[k, start:stop])
    return out
