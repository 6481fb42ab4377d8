"""Taylor coefficients of -dl/df along a curve f(t), order by order (theorems/README.md, section 10)."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.problem import CROSS_ENTROPY, EXPONENTIAL, LOGISTIC, POLYNOMIAL, SQUARED


@compiled
def add_error_term(problem, work, f, out, k, factor):
    """Put into `out` the term k of -dl/df, times a factor, from the terms of the outputs up to k, the last one `f`."""
    y = problem.targets.reshape(-1)
    u, g, h = work.u, work.g, work.h
    if problem.loss == SQUARED:
        for i in range(f.shape[0]):
            out[i] = factor * ((y[i] if k == 0 else 0.0) - f[i])
        return
    if problem.loss == CROSS_ENTROPY:
        _softmax_term(problem, work, f, k)
        for i in range(f.shape[0]):
            out[i] = factor * ((y[i] if k == 0 else 0.0) - g[k, i])
        return
    for i in range(f.shape[0]):
        u[k, i] = y[i] * f[i]
    if k == 0:
        for i in range(f.shape[0]):
            _start_slope(problem, u[0], g[0], h[0], i)
    elif problem.loss == EXPONENTIAL:
        _exponential_term(u, g, k)
    elif problem.loss == LOGISTIC:
        _logistic_term(u, g, h, k)
    else:
        _power_term(u, g, k, -problem.power - 1)
    for i in range(f.shape[0]):
        out[i] = factor * y[i] * g[k, i]


@compiled
def _start_slope(problem, u, g, h, i):
    """-l'(u), and for the logistic loss h = g (1 - g)."""
    if problem.loss == EXPONENTIAL:
        g[i] = math.exp(-u[i])
    elif problem.loss == LOGISTIC:
        g[i] = 1 / (1 + math.exp(u[i]))
        h[i] = g[i] / (1 + math.exp(-u[i]))
    elif u[i] > -1:
        g[i] = problem.power * math.exp((-problem.power - 1) * math.log1p(u[i]))
    else:
        g[i] = math.inf


@compiled
def _exponential_term(u, g, k):
    """g' = -u' g."""
    g[k] = 0.0
    for l in range(1, k + 1):
        for i in range(u.shape[1]):
            g[k, i] -= l * u[l, i] * g[k - l, i]
    for i in range(u.shape[1]):
        g[k, i] /= k


@compiled
def _logistic_term(u, g, h, k):
    """g' = -u' h with h = g (1 - g)."""
    _exponential_like(u, h, g, k)
    for i in range(u.shape[1]):
        square = 0.0
        for l in range(1, k):
            square += g[l, i] * g[k - l, i]
        h[k, i] = (1 - 2 * g[0, i]) * g[k, i] - square


@compiled
def _exponential_like(u, h, g, k):
    """g_k of g' = -u' h."""
    for i in range(u.shape[1]):
        total = 0.0
        for l in range(1, k + 1):
            total -= l * u[l, i] * h[k - l, i]
        g[k, i] = total / k


@compiled
def _power_term(u, g, k, exponent):
    """(1 + u) g' = a u' g."""
    for i in range(u.shape[1]):
        total = 0.0
        for l in range(1, k + 1):
            total += (exponent * l - (k - l)) * u[l, i] * g[k - l, i]
        g[k, i] = total / (k * (1 + u[0, i])) if u[0, i] > -1 else math.nan


@compiled
def _softmax_term(problem, work, f, k):
    """p_c' = p_c (f_c' - sum_d p_d f_d') for p = softmax(f); u holds k f_k, h their differences to the mean."""
    n, outputs = problem.targets.shape
    u, p, h = work.u, work.g, work.h
    for i in range(n):
        start, stop = i * outputs, (i + 1) * outputs
        if k == 0:
            largest = np.max(f[start:stop])
            total = 0.0
            for c in range(start, stop):
                p[0, c] = math.exp(f[c] - largest)
                total += p[0, c]
            for c in range(start, stop):
                p[0, c] /= total
            continue
        mean = 0.0
        for c in range(start, stop):
            u[k, c] = k * f[c]
            for l in range(1, k + 1):
                mean += u[l, c] * p[k - l, c]
        for c in range(start, stop):
            h[k, c] = u[k, c] - mean
            total = 0.0
            for l in range(1, k + 1):
                total += h[l, c] * p[k - l, c]
            p[k, c] = total / k


@compiled
def stride(problem, f, i):
    """How far an output may go in one step of the series: infinity where -dl/df is linear in it."""
    if problem.loss == SQUARED:
        return math.inf
    if problem.loss == CROSS_ENTROPY:
        return 1.5
    if problem.loss == POLYNOMIAL:
        return 0.5 * (1 + problem.targets.reshape(-1)[i] * f[i])
    return 3.0


@compiled
def find_error_size(problem, work, i, spread):
    """The size of what adds up to -dl/df at an output, which its rounding is relative to; `spread` is that of f.

    f is a sum of products, whose rounding is EPS times the sum of their sizes, and not times what they leave. In the
    squared loss that is what -dl/df = y - f is wrong by, however small it is; in that of classes y - p cancels, too.
    The slopes of the others are products, which are as exact as f is.
    """
    y = abs(problem.targets.reshape(-1)[i])
    if problem.loss == SQUARED:
        return y + spread
    if problem.loss == CROSS_ENTROPY:
        return y + work.g[0, i]
    return y * work.g[0, i]
