"""What training conserves in a network of torch modules, and the rates of the two sides of the law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from flowsim.modules.groups import Group, Term
from flowsim.modules.layers import FeedbackConv2d, FeedbackLinear
from flowsim.modules.reading import read
from flowsim.rules import FeedbackAlignment, GradientDescent, Rule, SignFeedbackAlignment
from flowsim.weights import Weights

Channels = Float64[Tensor, " channels"]


def conserved(module: nn.Module) -> dict[str, Channels]:
    """The quantities that training conserves, one for each hidden channel or neuron, by who writes and reads them.

        c = sum over readers Psi(W[:, c]) - sum over writers (|W[c]|^2 + b_c^2) / 2

    where Psi(w) = <w, b> under FA and adaFA, s |w|_1 under sign-FA, |w|^2 / 2 under gradient descent, and where a norm
    that writes has gamma_c and beta_c in the place of W[c] and b_c. They are constant along the flow, for any batches
    and any loss of the outputs; what steps of a size add is known, see `Ledger`. Which layers write and read a channel
    is read off the network, see `read`, which also says what has no such law.

    Args:
        module: a network of `nn.Linear`, `nn.Conv2d`, or their like with feedback, and what may stand between them.

    Raises:
        ValueError: if there is nothing conserved, or the network cannot be followed.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    >>> {name: tuple(quantity.shape) for name, quantity in conserved(network).items()}
    {'0 -> 4': (4,)}
    """
    return {group.name: conserved_in(module, group) for group in groups_of(module)}


def rates(module: nn.Module) -> dict[str, tuple[Channels, Channels]]:
    """How fast the two sides of the law move after a backward pass; they are equal up to rounding.

        sum over readers <B[:, c], dW[:, c]>    and    sum over writers <W[c], dW[c]> + b_c db_c,    dW = -dL/dW

    Raises:
        ValueError: as in `conserved`, or if a parameter has no gradient.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    >>> network(torch.ones(5, 3, dtype=torch.float64)).square().sum().backward()
    >>> (outgoing, incoming), = rates(network).values()
    >>> torch.testing.assert_close(outgoing, incoming)
    """
    return {group.name: rates_in(module, group) for group in groups_of(module)}


def groups_of(module: nn.Module) -> tuple[Group, ...]:
    """The groups of channels for which the law holds.

    Raises:
        ValueError: if there are none, or the network cannot be followed.
    """
    reading = read(module)
    if not reading.groups:
        why = "; ".join(f"{name}: {reason}" for name, reason in reading.broken.items())
        raise ValueError(f"module must have a hidden channel for which the law holds, got none: {why}")
    return reading.groups


def conserved_in(module: nn.Module, group: Group) -> Channels:
    """The quantities of one group."""
    psi = gather(group, group.readers, lambda term: potential(module, term))
    return psi - gather(group, group.writers, lambda term: 0.5 * incoming(module, term).square().sum(-1))


def rates_in(module: nn.Module, group: Group) -> tuple[Channels, Channels]:
    """The rates of one group."""

    def outgoing_rate(term: Term) -> Tensor:
        return -(feedback(module, term) * outgoing(module, term, gradient)).sum(0)

    def incoming_rate(term: Term) -> Tensor:
        return -(incoming(module, term) * incoming(module, term, gradient)).sum(-1)

    return gather(group, group.readers, outgoing_rate), gather(group, group.writers, incoming_rate)


# --- the weights of a term as matrices in float64 ---


def incoming(module: nn.Module, term: Term, of: Callable[[Tensor], Tensor] = Tensor.detach) -> Tensor:
    """W[c] and b_c, or gamma_c and beta_c, of all channels that a layer writes, `channels x numbers`.

    `of` is taken of the parameters: the gradient, for one.
    """
    layer: Any = module.get_submodule(term.layer)
    parts = [layer.weight, getattr(layer, "bias", None)]
    return torch.cat([of(part).double().reshape(term.of, -1) for part in parts if part is not None], -1)


def outgoing(module: nn.Module, term: Term, of: Callable[[Tensor], Tensor] = Tensor.detach) -> Tensor:
    """W[:, c] of all channels that a layer reads, `numbers x channels`."""
    layer: Any = module.get_submodule(term.layer)
    return _columns(of(layer.weight), layer, term)


def feedback(module: nn.Module, term: Term, of: Callable[[Tensor], Tensor] = Tensor.detach) -> Tensor:
    """B[:, c] of all channels that a layer reads, `numbers x channels`."""
    layer: Any = module.get_submodule(term.layer)
    has_own = isinstance(layer, (FeedbackLinear, FeedbackConv2d))
    return _columns(of(layer.feedback_weights if has_own else layer.weight), layer, term)


def rule_of(module: nn.Module, term: Term) -> Rule:
    """The rule of a layer, on the matrix of `outgoing`."""
    layer = module.get_submodule(term.layer)
    if not isinstance(layer, (FeedbackLinear, FeedbackConv2d)) or layer.rule == "gd":
        return GradientDescent()
    if layer.rule == "sign-fa":
        return SignFeedbackAlignment(layer.weight.new_tensor(layer.scale).item())  # as it is rounded in the layer
    return FeedbackAlignment(feedback(module, term))


def as_weights(matrix: Float64[Tensor, "numbers channels"]) -> Weights:
    """The matrix as output weights, for which rules have their potentials."""
    return Weights(matrix.new_zeros(matrix.shape[-1], 1), matrix)


def potential(module: nn.Module, term: Term) -> Channels:
    """Psi(W[:, c]) of all channels that a layer reads."""
    (psi,) = rule_of(module, term).potentials(as_weights(outgoing(module, term)))
    assert psi is not None  # these rules have one
    return psi


def gather(group: Group, side: tuple[Term, ...], of: Callable[[Term], Tensor]) -> Channels:
    """The sum over the layers of one side, for each channel of the group."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for term in side:
        values = of(term)
        total = total.to(values.device).index_add(
            0, term.places.to(values.device), values[term.channels.to(values.device)]
        )
    return total


def _columns(weight: Tensor, layer: nn.Module, term: Term) -> Tensor:
    """A kernel `out x channels / groups x ...`, or a matrix with a block of columns for each channel."""
    groups = getattr(layer, "groups", 1)
    parts = weight.double().reshape(groups, len(weight) // groups, term.of // groups, -1)
    return parts.permute(1, 3, 0, 2).reshape(-1, term.of)


def gradient(parameter: Tensor) -> Tensor:
    """Of the loss, by a parameter.

    Raises:
        ValueError: if there was no backward pass.
    """
    if parameter.grad is None:
        raise ValueError("module must have gradients, got a parameter without one: call backward() first")
    return parameter.grad
