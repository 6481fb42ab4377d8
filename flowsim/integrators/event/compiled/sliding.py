"""Slides: the drives c that keep pre-activations at 0, in one layer or in several (flowsim/README.md, section 10).

For a kink s = (l, i, j) that slides, c_s takes the place of phi' E in delta_l at sample i and neuron j. All that moves
is affine in the drives of all layers together, so that they solve one linear system: on the kinks M c = -dz/dt, as it
is at c = 0.
Its matrix is the same for every order of the series.
"""

from __future__ import annotations

import math

import numpy as np
from numba.experimental import structref

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.problem import (
    Opened,
    Structure,
    feedback,
    is_kink,
    layer,
    locate,
    place,
    signal,
    signal_below,
)
from flowsim.integrators.event.compiled.products import add_scaled, copy, dot, fill
from flowsim.integrators.event.tolerances import INDEPENDENT


@structref.register
class SlidesType(Structure):
    """Of `Slides`."""


class Slides(Opened):
    """The kinks that slide.

    Args:
        signal, layer, sample, neuron: of each.
        top: the highest of their layers, 0 without any.
        block: where the parts begin that do not influence each other, and their number.
        matrix, factors, pivots: M and its LU decomposition, block by block, each in its rows from 0 on.
        down, raw: what a unit of drive adds to delta, and to E, of its sample in the layers below, and at itself.
        drive: the Taylor coefficients of c, one row for each order.
    """


structref.define_constructor(
    Slides,
    SlidesType,
    ["signal", "layer", "sample", "neuron", "top", "block", "matrix", "factors", "pivots", "down", "raw", "drive"],
)


@compiled
def prepare_slides(problem, side, work, order):
    """The kinks that slide, and their matrix at the start of the step."""
    count, top = _count_slides(problem, side)
    found = np.empty(count, np.int64)
    block = np.zeros(count + 1, np.int64)
    blocks = _list_slides(problem, side, top, found, block)
    l, i, j = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    for s in range(count):
        l[s], i[s], j[s] = locate(problem, found[s])
    widest = 0
    for b in range(blocks):
        widest = max(widest, block[b + 1] - block[b])
    neurons = problem.widths[1:-1].sum() if count else 0
    slides = Slides(
        found, l, i, j, top, block[: blocks + 1], np.empty((count, widest)), np.empty((count, widest)),
        np.empty(count, np.int64), np.zeros((count, neurons)), np.zeros((count, neurons)), np.zeros((order, count)),
    )  # fmt: skip
    if count:
        _send_down(problem, work, slides)
        _fill_matrix(problem, work, slides)
        for b in range(blocks):
            _decompose(slides, block[b], block[b + 1])
    return slides


@compiled
def _count_slides(problem, side):
    count, top = 0, 0
    for q in range(side.shape[0]):
        if side[q] == 0:
            l, i, _ = locate(problem, q)
            if is_kink(problem, l, i):
                count, top = count + 1, l
    return count, top


@compiled
def _list_slides(problem, side, top, found, block):
    """The kinks that slide, layer by layer, neuron by neuron, which do not influence each other in the first layer."""
    count, blocks = 0, 0
    for l in range(1, top + 1):
        for j in range(problem.widths[l]):
            for i in range(problem.inputs.shape[0]):
                q = place(problem, l, i, j)
                if side[q] == 0 and is_kink(problem, l, i):
                    found[count] = q
                    count += 1
            if top == 1 and count > block[blocks]:
                blocks += 1
                block[blocks] = count
    if top > 1:
        blocks, block[1] = 1, count
    return blocks


@compiled
def _send_down(problem, work, slides):
    """What a unit of each drive adds to delta of its sample: raw_q = B_{q+1}^T down_{q+1}, down_q = D_q raw_q."""
    first = np.zeros(problem.widths.shape[0], np.int64)
    for l in range(1, problem.widths.shape[0] - 1):
        first[l + 1] = first[l] + problem.widths[l]
    for s in range(slides.signal.shape[0]):
        l, i, j = slides.layer[s], slides.sample[s], slides.neuron[s]
        down, raw = slides.down[s], slides.raw[s]
        down[first[l] + j] = 1.0
        if problem.direct:
            continue
        for q in range(l - 1, 0, -1):
            B = feedback(problem, work.B, q)
            above, own = down[first[q + 1] : first[q + 2]], raw[first[q] : first[q + 1]]
            for upper in range(above.shape[0]):
                if above[upper] != 0.0:
                    add_scaled(own, above[upper], B[upper])
            start = place(problem, q, i, 0)
            for lower in range(own.shape[0]):
                down[first[q] + lower] = work.slopes[start + lower] * own[lower]


