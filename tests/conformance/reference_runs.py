"""Narrow deep problems whose runs slide, and what the reference makes of them."""
from __future__ import annotations

import numpy as np
from conformance.reference import *


def random_problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    n, d, hidden = rng.integers(3, 7), rng.integers(2, 5), 2 + seed % 2
    widths = [d, *rng.integers(2, 5, hidden), 1]
    layers = [rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in zip(widths[1:], widths, strict=False)]
    feedback = [rng.standard_normal(layer.shape) for layer in layers[1:]]
    rule = ["gd", "fa", "sign-fa"][seed // 2 % 3]
    loss = ["exponential", "logistic", "squared"][seed // 6 % 3]
    inputs = rng.standard_normal((n, d))
    targets = np.sign(rng.standard_normal((n, 1)))
    return Problem(inputs, targets, layers, rule, loss, round(rng.uniform(0.1, 0.5), 2), float(rng.integers(2, 21)), feedback if rule == "fa" else ())
