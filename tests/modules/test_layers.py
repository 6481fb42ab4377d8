"""Layers with feedback: their gradients by autograd through other weights, and what each rule's feedback is."""

import itertools
from typing import Any

import pytest
import torch
from sample_problems import as_module
from test_conservation import random_flow
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from flowsim.modules import FeedbackConv2d, FeedbackLinear, feedback_alignment, feedback_layers
from flowsim.modules.layers import FeedbackLayer
from theorems.weight_sharing import RULES
from theorems.weight_sharing.networks import Residual, chain, kernels, norms

CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": (2, 1), "dilation": (2, 1), "bias": False},
    {"groups": 2, "padding": "same"},
    {"groups": 4, "stride": (1, 2), "padding": "valid"},
    {"padding": 2, "padding_mode": "circular"},
    {"padding": "same", "padding_mode": "reflect", "dilation": 2},
]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(layer: nn.Module, inputs: Tensor, error: Tensor) -> dict[str, Tensor]:
    inputs = inputs.clone().requires_grad_()
    layer.zero_grad()
    (layer(inputs) * error).sum().backward()
    found = {"inputs": inputs.grad, **{name: parameter.grad for name, parameter in layer.named_parameters()}}
    return {name: value.clone() for name, value in found.items() if value is not None}


def assert_errors_go_through_feedback(layer: FeedbackLayer, plain: nn.Module, inputs: Tensor) -> None:
    """The layer's own gradients are those of the plain one, the error below it that of the plain one with weights B."""
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if name != "feedback"})
    error = random(*plain(inputs).shape, seed=1)
    torch.testing.assert_close(layer(inputs), plain(inputs), rtol=0, atol=0)
    found, expected = gradients(layer, inputs, error), gradients(plain, inputs, error)
    feedback = layer.feedback_weights
    plain.load_state_dict({**plain.state_dict(), "weight": feedback})
    expected["inputs"] = gradients(plain, inputs, error)["inputs"]
    assert not torch.equal(feedback, layer.weight)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-13, atol=1e-13, msg=name)


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("rule", ["fa", "sign-fa"])
def test_errors_of_a_convolution_go_back_through_its_feedback(options: dict[str, Any], rule: Any) -> None:
    layer = FeedbackConv2d(4, 8, (3, 2), rule=rule, dtype=torch.float64, **options)
    plain = nn.Conv2d(4, 8, (3, 2), dtype=torch.float64, **options)
    assert_errors_go_through_feedback(layer, plain, random(3, 4, 9, 8))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,)])
def test_errors_of_a_linear_layer_go_back_through_its_feedback(bias: bool, shape: tuple[int, ...]) -> None:
    layer = FeedbackLinear(4, 6, bias, dtype=torch.float64)
    assert_errors_go_through_feedback(layer, nn.Linear(4, 6, bias, dtype=torch.float64), random(*shape))


@pytest.mark.parametrize("hidden_layers", [1, 2, 3])
@pytest.mark.parametrize("rule", RULES)
def test_a_network_of_linear_layers_moves_as_its_flow(rule: Any, hidden_layers: int) -> None:
    """Against `Flow.velocity`, which has its own backward pass."""
    flow, weights = random_flow(rule, "cross-entropy", 3, hidden_layers)
    network = as_module(flow, weights, rule)
    dataset = flow.dataset
    functional.cross_entropy(network(dataset.inputs), dataset.labels.long()).backward()
    layers = feedback_layers(network).values()
    for layer, velocity in zip(layers, flow.velocity(weights).layers, strict=True):
        assert layer.weight.grad is not None
        torch.testing.assert_close(-layer.weight.grad, velocity, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make", [chain, kernels, norms, Residual])
def test_gradient_descent_is_backpropagation(make: Any) -> None:
    torch.manual_seed(0)
    plain = make().double()
    plain.eval()  # dropout draws no masks
    network = feedback_alignment(plain, "gd")
    for module in (plain, network):
        functional.cross_entropy(module(random(2, 3, 8, 8)), torch.tensor([0, 2])).backward()
    for (name, mine), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-14, msg=name)


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.ops.aten.convolution_backward.default
        return func(*args, **(kwargs or {}))


def test_a_convolution_goes_back_in_one_call() -> None:
    network = feedback_alignment(chain(), "fa")
    with Counting() as counted:
        network(torch.randn(2, 3, 8, 8)).sum().backward()
    assert counted.calls == 2


def test_nothing_is_computed_for_inputs_that_need_no_gradient() -> None:
    layer, inputs = FeedbackConv2d(1, 1, 1), torch.ones(1, 1, 2, 2)
    layer(inputs).sum().backward()
    assert inputs.grad is None


# --- rules ---


def test_feedback_of_each_rule() -> None:
    plain = chain()
    drawn, same, other = (feedback_layers(feedback_alignment(plain, "fa", seed=seed)).values() for seed in (0, 0, 1))
    for a, b, c in zip(drawn, same, other, strict=True):
        assert torch.equal(a.feedback_weights, b.feedback_weights)
        assert not torch.equal(a.feedback_weights, c.feedback_weights)
    first, second, *_ = drawn
    assert first.feedback_weights.shape == first.weight.shape
    assert not torch.equal(first.feedback_weights.flatten()[:4], second.feedback_weights.flatten()[:4])
    network = feedback_alignment(plain, "adafa")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    layers = zip(feedback_layers(network).items(), (0, 3, 7, 9), strict=True)
    for (name, layer), number in layers:
        assert name == str(number)
        initial: Any = plain[number].weight
        assert torch.equal(layer.feedback_weights, initial)
    for layer in feedback_layers(feedback_alignment(plain, "gd")).values():
        assert torch.equal(layer.feedback_weights, layer.weight)


