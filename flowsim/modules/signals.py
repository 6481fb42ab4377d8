"""What happens to the channels of a signal in each module and function that a network may call.

Each function takes the channels and the arguments of the call, signals in the place of tensors, and returns the signal
that comes out, or None where it does not know.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from flowsim.modules.channels import Channels, Numbers
from flowsim.modules.layers import SCALES_CHANNELS, FeedbackConv2d, FeedbackLinear

Kind = Literal["images", "vectors", "flattened", "unknown"]
"""Of a signal: images; vectors; images flattened to vectors, in which each channel has a block; or it is not known."""


@dataclass(frozen=True)
class Signal:
    """A tensor inside the network: its channels, one that stands for all where its kind is not known."""

    channels: Numbers
    kind: Kind


def unknown(channels: Channels, why: str) -> Signal:
    """A signal that nothing is known of but why."""
    numbers = channels.new(1)
    channels.break_law(numbers, why)
    return Signal(numbers, "unknown")


def break_unknown(channels: Channels, signals: Sequence[Signal], what: str) -> Signal:
    """What comes out of something that has no law, and breaks that of what goes in."""
    for signal in signals:
        channels.break_law(signal.channels, f"goes into {what}, for which J(z) z is not f(z)")
    return unknown(channels, f"comes out of {what}, for which J(z) z is not f(z)")


# --- modules ---

HOMOGENEOUS_MODULES = (
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d,
)  # fmt: skip
"""Act on each channel by itself, with J(z) z = f(z)."""


def through_module(channels: Channels, name: str, signal: Any, *others: Any, **options: Any) -> Signal | None:
    """What comes out of a module of the network."""
    layer: Any = channels.layers[name]
    if others or options or not isinstance(signal, Signal):
        return None
    if type(layer) in (nn.Linear, FeedbackLinear):
        return _through_weights(channels, name, _neurons(signal, layer.in_features), layer.out_features, "vectors")
    if type(layer) in (nn.Conv2d, FeedbackConv2d):
        read = _spread(signal, layer.in_channels) if signal.kind in ("images", "unknown") else None
        return _through_weights(channels, name, read, layer.out_channels, "images")
    if isinstance(layer, SCALES_CHANNELS):
        return _through_norm(channels, name, layer, signal)
    if type(layer) is nn.Flatten:
        return _flatten(channels, signal, layer.start_dim, layer.end_dim)
    return signal if type(layer) in HOMOGENEOUS_MODULES else None


def _through_weights(channels: Channels, name: str, read: Numbers | None, count: int, kind: Kind) -> Signal | None:
    if read is None:
        return None
    written = channels.new(count)
    channels.attach(name, "in", read)
    channels.attach(name, "out", written)
    return Signal(written, kind)


def _neurons(signal: Signal, count: int) -> Numbers | None:
    """The channels that so many inputs of a linear layer belong to: blocks of columns, if images were flattened."""
    if signal.kind == "flattened":
        return signal.channels if count % len(signal.channels) == 0 else None
    return _spread(signal, count) if signal.kind != "images" else None


def _spread(signal: Signal, count: int) -> Numbers | None:
    """So many channels; the one of an unknown signal stands for all of them."""
    if signal.kind == "unknown":
        return signal.channels * count
    return signal.channels if len(signal.channels) == count else None


def _through_norm(channels: Channels, name: str, layer: Any, signal: Signal) -> Signal:
    """A norm takes the scale of what comes in away, and has its own: gamma and beta of each channel."""
    what = f"{name} ({type(layer).__name__})"
    channels.break_law(signal.channels, f"goes into {what}, which takes its scale away")
    kind = _kind_after_norm(layer, signal.kind)
    if kind is None:
        return unknown(channels, f"comes out of {what}, which has no gamma and beta of each channel")
    written = channels.new(len(layer.weight))
    channels.attach(name, "out", written)
    return Signal(written, kind)


def _kind_after_norm(layer: Any, kind: Kind) -> Kind | None:
    """Images or vectors; None if the norm does not scale each of their channels by itself."""
    if layer.weight is None:
        return None
    if isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d)):
        return "images"
    if isinstance(layer, nn.GroupNorm):
        return kind if kind in ("images", "vectors") else None
    if layer.weight.ndim == 3:  # of a layer norm over whole images
        return "images"
    return "vectors" if layer.weight.ndim == 1 and kind != "images" else None


# --- functions ---


def _keep(channels: Channels, signal: Signal, *settings: Any, **options: Any) -> Signal | None:
    """What acts on each channel by itself, with J(z) z = f(z)."""
    return None if any(isinstance(value, Signal) for value in (*settings, *options.values())) else signal


def _scale(channels: Channels, signal: Any, factor: Any, **options: Any) -> Signal | None:
    """A number times a signal."""
    if isinstance(factor, Signal):
        signal, factor = factor, signal
    return signal if isinstance(factor, (int, float)) else None


def _divide(channels: Channels, signal: Signal, divisor: Any, **options: Any) -> Signal | None:
    return signal if isinstance(divisor, (int, float)) and not options else None


def _add(channels: Channels, one: Any, other: Any, **options: Any) -> Signal | None:
    """Their channels are one."""
    if not isinstance(one, Signal) or not isinstance(other, Signal):
        return None
    if one.kind == "unknown":
        one, other = other, one
    numbers = other.channels * (len(one.channels) if other.kind == "unknown" else 1)
    if other.kind not in ("unknown", one.kind) or len(numbers) != len(one.channels):
        return None
    channels.join(one.channels, numbers)
    return one


def _concatenate(channels: Channels, signals: Any, dim: int = 0) -> Signal | None:
    """One after the other, as channels."""
    kinds = {part.kind if isinstance(part, Signal) else "unknown" for part in signals}
    if dim != 1 or kinds not in ({"images"}, {"vectors"}):
        return None
    return Signal(tuple(number for part in signals for number in part.channels), signals[0].kind)


def _flatten(channels: Channels, signal: Signal, start_dim: int = 0, end_dim: int = -1) -> Signal | None:
    """Each channel becomes a block."""
    if (start_dim, end_dim) != (1, -1):
        return None
    return Signal(signal.channels, "flattened") if signal.kind == "images" else signal


def _reshape(channels: Channels, signal: Signal, *shape: Any) -> Signal | None:
    """The usual way to flatten: x.view(x.size(0), -1)."""
    return _flatten(channels, signal, 1) if shape in ((BATCH, -1), ((BATCH, -1),)) else None


def _mean(channels: Channels, signal: Signal, dim: Any = (), keepdim: bool = False, **options: Any) -> Signal | None:
    """Over whole images: global average pooling."""
    dims = {number % 4 for number in dim} if isinstance(dim, (tuple, list)) else set()
    if signal.kind != "images" or dims != {2, 3}:
        return None
    return Signal(signal.channels, "images" if keepdim else "vectors")


def _pad(
    channels: Channels, signal: Signal, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Signal | None:
    """Pixels around, or channels of zeros in front and behind."""
    pixels, in_front, behind = pad[:4], *(*pad[4:6], 0, 0)[:2]
    zeros = mode == "constant" and value in (None, 0)
    if signal.kind != "images" or len(pad) > 6 or not (zeros or (mode != "constant" and len(pad) == len(pixels))):
        return None
    if in_front < 0 or behind < 0:
        return None
    return Signal((*channels.new(in_front), *signal.channels, *channels.new(behind)), "images")


SHAPE, BATCH = "shape", "batch"
"""What comes out where a network asks for the shape of a signal, and for its first number."""


def _size(channels: Channels, signal: Any, dim: Any = None) -> str:
    """x.size(), x.size(0)."""
    return {None: SHAPE, 0: BATCH}.get(dim, "size")


def _attribute(channels: Channels, signal: Any, name: str) -> str:
    """x.shape; nothing happens to a signal where it is asked for another."""
    return name


def _item(channels: Channels, signal: Any, index: Any) -> Signal | str | None:
    """Some of the pixels, as x[:, :, ::2, ::2]; the number of images, of a shape."""
    if isinstance(signal, str):
        return BATCH if (signal, index) == (SHAPE, 0) else "size"
    if not isinstance(signal, Signal) or signal.kind != "images" or not isinstance(index, tuple) or len(index) > 4:
        return None
    pixels = all(isinstance(part, slice) for part in index) and all(part == slice(None) for part in index[:2])
    return signal if pixels else None


_FUNCTIONS: dict[Callable[..., Signal | str | None], Sequence[Any]] = {
    _keep: (
        functional.relu, functional.relu_, torch.relu, torch.relu_, functional.leaky_relu, functional.leaky_relu_,
        functional.rrelu, functional.dropout, functional.dropout2d, functional.max_pool2d, torch.max_pool2d,
        functional.avg_pool2d, functional.lp_pool2d, functional.adaptive_max_pool2d, functional.adaptive_avg_pool2d,
        "relu", "relu_", "contiguous", "clone",
    ),
    _scale: (operator.mul, operator.imul, torch.mul, "mul", "mul_"),
    _divide: (operator.truediv, operator.itruediv, torch.div, "div", "div_"),
    _add: (
        operator.add, operator.iadd, torch.add, "add", "add_",
        operator.sub, operator.isub, torch.sub, "sub", "sub_",
    ),
    _concatenate: (torch.cat, torch.concat, torch.concatenate),
    _flatten: (torch.flatten, "flatten"),
    _reshape: (torch.reshape, "reshape", "view"),
    _mean: (torch.mean, "mean"),
    _pad: (functional.pad,),
    _size: ("size",),
    _attribute: (getattr,),
    _item: (operator.getitem,),
}  # fmt: skip

FUNCTIONS = {target: through for through, targets in _FUNCTIONS.items() for target in targets}
"""Functions, and names of methods, with what happens to the channels there."""


def through_function(channels: Channels, target: Any, *args: Any, **options: Any) -> Signal | str | None:
    """What comes out of a function, or of a method by its name."""
    through = FUNCTIONS.get(target)
    if through is None:
        return None
    given = dict(options)
    first = args if args else (given.pop("input", None),)
    if not isinstance(first[0], (Signal, str, tuple, list, int, float)):
        return None
    return through(channels, *first, **given)
