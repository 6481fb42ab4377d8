"""The error estimate against true errors, proved: `PYTHONPATH=.:tests python tests/benchmarks/calibration.py [COUNT]`.

Needs the extra `rigorous`. Writes figures/calibration.json, which the figure `calibration` draws.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import figures.calibration
from figures.calibration import RESULTS, Calibrated
from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
    data,
    enclose,
    solve,
)
from flowsim.enclosure.enclosure import Enclosure
from flowsim.errors import Undecided
from flowsim.initialization import gaussian

T_FINAL = 10.0
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
BITS = 128
"""Errors of 1e-16 are known to 20 digits."""


def draw_problem(seed: int) -> tuple[str, Flow, Weights]:
    """2 to 6 samples in 2 to 4 dimensions, 2 to 5 neurons; what it is, in words."""
    rng = np.random.default_rng(seed)
    samples, dimension, width = rng.integers(2, 7), rng.integers(2, 5), int(rng.integers(2, 6))
    if rng.random() < 0.25:
        kind, dataset = "separable", data.orthogonally_separable(int(samples), 2 * int(samples), 0.2, seed)
    else:
        inputs = rng.standard_normal((samples, dimension)) / np.sqrt(dimension)
        kind, dataset = "Gaussian", Dataset(inputs, rng.choice([-1.0, 1.0], samples))
    weights = gaussian(width, dataset.dimension, seed)
    name = ("GD", "FA", "adaFA", "sign-FA")[seed % 4]
    rule = {
        "GD": GradientDescent(),
        "FA": FeedbackAlignment(torch.from_numpy(rng.standard_normal(width))),
        "adaFA": FeedbackAlignment(weights.output.clone()),
        "sign-FA": SignFeedbackAlignment(0.7),
    }[name]
    loss, slope = str(rng.choice(["exponential", "logistic"])), float(rng.choice([0.1, 0.3, 0.7]))
    return f"{seed}: {name}, {kind}, {loss}", Flow(dataset, rule, loss, slope), weights


def calibrate(name: str, flow: Flow, weights: Weights, enclosure: Enclosure, rtol: float) -> Calibrated:
    """Solve at a tolerance, and compare."""
    solution = solve(flow, weights, T_FINAL, rtol=rtol, atol=rtol / 100)
    found = enclosure.compare(solution)
    pairs = zip(found.estimate[1:], found.upper[1:], strict=True)  # at t = 0 there is no error
    ratio = min(estimate / max(float(bound), 1e-300) for estimate, bound in pairs)
    events, slides = len(solution.events), int(solution.statistics["slides"])
    largest = float(f"{float(found.largest):.3g}")
    estimate = float(f"{max(found.estimate):.3g}")
    return Calibrated(name, rtol, events, slides, largest, estimate, float(f"{ratio:.3g}"), found.within)


def main(count: int = 200) -> None:
    torch.set_num_threads(1)
    solutions: list[Calibrated] = []
    refused: Counter[str] = Counter()
    seed = 0
    while len(solutions) < count * len(TOLERANCES):
        name, flow, weights = draw_problem(seed)
        seed += 1
        try:
            enclosure = enclose(flow, weights, T_FINAL, bits=BITS)
        except Undecided as stop:
            refused[str(stop).split(": ", 1)[-1].split(":")[0]] += 1
            print(name, stop, file=sys.stderr)
            continue
        solutions += [calibrate(name, flow, weights, enclosure, rtol) for rtol in TOLERANCES]
        print(*solutions[-len(TOLERANCES) :], sep="\n", file=sys.stderr)
    uncovered = [solution for solution in solutions if not solution.covered]
    print(f"{count} problems of {seed}, refused: {dict(refused)}; estimates below the error: {uncovered}")
    for rtol in TOLERANCES:
        ratios = [solution.ratio for solution in solutions if solution.rtol == rtol]
        print(f"rtol {rtol:g}: estimate / error from {min(ratios)} to {max(ratios)}, median {np.median(ratios):.3g}")
    with (Path(figures.calibration.__file__).parent / RESULTS).open("w") as file:
        versions = {name: importlib.metadata.version(name) for name in ("flowsim", "python-flint", "torch", "numba")}
        entries = ",\n".join(json.dumps(solution) for solution in solutions)
        file.write(f'{{"problems": {count}, "undecided": {seed - count}, "versions": {json.dumps(versions)},\n')
        file.write(f'"solutions": [\n{entries}\n]}}\n')


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
