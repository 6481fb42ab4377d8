"""The Taylor series of the flow in a mode, for networks of any depth (theorems/README.md, section 10).

With D = phi' of each hidden signal, a = D z and the error of the outputs delta_{H+1} = -dl/df / n, the terms of order k:

    z_l = sum_r a_{l-1, k-r} W_{l, r}^T,      E_l = sum_r delta_{l+1, k-r} B_{l+1, r},      delta_l = D E_l + c,
    W_{l, k+1} = (sum_r delta_{l, k-r}^T a_{l-1, r} - decay W_{l, k}) / (k + 1)

where D = 0 at a kink that slides and its drive c keeps z = 0 there (`sliding`).
"""

from __future__ import annotations

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.losses import add_error_term
from flowsim.integrators.event.compiled.problem import FORWARD, SIGNED, feedback, layer, signal
from flowsim.integrators.event.compiled.products import times, times_transposed, transposed_times
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
        above = problem.at_weights[1]
        for p in range(B.shape[0]):
            B[p] = state.weights[above + p]
    else:
        for p in range(B.shape[0]):
            B[p] = problem.feedback[p]


@compiled
def go_forward(problem, work, k, top):
    """The terms k of z_1 .. z_top, and of a."""
    for l in range(1, top + 1):
        out = signal(problem, work.z[k], l)
        if l == 1:
            times_transposed(out, problem.inputs, layer(problem, work.W[k], 1), work.spare, False)
        else:
            for r in range(k + 1):
                below = signal(problem, work.a[k - r], l - 1)
                times_transposed(out, below, layer(problem, work.W[r], l), work.spare, r > 0)
        if l < problem.widths.shape[0] - 1:
            z, a = work.z[k], work.a[k]
            for q in range(problem.at_signals[l - 1], problem.at_signals[l]):
                a[q] = work.slopes[q] * z[q]


@compiled
def go_backward(problem, work, k):
    """The terms k of E and of delta, from that of the outputs' delta."""
    hidden = problem.widths.shape[0] - 2
    for l in range(hidden, 0, -1):
        out = signal(problem, work.E[k], l)
        above = hidden + 1 if problem.direct else l + 1
        times(out, signal(problem, work.delta[k], above), feedback(problem, work.B, l), work.spare, False)
        if problem.rule == FORWARD:
            for r in range(1, k + 1):
                times(out, signal(problem, work.delta[k - r], above), layer(problem, work.W[r], above), work.spare, True)
        E, delta = work.E[k], work.delta[k]
        for q in range(problem.at_signals[l - 1], problem.at_signals[l]):
            delta[q] = work.slopes[q] * E[q]


@compiled
def update_weights(problem, work, k, decay):
    """The terms k + 1 of the weights."""
    for l in range(1, problem.widths.shape[0]):
        out = layer(problem, work.W[k + 1], l)
        if l == 1:
            transposed_times(out, signal(problem, work.delta[k], 1), problem.inputs, work.spare, False)
        else:
            for r in range(k + 1):
                error, below = signal(problem, work.delta[k - r], l), signal(problem, work.a[r], l - 1)
                transposed_times(out, error, below, work.spare, r > 0)
    before, after, factor = work.W[k], work.W[k + 1], 1.0 / (k + 1)
    if decay == 0.0:
        for p in range(after.shape[0]):
            after[p] *= factor
    else:
        for p in range(after.shape[0]):
            after[p] = factor * (after[p] - decay * before[p])


@compiled
def expand(problem, state, work, order, unit):
    """Put the Taylor series in t / unit up to t^order into the workspace. Return the slides."""
    set_slopes(problem, state.side, work.slopes)
    start = work.W[0]
    for p in range(start.shape[0]):
        start[p] = state.weights[p]
    outputs, hidden = problem.at_signals[-2], problem.widths.shape[0] - 2
    go_forward(problem, work, 0, hidden + 1)
    slides = prepare_slides(problem, state.side, work, order)
    factor = unit / problem.inputs.shape[0]
    for k in range(order):
        if k > 0:
            go_forward(problem, work, k, hidden + 1)
        add_error_term(problem, work, work.z[k][outputs:], work.delta[k][outputs:], k, factor)
        go_backward(problem, work, k)
        update_weights(problem, work, k, problem.decay * unit)
        if slides.signal.shape[0]:
            if slides.top > 1:
                go_forward(problem, work, k + 1, slides.top)
            add_drives(problem, work, slides, k)
    go_forward(problem, work, order, hidden)
    return slides


@compiled
def sum_terms(terms, powers, out):
    """sum_k powers_k terms_k."""
    for p in range(out.shape[0]):
        out[p] = terms[0, p]
    for k in range(1, powers.shape[0]):
        factor, row = powers[k], terms[k]
        for p in range(out.shape[0]):
            out[p] += factor * row[p]