@compiled
def _fill_matrix(problem, work, slides):
    """M_ts, the speed that a unit of drive s adds at kink t."""
    if slides.top == 1:
        for b in range(slides.block.shape[0] - 1):
            start = slides.block[b]
            for t in range(start, slides.block[b + 1]):
                for s in range(start, slides.block[b + 1]):
                    slides.matrix[t, s - start] = problem.gram[slides.sample[t], slides.sample[s]]
        return
    widest = problem.widths[1 : slides.top + 1].max()
    speed, below = np.empty(widest), np.empty(widest)
    wanted = np.zeros(problem.inputs.shape[0], np.bool_)
    for s in range(slides.signal.shape[0]):
        wanted[slides.sample[s]] = True
    for s in range(slides.signal.shape[0]):
        for i in range(problem.inputs.shape[0]):
            if wanted[i]:
                _send_up(problem, work, slides, s, i, speed, below)


@compiled
def _send_up(problem, work, slides, s, i, speed, below):
    """The speeds dz/dt of sample i that a unit of drive s adds: into the rows of the matrix of its kinks."""
    own, first = slides.sample[s], 0
    for q in range(1, slides.top + 1):
        width = problem.widths[q]
        if q == 1:
            together = problem.gram[own, i]
        else:
            a = signal(problem, work.a[0], q - 1)
            together = dot(a[own], a[i])
        fill(speed[:width], 0.0)
        if q <= slides.layer[s]:
            add_scaled(speed[:width], together, slides.down[s, first : first + width])
        if q > 1:
            W = layer(problem, work.W[0], q)
            for j in range(width):
                speed[j] += dot(W[j], below[: problem.widths[q - 1]])
        for t in range(slides.signal.shape[0]):
            if slides.layer[t] == q and slides.sample[t] == i:
                slides.matrix[t, s] = speed[slides.neuron[t]]
        start = place(problem, q, i, 0)
        for j in range(width):
            below[j] = work.slopes[start + j] * speed[j]
        first += width


@compiled
def _decompose(slides, start, stop):
    """LU decomposition of a block with row exchanges."""
    size = stop - start
    lu = slides.factors[start:stop]
    for t in range(size):
        for s in range(size):
            lu[t, s] = slides.matrix[start + t, s]
    for column in range(size):
        best = column
        for t in range(column + 1, size):
            if abs(lu[t, column]) > abs(lu[best, column]):
                best = t
        slides.pivots[start + column] = best
        if best != column:
            for s in range(size):
                lu[column, s], lu[best, s] = lu[best, s], lu[column, s]
        for t in range(column + 1, size):
            lu[t, column] /= lu[column, column]
            add_scaled(lu[t, column + 1 : size], -lu[t, column], lu[column, column + 1 : size])


@compiled
def is_singular(slides):
    """Whether a pivot is 0 but for rounding, relative to the largest number in its row of the matrix."""
    for b in range(slides.block.shape[0] - 1):
        start, stop = slides.block[b], slides.block[b + 1]
        for t in range(stop - start):
            size = 0.0
            for s in range(stop - start):
                size = max(size, abs(slides.factors[start + t, s]), abs(slides.matrix[start + t, s]))
            if not abs(slides.factors[start + t, t]) > INDEPENDENT * size:
                return True
    return False


@compiled
def _substitute(lu, pivots, x):
    """Solve with a decomposition, in place."""
    size = x.shape[0]
    for column in range(size):  # all exchanges first: the rows of L are in their final order
        other = pivots[column]
        x[column], x[other] = x[other], x[column]
    for t in range(size):
        for s in range(t):
            x[t] -= lu[t, s] * x[s]
    for t in range(size - 1, -1, -1):
        for s in range(t + 1, size):
            x[t] -= lu[t, s] * x[s]
        x[t] /= lu[t, t]


@compiled
def solve_drives(slides, right, out):
    """M c = right, refined once."""
    block, matrix, factors, pivots, rest = slides.block, slides.matrix, slides.factors, slides.pivots, right.copy()
    for b in range(block.shape[0] - 1):
        start, stop = block[b], block[b + 1]
        if stop == start + 1:
            out[start] = right[start] / matrix[start, 0]
            continue
        copy(out[start:stop], right[start:stop])
        _substitute(factors[start:stop], pivots[start:stop], out[start:stop])
        for t in range(start, stop):
            for s in range(start, stop):
                rest[t] -= matrix[t, s - start] * out[s]
        _substitute(factors[start:stop], pivots[start:stop], rest[start:stop])
        for t in range(start, stop):
            out[t] += rest[t]


@compiled
def stiffness(slides, s):
    """m_s = 1 / (M^-1)_ss: the speed of a kink for a unit of its own drive while all others slide."""
    unit, column = np.zeros(slides.signal.shape[0]), np.zeros(slides.signal.shape[0])
    unit[s] = 1.0
    solve_drives(slides, unit, column)
    return 1.0 / column[s]


