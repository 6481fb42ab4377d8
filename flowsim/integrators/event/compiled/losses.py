"""Taylor coefficients of -dl/df along a curve f(t), order by order (flowsim/README.md, section 10)."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.problem import CROSS_ENTROPY, EXPONENTIAL, LOGISTIC, POLYNOMIAL, SQUARED


@compiled
def add_error_term(problem, work, f, out, k, factor, time, rate):
    """Put into `out` the term k of -dl/df, times a factor, from the terms of the outputs up to k, the last one `f`.

    In logarithmic time it is that of e^s (-dl/df), two factors that may over- and underflow, with s = time + rate times
    the share of the unit. In the time t itself time and rate are 0 here.
    """
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
            _start_slope(problem, u[0], g[0], h[0], work.plain[0], i, time)
    elif problem.loss == EXPONENTIAL:
        _exponential_term(u, g, k, rate)
    elif problem.loss == LOGISTIC:
        _logistic_term(u, g, h, work.plain, k, time, rate)
    else:
        _power_term(u, g, k, -problem.power - 1, rate)
    for i in range(f.shape[0]):
        out[i] = factor * y[i] * g[k, i]


@compiled
def _start_slope(problem, u, g, h, plain, i, time):
    """-e^s l'(u), and for the logistic loss what it is without e^s, and h = g (1 - plain)."""
    if problem.loss == EXPONENTIAL:
        g[i] = math.exp(time - u[i])
    elif problem.loss == LOGISTIC:
        g[i] = 1 / (math.exp(-time) + math.exp(u[i] - time))
        h[i] = g[i] / (1 + math.exp(-u[i]))
        plain[i] = math.exp(-time) * g[i]
    elif u[i] > -1:
        g[i] = problem.power * math.exp(time + (-problem.power - 1) * math.log1p(u[i]))
    else:
        g[i] = math.inf


@compiled
def _exponential_term(u, g, k, rate):
    """g' = -(u - s)' g, where u - s takes the place of u."""
    if k == 1:
        for i in range(u.shape[1]):
            u[1, i] -= rate
    g[k] = 0.0
    for l in range(1, k + 1):
        for i in range(u.shape[1]):
            g[k, i] -= l * u[l, i] * g[k - l, i]
    for i in range(u.shape[1]):
        g[k, i] /= k


@compiled
def _logistic_term(u, g, h, plain, k, time, rate):
    """g' = s' g - u' h with h = g (1 - e^-s g)."""
    _exponential_like(u, h, g, k)
    for i in range(u.shape[1]):
        g[k, i] += rate * g[k - 1, i] / k
        factor, plain[k, i] = math.exp(-time), 0.0
        for l in range(k + 1):
            plain[k, i] += factor * g[k - l, i]
            factor *= -rate / (l + 1)
            if factor == 0.0:
                break
        product = 0.0
        for l in range(1, k):
            product += plain[l, i] * g[k - l, i]
        h[k, i] = (1 - plain[0, i]) * g[k, i] - plain[k, i] * g[0, i] - product


@compiled
def _exponential_like(u, h, g, k):
    """g_k of g' = -u' h."""
    for i in range(u.shape[1]):
        total = 0.0
        for l in range(1, k + 1):
            total -= l * u[l, i] * h[k - l, i]
        g[k, i] = total / k


@compiled
def _power_term(u, g, k, exponent, rate):
    """(1 + u) g' = a u' g + s' (1 + u) g."""
    for i in range(u.shape[1]):
        total = 0.0
        for l in range(1, k + 1):
            total += (exponent * l - (k - l)) * u[l, i] * g[k - l, i]
        if rate > 0.0:
            total += rate * g[k - 1, i]
            for l in range(k):
                total += rate * u[l, i] * g[k - 1 - l, i]
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
def find_change(problem, f, term, k, i, rate):
    """The term k of an output, or in logarithmic time s of the exponent of e^s (-dl/df), relative to the stride."""
    if k > 1 or rate == 0.0:
        return abs(term) / stride(problem, f, i)
    if problem.loss == EXPONENTIAL:
        return abs(problem.targets.reshape(-1)[i] * term - rate) / 3.0
    return max(abs(term) / stride(problem, f, i), rate / 3.0)


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
