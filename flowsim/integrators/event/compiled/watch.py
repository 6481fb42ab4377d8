"""What may change the mode within a step, and when: polynomials in the share of the step, positive until it happens.

KINK         a pre-activation reaches 0
TO_ACTIVE    the drive of a slide reaches the end of its interval where the sample becomes active
TO_INACTIVE  or inactive
SIGN         a weight above the first layer reaches 0: under sign-FA the feedback jumps, under GD kinks begin to repel
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.losses import find_error_size
from flowsim.integrators.event.compiled.problem import (
    FORWARD,
    SIGNED,
    UNIT,
    feedback,
    has_scalar_top,
    is_dead,
    is_kink,
    layer,
    locate,
    locate_weight,
    place,
    signal,
)
from flowsim.integrators.event.compiled.products import add_direction, dot, find_length, remove_directions
from flowsim.integrators.event.compiled.roots import find_first_root
from flowsim.integrators.event.compiled.sliding import find_ends
from flowsim.integrators.event.tolerances import AT_END, AT_REST, INDEPENDENT, TOGETHER, ZERO

KINK, TO_ACTIVE, TO_INACTIVE, SIGN = range(4)


@compiled
def list_candidates(problem, state, work, slides, ratio):
    """List what may happen within the step. Return how many."""
    count = 0
    if problem.slope < 1:
        count = _list_kinks(problem, state, work, slides, ratio)
        count = _list_exits(problem, work, slides, ratio, count)
    return _list_signs(problem, state, work, slides, ratio, count)


@compiled
def find_wrong(problem, state, work, slides, ratio, count):
    """The first candidate that would happen at once, or -1."""
    for at in range(count):
        write_polynomial(problem, state, work, slides, ratio, at)
        if work.poly[0, 0] <= 0:
            return at
    return -1


@compiled
def _add(work, count, kind, index, power):
    work.kind[count], work.which[count], work.power[count] = kind, index, power
    return count + 1


@compiled
def _list_kinks(problem, state, work, slides, ratio):
    """Pre-activations that may reach 0, by the sizes of their coefficients, and those that leave a contact."""
    hidden, order = state.side.shape[0], ratio.shape[0] - 1
    touching = False
    for q in range(hidden):
        work.reach[q] = -abs(work.z[0, q])
        work.still[q] = False
        touching |= state.contact[q] == 2
    for k in range(1, order + 1):
        z, factor, reach = work.z[k], ratio[k], work.reach
        for q in range(hidden):
            reach[q] += factor * abs(z[q])
    if touching:
        set_error_sizes(problem, work, ratio, state.clock[UNIT])
    count = 0
    for q in range(hidden):
        if (work.reach[q] < 0 and state.contact[q] == 0) or state.side[q] == 0:
            continue
        l, i, j = locate(problem, q)
        if not is_kink(problem, l, i) or is_dead(problem, state.side, l, i):
            continue
        power = state.contact[q]
        if power == 2:
            power = _find_power_of_leaving(problem, work, slides, ratio, q, l, i, j)
            work.still[q] = power == 0
            if power == 0:
                continue
        count = _add(work, count, KINK, q, power)
    return count


@compiled
def _find_power_of_leaving(problem, work, slides, ratio, q, l, i, j):
    """The power of t with which z leaves 0; 0 where it stays there without sliding, up to rounding."""
    if l == 1 and depends_on_slides(problem, slides, i, j):
        return 0
    allowed = AT_REST * ratio[1] * find_speed_size(problem, work, l, i, j)
    for k in range(1, ratio.shape[0]):
        if abs(work.z[k, q]) * ratio[k] > allowed:
            return k
    return 0


@compiled
def depends_on_slides(problem, slides, i, j):
    """Whether input i is a combination of those along whose kinks the first layer's neuron j slides."""
    count, r = 0, problem.inputs.shape[1]
    for s in range(slides.signal.shape[0]):
        if slides.layer[s] == 1 and slides.neuron[s] == j:
            count += 1
    if count == 0:
        return False
    basis = np.empty((count, r))
    found = 0
    for s in range(slides.signal.shape[0]):
        if slides.layer[s] == 1 and slides.neuron[s] == j:
            found += add_direction(basis, found, problem.inputs[slides.sample[s]])
    rest = problem.inputs[i].copy()
    remove_directions(basis, found, rest)
    return dot(rest, rest) <= INDEPENDENT**2 * problem.gram[i, i]


