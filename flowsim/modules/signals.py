"""What happens to the channels of a signal in each module and function that a network may call.

Each function takes the channels and the arguments of the call, signals in the place of tensors, and returns the signal
that comes out, or None where it does not know.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
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
    """A tensor inside the network.

    Args:
        channels: one that stands for all where the kind is not known.
        kind: of the tensor.
        batch: the same number for signals whose first dimension is the same.
    """

    channels: Numbers
    kind: Kind
    batch: int


@dataclass(frozen=True)
class Shape:
    """What comes out where a network asks for the shape of a signal."""

    batch: int


@dataclass(frozen=True)
class BatchSize:
    """The first number of a shape."""

    batch: int


def unknown(channels: Channels, why: str) -> Signal:
    """A signal that nothing is known of but why."""
    numbers = channels.new(1)
    channels.break_law(numbers, why)
    return Signal(numbers, "unknown", batch=numbers[0])


NOT_KNOWN = "which is not known to act on each channel by itself with J(z) z = f(z)"


def break_unknown(channels: Channels, signals: Sequence[Signal], what: str) -> Signal:
    """What comes out of something that has no law, and breaks that of what goes in."""
    for signal in signals:
        channels.break_law(signal.channels, f"goes into {what}, {NOT_KNOWN}")
    return unknown(channels, f"comes out of {what}, {NOT_KNOWN}")


# --- modules ---

ENTRYWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Act on each entry by itself, with J(z) z = f(z)."""

OF_IMAGES = (
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d,
)  # fmt: skip
"""Act on each channel of images by itself, with J(z) z = f(z)."""


def through_module(channels: Channels, name: str, *signals: Any, **options: Any) -> Signal | None:
    """What comes out of a module of the network; where that is not known, its weights have no law anywhere."""
    layer: Any = channels.layers[name]
    (signal, *others) = (*signals, *options.values())
    hooks = layer._forward_hooks or layer._forward_pre_hooks  # they may change anything
    known = isinstance(signal, Signal) and not others and not hooks
    out = _through_layer(channels, name, layer, signal) if known else None
    if out is None:
        channels.lost.add(name)
    return out


def _through_layer(channels: Channels, name: str, layer: Any, signal: Signal) -> Signal | None:
    kind = type(layer)
    if kind in (nn.Linear, FeedbackLinear):
        written = Signal(channels.new(layer.out_features), "vectors", signal.batch)
        return _through_weights(channels, name, _neurons(signal, layer.in_features), written)
    if kind in (nn.Conv2d, FeedbackConv2d):
        read = _spread(signal, layer.in_channels) if signal.kind in ("images", "unknown") else None
        return _through_weights(channels, name, read, Signal(channels.new(layer.out_channels), "images", signal.batch))
    if isinstance(layer, SCALES_CHANNELS):
        return _through_norm(channels, name, layer, signal)
    if kind is nn.Flatten:
        return _flatten(channels, signal, layer.start_dim, layer.end_dim)
    return signal if kind in ENTRYWISE or (kind in OF_IMAGES and signal.kind == "images") else None


def _through_weights(channels: Channels, name: str, read: Numbers | None, written: Signal) -> Signal | None:
    if read is None:
        return None
    channels.attach(name, "in", read)
    channels.attach(name, "out", written.channels)
    return written


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
    return Signal(written, kind, signal.batch)


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
    """What acts on each entry by itself, with J(z) z = f(z)."""
    return None if any(isinstance(value, Signal) for value in (*settings, *options.values())) else signal


def _keep_images(channels: Channels, signal: Signal, *settings: Any, **options: Any) -> Signal | None:
    """What acts on each channel of images by itself, with J(z) z = f(z)."""
    return _keep(channels, signal, *settings, **options) if signal.kind == "images" else None


def _scale(channels: Channels, signal: Any, factor: Any) -> Signal | None:
    """A number times a signal."""
    if isinstance(factor, Signal):
        signal, factor = factor, signal
    return signal if isinstance(signal, Signal) and isinstance(factor, (int, float)) else None


def _divide(channels: Channels, signal: Any, divisor: Any) -> Signal | None:
    return signal if isinstance(signal, Signal) and isinstance(divisor, (int, float)) else None


def _add(channels: Channels, one: Any, other: Any, alpha: float = 1) -> Signal | None:
    """Their channels are one."""
    if not isinstance(one, Signal) or not isinstance(other, Signal):
        signal, number = (one, other) if isinstance(one, Signal) else (other, one)
        return signal if isinstance(number, int) and number == 0 else None  # as sum() begins
    if one.kind == "unknown":
        one, other = other, one
    numbers = other.channels * (len(one.channels) if other.kind == "unknown" else 1)
    if other.kind not in ("unknown", one.kind) or len(numbers) != len(one.channels):
        return None
    channels.join(one.channels, numbers)
    return one


