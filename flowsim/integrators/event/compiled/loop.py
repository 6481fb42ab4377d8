"""The loop of one trajectory: series, length, first event, next mode."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled, entry
from flowsim.integrators.event.compiled.decide import decide, note_dead, prepare_decision
from flowsim.integrators.event.compiled.losses import find_change
from flowsim.integrators.event.compiled.problem import (
    ALLOWED,
    DECIDING,
    END,
    ENDED,
    FORWARD,
    GOES_ON,
    IDLES,
    OVERFLOWS,
    PHASE,
    ROUNDS,
    SERIES_OVERFLOWS,
    SIGNING,
    STEPPING,
    STEPS,
    TIME,
    TOO_STEEP,
    UNIT,
    UNSETTLED,
    VANISHES,
    is_deep,
    locate,
    open_problem,
    open_state,
    open_workspace,
    signal_below,
)
from flowsim.integrators.event.compiled.products import copy, fill, find_length, find_size
from flowsim.integrators.event.compiled.projection import put_on_kinks
from flowsim.integrators.event.compiled.series import expand, set_feedback, sum_terms
from flowsim.integrators.event.compiled.start import set_first_signs, start_mode
from flowsim.integrators.event.compiled.switch import correct_mode, switch_mode
from flowsim.integrators.event.compiled.watch import (
    KINK,
    SIGN,
    find_events,
    find_wrong,
    list_candidates,
    write_polynomial,
)
from flowsim.integrators.event.tolerances import EPS, IDLE, LONGEST, SHORTEST, SHRINKING, TIE, UNDECIDED


@entry
def advance(problem, state, work, order, rtol, atol, begins, rounds, times, weights, sides, signs, events):
    """Go on for so many rounds at most, and write the start of each step into the next row of the arrays.

    Where it `begins`, the mode is to be found first, and it takes no step. Each round expands the flow into its series:
    up to the order for a step, or up to the velocity for a decision about the mode. Return why it stopped and the
    number of steps. `events` is set to whether there were any.
    """
    problem, state, work = open_problem(problem), open_state(state), open_workspace(work)
    steps = 0
    events[0] = False
    if begins:
        start_mode(problem, state, work)
    while True:
        stepping = state.plan[PHASE] == STEPPING
        if stepping and not begins:
            if state.clock[TIME] >= state.clock[END]:
                return ENDED, steps
            if steps == times.shape[0] or rounds == 0:
                return GOES_ON, steps
            rounds -= 1
            times[steps] = state.clock[TIME]
            copy(weights[steps], state.weights)
            copy(sides[steps], state.side)
            copy(signs[steps], state.sign)
            note_dead(problem, state, work)
        set_feedback(problem, state, work.B)
        if state.plan[PHASE] == DECIDING:
            prepare_decision(problem, state, work)
        unit = state.clock[UNIT] if stepping and not begins else 1.0
        slides = expand(problem, state, work, order if stepping and not begins else 1, unit)
        if state.plan[PHASE] == SIGNING:
            set_first_signs(problem, state, work)
            continue
        if not stepping:
            status = decide(problem, state, work, slides)
        elif begins:
            return _set_first_unit(state, work), steps
        else:
            moved, status, hit = _take_step(problem, state, work, slides, order, rtol, atol)
            steps += moved
            events[0] |= hit
        if status != GOES_ON:
            return status, steps


@compiled
def _set_first_unit(state, work):
    """A first unit of time, from weights and velocity."""
    size, speed = find_size(state.weights), find_size(work.W[1])
    state.clock[UNIT] = (size if size > 0 else 1.0) / speed if speed > 0 else math.inf
    return GOES_ON if math.isfinite(speed) else TOO_STEEP


@compiled
def _take_step(problem, state, work, slides, order, rtol, atol):
    """A step, or a correction of the mode. Return whether it moved, a status, and whether it met an event."""
    state.counts[ROUNDS] += 1
    unit = state.clock[UNIT]
    allowed = state.clock[ALLOWED] = atol + rtol * find_size(state.weights)
    share, overflows = _find_trusted_share(problem, state, work, order, allowed, rtol)
    if overflows:
        state.clock[UNIT] *= SHRINKING
        state.counts[IDLES] += 1
        return 0, (SERIES_OVERFLOWS if state.counts[IDLES] > IDLE else GOES_ON), False
    # where a mode cannot be decided, shorter and shorter steps make it matter less
    length = share * unit * 0.5 ** max(0, state.counts[IDLES] - UNDECIDED)
    remaining = state.clock[END] - state.clock[TIME]
    last = length >= remaining
    following = min(length, state.clock[END])
    if last:
        length = remaining
    elif length <= SHORTEST * state.clock[TIME]:
        return 0, VANISHES, False
    ratio = _powers(length / unit, order)
    count = list_candidates(problem, state, work, slides, ratio)
    wrong = find_wrong(problem, state, work, slides, ratio, count)
    # in deep networks what hardly displaces a neuron may still decide the sides of those above
    while wrong >= 0 and state.counts[IDLES] >= UNDECIDED and not is_deep(problem):
        if not _is_negligible(problem, state, work, slides, ratio, wrong, allowed):
            break
        count = _remove(work, wrong, count)
        wrong = find_wrong(problem, state, work, slides, ratio, count)
    if wrong >= 0:
        correct_mode(problem, state, work, slides, ratio, wrong)
        state.counts[IDLES] += 1
        return 0, (UNSETTLED if state.counts[IDLES] > IDLE else GOES_ON), False
    root = find_events(problem, state, work, slides, ratio, count)
    share = min(root, 1.0)
    powers = _powers(share * length / unit, order)
    if not _move(problem, state, work, slides, powers):
        return 0, OVERFLOWS, False
    state.clock[TIME] = state.clock[END] if last and share == 1 else state.clock[TIME] + share * length
    state.clock[UNIT] = following
    if root <= 1:
        switch_mode(problem, state, work, slides, count, share + TIE, powers)
    if problem.rule == FORWARD:
        _follow_signs(problem, state)
    return 1, GOES_ON, root <= 1


@compiled
def _powers(x, order):
    """1, x, x^2 .. x^order."""
    out = np.empty(order + 1)
    out[0] = 1.0
    for k in range(order):
        out[k + 1] = out[k] * x
    return out


@compiled
def _find_trusted_share(problem, state, work, order, allowed, rtol):
    """The longest step in units such that what the series leaves out is small, and whether it is not finite.

    Three conditions, as no single one says enough:

        the last two terms are allowed
        they are at most sqrt(rtol) times the largest term before them, or below rounding: the terms of what is still
            small against the weights might grow, and those left out be larger than those kept
        the changes of the outputs, relative to the loss's stride, are at most 1 in sum over their terms: where the
            loss is flat the terms are tiny, however near the step comes to where it is steep; in logarithmic time
            those of the exponent, which grows by itself

    In deep networks the first two hold for the pre-activations of each layer as well, relative to these.
    """
    size = find_size(state.weights)
    share = _trust(work.W, 0, work.W.shape[1], order, allowed, EPS * size, math.sqrt(rtol))
    hidden = problem.widths.shape[0] - 2
    if hidden > 1:
        for l in range(1, hidden + 1):
            first, stop = problem.at_signals[l - 1], problem.at_signals[l]
            scale = find_size(work.z[0, first:stop])
            tolerated = allowed * max(1.0, scale / size) if size > 0 else allowed
            share = min(share, _trust(work.z, first, stop, order, tolerated, EPS * scale, math.sqrt(rtol)))
    if not share >= 0:
        return 0.0, True
    outputs, rate = problem.at_signals[hidden], state.clock[UNIT] if problem.logarithmic else 0.0
    for k in range(1, order):
        change = 0.0
        for i in range(work.z.shape[1] - outputs):
            change = max(change, find_change(problem, work.z[0, outputs:], work.z[k, outputs + i], k, i, rate))
        if change > 0:
            share = min(share, 0.5 * change ** (-1.0 / k))
    return share, False


@compiled
def _trust(terms, first, stop, order, allowed, rounding, decay):
    """The share up to which the last two of some terms are small enough; nan where they are not finite."""
    sizes = np.empty(order + 1)
    for k in range(1, order + 1):
        sizes[k] = find_size(terms[k, first:stop])
    share = LONGEST
    for k in range(order - 1, order + 1):
        last = sizes[k]
        if not math.isfinite(last):
            return math.nan
        if last == 0:
            continue
        decays = (rounding / last) ** (1.0 / k)
        for earlier in range(1, order - 1):
            if sizes[earlier] > 0:
                decays = max(decays, (decay * sizes[earlier] / last) ** (1.0 / (k - earlier)))
        share = min(share, (allowed / last) ** (1.0 / k), decays)
    return share


@compiled
def _is_negligible(problem, state, work, slides, ratio, at, allowed):
    """Whether it displaces a neuron by less than the error allowed, whether its mode is right or wrong."""
    write_polynomial(problem, state, work, slides, ratio, at)
    largest = find_size(work.poly[0])
    if work.kind[at] == SIGN:
        return largest <= allowed
    l, i, _ = locate(problem, work.which[at] if work.kind[at] == KINK else slides.signal[work.which[at]])
    a = signal_below(problem, work, l, i)
    normal = find_length(a)
    return (largest / normal if work.kind[at] == KINK else largest * normal * ratio[1]) <= allowed


@compiled
def _remove(work, at, count):
    for later in range(at + 1, count):
        work.kind[later - 1], work.which[later - 1] = work.kind[later], work.which[later]
        work.power[later - 1] = work.power[later]
    return count - 1


@compiled
def _move(problem, state, work, slides, powers):
    """Weights, contacts and counts at the end of the step, or at its event. Return whether the weights are finite."""
    after = np.empty(state.weights.shape[0])
    sum_terms(work.W, powers, after)
    if not math.isfinite(find_size(after)):
        return False
    copy(state.weights, after)
    if slides.signal.shape[0]:
        copy(after, work.W[0])
        put_on_kinks(problem, state, work, slides.signal)
        copy(work.W[0], after)
    state.counts[STEPS] += 1
    state.counts[IDLES] = 0
    for q in range(state.contact.shape[0]):
        if not work.still[q]:
            state.contact[q] = 0
    fill(state.sign_contact, 0)
    return True


@compiled
def _follow_signs(problem, state):
    """The signs of weights that are not 0: only those of neurons that slide are watched."""
    above = problem.at_weights[1]
    for p in range(state.sign.shape[0]):
        if state.weights[above + p] != 0:
            state.sign[p] = 1 if state.weights[above + p] > 0 else -1


@entry
def evaluate_steps(problem, state, work, order, times, weights, sides, signs, lengths, first, shares, derivative, out):
    """The weights, or their velocity, at shares of steps that start at the rows of times, weights, sides and signs.

    The shares of step s are those from first[s] to first[s + 1].
    """
    problem, state, work = open_problem(problem), open_state(state), open_workspace(work)
    for step in range(lengths.shape[0]):
        state.clock[TIME] = times[step]
        copy(state.weights, weights[step])
        copy(state.side, sides[step])
        copy(state.sign, signs[step])
        set_feedback(problem, state, work.B)
        expand(problem, state, work, order, lengths[step])
        for at in range(first[step], first[step + 1]):
            if shares[at] == 0 and not derivative:  # at their start the terms of a series may be infinite
                copy(out[at], state.weights)
                continue
            powers = _powers(shares[at], order)
            if derivative:
                for k in range(order, 0, -1):
                    powers[k] = k * powers[k - 1] / lengths[step]
                powers[0] = 0.0
            sum_terms(work.W, powers, out[at])
