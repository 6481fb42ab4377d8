"""The law of weight sharing, read off a network: which layers write each channel, and which read it.

A network is followed from its input to its output, one channel at a time. Let e be the error that the backward pass
brings to a signal z; what is followed is <e, z>, summed over images and positions.

- A layer that **writes** the channel, z_c = W[c] x + b_c, adds <W[c], dW[c]> + b_c db_c to it, d being the direction
  of descent; a norm with its own gamma and beta, z_c = gamma_c y + beta_c, adds gamma_c dgamma_c + beta_c dbeta_c.
- A layer that **reads** it takes <B[:, c], dW[:, c]> from it.
- What acts on each channel by itself with J(z) z = f(z) leaves it as it is: leaky ReLU, pooling, padding, flattening,
  dropout with its mask. So do a fan-out, as errors add up, and an addition, as it hands the same error to its parts,
  which makes one channel of all of them.

Hence on each channel, for every batch of data,

    sum over readers <B[:, c], dW[:, c]>  =  sum over writers <W[c], dW[c]> + b_c db_c,

and with B the gradient of Psi, sum Psi(W[:, c]) - sum (|W[c]|^2 + b_c^2) / 2 is constant along the flow. What else
happens to a channel breaks this, and is said by name.
"""

from __future__ import annotations

import inspect
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from flowsim.messages import first_line
from flowsim.modules.channels import Channels
from flowsim.modules.groups import Reading
from flowsim.modules.layers import CONVERTED
from flowsim.modules.signals import Signal, break_unknown, through_function, through_module, unknown
from flowsim.validation import shown


def read(module: nn.Module) -> Reading:
    """Read off a network which sums of its weights are conserved.

    A channel is one of dimension 1 of a batch of images (`n x channels x height x width`), and a neuron one of the last
    dimension of a batch of vectors (`n x features`). The layers that have weights are `nn.Linear`, `nn.Conv2d` and
    those with feedback; a plain one learns by gradient descent.

    The network is followed as it is now: in training or not, with the defaults of what else its `forward` takes, every
    layer as its class says. What is trained must be a loss of its outputs alone.

    Raises:
        ValueError: if the network cannot be followed, as its path depends on the data, or for another reason of
            `torch.fx`.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> reading = read(network)
    >>> [group.name for group in reading.groups]
    ['0 -> 2']
    >>> reading.broken["2 -> other"]
    'goes into 3 (Tanh), which is not known to act on each channel by itself with J(z) z = f(z)'
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a torch.nn.Module, got {shown(module)}")
    if type(module) in CONVERTED:  # a layer by itself
        module = nn.Sequential(module)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is not parameter.empty
    }
    try:
        graph = _Tracer().trace(module, defaults)
    except Exception as error:
        raise ValueError(
            f"module must do the same whatever the data is, for its channels to be followed, got: {first_line(error)}"
        ) from None
    channels, met = Channels(dict(module.named_modules())), dict[fx.Node, Any]()
    for node in graph.nodes:
        met[node] = _follow(node, channels, met, module)
    return channels.reading()


DETACHED = "detached"
"""Marks what a network computes without gradients."""


class _Tracer(fx.Tracer):
    """Goes into every module but those that are followed as one."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self._with_gradients = torch.is_grad_enabled()
        return super().trace(root, concrete_args)

    def create_node(self, *args: Any, **options: Any) -> fx.Node:
        node = super().create_node(*args, **options)
        node.meta[DETACHED] = self._with_gradients and not torch.is_grad_enabled()
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in CONVERTED or super().is_leaf_module(m, module_qualified_name)


def _follow(node: fx.Node, channels: Channels, met: dict[fx.Node, Any], root: nn.Module) -> Any:
    """The signal that comes out of a node; None for what is no tensor."""
    if node.op == "placeholder":
        return unknown(channels, "is the network's input")
    if node.op == "get_attr":
        channels.outside[id(attrgetter(str(node.target))(root))] = str(node.target)
        return unknown(channels, f"is {node.target}, which is not the weight of a layer")
    signals = [met[before] for before in node.all_input_nodes if isinstance(met[before], Signal)]
    if node.op == "output":
        for signal in signals:
            channels.break_law(signal.channels, "is the network's output")
        return None
    args: Any = fx.map_arg(node.args, lambda before: met[before])
    options: Any = fx.map_arg(node.kwargs, lambda before: met[before])
    if node.meta.get(DETACHED):
        if node.op == "call_module":
            channels.lost.add(str(node.target))
        return break_unknown(channels, signals, f"{node.target} without gradients") if signals else None
    if node.op == "call_module":
        out = through_module(channels, str(node.target), *args, **options)
        what = f"{node.target} ({type(channels.layers[str(node.target)]).__name__})"
    else:
        out = through_function(channels, node.target, *args, **options)
        what = getattr(node.target, "__name__", str(node.target))
    return break_unknown(channels, signals, what) if out is None and signals else out
