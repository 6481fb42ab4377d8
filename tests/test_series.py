"""Taylor series of the flow, against derivatives along the flow by automatic differentiation."""

import math

import pytest
import torch
from sample_problems import RULES, gaussian_data
from torch.func import jvp

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Weights, losses
from flowsim.integrators.event.batched.batch import Mode
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.batched.series import Series, Sliding, expand
from flowsim.integrators.event.kinks import Kinks
from flowsim.losses import Loss
from flowsim.rules import Rule

ORDER = 5


def as_matrices(flow: Flow, weights: Weights) -> tuple[Flow, Weights]:
    """With output weights and feedback `k x m`, as integrators use them."""
    flow, weights = flow.map_matrices(weights, lambda matrix: matrix)
    return flow, Weights(*weights.layers)


def series_of(flow: Flow, weights: Weights, unit: float, side: torch.Tensor | None = None) -> Series:
    kinks = Kinks.of(flow.dataset.inputs)
    if side is None:
        side = (flow.dataset.inputs @ weights.hidden.mT).sign().to(torch.int8)
    mode = Mode(side, weights.output.sign().to(torch.int8))
    sliding = Sliding.of(kinks, side, ((side == 0) & kinks.exists.unsqueeze(-1)).any(1))
    units = torch.full((len(side),), unit, dtype=torch.float64)
    return expand(flow, kinks, weights, mode, sliding, units, ORDER, Scratch(torch.float64, units.device))


def derivatives(flow: Flow, weights: Weights) -> list[tuple[torch.Tensor, ...]]:
    """d^k theta / dt^k: each is the derivative of the one before in the direction of the velocity."""

    def velocity(*layers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return flow.velocity(weights.with_layers(layers)).layers  # which, unlike Weights, keeps derivatives

    functions = [velocity]
    for _ in range(ORDER - 1):
        last = functions[-1]
        functions.append(lambda *layers, last=last: jvp(last, layers, velocity(*layers))[1])
    return [weights.layers, *(function(*weights.layers) for function in functions)]


def check(flow: Flow, weights: Weights) -> None:
    """The terms are sums of products, computed in another order: rounding of relative size 1e-13 of the largest one."""
    unit = 0.5
    series = series_of(flow, weights, unit)
    for k, exact in enumerate(derivatives(flow, weights)):
        for terms, derivative in zip((series.hidden.mT, series.output), exact, strict=True):
            expected = derivative * unit**k / math.factorial(k)
            torch.testing.assert_close(terms[k], expected, rtol=1e-11, atol=1e-13 * expected.abs().max().item())
    torch.testing.assert_close(series.pre_activations[3], flow.dataset.inputs @ series.hidden[3])


@pytest.mark.parametrize("loss", ["exponential", "logistic", "squared", losses.polynomial(1.5)])
@pytest.mark.parametrize("rule", RULES)
def test_terms_are_the_derivatives_along_the_flow(rule: str, loss: str | Loss) -> None:
    flow, weights = gaussian_data(rule, 2, samples=5, dimension=3, width=4)
    flow = Flow(flow.dataset, flow.rule, loss, 0.3)
    scale = 0.1 if isinstance(loss, Loss) else 1.0  # margins above -1
    check(*as_matrices(flow, weights.map(lambda layer: scale * layer)))


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
def test_terms_are_the_derivatives_along_the_flow_with_several_outputs(rule: str, loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, output, inputs, feedback = (
        torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in ((4, 3), (3, 4), (5, 3), (3, 4))
    )
    rules: dict[str, Rule] = {
        "gd": GradientDescent(), "fa": FeedbackAlignment(feedback), "sign-fa": SignFeedbackAlignment(0.7),
    }  # fmt: skip
    dataset = Dataset(inputs, torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]]), 3)
    check(Flow(dataset, rules[rule], loss, 0.3), Weights(hidden, output))


def test_a_sliding_neuron_stays_on_its_kinks_and_its_drives_hold_it_there() -> None:
    """x_1 . W_k = 0 for all k > 0; the drive p_1 makes up for what the other samples push towards the kink."""
    flow, weights = gaussian_data("fa", 1, samples=4, dimension=3, width=2)
    flow, weights = as_matrices(flow, weights)
    side = (flow.dataset.inputs @ weights.hidden.mT).sign().to(torch.int8)
    side[0, 1, 0] = side[0, 2, 0] = 0
    series = series_of(flow, weights, 0.5, side)
    along = flow.dataset.inputs[0, 1:3] @ series.hidden[1:, 0, :, 0].T
    assert along.abs().max() < 1e-14
    drives = series.sliding.drives(series.rest)
    held = series.rest[0] + flow.dataset.inputs[0, 1:3].T @ drives[0]
    velocities = series.hidden[1:, 0, :, 0].T * torch.arange(1, ORDER + 1)
    torch.testing.assert_close(held, velocities, rtol=1e-12, atol=1e-14)
