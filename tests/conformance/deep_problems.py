"""Networks of three and more layers on arbitrary labels: many crossings, many slides."""

from collections.abc import Callable

import torch

from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
)
from flowsim.initialization import deep_gaussian
from flowsim.observables import conserved
from flowsim.rules import Rule
from flowsim.weights import NetworkWeights

RULES = ["gd", "fa", "adafa", "sign-fa"]
WIDTHS = {3: (6, 8, 7, 1), 4: (6, 8, 7, 6, 1)}


def gaussian_data(
    rule: str, layers: int, seeds: int, first: int = 0, loss: str = "exponential", slope: float = 0.3
) -> tuple[Flow, DeepWeights]:
    """Gaussian inputs, weights and feedback, 10 samples; each seed has a trajectory, whatever the others are."""
    parts = [_draw(WIDTHS[layers], first + seed) for seed in range(seeds)]
    inputs, labels, weights, feedback, direct = (
        [torch.stack(column) for column in zip(*part, strict=True)] for part in zip(*parts, strict=True)
    )
    rules: dict[str, Callable[[], Rule]] = {
        "gd": GradientDescent,
        "fa": lambda: FeedbackAlignment(tuple(feedback)),
        "adafa": lambda: FeedbackAlignment(tuple(weights[1:])),
        "sign-fa": SignFeedbackAlignment,
        "direct": lambda: DirectFeedbackAlignment(tuple(direct)),
    }
    return Flow(Dataset(inputs[0], labels[0]), rules[rule](), loss, slope), DeepWeights(tuple(weights))


def _draw(widths: tuple[int, ...], seed: int) -> tuple[list[torch.Tensor], ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    inputs, labels = normal(10, widths[0]) / widths[0] ** 0.5, normal(10).sign()
    weights = [normal(*shape) / shape[1] ** 0.5 for shape in shapes]
    return [inputs], [labels], weights, [normal(*shape) for shape in shapes[1:]], [normal(1, m) for m in widths[1:-1]]


def slides_that_hold_each_other() -> tuple[Flow, DeepWeights]:
    """At t = 21.03 the only mode without contradiction has three slides; one of them repels where it is alone."""
    generator = torch.Generator().manual_seed(1003)
    inputs = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    weights, others = (deep_gaussian((6, 16, 16, 2), seed) for seed in (3, 503))
    dataset = Dataset(inputs, torch.arange(20) % 2, classes=2)
    return Flow(dataset, FeedbackAlignment(others.layers[1:]), "cross-entropy", 0.1), weights


def law_deviation(solution: Solution, layers: list[int] | None = None) -> float:
    """Of Theorem 5.2, at its worst neuron, time and event."""
    times = torch.cat([torch.linspace(0, solution.t_final, 50).double(), solution.events.time])
    gaps = [conserved(solution.flow, solution.evaluate(part), layers) for part in times.split(100)]
    return max((gap - gaps[0][level][0]).abs().max().item() for part in gaps for level, gap in enumerate(part))


def largest_difference(here: NetworkWeights, there: NetworkWeights) -> float:
    return max((one - other).abs().max().item() for one, other in zip(here.layers, there.layers, strict=True))