def test_drawn_feedback_has_the_deviation_of_xavier() -> None:
    layer = FeedbackConv2d(20, 40, 3, generator=torch.Generator().manual_seed(0))
    deviation = (2 / (20 * 9 + 40 * 9)) ** 0.5
    assert layer.feedback_weights.std().item() == pytest.approx(deviation, rel=0.02)
    assert layer.feedback_weights.abs().max() <= 3**0.5 * deviation


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 1.0), (0.25, 0.25), ("xavier", (2 / (4 * 9 + 6 * 9)) ** 0.5)])
def test_sign_feedback_follows_the_signs_of_now(scale: Any, expected: float) -> None:
    layer = feedback_layers(feedback_alignment(chain(), "sign-fa", scale=scale))["3"]
    for factor in (1.0, -1.0):
        with torch.no_grad():
            layer.weight.mul_(factor)
        torch.testing.assert_close(layer.feedback_weights, expected * layer.weight.sign())


def test_a_step_turns_sign_feedback_at_once() -> None:
    """The backward pass after a step uses the new signs, not those of the step before."""
    layer = FeedbackLinear(1, 1, bias=False, rule="sign-fa")
    with torch.no_grad():
        layer.weight.fill_(0.5)
    found = []
    for _ in range(2):
        inputs = torch.ones(1, 1, requires_grad=True)
        layer(inputs).sum().backward()
        assert inputs.grad is not None
        found.append(inputs.grad.item())
        with torch.no_grad():
            layer.weight.fill_(-0.5)
    assert found == [1.0, -1.0]


# --- what surrounds them ---


@pytest.mark.parametrize("rule", RULES)
def test_feedback_is_saved_with_the_network_and_seen_by_no_optimizer(rule: Any) -> None:
    network, other = (feedback_alignment(chain(), rule, seed=seed) for seed in (0, 1))
    assert sum(name.endswith("feedback") for name in network.state_dict()) == (4 if rule in ("fa", "adafa") else 0)
    assert len(list(network.parameters())) == len(list(chain().parameters()))
    other.load_state_dict(network.state_dict())
    for mine, theirs in zip(feedback_layers(network).values(), feedback_layers(other).values(), strict=True):
        assert torch.equal(mine.feedback_weights, theirs.feedback_weights)
    assert all(layer.feedback_weights.dtype == torch.float64 for layer in feedback_layers(network.double()).values())


def test_the_network_given_stays_as_it_is_and_shared_layers_stay_shared() -> None:
    shared = nn.Linear(3, 3)
    plain = nn.Sequential(shared, nn.ReLU(), shared)
    network = feedback_alignment(plain, "fa")
    assert type(plain[0]) is nn.Linear
    assert network[0] is network[2]  # type: ignore[index]
    assert network[0].weight is not shared.weight  # type: ignore[index]
    again = feedback_alignment(network, "sign-fa")
    assert [layer.rule for layer in feedback_layers(again).values()] == ["sign-fa"]
    assert feedback_layers(again)["0"].feedback is None


def test_a_layer_by_itself_gets_feedback() -> None:
    found = feedback_alignment(nn.Linear(2, 2), "fa")
    assert isinstance(found, FeedbackLinear)
    assert "rule=fa" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.ReLU(), "fa"), "module must have an nn.Linear or nn.Conv2d to put feedback in, got none"),
        ((chain, "fa"), "module must be a torch.nn.Module, got"),
        ((nn.Linear(1, 1), "dfa"), "rule must be one of gd, fa, adafa, sign-fa, got 'dfa'"),
        ((nn.Linear(1, 1), "sign-fa", -1.0), "scale must be a finite number above 0, got -1"),
        (
            (nn.Sequential(nn.Linear(2, 2), nn.Bilinear(2, 2, 2)), "fa"),
            r"module must carry errors back through nn.Linear and nn.Conv2d only, got 1 \(Bilinear\)",
        ),
        ((nn.Sequential(nn.Conv1d(2, 2, 2), nn.Linear(2, 2)), "adafa"), r"got 0 \(Conv1d\) with parameters of its own"),
    ],
)
def test_networks_and_rules_that_are_none_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    module, rule, *scale = arguments
    with pytest.raises(ValueError, match=message):
        feedback_alignment(module, rule, **dict(zip(["scale"], scale, strict=False)))


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_seeds_that_torch_does_not_tell_from_others_are_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed must be an integer of at (most|least) "):
        feedback_alignment(chain(), "fa", seed=seed)


def test_other_layers_with_weights_may_learn_by_gradient_descent() -> None:
    network = nn.Sequential(nn.Conv1d(2, 2, 2), nn.Linear(2, 2))
    assert list(feedback_layers(feedback_alignment(network, "gd"))) == ["1"]


def test_rules_agree_where_they_are_the_same_thing() -> None:
    """Sign feedback of weights that are all 1 or -1 is gradient descent; adaFA is at its start."""
    torch.manual_seed(0)
    plain = chain().double()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(parameter.sign())
    found = []
    for rule in ("gd", "adafa", "sign-fa"):
        network = feedback_alignment(plain, rule)
        network(random(2, 3, 8, 8)).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    for one, other in itertools.pairwise(found):
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_weight_of_0_sends_nothing_back_under_sign_feedback() -> None:
    layer = FeedbackLinear(2, 1, rule="sign-fa")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, -2.0]]))
    assert layer.feedback_weights.tolist() == [[0.0, -1.0]]
