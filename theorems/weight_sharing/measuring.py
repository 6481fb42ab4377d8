"""What is measured: both sides of the law in one backward pass, along a flow, and over steps of an optimizer.

Each is a deviation that vanishes in exact arithmetic, relative to the largest sum of terms without their signs, and an
estimate of its error. Where the only error is rounding, the estimate is what the same computation leaves in float32,
scaled: rounding errors of the same sums are 2^29 times as large there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.nn import functional

from flowsim.modules import Group, Ledger, Term, feedback_alignment, read
from flowsim.modules.law import conserved_in, feedback, gather, gradient, outgoing, rates_in
from flowsim.modules.layers import RuleName
from theorems.thresholds import FLOAT32_SAFETY
from theorems.weight_sharing.networks import IMAGE, OUTPUTS, Make

IMAGES = 6
"""In a batch."""

TO_FLOAT64 = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": functional.cross_entropy,
    "squared": lambda f, y: 0.5 * (f - functional.one_hot(y, OUTPUTS)).square().sum(-1).mean(),
    "exponential": lambda f, y: torch.exp(f * (1 - 2 * functional.one_hot(y, OUTPUTS))).sum(-1).mean(),
}


@cache
def _read(make: Make) -> tuple[Group, ...]:
    """Read once: the groups do not depend on the numbers drawn."""
    return read(make()).groups


@dataclass(frozen=True)
class Instance:
    """A network, how it learns, and what is believed of it.

    Args:
        make: the network.
        rule: how errors go back.
        loss: of `LOSSES`.
        seed: of weights, feedback and data.
        believed: the network whose reading says which channels have the law; its own, if None.
        with_biases: whether they count as incoming weights.
        device: where it runs.
    """

    make: Make
    rule: RuleName
    loss: str
    seed: int
    believed: Make | None = None
    with_biases: bool = True
    device: str = "cpu"

    def network(self, dtype: torch.dtype) -> nn.Module:
        """The network with feedback; all its numbers are drawn, biases and norms as well."""
        torch.manual_seed(self.seed)
        network = self.make().double()
        for parameter in network.parameters():
            if parameter.ndim == 1:  # they start at 0 and 1 otherwise
                nn.init.uniform_(parameter, -1, 1)
        return feedback_alignment(network, self.rule, scale="xavier", seed=self.seed).to(self.device, dtype)

    def batches(self, count: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Images and their classes."""
        generator = torch.Generator().manual_seed(self.seed)
        images = torch.randn(count, IMAGES, *IMAGE, dtype=torch.float64, generator=generator)
        classes = torch.randint(OUTPUTS, (count, IMAGES), generator=generator)
        return list(zip(images.to(self.device, dtype), classes.to(self.device), strict=True))

    def groups(self) -> tuple[Group, ...]:
        """For which the law is claimed: those of the believed network that this one does not have."""
        own = self.own_groups()
        if self.believed is None:
            return own
        names = {group.name for group in own}
        return tuple(group for group in _read(self.believed) if group.name not in names)

    def own_groups(self) -> tuple[Group, ...]:
        """For which the network is read to have the law."""
        return _read(self.make)

    def __str__(self) -> str:
        return f"{self.rule}, {self.loss}, seed {self.seed}"

    def backward(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        """Gradients of the loss on a batch, by the rule."""
        images, classes = batch
        network.zero_grad()
        LOSSES[self.loss](network(images), classes).backward()


class Deviation(NamedTuple):
    """The largest relative deviation from the law, and its estimated error."""

    value: float
    error: float


Measure = Callable[[Instance], Deviation]


def _rounded(of: Callable[[Instance, torch.dtype], float], instance: Instance) -> Deviation:
    in_float32 = of(instance, torch.float32)
    return Deviation(of(instance, torch.float64), FLOAT32_SAFETY * TO_FLOAT64 * in_float32)


def _largest(numbers: Sequence[Tensor]) -> float:
    return max(number.abs().max().item() for number in numbers)


def rates(instance: Instance) -> Deviation:
    """The rates of both sides in one backward pass, on all channels."""
    return _rounded(_rates, instance)


def _rates(instance: Instance, dtype: torch.dtype) -> float:
    network, (batch,) = instance.network(dtype), instance.batches(1, dtype)
    instance.backward(network, batch)
    if not instance.with_biases:
        for layer in network.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.register_parameter("bias", None)
    groups = instance.groups()
    both = [rates_in(network, group) for group in groups]
    return _largest([outgoing - incoming for outgoing, incoming in both]) / _largest_sum(network, groups)


def _largest_sum(network: nn.Module, groups: Sequence[Group]) -> float:
    """Of |B| |dW| on any channel.

    The rates themselves may all be 0: signs that are the same for all outputs send a softmax's errors back as nothing.
    If nothing moves at all it is 1: both rates are 0 then.
    """

    def terms(term: Term) -> Tensor:
        return (feedback(network, term) * outgoing(network, term, gradient)).abs().sum(0)

    return _largest([gather(group, group.readers, terms) for group in groups]) or 1.0


def softmax_rates(instance: Instance) -> Deviation:
    """The rates of the sums over outputs of the last layer's weights and bias."""
    return _rounded(_softmax_rates, instance)


def _softmax_rates(instance: Instance, dtype: torch.dtype) -> float:
    network, (batch,) = instance.network(dtype), instance.batches(1, dtype)
    instance.backward(network, batch)
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    gradients = [gradient(parameter) for parameter in (last.weight, last.bias)]
    return max(_largest([found.sum(0)]) / _largest([found]) for found in gradients)


STEPS, ETA, MOMENTUM, DECAY = 12, 0.02, 0.9, 1e-3


def steps(instance: Instance) -> Deviation:
    """The law along mini-batch steps with momentum and decay, with its exact correction."""
    return _rounded(lambda instance, dtype: _steps(instance, dtype, corrected=True), instance)


def steps_uncorrected(instance: Instance) -> Deviation:
    """The same without the correction."""
    return _rounded(lambda instance, dtype: _steps(instance, dtype, corrected=False), instance)


def _steps(instance: Instance, dtype: torch.dtype, corrected: bool) -> float:
    network = instance.network(dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=ETA, momentum=MOMENTUM, weight_decay=DECAY)
    ledger = Ledger(network, optimizer)
    for batch in instance.batches(STEPS, dtype):
        instance.backward(network, batch)
        optimizer.step()
    drift, correction = ledger.drift, ledger.correction
    left = [drift[name] - corrected * correction[name] for name in drift]
    return _largest(left) / _largest([*ledger.start.values(), *drift.values()])


T_FINAL, TIMES, RTOL, COARSER = 0.2, 9, 1e-11, 100.0


def flow(instance: Instance) -> Deviation:
    """The law along the flow at some times, by a Runge-Kutta method.

    The error is estimated by a run with a hundred times the tolerance, as is sound where nothing has a kink: the
    networks for it have smooth layers.

    Raises:
        ArithmeticError: if the method does not get to the end.
    """
    groups = instance.groups()
    fine, coarse = (_conserved_along(instance, groups, rtol) for rtol in (RTOL, COARSER * RTOL))
    size = _largest(fine)
    drift = _largest([values - values[:1] for values in fine])
    return Deviation(drift / size, _largest([one - other for one, other in zip(fine, coarse, strict=True)]) / size)


def _conserved_along(instance: Instance, groups: Sequence[Group], rtol: float) -> list[Tensor]:
    """The quantities of each group, `times x channels`."""
    network, (batch,) = instance.network(torch.float64), instance.batches(1, torch.float64)
    parameters = list(network.parameters())

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        set_parameters(flat)
        instance.backward(network, batch)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return -nn.utils.parameters_to_vector(gradients).cpu().numpy()

    def set_parameters(flat: np.ndarray) -> None:
        nn.utils.vector_to_parameters(torch.from_numpy(flat).to(instance.device), parameters)

    start = nn.utils.parameters_to_vector(parameters).detach().cpu().numpy()
    times = np.linspace(0, T_FINAL, TIMES)
    run: Any = solve_ivp(velocity, (0, T_FINAL), start, "DOP853", times, rtol=rtol, atol=0.1 * rtol)
    if not run.success:
        raise ArithmeticError(run.message)
    found: list[list[Tensor]] = [[] for _ in groups]
    for state in run.y.T:
        set_parameters(state)
        for group, values in zip(groups, found, strict=True):
            values.append(conserved_in(network, group))
    return [torch.stack(values) for values in found]
