"""Weights on kinks: which they are on, and putting them exactly there."""

from __future__ import annotations

import math

import numpy as np

from flowsim.integrators.event.compiled.compiling import compiled
from flowsim.integrators.event.compiled.problem import ALLOWED, layer, locate, signal, signal_below
from flowsim.integrators.event.compiled.products import add_direction, copy, find_length, remove_directions
from flowsim.integrators.event.compiled.series import go_forward
from flowsim.integrators.event.tolerances import FARTHEST, NOTHING, ON_KINK


@compiled
def is_near(problem, work, before, q):
    """Whether z is 0 up to the rounding of the weights, now or before they came close to 0."""
    l, i, j = locate(problem, q)
    a = signal_below(problem, work, l, i)
    now, then = layer(problem, work.W[0], l)[j], layer(problem, before, l)[j]
    width = max(find_length(now), find_length(then))
    return abs(work.z[0, q]) <= ON_KINK * find_length(a) * width


@compiled
def put_on_kinks(problem, state, work, kinks):
    """Put the weights exactly where z = 0 at some kinks, layer by layer, by the order of rounding.

    The kinks of a neuron lie together, and those of a layer before those of the layers above.
    """
    layer_before, start = 1, 0
    while start < kinks.shape[0]:
        l, _, j = locate(problem, kinks[start])
        if l > layer_before:
            copy(work.W[0], state.weights)
            go_forward(problem, work, 0, l - 1)
            layer_before = l
        W = layer(problem, state.weights, l)
        r = W.shape[1]
        basis, found, stop = np.empty((min(r, kinks.shape[0] - start), r)), 0, start
        while stop < kinks.shape[0]:
            its, i, neuron = locate(problem, kinks[stop])
            if its != l or neuron != j:
                break
            a = signal_below(problem, work, l, i)
            found += add_direction(basis, found, a)
            stop += 1
        row = W[j].copy()
        remove_directions(basis, found, row)
        _take_row(W[j], row, l, state.clock[ALLOWED])
        start = stop


@compiled
def _take_row(old, new, l, allowed):
    """Above the first layer a direction may be hardly there: what would move weights by more than allowed is left."""
    moved, size = 0.0, 0.0
    for p in range(old.shape[0]):
        moved, size = max(moved, abs(new[p] - old[p])), max(size, abs(old[p]))
    if l == 1 or moved <= max(FARTHEST * size, allowed):
        copy(old, new)


@compiled
def gets_nothing(problem, state, work, l, i):
    """Whether a_{l-1} is 0 at a sample, up to rounding: its kinks in layer l say nothing about W_l then.

    The pre-activations are 0 whatever W_l, and leave 0 as a_{l-1} does: nothing can slide.
    """
    if l == 1:
        return False
    size = math.sqrt(problem.gram[i, i])
    for q in range(1, l):
        size *= find_length(layer(problem, state.weights, q).reshape(-1))
    return find_length(signal(problem, work.a[0], l - 1)[i]) <= NOTHING * size
