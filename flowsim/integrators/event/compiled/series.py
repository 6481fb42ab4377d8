"""The Taylor series of the flow in a mode, for networks of any depth (flowsim/README.md, section 10).

With D = phi' of each hidden signal, a = D z and the outputs' error delta_{H+1} = -dl/df / n, the terms of order k:

    z_l = sum_r a_{l-1, k-r} W_{l, r}^T,      E_l = sum_r delta_{l+1, k-r} B_{l+1, r},      delta_l = D E_l + c,
    W_{l, k+1} = (sum_r delta_{l, k-r}^T a_{l-1, r} - decay W_{l, k}) / (k + 1)

where D = 0 at a kink that slides and its drive c keeps z = 0 there (`sliding`).
"""

from __future__ import annotations

import math

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.losses import add_error_term
from flowsim.integrators.event.compiled.problem import FORWARD, SIGNED, TIME
from flowsim.integrators.event.compiled.products import (
    add_scaled,
    copy,
    fill,
    times,
    times_transposed,
    transposed_times,
)
from flowsim.integrators.event.compiled.sliding import add_drives, prepare_slides


@compiled
def set_slopes(problem, side, slopes):
    """phi' by the sides: 1 active, the slope inactive, 0 where z = 0 slides."""
    for q in range(side.shape[0]):
        slopes[q] = 1.0 if side[q] > 0 else (problem.slope if side[q] < 0 else 0.0)


@compiled
def set_feedback(problem, state, B):
    """The feedback at the start of a step: under sign-FA by the stored signs, right on both sides of 0."""
    if problem.rule == SIGNED:
        for p in range(B.shape[0]):
            B[p] = problem.scale * state.sign[p]
    elif problem.rule == FORWARD:
        copy(B, state.weights[problem.at_weights[1] :])
    else:
        copy(B, problem.feedback)


@compiled
def go_forward(problem, work, k, top):
    """The terms k of z_1 .. z_top, and of a."""
    z, a, W, slopes, spare = work.z, work.a, work.W, work.slopes, work.spare
    at_signals, at_weights, widths, n = problem.at_signals, problem.at_weights, problem.widths, problem.inputs.shape[0]
    hidden = widths.shape[0] - 2
    for l in range(1, top + 1):
        start, stop, first, last = at_signals[l - 1], at_signals[l], at_weights[l - 1], at_weights[l]
        out, sides = z[k][start:stop], (n, widths[l], widths[l - 1])
        if l == 1:
            times_transposed(out, problem.inputs.reshape(-1), W[k][first:last], sides, spare, False)
        else:
            below = at_signals[l - 2]
            for r in range(k + 1):
                times_transposed(out, a[k - r][below:start], W[r][first:last], sides, spare, r > 0)
        if l <= hidden:
            _multiply(a[k][start:stop], slopes[start:stop], out)


@compiled
def _multiply(out, x, y):
    for i in range(out.shape[0]):
        out[i] = x[i] * y[i]


@compiled
def go_backward(problem, work, k):
    """The terms k of E and of delta, from that of the outputs' delta."""
    E, delta, W, B, slopes, spare = work.E, work.delta, work.W, work.B, work.slopes, work.spare
    at_signals, at_weights, widths, n = problem.at_signals, problem.at_weights, problem.widths, problem.inputs.shape[0]
    hidden = widths.shape[0] - 2
    for l in range(hidden, 0, -1):
        above = hidden + 1 if problem.direct else l + 1
        start, stop, low, high = at_signals[l - 1], at_signals[l], at_signals[above - 1], at_signals[above]
        out, sides = E[k][start:stop], (n, widths[above], widths[l])
        matrix = B[problem.at_feedback[l - 1] : problem.at_feedback[l]]
        times(out, delta[k][low:high], matrix, sides, spare, False)
        if problem.rule == FORWARD:
            first, last = at_weights[above - 1], at_weights[above]
            for r in range(1, k + 1):
                times(out, delta[k - r][low:high], W[r][first:last], sides, spare, True)
        _multiply(delta[k][start:stop], slopes[start:stop], out)


@compiled
def update_weights(problem, work, k, decay, rate):
    """The terms k + 1 of the weights, whose decay is that at the start times e^(rate t / unit)."""
    delta, a, W, spare = work.delta, work.a, work.W, work.spare
    at_signals, at_weights, widths, n = problem.at_signals, problem.at_weights, problem.widths, problem.inputs.shape[0]
    for l in range(1, widths.shape[0]):
        start, stop, first, last = at_signals[l - 1], at_signals[l], at_weights[l - 1], at_weights[l]
        out, sides = W[k + 1][first:last], (n, widths[l], widths[l - 1])
        if l == 1:
            transposed_times(out, delta[k][start:stop], problem.inputs.reshape(-1), sides, spare, False)
        else:
            below = at_signals[l - 2]
            for r in range(k + 1):
                transposed_times(out, delta[k - r][start:stop], a[r][below:start], sides, spare, r > 0)
    after, factor = W[k + 1], 1.0 / (k + 1)
    for r in range(k + 1):
        if decay == 0.0:
            break
        add_scaled(after, -decay, W[k - r])
        decay *= rate / (r + 1)
    for p in range(after.shape[0]):
        after[p] *= factor


@compiled
def expand(problem, state, work, order, unit):
    """Put the Taylor series in t / unit up to t^order into the workspace. Return the slides.

    In logarithmic time s, in the place of t, all velocities are e^s times as large.
    """
    set_slopes(problem, state.side, work.slopes)
    copy(work.W[0], state.weights)
    outputs, hidden = problem.at_signals[-2], problem.widths.shape[0] - 2
    go_forward(problem, work, 0, hidden + 1)
    slides = prepare_slides(problem, state.side, work, order)
    factor, decay = unit / problem.inputs.shape[0], problem.decay * unit
    time, rate = (state.clock[TIME], unit) if problem.logarithmic else (0.0, 0.0)
    if decay > 0.0:
        decay *= math.exp(time)
    for k in range(order):
        if k > 0:
            go_forward(problem, work, k, hidden + 1)
        add_error_term(problem, work, work.z[k][outputs:], work.delta[k][outputs:], k, factor, time, rate)
        go_backward(problem, work, k)
        update_weights(problem, work, k, decay, rate)
        if slides.signal.shape[0]:
            if slides.top > 1:
                go_forward(problem, work, k + 1, slides.top)
            add_drives(problem, work, slides, k)
    go_forward(problem, work, order, hidden)
    return slides


@compiled
def sum_terms(terms, powers, out):
    """sum_k powers_k terms_k; what is multiplied by 0 may be infinite."""
    fill(out, 0.0)
    for k in range(powers.shape[0]):
        if powers[k] != 0.0:
            add_scaled(out, powers[k], terms[k])
