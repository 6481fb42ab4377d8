"""Products of matrices: small ones in plain loops, larger ones by BLAS."""

from __future__ import annotations

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled

SMALL = 2000
"""Multiplications up to which loops are faster than a call of BLAS."""


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
def fill(x, value):
    """Set all entries."""
    for i in range(x.shape[0]):
        x[i] = value


@compiled
def _put(out, spare, add):
    flat, other = out.reshape(-1), spare.reshape(-1)
    if add:
        for i in range(flat.shape[0]):
            flat[i] += other[i]
    else:
        for i in range(flat.shape[0]):
            flat[i] = other[i]


@compiled
def times_transposed(out, x, y, spare, add):
    """out = x y^T, or that added."""
    n, m = out.shape
    p = x.shape[1]
    if n * m * p > SMALL and min(n, m) > 2:
        if add:
            product = spare[: n * m].reshape((n, m))
            np.dot(x, y.T, product)
            _put(out, product, True)
        else:
            np.dot(x, y.T, out)
        return
    for i in range(n):
        row, left = out[i], x[i]
        for j in range(m):
            value = dot(left, y[j])
            row[j] = row[j] + value if add else value


@compiled
def times(out, x, y, spare, add):
    """out = x y, or that added."""
    n, m = out.shape
    p = x.shape[1]
    if n * m * p > SMALL and min(n, p) > 2:
        if add:
            product = spare[: n * m].reshape((n, m))
            np.dot(x, y, product)
            _put(out, product, True)
        else:
            np.dot(x, y, out)
        return
    for i in range(n):
        row, left = out[i], x[i]
        if not add:
            fill(row, 0.0)
        for j in range(p):
            add_scaled(row, left[j], y[j])


@compiled
def transposed_times(out, x, y, spare, add):
    """out = x^T y, or that added."""
    m, p = out.shape
    n = x.shape[0]
    if n * m * p > SMALL and min(m, p) > 2:
        if add:
            product = spare[: m * p].reshape((m, p))
            np.dot(x.T, y, product)
            _put(out, product, True)
        else:
            np.dot(x.T, y, out)
        return
    if not add:
        fill(out.reshape(-1), 0.0)
    for i in range(n):
        left, right = x[i], y[i]
        for j in range(m):
            add_scaled(out[j], left[j], right)
