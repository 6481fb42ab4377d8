"""Problems and checks that several tests of enclosures share."""

import torch
from flint import arb, ctx

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Weights
from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.points import Point
from flowsim.rules import Rule


def one_neuron() -> tuple[Flow, Weights]:
    """Solution 1 of theorems/README.md, section 8."""
    flow = Flow(Dataset([[1.0, 2.0]], [1]), FeedbackAlignment([1.0]))
    return flow, Weights(torch.tensor([[0.6, 0.2]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))


def gaussian(
    seed: int, rule: str, loss: str = "exponential", slope: float = 0.3, sizes: tuple[int, int, int] = (6, 4, 3)
) -> tuple[Flow, Weights]:
    """Gaussian inputs, weights and feedback, arbitrary labels: crossings, sliding entries and exits."""
    n, d, m = sizes
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dataset = Dataset(normal(n, d) / d**0.5, normal(n).sign())
    weights = Weights(normal(m, d) / d**0.5, normal(m) / m**0.5)
    rules: dict[str, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(normal(m)),
        "sign-fa": SignFeedbackAlignment(0.75),
    }
    return Flow(dataset, rules[rule], loss, slope=slope), weights


def weights_of(hidden: list[list[float]], output: list) -> Weights:
    """Weights from lists."""
    return Weights(torch.tensor(hidden, dtype=torch.float64), torch.tensor(output, dtype=torch.float64))


def balls(point: Point[arb]) -> list[arb]:
    """All weights."""
    return [*point.output, *(entry for row in point.hidden for entry in row)]


def assert_inside(inner: Enclosure, outer: Enclosure, times: list[float]) -> None:
    """Enclosures of the same run must overlap; the one with more bits must be inside, but for its own width."""
    with ctx.workprec(2 * inner.bits):
        for time in times:
            for small, large in zip(balls(inner.at(time)), balls(outer.at(time)), strict=True):
                assert small.overlaps(large)
                assert (large + arb(0, 2 * small.rad())).contains(small)
                assert small.rad() < large.rad() or large.is_exact()
