"""Narrow deep problems whose runs slide, and what the reference makes of them: kept in `reference_runs.npz`.

PYTHONPATH=tests python -m conformance.reference_runs    writes that file again
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from conformance.reference import Event, Problem, Solution, solve
from flowsim import Dataset, DeepWeights, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment
from flowsim.rules import Rule

RUNS = Path(__file__).with_name("reference_runs.npz")
SEEDS = (6, 7, 31, 73, 91, 32, 39, 116, 495, 500, 22, 83, 88, 95, 442, 520, 631, 658, 1068)


def random_problem(seed: int) -> Problem:
    """Gaussian inputs, weights and feedback, arbitrary labels; 3 layers for even seeds, 4 for odd ones."""
    rng = np.random.default_rng(seed)
    samples, dimension = rng.integers(3, 7), rng.integers(2, 5)
    widths = [dimension, *rng.integers(2, 5, 2 + seed % 2), 1]
    layers = [rng.standard_normal((m, k)) / np.sqrt(k) for k, m in itertools.pairwise(widths)]
    feedback = [rng.standard_normal(layer.shape) for layer in layers[1:]]
    rule = ["gd", "fa", "sign-fa"][seed // 2 % 3]
    return Problem(
        inputs=rng.standard_normal((samples, dimension)),
        targets=np.sign(rng.standard_normal((samples, 1))),
        layers=layers,
        rule=rule,
        loss=["exponential", "logistic", "squared"][seed // 6 % 3],
        slope=round(rng.uniform(0.1, 0.5), 2),
        t_final=float(rng.integers(2, 21)),
        feedback=feedback if rule == "fa" else (),
    )


def flow_and_weights(problem: Problem) -> tuple[Flow, DeepWeights]:
    """The same problem for flowsim."""
    rules: dict[str, Callable[[], Rule]] = {
        "gd": GradientDescent,
        "fa": lambda: FeedbackAlignment([torch.from_numpy(matrix) for matrix in problem.feedback]),
        "sign-fa": SignFeedbackAlignment,
    }
    dataset = Dataset(torch.from_numpy(problem.inputs), torch.from_numpy(problem.targets[:, 0]))
    flow = Flow(dataset, rules[problem.rule](), problem.loss, problem.slope)
    return flow, DeepWeights(tuple(torch.from_numpy(layer) for layer in problem.layers))


class Features(NamedTuple):
    """How many events of a run are of the kinds that are hard to get right."""

    deep_entries: int  # slides that begin in a layer above the first
    exits: int
    in_two_layers: int  # sides or signs that change so that then kinks of several layers slide
    of_one_sample: int  # the same, with one sample sliding in several layers
    flips_while_sliding: int  # signs of weights that change while some kink slides
    at_once: int  # sides that change together with another one


def features(events: list[Event]) -> Features:
    """For a run that begins without a slide."""
    slid: set[tuple[int, int, int]] = set()
    deep = exits = layers = samples = flips = at_once = 0
    for event in events:
        if event.sample < 0:
            flips += bool(slid)
        elif event.after == 0:
            slid.add(event[1:4])
            deep += event.layer > 1
        elif event.before == 0:
            slid.remove(event[1:4])
            exits += 1
        layers += len({layer for layer, _, _ in slid}) > 1
        samples += len({(layer, sample) for layer, sample, _ in slid}) > len({sample for _, sample, _ in slid})
        at_once += sum(other.time == event.time for other in events) > 1
    return Features(deep, exits, layers, samples, flips, at_once)


def save_runs(runs: dict[int, tuple[Problem, Solution]], path: Path = RUNS) -> None:
    entries: dict[str, np.ndarray] = {"seeds": np.array(list(runs))}
    for seed, (problem, solution) in runs.items():
        named = {
            "inputs": problem.inputs,
            "targets": problem.targets,
            "rule": np.array(problem.rule),
            "loss": np.array(problem.loss),
            "slope": np.array(problem.slope),
            "t_final": np.array(problem.t_final),
            "events": np.array(solution.events).reshape(-1, len(Event._fields)),
        }
        lists = {"layer": problem.layers, "feedback": problem.feedback, "final": solution.layers}
        named |= {f"{name}_{level}": part for name, parts in lists.items() for level, part in enumerate(parts)}
        entries |= {f"{seed}_{name}": part for name, part in named.items()}
    np.savez_compressed(path, allow_pickle=False, **entries)


def load_runs(path: Path = RUNS) -> dict[int, tuple[Problem, Solution]]:
    """By seed; the feedback of a rule without one of its own is ()."""
    with np.load(path) as file:
        return {int(seed): _run(file, f"{seed}_") for seed in file["seeds"]}


def _run(file: np.lib.npyio.NpzFile, prefix: str) -> tuple[Problem, Solution]:
    def parts(name: str) -> list[np.ndarray]:
        found = [key for key in file.files if key.startswith(f"{prefix}{name}_")]
        return [file[key] for key in found]  # in the order of writing

    problem = Problem(
        file[prefix + "inputs"],
        file[prefix + "targets"],
        parts("layer"),
        str(file[prefix + "rule"]),
        str(file[prefix + "loss"]),
        float(file[prefix + "slope"]),
        float(file[prefix + "t_final"]),
        parts("feedback"),
    )
    events = [Event(row[0], *(int(number) for number in row[1:])) for row in file[prefix + "events"].tolist()]
    return problem, Solution(parts("final"), events)


def regenerate() -> dict[int, tuple[Problem, Solution]]:
    problems = {seed: random_problem(seed) for seed in SEEDS}
    return {seed: (problem, solve(problem)) for seed, problem in problems.items()}


if __name__ == "__main__":
    save_runs(regenerate())
