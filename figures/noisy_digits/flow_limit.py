"""Noisy digits as a flow: the limit of small steps.

The same experiment with 20 images and 15 neurons, as a flow (event-driven) and as gradient steps of size η with
momentum β = 0.05, to the same time ηk/(1 − β) = 5. Above, the largest difference of a weight between the two; below,
the change of Σ_j c_j, which the flow conserves (Theorem 5.2). Both vanish with η, in proportion to it for GD, FA and
adaFA (dotted: slope 1). Where large steps meet a kink on the wrong side they part from the flow for a while; under
sign-FA both scatter with where in a step the sign of a weight changes. What discrete training deviates from the law
is its discretisation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from figures.noisy_digits.images import Images
from figures.noisy_digits.protocol import RULES, Problem, Protocol, problem
from figures.style import BLACK, grid, panels
from figures.style import RULES as COLOURS
from flowsim import Dataset, Flow, Weights, descent, solve
from flowsim.observables import conserved_per_layer
from flowsim.progress import Tell

T_FINAL = 5.0
ETAS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


class Measured(NamedTuple):
    """At time T_FINAL: the largest difference of a weight to the flow, and the change of sum_j c_j."""

    etas: tuple[float, ...]
    difference: Float[Tensor, "etas rules"]
    deviation: Float[Tensor, "etas rules"]


def measure(
    protocol: Protocol,
    images: Images,
    samples: int = 20,
    t_final: float = T_FINAL,
    etas: tuple[float, ...] = ETAS,
    tell: Tell = lambda share, doing: None,
) -> Measured:
    """Train the narrowest network of the protocol on a few images, for each step size, and solve it as a flow.

    `tell` is told how far that is.
    """
    small = replace(protocol, samples=samples, widths=protocol.widths[:1], repeats=1)
    runs = problem(small, images)
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
    return Measured(etas, torch.stack(differences), torch.stack(deviations))


def _largest_difference(left: Weights, right: Weights) -> Tensor:
    return torch.stack([(a - b).abs().max() for a, b in zip(left.layers, right.layers, strict=True)]).max()


def alone(runs: Problem, number: int) -> tuple[Flow, Weights]:
    """The first run of a rule by itself, as integrators can solve it."""
    weights = Weights(*(layer[number, 0, 0] for layer in runs.weights.layers))
    data = runs.flow.dataset
    alone = Dataset(data.inputs[0, 0], data.labels[0, 0], data.classes)
    return Flow(alone, runs.rule.alone(number, weights), runs.flow.loss, runs.flow.slope), weights


def draw(measured: Measured) -> Figure:
    """Differences above, deviations below, against the step size."""
    figure, axes = panels(2, 1, 4.0, sharex=True)
    for panel, values, label in [
        (axes[0], measured.difference, "difference to the flow"),
        (axes[1], measured.deviation, r"change of $\sum_j c_j$"),
    ]:
        for number, name in enumerate(RULES):
            panel.loglog(measured.etas, values[:, number], "o-", color=COLOURS[name], markersize=3, label=name)
        ends = torch.tensor([measured.etas[0], measured.etas[-1]], dtype=torch.float64)
        lowest = values[0].min() / 2
        panel.loglog(ends, lowest * ends / ends[0], ":", color=BLACK, label=r"proportional to $\eta$")
        panel.set_ylabel(label)
        grid(panel)
    axes[1].set_xlabel(r"step size $\eta$")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure
