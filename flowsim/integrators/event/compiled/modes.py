"""Which mode comes next: at the start, at an event, and where one turns out wrong (theorems/README.md, section 10)."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.problem import (
    ALLOWED,
    DECIDING,
    FORWARD,
    PHASE,
    QUEUED,
    SIGNED,
    SIGNING,
    STEPPING,
    TRIES,
    is_dead,
    is_kink,
    layer,
    locate,
    place,
    set_side,
    signal,
)
from flowsim.integrators.event.compiled.products import add_scaled, copy, dot, fill
from flowsim.integrators.event.compiled.series import go_forward, set_slopes
from flowsim.integrators.event.compiled.sliding import add_up_ends, find_ends, is_singular, prepare_slides, stiffness
from flowsim.integrators.event.compiled.watch import (
    KINK,
    SIGN,
    TO_ACTIVE,
    add_direction,
    find_speed_size,
    has_scalar_top,
    remove_directions,
    set_error_sizes,
)
from flowsim.integrators.event.tolerances import BLOCKED, EXCHANGES, FARTHEST, NOTHING, ON_KINK, RESTING, ZERO

GOES_ON, ENDED, VANISHES, OVERFLOWS, SERIES_OVERFLOWS, UNSETTLED, AT_APEX, AMBIGUOUS, TOO_STEEP = range(9)
"""How a call ends: it is to be called again; the end is reached; or why it cannot go on."""

CHANCE = 48271
"""Multiples of it have hardly any order in their digits."""

TINY = 1e-300
"""In the place of a size 0 that is divided by."""


@compiled
def start_mode(problem, state, work):
    """Sides and signs at t = 0, the first ones by the weights; what these do not tell is to be decided."""
    above = problem.at_weights[1]
    for p in range(state.sign.shape[0]):
        weight = state.weights[above + p]
        state.sign[p] = 1 if weight > 0 else (-1 if weight < 0 else 0)
    fill(state.side, 1)
    state.plan[PHASE], state.plan[TRIES], state.plan[QUEUED] = STEPPING, 0, 0
    if problem.slope < 1:
        _set_first_sides(problem, state, work)
    if problem.rule == SIGNED or (problem.rule == FORWARD and has_scalar_top(problem)):
        state.plan[PHASE] = SIGNING
    elif state.plan[QUEUED] > 0:
        begin_decision(state)


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
        for q in range(problem.at_signals[l - 1], problem.at_signals[l]):
            _, i, _ = locate(problem, q)
            state.side[q] = 1 if work.z[0, q] > 0 else -1
            if is_dead(problem, state.side, l, i) or not _is_near(problem, work, state.weights, q):
                continue
            if is_kink(problem, l, i):
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


@compiled
def correct_mode(problem, state, work, slides, ratio, at):
    """Change a mode in which something would happen at once.

    A kink left at speed 0 to the wrong side: a neuron pushed back to it slides, another one leaves to the other side.
    """
    kind, index = work.kind[at], work.index[at]
    if kind == KINK:
        if state.contact[index] != 2:
            state.contact[index] = 2  # it was beyond the kink by rounding
        elif _gets_nothing_at(problem, state, work, index):
            set_side(problem, state.side, index, -state.side[index])
        elif problem.widths.shape[0] > 3:
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
        kind, index = work.kind[at], work.index[at]
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
        begin_decision(state)


@compiled
def _flip_sign(problem, state, p):
    """Put a weight that changes its sign to 0, exactly. Return its layer, and its column."""
    at = problem.at_weights[1] + p
    state.weights[at] = 0.0
    state.sign[p], state.sign_contact[p] = -state.sign[p], 1
    l = 2
    while at >= problem.at_weights[l]:
        l += 1
    return l, (at - problem.at_weights[l - 1]) % problem.widths[l - 1]


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
    go_forward(problem, work, 0, hidden if deep else 1)
    for l in range(1, (hidden if deep else 1) + 1):
        for j in range(problem.widths[l]):
            if deep or concerned[j]:
                count = _queue_neuron(problem, state, work, arrived, before, l, j, count)
    state.plan[QUEUED] = count
    for at in range(count):
        _take_heading(problem, state, work, state.queue[at], powers)


@compiled
def _queue_neuron(problem, state, work, arrived, before, l, j, count):
    """Its kinks that it arrives at, slides on, or is on up to rounding."""
    for i in range(problem.inputs.shape[0]):
        q = place(problem, l, i, j)
        if not is_kink(problem, l, i):
            continue
        on_it = arrived[q] or state.side[q] == 0
        if not on_it and (is_dead(problem, state.side, l, i) or not _is_near(problem, work, before, q)):
            continue
        state.queue[count] = q
        count += 1
    return count


@compiled
def _trace_down(problem, state, work, arrived):
    """Where nothing of a sample gets to a neuron, it arrives at 0 because all below do, maybe a rounding later."""
    for q in range(arrived.shape[0] - 1, -1, -1):
        l, i, _ = locate(problem, q)
        if arrived[q] and _gets_nothing(problem, state, work, l, i):
            for j in range(problem.widths[l - 1]):
                below = place(problem, l - 1, i, j)
                if state.side[below] > 0 or (state.side[below] < 0 and problem.slope > 0):
                    arrived[below] = True


@compiled
def _is_near(problem, work, before, q):
    """Whether z is 0 up to the rounding of the weights, now or before they came close to 0."""
    l, i, j = locate(problem, q)
    a = problem.inputs[i] if l == 1 else signal(problem, work.a[0], l - 1)[i]
    now, then = layer(problem, work.W[0], l)[j], layer(problem, before, l)[j]
    width = max(dot(now, now), dot(then, then))
    return work.z[0, q] ** 2 <= ON_KINK**2 * dot(a, a) * width


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
        size = math.sqrt(problem.gram[i, i] * dot(moves, moves))
    else:
        below = place(problem, l - 1, i, 0)
        a, changes = work.a[0, below : below + r], _differentiate(work.a, below, below + r, powers)
        size = math.sqrt(dot(a, a) * dot(moves, moves)) + math.sqrt(dot(W, W) * dot(changes, changes))
    if abs(heading) > RESTING * size:
        set_side(problem, state.side, q, 1 if heading > 0 else -1)


@compiled
def _differentiate(terms, start, stop, powers):
    """sum_k k powers_k terms_k."""
    out = np.zeros(stop - start)
    for k in range(1, powers.shape[0]):
        add_scaled(out, k * powers[k], terms[k, start:stop])
    return out


@compiled
def begin_decision(state):
    """Sides are to be chosen for the kinks in the queue, from a first guess on."""
    state.plan[PHASE], state.plan[TRIES] = DECIDING, 0


@compiled
def prepare_decision(problem, state, work):
    """Before the first exchange the weights are put exactly onto the kinks."""
    if state.plan[TRIES] == 0:
        put_on_kinks(problem, state, work, state.queue[: state.plan[QUEUED]])
        _revive(problem, state, work)
    if problem.rule == FORWARD and has_scalar_top(problem):
        _add_vanishing_feedback(problem, state, work.B)


@compiled
def _add_vanishing_feedback(problem, state, B):
    """Under GD E = 0 where v = 0: up to a positive factor it is then what it is just after."""
    for p in range(state.sign.shape[0]):
        if state.weights[problem.at_weights[1] + p] == 0:
            B[p] = state.sign[p]


@compiled
def decide(problem, state, work, slides):
    """One exchange: the kink whose side is wrong by most gets another one, from the speeds in the mode as it is.

    A kink that would be left to the wrong side slides, and one that cannot slide is left. Where that goes round in a
    circle, any wrong one is taken instead, as if by chance, but the same whenever it comes to that.
    """
    queue = state.queue[: state.plan[QUEUED]]
    if state.plan[TRIES] == 0:
        set_error_sizes(problem, work, np.ones(2))
        for at in range(queue.shape[0]):
            l, i, j = locate(problem, queue[at])
            work.root[at] = find_speed_size(problem, work, l, i, j)
    limit = EXCHANGES[0] + EXCHANGES[1] * queue.shape[0]
    if state.plan[TRIES] == limit or not np.all(np.isfinite(slides.drive[0])):
        return _explain_indecision(problem, state, work, queue)
    at, side = _find_worst(problem, state, work, slides, queue, state.plan[TRIES])
    if at < 0:
        _set_contacts(problem, state, work, queue)
        state.plan[PHASE] = STEPPING
        if _has_apex(problem, state, queue):
            return AT_APEX
        return AMBIGUOUS if _is_ambiguous(problem, state, work, queue) else GOES_ON
    set_side(problem, state.side, queue[at], side)
    _revive(problem, state, work)
    state.plan[TRIES] += 1
    return GOES_ON


@compiled
def _explain_indecision(problem, state, work, queue):
    """AT_APEX if nothing of a sample gets to the layer of a kink, which is why there may be no one mode."""
    for at in range(queue.shape[0]):
        l, i, _ = locate(problem, queue[at])
        if _gets_nothing(problem, state, work, l, i):
            return AT_APEX
    return UNSETTLED


@compiled
def _find_worst(problem, state, work, slides, queue, tries):
    """The kink whose side is wrong by most, or any one after many tries, and the side for it to try; -1 without any."""
    worst, found, towards, count, circles = 0.0, -1, 0, 0, tries > EXCHANGES[0]
    for at in range(queue.shape[0]):
        q, size = queue[at], max(work.root[at], TINY)
        l, i, _ = locate(problem, q)
        side, wrong, better = state.side[q], -1.0, 0
        if is_dead(problem, state.side, l, i):
            if side != -1:
                return at, -1
        elif side == 0 and _gets_nothing(problem, state, work, l, i):
            return at, (1 if work.z[1, q] > 0 else -1)
        elif side == 0:
            wrong, better = _judge_slide(problem, work, slides, q)
        elif side * work.z[1, q] < -ZERO * size:
            wrong, better = abs(work.z[1, q]), (-side if _gets_nothing(problem, state, work, l, i) else 0)
        if wrong >= 0:
            count += 1
            chosen = (CHANCE * (tries + count)) // 1000 % count == 0 if circles else wrong / size > worst
            if chosen or found < 0:
                worst, found, towards = wrong / size, at, better
    return found, towards


@compiled
def _gets_nothing(problem, state, work, l, i):
    """Whether a_{l-1} is 0 at a sample, up to rounding: its kinks in layer l say nothing about W_l then.

    The pre-activations are 0 whatever W_l, and leave 0 as a_{l-1} does: nothing can slide.
    """
    if l == 1:
        return False
    a, size = signal(problem, work.a[0], l - 1)[i], problem.gram[i, i]
    for q in range(1, l):
        W = layer(problem, state.weights, q).reshape(-1)
        size *= dot(W, W)
    return dot(a, a) <= NOTHING**2 * size


@compiled
def _gets_nothing_at(problem, state, work, q):
    l, i, _ = locate(problem, q)
    return _gets_nothing(problem, state, work, l, i)


@compiled
def _judge_slide(problem, work, slides, q):
    """By how much the drive of a slide is outside of its interval, as a speed, and where it leads; -1 inside."""
    s = 0
    while slides.signal[s] != q:
        s += 1
    active, inactive = find_ends(problem, work, slides, s, 0)
    c, near = slides.drive[0, s], BLOCKED * abs(inactive - active)
    m = 1.0 if slides.top == 1 else stiffness(slides, s)
    towards = 1.0 if inactive > active else -1.0
    if m * (inactive - active) > 0:  # it attracts
        if towards * (c - active) <= near:
            return abs(m * (c - active)), 1
        if towards * (inactive - c) <= near:
            return abs(m * (c - inactive)), -1
        return -1.0, 0
    if m * (active - c) < 0 and m * (inactive - c) < 0:
        return abs(m * (inactive - c)), -1
    return abs(m * (active - c)), 1


@compiled
def _set_contacts(problem, state, work, queue):
    vanishing = problem.rule == FORWARD and has_scalar_top(problem)
    for at in range(queue.shape[0]):
        q = queue[at]
        _, _, j = locate(problem, q)
        slow = abs(work.z[1, q]) <= ZERO * work.root[at]
        if vanishing:
            slow |= state.weights[problem.at_weights[1] + j] == 0
        state.contact[q] = 0 if state.side[q] == 0 else (2 if slow else 1)


@compiled
def _revive(problem, state, work):
    """With slope 0: sides above neurons that become active for a sample of which nothing got through before.

    They are those of W_l times the direction in which a_{l-1} leaves 0.
    """
    if problem.slope != 0.0:
        return
    for l in range(2, problem.widths.shape[0] - 1):
        W = layer(problem, state.weights, l)
        for i in range(problem.inputs.shape[0]):
            if not work.dead[l, i] or is_dead(problem, state.side, l, i):
                continue
            below, start = place(problem, l - 1, i, 0), place(problem, l, i, 0)
            for j in range(problem.widths[l]):
                z = 0.0
                for lower in range(problem.widths[l - 1]):
                    if state.side[below + lower] > 0:
                        z += W[j, lower] * abs(work.heading[below + lower])
                work.heading[start + j] = z
                state.side[start + j] = 1 if z > 0 else -1
                state.contact[start + j] = 1


@compiled
def note_dead(problem, state, work):
    """Take note of where nothing gets through, before the mode changes."""
    if problem.slope == 0.0:
        for l in range(2, problem.widths.shape[0] - 1):
            for i in range(problem.inputs.shape[0]):
                work.dead[l, i] = is_dead(problem, state.side, l, i)


@compiled
def _has_apex(problem, state, queue):
    """Whether nothing of a sample gets through a layer below another hidden one, while a neuron of it slides."""
    for at in range(queue.shape[0]):
        l, i, _ = locate(problem, queue[at])
        if state.side[queue[at]] != 0 or l == problem.widths.shape[0] - 2:
            continue
        through, start = False, place(problem, l, i, 0)
        for j in range(problem.widths[l]):
            side = state.side[start + j]
            through |= side > 0 or (side < 0 and problem.slope > 0)
        if not through:
            return True
    return False


@compiled
def _is_ambiguous(problem, state, work, queue):
    """Whether drives of slides above the first layer are not unique, of which the layers below need each.

    That is so where their matrix, with the kinks that stay at 0 beside them, is singular. Under sign-FA also where a
    neuron stays at 0 because one weight does, whose sign is not known.
    """
    above, side = False, state.side.copy()
    for at in range(queue.shape[0]):
        l, i, j = locate(problem, queue[at])
        if l == 1:
            continue
        if state.contact[queue[at]] == 2:
            set_side(problem, side, queue[at], 0)
        elif state.side[queue[at]] == 0:
            above = True
            if problem.rule == SIGNED and _stays_by_one_weight(problem, state, work, l, i, j):
                return True
    if not above:
        return False
    set_slopes(problem, side, work.slopes)
    return is_singular(prepare_slides(problem, side, work, 1))


@compiled
def _stays_by_one_weight(problem, state, work, l, i, j):
    a, W, together = signal(problem, work.a[0], l - 1)[i], layer(problem, state.weights, l)[j], 0.0
    for lower in range(W.shape[0]):
        together += abs(W[lower] * a[lower])
    return together <= ON_KINK * math.sqrt(dot(W, W) * dot(a, a))


@compiled
def put_on_kinks(problem, state, work, kinks):
    """Put the weights exactly where z = 0 at some kinks, layer by layer: by the order of rounding."""
    top = 0
    for at in range(kinks.shape[0]):
        top = max(top, locate(problem, kinks[at])[0])
    if top > 1:
        copy(work.W[0], state.weights)
    for l in range(1, top + 1):
        if l > 1:
            go_forward(problem, work, 0, l - 1)
        W = layer(problem, state.weights, l)
        r = W.shape[1]
        for at in range(kinks.shape[0]):
            its, _, j = locate(problem, kinks[at])
            if its != l or _was_before(problem, kinks, at, l, j):
                continue
            basis, found = np.empty((min(r, kinks.shape[0] - at), r)), 0
            for other in range(at, kinks.shape[0]):
                its, i, neuron = locate(problem, kinks[other])
                if its == l and neuron == j:
                    a = problem.inputs[i] if l == 1 else signal(problem, work.a[0], l - 1)[i]
                    found += add_direction(basis, found, a)
            row = W[j].copy()
            remove_directions(basis, found, row)
            _take_row(W[j], row, l, state.clock[ALLOWED])
        if l < top:
            copy(work.W[0], state.weights)


@compiled
def _was_before(problem, kinks, at, l, j):
    for other in range(at):
        its, _, neuron = locate(problem, kinks[other])
        if its == l and neuron == j:
            return True
    return False


@compiled
def _take_row(old, new, l, allowed):
    """Above the first layer a direction may be hardly there: what would move weights by more than allowed is left."""
    moved, size = 0.0, 0.0
    for p in range(old.shape[0]):
        moved, size = max(moved, abs(new[p] - old[p])), max(size, abs(old[p]))
    if l == 1 or moved <= max(FARTHEST * size, allowed):
        copy(old, new)
