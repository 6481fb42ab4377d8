"""Problems that several tests run on: a flow and its initial weights."""

import torch
from torch import nn

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Weights, data
from flowsim.initialization import adafa, gaussian, random_signs, with_gaps
from flowsim.modules import feedback_alignment, feedback_layers
from flowsim.modules.layers import RuleName
from flowsim.rules import Rule
from flowsim.weights import DeepWeights

RULES = ["gd", "fa", "adafa", "sign-fa"]


def separable(seeds: int, samples: int = 4, dimension: int = 6, width: int = 3) -> tuple[Flow, Weights]:
    """Orthogonally separable data and gaps c_j = 0.05 under FA: many crossings, no sliding."""
    datasets = data.stack([data.orthogonally_separable(samples, dimension, 0.3, seed) for seed in range(seeds)])
    rule = FeedbackAlignment(torch.stack([random_signs(width, seed) for seed in range(seeds)]))
    hidden = torch.stack([gaussian(width, dimension, seed).hidden for seed in range(seeds)])
    return Flow(datasets, rule), with_gaps(hidden, rule, 0.05)


def gaussian_data(
    rule: str, seeds: int, samples: int = 30, dimension: int = 12, width: int = 20, loss: str = "exponential"
) -> tuple[Flow, Weights]:
    """Gaussian inputs, weights and feedback, arbitrary labels: many crossings, many sliding episodes."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(seeds, *shape, generator=generator, dtype=torch.float64)

    dataset = Dataset(normal(samples, dimension) / dimension**0.5, normal(samples).sign())
    weights = Weights(normal(width, dimension) / dimension**0.5, normal(width) / width**0.5)
    rules: dict[str, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(normal(width)),
        "adafa": adafa(weights),
        "sign-fa": SignFeedbackAlignment(),
    }
    return Flow(dataset, rules[rule], loss), weights


def sliding() -> tuple[Flow, Weights]:
    """Solution 2 of theorems/README.md, section 8: the neuron slides on the kink of the first sample at once."""
    dataset = Dataset([[1.0, 0.0], [0.6, 1.2]], [-1, 1])
    hidden = torch.tensor([[0.0, 0.25]], dtype=torch.float64)
    return Flow(dataset, FeedbackAlignment([1.0])), Weights(hidden, torch.tensor([0.1], dtype=torch.float64))


def as_module(flow: Flow, weights: DeepWeights, rule: RuleName) -> nn.Module:
    """The network of a flow as a torch module that learns by the same rule."""
    layers: list[nn.Module] = []
    for layer in weights.layers:
        linear = nn.Linear(layer.shape[1], layer.shape[0], bias=False, dtype=torch.float64)
        linear.load_state_dict({"weight": layer})
        layers += [linear, nn.LeakyReLU(flow.slope)]
    module = feedback_alignment(nn.Sequential(*layers[:-1]), rule, scale=getattr(flow.rule, "scale", 1.0))
    if rule == "fa":
        above = list(feedback_layers(module).values())[1:]
        for layer, matrix in zip(above, flow.rule.feedback_matrices(weights), strict=True):
            layer.feedback.copy_(matrix)  # type: ignore[union-attr]
    return module
