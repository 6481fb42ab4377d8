"""To which sides neurons go that sit on kinks, several of them, in several layers (flowsim/README.md, section 10)."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.problem import (
    AMBIGUOUS,
    AT_APEX,
    DECIDING,
    FORWARD,
    GOES_ON,
    PHASE,
    QUEUED,
    SIGNED,
    STEPPING,
    TRIES,
    UNSETTLED,
    has_scalar_top,
    is_dead,
    is_deep,
    is_kink,
    layer,
    locate,
    place,
    set_side,
    signal,
)
from flowsim.integrators.event.compiled.products import copy, find_length, find_size
from flowsim.integrators.event.compiled.projection import gets_nothing, is_near, put_on_kinks
from flowsim.integrators.event.compiled.series import go_forward, set_slopes
from flowsim.integrators.event.compiled.sliding import find_ends, is_singular, is_stable, prepare_slides, stiffness
from flowsim.integrators.event.compiled.watch import find_speed_size, set_error_sizes
from flowsim.integrators.event.tolerances import BLOCKED, EXCHANGES, ON_KINK, TINY, ZERO

CHANCE = 48271
"""Multiples of it have hardly any order in their digits."""


@compiled
def begin_decision(state):
    """Sides are to be chosen for the kinks in the queue, from a first guess on."""
    state.plan[PHASE], state.plan[TRIES] = DECIDING, 0


@compiled
def prepare_decision(problem, state, work):
    """Before the first exchange the weights are put exactly onto the kinks."""
    if state.plan[TRIES] == 0:
        put_on_kinks(problem, state, work, state.queue[: state.plan[QUEUED]])
        if is_deep(problem):
            _queue_neighbours(problem, state, work)
        _revive(problem, state, work)
    if problem.rule == FORWARD and has_scalar_top(problem):
        _add_vanishing_feedback(problem, state, work.B)


@compiled
def _queue_neighbours(problem, state, work):
    """Kinks that neurons are on now that they were put onto others: all, where a row of weights became 0."""
    copy(work.W[0], state.weights)
    set_slopes(problem, state.side, work.slopes)
    go_forward(problem, work, 0, problem.widths.shape[0] - 2)
    queued = state.plan[QUEUED]
    for q in range(state.side.shape[0]):
        l, i, _ = locate(problem, q)
        if not is_kink(problem, l, i) or is_dead(problem, state.side, l, i):
            continue
        if is_near(problem, work, state.weights, q) and not _is_among(q, state.queue[:queued]):
            state.queue[state.plan[QUEUED]] = q
            state.plan[QUEUED] += 1


@compiled
def _is_among(q, queue):
    for at in range(queue.shape[0]):
        if queue[at] == q:
            return True
    return False


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
        set_error_sizes(problem, work, np.ones(2), 1.0)
        for at in range(queue.shape[0]):
            l, i, j = locate(problem, queue[at])
            work.root[at] = find_speed_size(problem, work, l, i, j)
    limit = EXCHANGES[0] + EXCHANGES[1] * queue.shape[0]
    if state.plan[TRIES] == limit or not math.isfinite(find_size(slides.drive[0])):
        return _explain_indecision(problem, state, work, queue)
    at, side = _find_worst(problem, state, work, slides, queue, state.plan[TRIES])
    if at < 0:
        if slides.top > 1 and not is_stable(problem, work, slides):
            return UNSETTLED
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
        if gets_nothing(problem, state, work, l, i):
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
        elif side == 0 and gets_nothing(problem, state, work, l, i):
            return at, (1 if work.z[1, q] > 0 else -1)
        elif side == 0:
            wrong, better = _judge_slide(problem, work, slides, q, circles)
        elif side * work.z[1, q] < -ZERO * size:
            wrong, better = abs(work.z[1, q]), (-side if gets_nothing(problem, state, work, l, i) else 0)
        if wrong >= 0:
            count += 1
            chosen = (CHANCE * (tries + count)) // 1000 % count == 0 if circles else wrong / size > worst
            if chosen or found < 0:
                worst, found, towards = wrong / size, at, better
    return found, towards


@compiled
def _judge_slide(problem, work, slides, q, circles):
    """By how much the drive of a slide is outside of its interval, as a speed, and where it leads; -1 inside."""
    s = 0
    while slides.signal[s] != q:
        s += 1
    active, inactive = find_ends(problem, work, slides, s, 0)
    c, near = slides.drive[0, s], BLOCKED * abs(inactive - active)
    m = 1.0 if slides.top == 1 else stiffness(slides, s)
    towards, attracts = 1.0 if inactive > active else -1.0, m * (inactive - active) > 0
    inside = near < towards * (c - active) and near < towards * (inactive - c)
    if inside and (attracts or circles):  # one that repels alone may be held by the others
        return -1.0, 0
    if attracts:
        return (abs(m * (c - active)), 1) if towards * (c - active) <= near else (abs(m * (c - inactive)), -1)
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
            if not is_kink(problem, l, i) or not work.dead[l, i] or is_dead(problem, state.side, l, i):
                continue
            below, start = place(problem, l - 1, i, 0), place(problem, l, i, 0)
            for j in range(problem.widths[l]):
                z = 0.0
                for lower in range(problem.widths[l - 1]):
                    if state.side[below + lower] > 0:
                        z += W[j, lower] * abs(work.heading[below + lower])
                work.heading[start + j] = z
                set_side(problem, state.side, start + j, 1 if z > 0 else -1)
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
    return together <= ON_KINK * find_length(W) * find_length(a)
