"""What steps add: against descent.step, which has its own, and against the drift; resuming; what it refuses."""

import copy
import io
from typing import Any

import pytest
import torch
from sample_problems import as_module
from test_conservation import random_flow
from torch import Tensor, nn
from torch.nn import functional

from flowsim import descent
from flowsim.modules import Ledger, feedback_alignment
from theorems.weight_sharing import RULES
from theorems.weight_sharing.networks import Residual, chain, kernels


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, 8, 8, dtype=dtype, generator=generator), torch.randint(3, (5,), generator=generator)


def trained(network: nn.Module, steps: range, optimizer: torch.optim.Optimizer, scheduler: Any = None) -> None:
    dtype = next(network.parameters()).dtype
    for number in steps:
        images, classes = batch(number, dtype)
        optimizer.zero_grad()
        functional.cross_entropy(network(images), classes).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def sgd(network: nn.Module, **options: Any) -> torch.optim.SGD:
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2} | options
    return torch.optim.SGD(network.parameters(), **settings)


def largest(values: dict[str, Tensor]) -> float:
    return max(value.abs().max().item() for value in values.values())


def left(ledger: Ledger) -> float:
    drift = ledger.drift
    return largest({name: drift[name] - ledger.correction[name] for name in drift})


@pytest.mark.parametrize("make", [chain, kernels, Residual, lambda: Residual(nn.BatchNorm2d, "zeros")])
@pytest.mark.parametrize("rule", RULES)
def test_the_formula_is_the_drift_with_momentum_decay_batches_and_a_schedule(rule: Any, make: Any) -> None:
    torch.manual_seed(0)
    network = feedback_alignment(make(), rule, scale="xavier").double()
    optimizer = sgd(network)
    ledger = Ledger(network, optimizer)
    trained(network, range(30), optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5))
    assert largest(ledger.drift) > 1e-2
    assert left(ledger) < 1e-13 * max(1, largest(ledger.start), largest(ledger.drift))