def _concatenate(channels: Channels, tensors: Any, dim: int = 0) -> Signal | None:
    """One after the other, as channels."""
    if dim != 1 or not isinstance(tensors, (tuple, list)):
        return None
    kinds = {part.kind if isinstance(part, Signal) else "unknown" for part in tensors}
    if kinds not in ({"images"}, {"vectors"}):
        return None
    return replace(tensors[0], channels=tuple(number for part in tensors for number in part.channels))


def _flatten(channels: Channels, signal: Signal, start_dim: int = 0, end_dim: int = -1) -> Signal | None:
    """Each channel becomes a block."""
    if (start_dim, end_dim) != (1, -1):
        return None
    return replace(signal, kind="flattened") if signal.kind == "images" else signal


def _reshape(channels: Channels, signal: Signal, *shape: Any) -> Signal | None:
    """The usual way to flatten: x.view(x.size(0), -1)."""
    usual = (BatchSize(signal.batch), -1)
    return _flatten(channels, signal, 1) if shape in (usual, (usual,)) else None


def _reduce(channels: Channels, signal: Signal, dim: Any = (), keepdim: bool = False) -> Signal | None:
    """The mean or sum over whole images: global average pooling."""
    dims = {number % 4 for number in dim} if isinstance(dim, (tuple, list)) else set()
    if signal.kind != "images" or dims != {2, 3}:
        return None
    return replace(signal, kind="images" if keepdim else "vectors")


def _pad(
    channels: Channels, signal: Signal, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Signal | None:
    """Pixels around, or channels of zeros in front and behind."""
    if not all(isinstance(number, int) for number in pad):
        return None
    pixels, in_front, behind = pad[:4], *(*pad[4:6], 0, 0)[:2]
    zeros = mode == "constant" and value in (None, 0)
    if signal.kind != "images" or len(pad) > 6 or not (zeros or (mode != "constant" and len(pad) == len(pixels))):
        return None
    if in_front < 0 or behind < 0:
        return None
    return replace(signal, channels=(*channels.new(in_front), *signal.channels, *channels.new(behind)))


Out = Signal | Shape | BatchSize | str | None
"""What comes out of a function: a signal; something about one; None if it is not known."""


def _size(channels: Channels, signal: Signal, dim: Any = None) -> Out:
    """x.size(), x.size(0)."""
    return {None: Shape(signal.batch), 0: BatchSize(signal.batch)}.get(dim, "size")


def _attribute(channels: Channels, signal: Signal, name: str) -> Out:
    """x.shape, x.device: nothing happens to a signal there; x.T, x.data are others."""
    return Shape(signal.batch) if name == "shape" else name if name in ("ndim", "dtype", "device") else None


def _item(channels: Channels, signal: Any, index: Any) -> Out:
    """Some of the pixels, as x[:, :, ::2, ::2]; the number of images, of a shape."""
    if isinstance(signal, Shape):
        return BatchSize(signal.batch) if index == 0 else "size"
    if not isinstance(signal, Signal) or signal.kind != "images" or not isinstance(index, tuple) or len(index) > 4:
        return None
    pixels = all(isinstance(part, slice) for part in index) and all(part == slice(None) for part in index[:2])
    return signal if pixels else None


_FUNCTIONS: dict[Callable[..., Out], Sequence[Any]] = {
    _keep: (
        functional.relu, functional.relu_, torch.relu, torch.relu_, functional.leaky_relu, functional.leaky_relu_,
        functional.rrelu, functional.dropout, functional.dropout2d, operator.neg, torch.neg,
        "relu", "relu_", "contiguous", "clone", "neg",
    ),
    _keep_images: (
        functional.max_pool2d, torch.max_pool2d, functional.avg_pool2d, functional.lp_pool2d,
        functional.adaptive_max_pool2d, functional.adaptive_avg_pool2d,
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
    _reduce: (torch.mean, "mean", torch.sum, "sum"),
    _pad: (functional.pad,),
    _size: ("size",),
    _attribute: (getattr,),
    _item: (operator.getitem,),
}  # fmt: skip

FUNCTIONS = {target: through for through, targets in _FUNCTIONS.items() for target in targets}
"""Functions, and names of methods, with what happens to the channels there."""


OF_OTHERS = (_scale, _divide, _add, _concatenate, _item)
"""Take other things than signals, too, in the first place."""


def through_function(channels: Channels, target: Any, *args: Any, **options: Any) -> Out:
    """What comes out of a function, or of a method by its name."""
    through = FUNCTIONS.get(target)
    first = args if args else (options.pop("input", options.pop("tensors", None)),)
    if through is None or not (isinstance(first[0], Signal) or through in OF_OTHERS):
        return None
    try:
        arguments = signature(through).bind(channels, *first, **options)
    except TypeError:  # called in another way than those that are known
        return None
    return through(*arguments.args, **arguments.kwargs)
