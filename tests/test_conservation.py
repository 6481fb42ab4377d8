"""Theorem 5.2 as a numerical proof: for every rule, loss, depth and output width, along flows and discrete steps."""

import itertools

import pytest
import torch

from flowsim import Dataset, DeepWeights, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, solve
from flowsim.activation import Activation, LeakyReLU, Tanh
from flowsim.initialization import adafa, deep_gaussian
from flowsim.observables import conserved, conserved_per_layer
from flowsim.rules import Rule

RULES = ["gd", "fa", "adafa", "sign-fa"]
LOSSES_AND_OUTPUTS = [("exponential", 1), ("logistic", 1), ("squared", 1), ("squared", 3), ("cross-entropy", 3)]
HIDDEN_LAYERS = [1, 2, 3]


def random_flow(
    rule: str,
    loss: str,
    outputs: int,
    hidden_layers: int,
    activation: Activation = LeakyReLU(0.7),  # noqa: B008
    decay: float = 0.0,
) -> tuple[Flow, DeepWeights]:
    generator = torch.Generator().manual_seed(11)
    inputs = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    dataset = Dataset(inputs, [1, -1, 1]) if outputs == 1 else Dataset(inputs, [0, 1, 2], classes=3)
    widths = (5, *[4] * hidden_layers, outputs)
    weights = deep_gaussian(widths, seed=4)
    learning: dict[str, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(deep_gaussian(widths, seed=5).layers[1:]),
        "adafa": adafa(weights),
        "sign-fa": SignFeedbackAlignment(0.5),
    }
    return Flow(dataset, learning[rule], loss, activation=activation, decay=decay), weights


@pytest.mark.parametrize(
    ("rule", "loss_and_outputs", "hidden_layers"), list(itertools.product(RULES, LOSSES_AND_OUTPUTS, HIDDEN_LAYERS))
)
def test_flow_conserves_every_neuron_within_the_estimated_error(
    rule: str, loss_and_outputs: tuple[str, int], hidden_layers: int
) -> None:
    flow, weights = random_flow(rule, *loss_and_outputs, hidden_layers)
    method = "dopri5" if hidden_layers == 2 else "event"
    solution = solve(flow, weights, 0.05, method=method, rtol=1e-11, atol=1e-13, max_steps=3000)
    times = torch.linspace(0, 0.05, 30, dtype=torch.float64)
    here, there = (conserved(flow, curve.evaluate(times)) for curve in (solution, solution.companion))
    moved = solution.evaluate(0.05).layers[0] - weights.layers[0]
    assert moved.abs().max() > 1e-3, "a run at rest would conserve everything"
    for ours, looser in zip(here, there, strict=True):
        deviation, error = (ours - ours[0]).abs().max(), (ours - looser).abs().max()
        # sums of a few numbers of size 1 over at most 3000 steps of 16 roundings
        assert deviation <= error + 16 * 3000 * 2.2e-16
        assert deviation < 1e-9
    for ours, layer in zip(conserved_per_layer(flow, solution.evaluate(0.05)), here, strict=True):
        torch.testing.assert_close(ours, layer[-1].sum(-1))


@pytest.mark.parametrize(("activation", "decay"), [(Tanh(), 0.0), (LeakyReLU(0.7), 0.1)])
@pytest.mark.parametrize("rule", RULES)
def test_tanh_and_weight_decay_break_conservation(rule: str, activation: Activation, decay: float) -> None:
    """The control: the same measurement shows a deviation a million times its tolerance."""
    flow, weights = random_flow(rule, "squared", 3, 2, activation, decay)
    ends = solve(flow, weights, 0.1, method="dopri5", rtol=1e-11, atol=1e-13).evaluate([0.0, 0.1])
    assert max((layer[1] - layer[0]).abs().max() for layer in conserved(flow, ends)) > 1e-3