@compiled
def set_error_sizes(problem, work, ratio, unit):
    """The sizes of what adds up to E, at the start of the step or later."""
    hidden, n = problem.widths.shape[0] - 2, problem.inputs.shape[0]
    sizes, of_outputs = work.sizes, np.empty(problem.targets.size)
    _set_output_sizes(problem, work, unit / n, of_outputs)
    for l in range(hidden, 0, -1):
        own = signal(problem, sizes, l)
        B = feedback(problem, work.B, l)
        last = problem.direct or l == hidden
        width = B.shape[0]
        for i in range(n):
            for j in range(own.shape[1]):
                own[i, j] = 0.0
            for upper in range(width):
                above = of_outputs[i * width + upper] if last else sizes[place(problem, l + 1, i, upper)]
                for j in range(own.shape[1]):
                    own[i, j] += abs(B[upper, j]) * above
    for k in range(1, ratio.shape[0] - 1):
        for q in range(sizes.shape[0]):
            sizes[q] = max(sizes[q], ratio[k] * abs(work.E[k, q]))


@compiled
def _set_output_sizes(problem, work, factor, out):
    """The sizes of what adds up to the outputs' delta, which is `factor` times -dl/df."""
    hidden, n = problem.widths.shape[0] - 2, problem.inputs.shape[0]
    a, W = signal(problem, work.a[0], hidden), layer(problem, work.W[0], hidden + 1)
    for i in range(n):
        for c in range(W.shape[0]):
            spread = 0.0
            for j in range(W.shape[1]):
                spread += abs(W[c, j] * a[i, j])
            at = i * W.shape[0] + c
            out[at] = factor * find_error_size(problem, work, at, spread)


@compiled
def find_speed_size(problem, work, l, i, j):
    """The size of what adds up to dz/dt at a kink, which its rounding is relative to.

    Of layer l: |a_{l-1}^i| sum_k |E_{l,kj}| |a_{l-1}^k|, and the sizes of the layer below times |W_l|.
    """
    below = np.zeros(0)
    for q in range(1, l + 1):
        a = problem.inputs if q == 1 else signal(problem, work.a[0], q - 1)
        W, E = layer(problem, work.W[0], q), signal(problem, work.sizes, q)
        size = np.empty(problem.widths[q])
        lengths = np.empty(a.shape[0])
        for k in range(a.shape[0]):
            lengths[k] = find_length(a[k])
        for neuron in range(size.shape[0]):
            if q == l and neuron != j:
                continue
            total = 0.0
            for k in range(a.shape[0]):
                total += E[k, neuron] * lengths[k]
            size[neuron] = lengths[i] * total
            for lower in range(below.shape[0]):
                size[neuron] += abs(W[neuron, lower]) * below[lower]
        below = size
    return below[j]


@compiled
def _list_exits(problem, work, slides, ratio, count):
    """Drives that may reach an end of their interval. One that stays at an end stays on the kink, too."""
    for s in range(slides.signal.shape[0]):
        for kind in (TO_ACTIVE, TO_INACTIVE):
            width = _write_distance(problem, work, slides, ratio, s, kind, work.poly[0])
            allowed, power, moves, least = AT_END * width, 0, False, work.poly[0, 0]
            for k in range(work.poly.shape[1]):
                if abs(work.poly[0, k]) > allowed:
                    if not moves:
                        power = k
                    moves = True
                if k > 0:
                    least -= abs(work.poly[0, k])
            if moves and least <= 0:
                count = _add(work, count, kind, s, 0 if work.poly[0, 0] > 0 else power)
    return count


@compiled
def _write_distance(problem, work, slides, ratio, s, kind, out):
    """The distance of a drive from an end of its interval. Return the largest coefficient of the interval's length."""
    largest, towards = 0.0, 0.0
    out[-1] = 0.0
    for k in range(slides.drive.shape[0]):
        active, inactive = find_ends(problem, work, slides, s, k)
        width, c = ratio[k] * (inactive - active), slides.drive[k, s]
        largest = max(largest, abs(width))
        if towards == 0.0 and abs(width) > 0:
            towards = width
        out[k] = ratio[k] * (c - active if kind == TO_ACTIVE else inactive - c)
    # the interval is turned where the drive pushes the other way, which in the first layer alone it does not
    if slides.top > 1 and towards < 0:
        for k in range(slides.drive.shape[0]):
            out[k] = -out[k]
    return largest


