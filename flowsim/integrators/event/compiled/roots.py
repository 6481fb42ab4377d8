"""The first root of a polynomial on the unit interval, however short the dip (flowsim/README.md, section 10).

The Bernstein coefficients on an interval have at least as many sign changes as the polynomial has roots there, and as
many up to an even number: none means no root, one means one. Intervals with more are halved, from the left.
"""

from __future__ import annotations

import math

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.tolerances import CONVERGED, FINEST, NEWTON


@compiled
def find_first_root(c, spare):
    """The first root in (0, 1] of sum_k c_k t^k, which is positive right of 0; infinity if there is none.

    `spare` has two rows of the size of c. Two roots closer than FINEST count as a touch without a root.
    """
    work, controls = spare[0], spare[1]
    start, width = 0.0, 1.0
    while start < 1:
        _shift(c, start, width, work)
        changes = _count_changes(work, controls)
        # roots too close to be told apart were passed, and the last of an odd number of them is no touch: it is here
        if start > 0 and controls[0] <= 0:
            return start
        if changes == 1:
            return _refine(c, start, start + width)
        if changes == 0 or width <= FINEST:
            start += width
            width = min(2 * width, 1 - start)
        else:
            width /= 2
    return math.inf


@compiled
def _shift(c, start, width, out):
    """Coefficients of p(start + width s) in s."""
    terms = c.shape[0]
    for k in range(terms):
        out[k] = c[k]
    if start != 0:
        for k in range(terms - 1):
            for l in range(terms - 2, k - 1, -1):
                out[l] += start * out[l + 1]
    if width != 1:
        power = 1.0
        for k in range(1, terms):
            power *= width
            out[k] *= power


@compiled
def _count_changes(c, controls):
    """Sign changes of the Bernstein coefficients; zeros count as negative, so that a root at 1 is found."""
    terms = c.shape[0]
    degree = terms - 1
    factor = 1.0
    for k in range(terms):  # c_k / C(degree, k), summed up with Pascal's triangle by differences
        controls[k] = c[k] / factor
        factor = factor * (degree - k) / (k + 1)
    for k in range(1, terms):
        for l in range(degree, k - 1, -1):
            controls[l] += controls[l - 1]
    changes = 0
    for k in range(degree):
        if (controls[k] <= 0) != (controls[k + 1] <= 0):
            changes += 1
    return changes


@compiled
def evaluate(c, t):
    """p(t)."""
    value = 0.0
    for k in range(c.shape[0] - 1, -1, -1):
        value = value * t + c[k]
    return value


@compiled
def _differentiate(c, t):
    value = 0.0
    for k in range(c.shape[0] - 1, 0, -1):
        value = value * t + k * c[k]
    return value


@compiled
def _refine(c, low, high):
    """Newton's method inside a bracket with p(low) > 0 >= p(high), halved where Newton leaves it or is slow."""
    time = high
    discriminant = c[1] * c[1] - 4 * c[0] * c[2]
    if discriminant >= 0:
        guess = 2 * c[0] / (math.sqrt(discriminant) - c[1])
        if low < guess < high:
            time = guess
    step = high - low
    for _ in range(NEWTON):
        value, slope = evaluate(c, time), _differentiate(c, time)
        if value > 0:
            low = time
        else:
            high = time
        following = time - value / slope
        if not (low <= following <= high and abs(following - time) <= 0.5 * step):
            following = 0.5 * (low + high)
        step, time = abs(following - time), following
        if step <= CONVERGED * time:
            break
    return time
