"""How exact runs of deep networks are: the law, convergence, the error estimate against the true error.

PYTHONPATH=.:tests python tests/benchmarks/deep_accuracy.py [seeds]
"""

from __future__ import annotations

import sys

import torch
from conformance.deep_problems import RULES, gaussian_data, largest_difference, law_deviation

from flowsim import Solution, solve
from flowsim.weights import DeepWeights

T_FINAL = 20.0
TIMES = torch.linspace(0, T_FINAL, 41, dtype=torch.float64)
TOLERANCES = [1e-6, 1e-8, 1e-10, 1e-12]


def print_law(seeds: int) -> None:
    print(f"Theorem 5.2, largest deviation over {seeds} seeds, all neurons, T = {T_FINAL:g}, rtol 1e-12")
    for rule in RULES:
        for layers in (3, 4):
            runs = [run(rule, layers, seed, 1e-12) for seed in range(seeds)]
            ended = [each for each in runs if each.status.ended]
            slides = sum(int(each.statistics["slides"]) for each in ended)
            worst = max(law_deviation(each) for each in ended)
            print(f"{rule:>8} {layers} layers: {worst:.1e}, {slides} slides, {len(ended)} of {seeds} ended")


def print_convergence(seeds: int) -> None:
    print("true error (against rtol 1e-13) at its largest, and the smallest and largest ratio of the estimate to it")
    for rule in RULES:
        for layers in (3, 4):
            for seed in range(seeds):
                best = run(rule, layers, seed, 1e-13)
                print(f"{rule:>8} {layers} layers, seed {seed}: " + ", ".join(
                    compare(run(rule, layers, seed, rtol), best) for rtol in TOLERANCES))  # fmt: skip


def compare(solution: Solution[DeepWeights], best: Solution[DeepWeights]) -> str:
    companion = solution.companion
    for each, name in ((solution, "stopped"), (companion, "companion stopped"), (best, "best stopped")):
        if not each.status.ended:
            return f"{name} at {each.status.time.item():.4g}"
    error = largest_difference(solution.evaluate(TIMES), best.evaluate(TIMES))
    estimate = max(layer.max().item() for layer in solution.error(TIMES).layers)
    return f"{error:.1e} ({estimate / max(error, 1e-16):.0f})" + " BELOW" * (estimate < error)


def run(rule: str, layers: int, seed: int, rtol: float) -> Solution[DeepWeights]:
    flow, weights = gaussian_data(rule, layers, 1, first=seed)
    return solve(
        *flow.map_matrices(weights, lambda matrix: matrix[0]), T_FINAL, rtol=rtol, atol=rtol / 100, throw=False
    )


def main(seeds: int = 10) -> None:
    torch.set_num_threads(1)
    print_law(seeds)
    print_convergence(seeds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