@pytest.mark.parametrize("hidden_layers", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_full_batch_steps_are_those_of_the_flows_descent(rule: Any, hidden_layers: int) -> None:
    """`descent.step` has another backward pass, and decay inside of the direction."""
    flow, weights = random_flow(rule, "cross-entropy", 3, hidden_layers, decay=0.02)
    network = as_module(flow, weights, rule)
    optimizer = sgd(network, momentum=0.4, weight_decay=0.02)
    ledger, state = Ledger(network, optimizer), descent.start(weights)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(network(flow.dataset.inputs), flow.dataset.labels.long()).backward()
        optimizer.step()
        state = descent.step(flow, state, 0.05, 0.4)
    assert largest(ledger.correction) > 1e-4
    for mine, theirs in zip(ledger.correction.values(), state.correction, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13)
    for mine, theirs in zip(ledger.mismatch.values(), state.mismatch, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_without_momentum_and_decay_feedback_alignment_loses_half_the_squared_steps() -> None:
    network = feedback_alignment(chain(), "fa").double()
    optimizer = sgd(network, momentum=0.0, weight_decay=0.0)
    ledger, lost = Ledger(network, optimizer), torch.zeros(4, dtype=torch.float64)
    layer: Any = network.get_submodule("0")
    for number in range(5):
        before = layer.weight.detach().clone(), layer.bias.detach().clone()
        trained(network, range(number, number + 1), optimizer)
        lost += 0.5 * (layer.weight.detach() - before[0]).square().sum((1, 2, 3))
        lost += 0.5 * (layer.bias.detach() - before[1]).square()
    torch.testing.assert_close(ledger.drift["0 -> 3"], -lost, rtol=0, atol=1e-14)
    torch.testing.assert_close(ledger.correction["0 -> 3"], -lost, rtol=1e-13, atol=0)


def test_what_is_left_in_float32_is_its_rounding() -> None:
    network = feedback_alignment(chain(), "fa")
    optimizer = sgd(network)
    ledger = Ledger(network, optimizer)
    trained(network, range(30), optimizer)
    assert left(ledger) < 100 * torch.finfo(torch.float32).eps * max(largest(ledger.start), largest(ledger.drift))


@pytest.mark.parametrize("rule", RULES)
def test_a_training_that_is_saved_goes_on_with_the_same_bits(rule: Any) -> None:
    first = feedback_alignment(chain(), rule).double()
    optimizer = sgd(first)
    whole = Ledger(first, optimizer)
    trained(first, range(5), optimizer)
    file = io.BytesIO()
    torch.save([first.state_dict(), optimizer.state_dict(), whole.state_dict()], file)
    trained(first, range(5, 10), optimizer)
    second = feedback_alignment(chain(), rule, seed=1).double()
    other = sgd(second)
    ledger = Ledger(second, other)
    file.seek(0)
    network_state, optimizer_state, ledger_state = torch.load(file, weights_only=True)
    second.load_state_dict(network_state)
    other.load_state_dict(optimizer_state)
    ledger.load_state_dict(ledger_state)
    trained(second, range(5, 10), other)
    for name, value in whole.correction.items():
        assert torch.equal(value, ledger.correction[name])
        assert torch.equal(whole.drift[name], ledger.drift[name])


def test_a_saved_state_is_not_changed_by_what_follows() -> None:
    network = feedback_alignment(chain(), "fa").double()
    optimizer = sgd(network)
    ledger = Ledger(network, optimizer)
    trained(network, range(2), optimizer)
    state = ledger.state_dict()
    kept = copy.deepcopy(state)
    trained(network, range(2, 4), optimizer)
    assert all(torch.equal(state[part][name], kept[part][name]) for part in kept for name in kept[part])


def test_a_closed_ledger_counts_no_more() -> None:
    network = feedback_alignment(chain(), "fa")
    optimizer = sgd(network)
    ledger = Ledger(network, optimizer)
    ledger.close()
    trained(network, range(2), optimizer)
    assert largest(ledger.correction) == 0
    assert largest(ledger.drift) > 0


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda n: torch.optim.Adam(n.parameters()), "optimizer must be a torch.optim.SGD, got Adam"),
        (lambda n: sgd(n, nesterov=True), "optimizer must be without nesterov, got nesterov=True"),
        (lambda n: sgd(n, dampening=0.5), "optimizer must be without dampening, got dampening=0.5"),
        (lambda n: sgd(n, maximize=True), "optimizer must be without maximize, got maximize=True"),
        (lambda n: sgd(n, lr=0.0), "lr must be a finite number above 0, got 0.0"),
        (
            lambda n: torch.optim.SGD(
                [{"params": n[0].parameters()}, {"params": n[3:].parameters(), "lr": 0.2}], lr=0.1
            ),
            "optimizer must have one lr, momentum, weight_decay, .* for all parameters",
        ),
        (
            lambda n: torch.optim.SGD([p for name, p in n.named_parameters() if name != "3.bias"], lr=0.1),
            "optimizer must have all parameters of module, got none for 3.bias",
        ),
    ],
)
def test_optimizers_that_the_formula_is_not_for_are_refused(optimizer: Any, message: str) -> None:
    network = chain()
    with pytest.raises(ValueError, match=message):
        Ledger(network, optimizer(network))


def test_a_state_of_another_network_is_refused() -> None:
    network, other = chain(), Residual()
    ledger = Ledger(network, sgd(network))
    with pytest.raises(ValueError, match="state must have start of this network's groups, got"):
        ledger.load_state_dict(Ledger(other, sgd(other)).state_dict())


def test_a_ledger_that_begins_later_counts_what_momentum_carries() -> None:
    torch.manual_seed(0)
    network = feedback_alignment(chain(), "fa").double()
    optimizer = sgd(network)
    trained(network, range(5), optimizer)
    ledger = Ledger(network, optimizer)
    assert largest(ledger.mismatch) > 1e-4
    trained(network, range(5, 25), optimizer)
    assert left(ledger) < 1e-13 * max(1, largest(ledger.start), largest(ledger.drift))


def test_a_step_that_leaves_a_weight_without_gradient_is_refused() -> None:
    network = chain()
    optimizer = sgd(network)
    Ledger(network, optimizer)
    functional.cross_entropy(network(batch(0, torch.float32)[0]), batch(0)[1]).backward()
    network.get_submodule("3").weight.grad = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"3.weight must have a gradient at every step, got none"):
        optimizer.step()
