"""Products of matrices, small ones in plain loops, larger ones by BLAS; sizes; orthonormal rows."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.tolerances import INDEPENDENT, NARROW, SMALL

ABSOLUTE = np.int64(0x7FFFFFFFFFFFFFFF)
"""All bits of a number but its sign."""


@compiled(reassociate=True)
def dot(x, y):
    """sum_i x_i y_i; the one sum that may be taken in any order."""
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i] * y[i]
    return total


@compiled
def add_scaled(out, factor, x):
    """out += factor x."""
    for i in range(out.shape[0]):
        out[i] += factor * x[i]


@compiled
def copy(out, x):
    """out = x."""
    for i in range(out.shape[0]):
        out[i] = x[i]


@compiled
def find_size(x):
    """The largest absolute value; infinity or nan where there is one.

    Bit patterns of absolute values are ordered as they are, and compared many at a time.
    """
    bits, largest = x.view(np.int64), np.int64(0)
    for i in range(bits.shape[0]):
        largest = max(largest, bits[i] & ABSOLUTE)
    found = np.int64(largest)
    return found.view(np.float64)


@compiled
def find_length(x):
    """|x|, whose square may over- or underflow where it does not."""
    size, total = find_size(x), 0.0
    if size == 0 or not math.isfinite(size):
        return size
    for i in range(x.shape[0]):
        total += (x[i] / size) ** 2
    return size * math.sqrt(total)


@compiled
def fill(x, value):
    """Set all entries."""
    for i in range(x.shape[0]):
        x[i] = value


@compiled
def _put(out, product, add):
    if add:
        for i in range(out.shape[0]):
            out[i] += product[i]
    else:
        copy(out, product)


@compiled
def is_small(n, m, p):
    """Whether a product of matrices with these sides is done faster in loops."""
    return n * m * p <= SMALL or min(n, m, p) <= NARROW


@compiled
def times_transposed(out, x, y, sides, spare, add):
    """out = x y^T, or that added, for x of n x p and y of m x p, flattened."""
    n, m, p = sides
    if is_small(n, m, p):
        for i in range(n):
            left, row = x[i * p : (i + 1) * p], out[i * m : (i + 1) * m]
            for j in range(m):
                value = dot(left, y[j * p : (j + 1) * p])
                row[j] = row[j] + value if add else value
    else:
        product = spare[: n * m]
        np.dot(x.reshape((n, p)), y.reshape((m, p)).T, product.reshape((n, m)))
        _put(out, product, add)


@compiled
def times(out, x, y, sides, spare, add):
    """out = x y, or that added, for x of n x m and y of m x p, flattened."""
    n, m, p = sides
    if is_small(n, m, p):
        for i in range(n):
            row = out[i * p : (i + 1) * p]
            for j in range(m):
                factor, right = x[i * m + j], y[j * p : (j + 1) * p]
                if j == 0 and not add:
                    for c in range(p):
                        row[c] = factor * right[c]
                else:
                    add_scaled(row, factor, right)
    else:
        product = spare[: n * p]
        np.dot(x.reshape((n, m)), y.reshape((m, p)), product.reshape((n, p)))
        _put(out, product, add)


@compiled
def transposed_times(out, x, y, sides, spare, add):
    """out = x^T y, or that added, for x of n x m and y of n x p, flattened."""
    n, m, p = sides
    if is_small(n, m, p):
        if not add:
            fill(out, 0.0)
        for j in range(m):
            _add_rows(out[j * p : (j + 1) * p], x, y, j, n, m, p)
    else:
        product = spare[: m * p]
        np.dot(x.reshape((n, m)).T, y.reshape((n, p)), product.reshape((m, p)))
        _put(out, product, add)


@compiled
def _add_rows(out, x, y, j, n, m, p):
    """out += sum_i x_ij y_i, four rows at a time."""
    i = 0
    while i + 4 <= n:
        f0, f1, f2, f3 = x[i * m + j], x[(i + 1) * m + j], x[(i + 2) * m + j], x[(i + 3) * m + j]
        y0, y1 = y[i * p : (i + 1) * p], y[(i + 1) * p : (i + 2) * p]
        y2, y3 = y[(i + 2) * p : (i + 3) * p], y[(i + 3) * p : (i + 4) * p]
        for c in range(p):
            out[c] += (f0 * y0[c] + f1 * y1[c]) + (f2 * y2[c] + f3 * y3[c])
        i += 4
    while i < n:
        add_scaled(out, x[i * m + j], y[i * p : (i + 1) * p])
        i += 1


@compiled
def remove_directions(basis, found, x):
    """Take away what of x lies along the orthonormal rows, twice: the second time what rounding left."""
    for _ in range(2):
        for b in range(found):
            along = dot(basis[b], x)
            for p in range(x.shape[0]):
                x[p] -= along * basis[b, p]


@compiled
def add_direction(basis, found, x):
    """Add a direction to the orthonormal rows found so far, unless it depends on them. Return how many were added."""
    size = find_length(x)
    if size == 0 or found == basis.shape[0]:
        return 0
    row = basis[found]
    for p in range(x.shape[0]):
        row[p] = x[p] / size
    remove_directions(basis, found, row)
    rest = math.sqrt(dot(row, row))
    if rest <= INDEPENDENT:
        return 0
    for p in range(x.shape[0]):
        row[p] /= rest
    return 1
