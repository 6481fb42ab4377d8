"""The limit of small steps: a few images, trained with smaller and smaller steps, and solved as a flow."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from figures.experiments.images import Images
from figures.experiments.table import table_of
from figures.noisy_digits.protocol import RULES, Ensemble, Protocol, draw_ensemble
from flowsim import Dataset, Flow, Weights, descent, solve
from flowsim.observables import conserved_per_layer
from flowsim.progress import Tell

T_FINAL = 5.0
ETAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
QUANTITIES = ("difference", "deviation")


def measure(
    protocol: Protocol,
    images: Images,
    samples: int = 20,
    t_final: float = T_FINAL,
    etas: tuple[float, ...] = ETAS,
    tell: Tell = lambda share, doing: None,
) -> pd.DataFrame:
    """Train the narrowest network of the protocol on a few images, for each step size, and solve it as a flow.

    The table has, at time `t_final`, the largest difference of a weight to the flow, and by how much sum_j c_j changed,
    which the flow conserves. `tell` is told how far that is.
    """
    small = replace(protocol, samples=samples, widths=protocol.widths[:1], repeats=1)
    runs = draw_ensemble(small, images)
    ends = [alone(runs, number) for number in range(len(RULES))]
    exact = []
    for number, (flow, weights) in enumerate(ends):
        exact.append(solve(flow, weights, t_final).evaluate(t_final))
        tell((number + 1) / (len(ends) + len(etas)), "the limit of small steps")
    counts = [max(1, round(t_final * (1 - small.momentum) / eta)) for eta in etas]
    etas = tuple(t_final * (1 - small.momentum) / count for count in counts)  # so that they end at t_final
    differences, deviations = [], []
    for eta, count in zip(etas, counts, strict=True):
        state = descent.start(runs.weights)
        for _ in range(count):
            state = descent.step(runs.flow, state, eta, small.momentum)
        reached = [alone(runs._replace(weights=state.weights), number)[1] for number in range(len(RULES))]
        differences.append(torch.stack([_largest_difference(*pair) for pair in zip(exact, reached, strict=True)]))
        before, after = (conserved_per_layer(runs.flow, weights)[0] for weights in (runs.weights, state.weights))
        deviations.append((after - before).abs()[:, 0, 0])
        tell((len(ends) + len(deviations)) / (len(ends) + len(etas)), "the limit of small steps")
    values = torch.stack([torch.stack(differences), torch.stack(deviations)], -1)
    return table_of(values.transpose(0, 1).numpy(), {"rule": RULES, "eta": etas}, QUANTITIES)


def _largest_difference(left: Weights, right: Weights) -> Tensor:
    return torch.stack([(a - b).abs().max() for a, b in zip(left.layers, right.layers, strict=True)]).max()


def alone(runs: Ensemble, number: int) -> tuple[Flow, Weights]:
    """The first run of a rule by itself, as integrators can solve it."""
    weights = Weights(*(layer[number, 0, 0] for layer in runs.weights.layers))
    data = runs.flow.dataset
    first = Dataset(data.inputs[0, 0], data.labels[0, 0], data.classes)
    return Flow(first, runs.rule.alone(number, weights), runs.flow.loss, runs.flow.slope), weights
