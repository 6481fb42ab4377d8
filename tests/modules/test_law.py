"""What is conserved, against sums written out, and on networks whose flow is integrated elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch
from sample_problems import as_module
from test_conservation import random_flow
from torch import nn

from flowsim import observables
from flowsim.modules import conserved, feedback_alignment, feedback_layers, rates
from theorems.weight_sharing import RULES
from theorems.weight_sharing.networks import Residual, chain, kernels


def psi(rule: str, weight: np.ndarray, feedback: np.ndarray) -> float:
    """Of one column, written out."""
    if rule == "gd":
        return 0.5 * float((weight**2).sum())
    return float((weight * feedback).sum())  # of sign-FA too: <W, s sign(W)> = s |W|_1


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    found = {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}
    for name, layer in feedback_layers(module).items():
        found[f"{name}.feedback"] = layer.feedback_weights.double().numpy()
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_chain_conserves_what_is_written_out_here(rule: Any) -> None:
    network = feedback_alignment(chain(), rule, scale=0.2, seed=3)
    found, at = conserved(network), numbers(network)
    for writer, reader, block in [("0", "3", 1), ("3", "7", 4), ("7", "9", 1)]:
        weight, feedback = at[f"{reader}.weight"], at[f"{reader}.feedback"]
        for channel, value in enumerate(found[f"{writer} -> {reader}"].tolist()):
            columns = slice(channel * block, (channel + 1) * block)
            incoming = 0.5 * (at[f"{writer}.weight"][channel] ** 2).sum() + 0.5 * at[f"{writer}.bias"][channel] ** 2
            assert value == pytest.approx(psi(rule, weight[:, columns], feedback[:, columns]) - incoming, abs=1e-13)


@pytest.mark.parametrize("rule", RULES)
def test_grouped_kernels_are_read_by_their_own_group(rule: Any) -> None:
    """Channel 2 of 4 is the first of the second of two groups of a kernel 6 x 2 x 3 x 3."""
    network = feedback_alignment(kernels(), rule, scale=0.2, seed=3)
    found, at = conserved(network), numbers(network)
    weight, feedback = at["2.weight"], at["2.feedback"]
    incoming = 0.5 * (at["0.weight"][2] ** 2).sum() + 0.5 * at["0.bias"][2] ** 2
    expected = psi(rule, weight[3:, 0], feedback[3:, 0]) - incoming
    assert found["0 -> 2"][2].item() == pytest.approx(expected, abs=1e-13)
    depthwise = psi(rule, at["5.weight"][4], at["5.feedback"][4]) - 0.5 * (at["2.weight"][4] ** 2).sum()
    assert found["2 -> 5"][4].item() == pytest.approx(depthwise, abs=1e-13), "without a bias"


def test_a_residual_stream_conserves_the_sum_over_writers_and_readers() -> None:
    network = feedback_alignment(Residual(nn.BatchNorm2d, "zeros"), "fa", seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-1, 1)
    found, at = conserved(network), numbers(network)
    name = next(name for name in found if name.startswith("norm + "))
    for channel, value in enumerate(found[name].tolist()):
        expected = 0.0
        for reader, offset in [("blocks.0.conv1", 0), ("blocks.1.conv1", 0), ("blocks.2.conv1", 1), ("head", 1)]:
            weight, feedback = at[f"{reader}.weight"], at[f"{reader}.feedback"]
            expected += psi("fa", weight[:, channel + offset], feedback[:, channel + offset])
        for writer, offset in [("norm", 0), ("blocks.0.norm2", 0), ("blocks.1.norm2", 1), ("blocks.2.norm2", 1)]:
            gamma, beta = at[f"{writer}.weight"][channel + offset], at[f"{writer}.bias"][channel + offset]
            expected -= 0.5 * (gamma**2 + beta**2)
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("hidden_layers", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_linear_layers_conserve_what_the_flow_of_their_weights_does(rule: Any, hidden_layers: int) -> None:
    flow, weights = random_flow(rule, "cross-entropy", 3, hidden_layers)
    network = as_module(flow, weights, rule)
    for mine, theirs in zip(conserved(network).values(), observables.conserved(flow, weights), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)


def test_sums_are_taken_in_float64_whatever_the_network_has() -> None:
    network = feedback_alignment(chain(), "fa")
    wide = conserved(feedback_alignment(network, "adafa").double())
    narrow = conserved(feedback_alignment(network, "adafa"))
    for name, value in narrow.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, wide[name], rtol=0, atol=0)


def test_a_network_that_diverged_conserves_nan() -> None:
    network = feedback_alignment(chain(), "fa")
    with torch.no_grad():
        network.get_submodule("3").weight[2] = torch.nan  # type: ignore[operator, index]
    found = conserved(network)
    assert found["0 -> 3"].isnan().all()
    assert found["3 -> 7"].isnan().tolist() == [False, False, True, False, False, False]
    assert not found["7 -> 9"].isnan().any()


def test_a_network_without_the_law_is_refused_with_the_reasons() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"for which the law holds, got none: .*0 -> other: goes into 1 \(Tanh\)"):
        conserved(network)


def test_rates_need_a_backward_pass() -> None:
    with pytest.raises(ValueError, match=r"got a parameter without one: call backward\(\) first"):
        rates(chain())


def test_rates_are_those_of_small_steps() -> None:
    """The conserved quantity's two sides, differenced along the direction of descent."""
    torch.manual_seed(0)
    network = feedback_alignment(chain(), "sign-fa", scale=0.3).double()
    network(torch.randn(3, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
    found, h = rates(network), 1e-6
    incoming = []
    for sign in (1, -1):
        for parameter in network.parameters():
            parameter.data.add_(parameter.grad, alpha=-sign * h)  # type: ignore[arg-type]
        layer: Any = network.get_submodule("0")
        incoming.append(0.5 * layer.weight.detach().square().sum((1, 2, 3)) + 0.5 * layer.bias.detach().square())
        for parameter in network.parameters():
            parameter.data.add_(parameter.grad, alpha=sign * h)  # type: ignore[arg-type]
    difference = (incoming[0] - incoming[1]) / (2 * h)
    torch.testing.assert_close(found["0 -> 3"][1], difference, rtol=1e-6, atol=1e-7 * difference.abs().max().item())