@compiled
def _list_signs(problem, state, work, slides, ratio, count):
    """Weights whose sign matters: all above the first layer under sign-FA; under GD those of neurons that slide."""
    if problem.rule == SIGNED:
        for p in range(state.sign.shape[0]):
            count = _list_sign(problem, state, work, ratio, p, count)
    elif problem.rule == FORWARD and has_scalar_top(problem):
        for s in range(slides.signal.shape[0]):
            if s == 0 or slides.neuron[s] != slides.neuron[s - 1]:
                count = _list_sign(problem, state, work, ratio, slides.neuron[s], count)
    return count


@compiled
def _find_reach(work, ratio, p):
    reach = 0.0
    for k in range(1, ratio.shape[0]):
        reach += ratio[k] * abs(work.W[k, p])
    return reach


@compiled
def _find_rate_size(problem, work, at):
    """The size of what adds up to the velocity of a weight above the first layer."""
    l, row, column = locate_weight(problem, at)
    delta, a = signal(problem, work.delta[0], l), signal(problem, work.a[0], l - 1)
    size = 0.0
    for i in range(problem.inputs.shape[0]):
        size += abs(delta[i, row] * a[i, column])
    return size


@compiled
def _list_sign(problem, state, work, ratio, p, count):
    at = problem.at_weights[1] + p
    reach = _find_reach(work, ratio, at)
    # no sign yet, at a weight 0 without speed: it gets one as soon as it moves, which is at once
    if state.sign[p] == 0 and (
        problem.rule == FORWARD or reach <= ZERO * ratio[1] * _find_rate_size(problem, work, at)
    ):
        return count
    if abs(work.W[0, at]) <= reach or state.sign_contact[p] > 0:
        return _add(work, count, SIGN, p, state.sign_contact[p])
    return count


@compiled
def write_polynomial(problem, state, work, slides, ratio, at):
    """Put the polynomial of a candidate into the first row of `poly`, with the zero at its start divided out."""
    kind, index, power, out = work.kind[at], work.which[at], work.power[at], work.poly[0]
    order = ratio.shape[0] - 1
    if kind == KINK:
        for k in range(order + 1):
            out[k] = state.side[index] * ratio[k] * work.z[k, index]
    elif kind == SIGN:
        p = problem.at_weights[1] + index
        for k in range(order + 1):
            out[k] = state.sign[index] * ratio[k] * work.W[k, p]
    else:
        _write_distance(problem, work, slides, ratio, index, kind, out)
    if power > 0:
        for k in range(order + 1):
            out[k] = out[k + power] if k + power <= order else 0.0


@compiled
def find_events(problem, state, work, slides, ratio, count):
    """When each candidate happens, as a share of the step, infinity if not or well after another. Return the first."""
    best = math.inf
    for at in range(count):
        write_polynomial(problem, state, work, slides, ratio, at)
        limit = min(1.0, best + TOGETHER)
        work.root[at] = _find_root_within(work.poly, limit)
        best = min(best, work.root[at])
    if slides.signal.shape[0]:
        _sort_exits(problem, work, slides, count)
        best = math.inf
        for at in range(count):
            best = min(best, work.root[at])
    return best


@compiled
def _find_root_within(poly, limit):
    c, power, least = poly[0], 1.0, poly[0, 0]
    for k in range(1, c.shape[0]):
        power *= limit
        c[k] *= power
        least += min(c[k], 0.0)
    if least > 0:
        return math.inf
    return limit * find_first_root(c, poly[1:])


@compiled
def _sort_exits(problem, work, slides, count):
    """Where an interval vanishes, a drive reaches both of its ends at once, up to the truncation of the series.

    Under GD that is so at v = 0, which is the event then. Otherwise the later end counts: from there on the kink
    repels, and the neuron leaves to the active side if it can.
    """
    for at in range(count):
        if work.kind[at] != TO_ACTIVE and work.kind[at] != TO_INACTIVE:
            continue
        for other in range(count):
            near = abs(work.root[at] - work.root[other]) <= TOGETHER
            same = work.which[at] == work.which[other]
            if near and work.kind[other] == SIGN and problem.rule == FORWARD:
                if slides.neuron[work.which[at]] == work.which[other]:
                    work.root[at] = math.inf
            elif near and same and work.kind[at] == TO_ACTIVE and work.kind[other] == TO_INACTIVE:
                work.root[at] = max(work.root[at], work.root[other])
                work.root[other] = math.inf
