"""The velocity and the gradient against automatic differentiation, which knows nothing of the formulas in flow.py."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
)
from flowsim.activation import LeakyReLU, Tanh
from flowsim.initialization import deep_gaussian, gaussian

SLOPE = 0.3
BATCH, SAMPLES, DIMENSION = 3, 7, 5
# sums of at most 50 products of numbers of size 1: rounding stays below 50 * 2.2e-16 * 10


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


class FeedbackLinear(torch.autograd.Function):
    """x W^T forwards, delta B backwards: the definition of feedback alignment."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(x, feedback)
        return x @ weight.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (delta,) = grads
        x, feedback = ctx.saved_tensors
        return delta @ feedback, delta.mT @ x, None


def torch_risk(loss: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean loss from torch's own losses where it has them."""
    if loss == "cross-entropy":
        return functional.cross_entropy(outputs, labels.long())
    if loss == "squared":
        k = outputs.shape[-1]
        targets = labels.unsqueeze(-1) if k == 1 else functional.one_hot(labels.long(), k).to(outputs)
        return 0.5 * functional.mse_loss(outputs, targets, reduction="sum") / len(labels)
    margins = labels * outputs.squeeze(-1)
    if loss == "exponential":
        return torch.exp(-margins).mean()
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), (labels + 1) / 2)


def random_problem(loss: str, hidden_layers: int, seed: int) -> tuple[Dataset, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 if loss == "cross-entropy" or (loss == "squared" and seed % 2) else 1
    inputs = torch.randn(BATCH, SAMPLES, DIMENSION, generator=generator, dtype=torch.float64)
    if outputs == 1:
        labels = torch.randint(0, 2, (BATCH, SAMPLES), generator=generator) * 2.0 - 1.0
        dataset = Dataset(inputs, labels)
    else:
        dataset = Dataset(inputs, torch.randint(0, 3, (BATCH, SAMPLES), generator=generator), classes=3)
    widths = (DIMENSION, *[4] * hidden_layers, outputs)
    layers, feedback = (
        [
            torch.stack(level)
            for level in zip(*[deep_gaussian(widths, 10 * s + part).layers for s in range(BATCH)], strict=True)
        ]
        for part in (0, 1)
    )
    return dataset, layers, feedback[1:]


PROBLEMS = list(itertools.product(["exponential", "logistic", "squared", "cross-entropy"], [1, 2, 3], [0, 1]))


@pytest.mark.parametrize(("loss", "hidden_layers", "seed"), PROBLEMS)
@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
def test_velocity_and_risk_equal_automatic_differentiation_with_the_rules_backward_pass(
    rule: str, loss: str, hidden_layers: int, seed: int
) -> None:
    dataset, layers, feedback = random_problem(loss, hidden_layers, seed)
    rules = {
        "gd": (GradientDescent(), layers[1:]),
        "fa": (FeedbackAlignment(tuple(feedback)), feedback),
        "sign-fa": (SignFeedbackAlignment(0.7), [0.7 * torch.sign(layer) for layer in layers[1:]]),
    }
    learning, backward = rules[rule]
    flow, weights = Flow(dataset, learning, loss, SLOPE), DeepWeights(tuple(layers))
    velocity, risk = flow.velocity(weights), flow.risk(weights)
    for b in range(BATCH):
        leaves = [layer[b].clone().requires_grad_() for layer in layers]
        hidden = functional.leaky_relu(dataset.inputs[b] @ leaves[0].mT, SLOPE)
        for level in range(1, len(leaves)):
            hidden = FeedbackLinear.apply(hidden, leaves[level], backward[level - 1][b])
            assert isinstance(hidden, Tensor)
            if level < len(leaves) - 1:
                hidden = functional.leaky_relu(hidden, SLOPE)
        expected = torch_risk(loss, hidden, dataset.labels[b])
        gradients = torch.autograd.grad(expected, leaves)
        assert_equal(risk[b], expected.detach())
        for ours, theirs in zip(velocity.layers, gradients, strict=True):
            assert_equal(ours[b], -theirs)


@pytest.mark.parametrize("rule", [FeedbackAlignment(torch.ones(4)), SignFeedbackAlignment(), GradientDescent()])
def test_gradient_is_that_of_the_risk_whatever_the_rule(rule: Any) -> None:
    dataset, layers, _ = random_problem("logistic", 1, 0)
    weights = Weights(layers[0], layers[1].squeeze(-2))
    flow = Flow(dataset, rule, "logistic", SLOPE)
    leaves = weights.hidden.requires_grad_(), weights.output.requires_grad_()
    expected = torch.autograd.grad(flow.risk(weights).sum(), leaves)
    gradient = flow.gradient(weights)
    assert_equal(gradient.hidden, expected[0])
    assert_equal(gradient.output, expected[1])


def test_scalar_output_is_the_vector_output_with_one_row() -> None:
    dataset, layers, feedback = random_problem("exponential", 1, 0)
    deep = Flow(dataset, FeedbackAlignment(tuple(feedback)), slope=SLOPE).velocity(DeepWeights(tuple(layers)))
    flow = Flow(dataset, FeedbackAlignment(feedback[0].squeeze(-2)), slope=SLOPE)
    scalar = flow.velocity(Weights(layers[0], layers[1].squeeze(-2)))
    assert torch.equal(scalar.hidden, deep.layers[0])
    assert torch.equal(scalar.output, deep.layers[1].squeeze(-2))


def test_times_in_front_of_the_ensemble_broadcast() -> None:
    dataset, layers, feedback = random_problem("exponential", 2, 0)
    flow = Flow(dataset, FeedbackAlignment(tuple(feedback)), slope=SLOPE)
    stacked = flow.velocity(DeepWeights(tuple(torch.stack([layer, 2 * layer]) for layer in layers)))
    for row, factor in enumerate([1, 2]):
        alone = flow.velocity(DeepWeights(tuple(factor * layer for layer in layers)))
        for ours, theirs in zip(stacked.layers, alone.layers, strict=True):
            assert_equal(ours[row], theirs)


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.3, 1 / 3, 1.0])
def test_activation_has_exactly_the_slopes_1_and_gamma_with_gamma_at_0(slope: float) -> None:
    flow = Flow(Dataset([[1.0]], [1]), GradientDescent(), slope=slope)
    points = torch.tensor([-2.0, -0.0, 0.0, 1e-300, 3.0], dtype=torch.float64)
    values, slopes = flow.activation(points)
    assert slopes.tolist() == [slope, slope, slope, 1.0, 1.0]
    assert values.tolist() == [-2.0 * slope, 0.0, 0.0, 1e-300, 3.0]