@compiled
def is_stable(problem, work, slides):
    """Whether neurons that are off their kinks by a little come back to them, all together."""
    rates = np.linalg.eigvals(linearize(problem, work, slides).astype(np.complex128))
    fastest, largest = -math.inf, 0.0
    for s in range(rates.shape[0]):
        fastest, largest = max(fastest, rates[s].real), max(largest, abs(rates[s].real))
    return fastest <= INDEPENDENT * largest


@compiled
def linearize(problem, work, slides):
    """The matrix of d(beta z)/d(beta t) near the slides, if phi' = slope + (1 - slope) sigmoid(beta z) does not jump.

    At a slide sigmoid is the share of the way from the inactive to the active end at which the drive is, and phi'
    follows. Off the slide drives change by (active - inactive) share (1 - share) d(beta z). What that does to speeds is
    M once more, but where it passes kinks that slide, phi' stands in the place of 0.
    """
    count = slides.signal.shape[0]
    change = np.zeros((count, count))
    for s in range(count):
        active, inactive = find_ends(problem, work, slides, s, 0)
        share = (slides.drive[0, s] - inactive) / (active - inactive)
        change[s, s] = (active - inactive) * share * (1 - share)
        _set_shared_slopes(problem, work, slides, s, share)
    matrix = np.zeros((count, count))
    passing = Slides(
        slides.signal, slides.layer, slides.sample, slides.neuron, slides.top, slides.block, matrix,
        slides.factors, slides.pivots, np.zeros_like(slides.down), np.zeros_like(slides.raw), slides.drive,
    )  # fmt: skip
    _send_down(problem, work, passing)
    _fill_matrix(problem, work, passing)
    for s in range(count):
        _set_shared_slopes(problem, work, slides, s, math.nan)
    return matrix @ change


@compiled
def _set_shared_slopes(problem, work, slides, s, share):
    """phi' of all samples that share a kink, between its values on both sides; 0 again, as it slides, for a nan."""
    l, i, j = slides.layer[s], slides.sample[s], slides.neuron[s]
    row = min(l - 1, 1)
    for other in range(i, problem.inputs.shape[0]):
        if problem.first[row, other] == i:
            own = share if problem.ratio[row, other] > 0 else 1 - share
            slope = 0.0 if math.isnan(share) else problem.slope + (1 - problem.slope) * own
            work.slopes[place(problem, l, other, j)] = slope


@compiled
def add_drives(problem, work, slides, k):
    """Solve for the drives of order k, and add what they do to E, delta and the weights' next term."""
    count, drive, right = slides.signal.shape[0], slides.drive[k], np.empty(slides.signal.shape[0])
    signals, samples, neurons, inputs = slides.signal, slides.sample, slides.neuron, problem.inputs
    W, delta = layer(problem, work.W[k + 1], 1), work.delta[k]
    for s in range(count):
        z = dot(W[neurons[s]], inputs[samples[s]]) if slides.top == 1 else work.z[k + 1, signals[s]]
        right[s] = -(k + 1) * z
    solve_drives(slides, right, drive)
    for s in range(count):
        if slides.layer[s] == 1:
            delta[signals[s]] += drive[s]
            add_scaled(W[neurons[s]], drive[s] / (k + 1), inputs[samples[s]])
        else:
            _add_deep_drive(problem, work, slides, s, k, drive[s])


@compiled
def _add_deep_drive(problem, work, slides, s, k, drive):
    i, first = slides.sample[s], 0
    for q in range(1, slides.layer[s] + 1):
        width, start = problem.widths[q], place(problem, q, i, 0)
        below = signal_below(problem, work, q, i)
        W = layer(problem, work.W[k + 1], q)
        E, delta = work.E[k], work.delta[k]
        for j in range(width):
            E[start + j] += drive * slides.raw[s, first + j]
            part = drive * slides.down[s, first + j]
            if part != 0.0:
                delta[start + j] += part
                add_scaled(W[j], part / (k + 1), below)
        first += width


@compiled
def find_ends(problem, work, slides, s, k):
    """Of the drive of a kink, the term k on its active and on its inactive side."""
    return add_up_ends(problem, work.E[k], slides.layer[s], slides.sample[s], slides.neuron[s])


@compiled
def add_up_ends(problem, E, l, i, j):
    """Of a kink's drive: sum_i ratio_i phi'_i E_i on its active and on its inactive side."""
    row, width, start = min(l - 1, 1), problem.widths[l], problem.at_signals[l - 1] + j
    own = E[start + i * width]
    if problem.distinct[row]:
        return own, problem.slope * own
    active, inactive = 0.0, 0.0
    for other in range(i, problem.inputs.shape[0]):
        if problem.first[row, other] == i:
            part = problem.ratio[row, other] * E[start + other * width]
            alike = problem.ratio[row, other] > 0
            active += part if alike else problem.slope * part
            inactive += problem.slope * part if alike else part
    return active, inactive