def test_a_repeated_sample_weighs_like_a_sample_counted_twice() -> None:
    """1/n of the risk: three copies of one sample move weights as the one sample does."""
    weights = gaussian(4, 2, seed=0)
    one = Flow(Dataset([[1.0, -2.0]], [1]), GradientDescent(), "logistic").velocity(weights)
    three = Flow(Dataset([[1.0, -2.0]] * 3, [1] * 3), GradientDescent(), "logistic").velocity(weights)
    assert_equal(three.hidden, one.hidden)
    assert_equal(three.output, one.output)


DATA = Dataset([[1.0, 0.0], [0.6, 1.2]], [1, -1])


class Looks:
    """Has what is asked of a rule, but nothing to fall back upon."""

    def feedback_matrices(self, weights: Any) -> Any:
        return weights.layers[1:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slope": -0.1}, r"slope must lie in \[0, 1\], got -0.1"),
        ({"slope": float("nan")}, r"slope must lie in \[0, 1\], got nan"),
        ({"slope": 1.5}, r"slope must lie in \[0, 1\], got 1.5"),
        ({"rule": "fa"}, r"rule must be .* got 'fa'"),
        (
            {"rule": GradientDescent},
            r"rule must be GradientDescent\(\), .* got the class GradientDescent",
        ),
        (
            {"rule": FeedbackAlignment},
            r"rule must be .* FeedbackAlignment\(feedback\), .* got the class FeedbackAlignment",
        ),
        ({"rule": Looks()}, r"rule must be .* derived from flowsim.Rule, got <"),
        ({"slope": True}, r"slope must lie in \[0, 1\], got True"),
        ({"slope": 0.3, "activation": Tanh()}, r"slope must not be given beside an activation, got 0.3 and Tanh\(\)"),
        ({"slope": 0.3, "activation": LeakyReLU(0.3)}, r"slope must not be given beside an activation"),
        ({"activation": Tanh}, r"activation must be LeakyReLU\(slope\), .* got the class Tanh"),
        ({"activation": torch.tanh}, r"activation must be LeakyReLU\(slope\), .* got <built-in method tanh"),
        ({"loss": "hinge"}, r"loss must be one of .* got 'hinge'"),
        ({"loss": "exponentail"}, r"got 'exponentail': did you mean exponential\?"),
        ({"loss": "cross-entropy"}, r"loss 'cross-entropy' is for classes, got labels -1 and \+1: use expo"),
        ({"dataset": "data"}, r"dataset must be a flowsim.Dataset, got str"),
        (
            {"dataset": Dataset([[1.0]], [0], classes=2)},
            r"loss 'exponential' is for labels -1 and \+1, got 2 classes: use",
        ),
    ],
)
def test_bad_flows_are_refused_in_one_line_that_names_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Flow(**{"dataset": DATA, "rule": GradientDescent(), **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "rule", "message"),
    [
        (gaussian(4, 3, 0), GradientDescent(), "hidden weights must have d = 2 columns"),
        (gaussian(4, 2, 0, outputs=3), GradientDescent(), "output weights must give k = 1 outputs"),
        (gaussian(4, 2, 0), FeedbackAlignment([1.0, 1.0]), "feedback must be shaped like the layers"),
        (
            Weights(torch.ones(2, 4, 2).double(), torch.ones(2, 4).double()),
            FeedbackAlignment(torch.ones(3, 4)),
            "batch shapes of data, weights and feedback must broadcast",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Weights, rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Flow(DATA, rule).require_fit(weights)
