"""Linear and convolutional layers whose errors go back through feedback weights B in the place of the weights W.

The forward pass, and the gradients of the layer's own weights and bias, are those of `nn.Linear` and `nn.Conv2d`; the
error of the layer below is B's, by one call for all of them.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowsim.validation import require_positive, require_seed, shown

RuleName = Literal["gd", "fa", "adafa", "sign-fa"]


class _LinearThroughFeedback(torch.autograd.Function):
    """x W^T + b, whose error goes back as e B."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, feedback)
        return functional.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, feedback = ctx.saved_tensors
        to_inputs, to_weight, to_bias, _ = ctx.needs_input_grad
        rows = error.reshape(-1, error.shape[-1])
        return (
            error @ feedback if to_inputs else None,
            rows.T @ inputs.reshape(-1, inputs.shape[-1]) if to_weight else None,
            rows.sum(0) if to_bias else None,
            None,
        )


class _Conv2dThroughFeedback(torch.autograd.Function):
    """W * x + b, whose error goes back as the adjoint of x -> B * x."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, *settings: Any
    ) -> Tensor:
        ctx.save_for_backward(inputs, feedback)
        ctx.settings = settings
        return functional.conv2d(inputs, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        inputs, feedback = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        # the gradients of W and b do not depend on W: with B in its place one call makes all three
        found = torch.ops.aten.convolution_backward(
            error, inputs, feedback, [len(feedback)], stride, padding, dilation, False, [0, 0], groups,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        return (*found, None, None, None, None, None)


class _Feedback(nn.Module):
    """What both kinds of layers have: the rule, and its feedback weights."""

    weight: Tensor
    feedback: Tensor | None

    def set_feedback(self, rule: RuleName, scale: float | Literal["xavier"], generator: torch.Generator | None) -> None:
        """Choose the rule; draw or copy its feedback weights from the weights of now, see `feedback_alignment`.

        Raises:
            ValueError: for a rule or scale that is none.
        """
        if rule not in get_args(RuleName):
            raise ValueError(f"rule must be one of {', '.join(get_args(RuleName))}, got {shown(rule)}")
        self.rule: RuleName = rule
        self.scale = _xavier(self.weight) if scale == "xavier" else require_positive("scale", scale)
        feedback = None
        if rule == "fa":
            feedback = _draw(self.weight, generator)
        elif rule == "adafa":
            feedback = self.weight.detach().clone()
        self.register_buffer("feedback", feedback)

    @property
    def feedback_weights(self) -> Tensor:
        """B, shaped like the weights of now: W (gd), fixed (fa, adafa), or the scale times sign(W) (sign-fa)."""
        if self.feedback is not None:
            return self.feedback
        weight = self.weight.detach()
        return weight if self.rule == "gd" else self.scale * weight.sign()

    def extra_repr(self) -> str:
        """The layer's own, and the rule."""
        return f"{super().extra_repr()}, rule={self.rule}"


class FeedbackLinear(_Feedback, nn.Linear):
    """A linear layer with feedback weights B (`fan_out x fan_in`): dL/dx = e B, dL/dW = e^T x, dL/db = sum e.

    Args:
        in_features: of the inputs, `*batch x in_features`.
        out_features: of the outputs, `*batch x out_features`.
        bias: whether there is one.
        rule: see `feedback_alignment`.
        scale: of sign-FA.
        generator: from which fa draws.
        **options: device and dtype.

    Raises:
        ValueError: for a rule or scale that is none.

    >>> layer = FeedbackLinear(2, 1, rule="adafa")
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> before = layer.weight.detach().clone()
    >>> with torch.no_grad():
    ...     _ = layer.weight.zero_()
    >>> layer(x).sum().backward()
    >>> bool(torch.equal(x.grad, before))
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rule: RuleName = "fa",
        scale: float | Literal["xavier"] = 1.0,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias, **options)
        self.set_feedback(rule, scale, generator)

    def forward(self, input: Tensor) -> Tensor:
        """x W^T + b."""
        return _LinearThroughFeedback.apply(input, self.weight, self.bias, self.feedback_weights)  # type: ignore[return-value]


class FeedbackConv2d(_Feedback, nn.Conv2d):
    """A convolution with feedback weights B, shaped like W: dL/dx is the adjoint of the convolution with B, at e.

    Args:
        *sizes: as for `nn.Conv2d`: channels in and out, size of the kernel, and what follows.
        rule: see `feedback_alignment`.
        scale: of sign-FA.
        generator: from which fa draws.
        **options: as for `nn.Conv2d`.

    Raises:
        ValueError: for a rule or scale that is none.

    >>> layer = FeedbackConv2d(3, 8, 3, padding=1, rule="sign-fa", scale=0.1)
    >>> bool(torch.equal(layer.feedback_weights, 0.1 * layer.weight.sign()))
    True
    """

    def __init__(
        self,
        *sizes: Any,
        rule: RuleName = "fa",
        scale: float | Literal["xavier"] = 1.0,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*sizes, **options)
        self.set_feedback(rule, scale, generator)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input = functional.pad(input, self._reversed_padding_repeated_twice, mode)
            padding = (0, 0)
        return _Conv2dThroughFeedback.apply(  # type: ignore[return-value]
            input, weight, bias, self.feedback_weights, self.stride, padding, self.dilation, self.groups
        )


FeedbackLayer = FeedbackLinear | FeedbackConv2d

CONVERTED: dict[type[nn.Module], type[FeedbackLayer]] = {
    nn.Linear: FeedbackLinear,
    nn.Conv2d: FeedbackConv2d,
    FeedbackLinear: FeedbackLinear,
    FeedbackConv2d: FeedbackConv2d,
}
"""Of a layer's own class: one that derives from it may compute something else."""

SCALES_CHANNELS = (
    nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
)  # fmt: skip
"""Normalise, and then scale and shift each channel: gamma z + beta."""


def feedback_alignment(
    module: nn.Module, rule: RuleName, *, scale: float | Literal["xavier"] = 1.0, seed: int = 0
) -> nn.Module:
    """A copy of a network that learns by feedback alignment: its linear and 2d convolutional layers get feedback.

    | rule | B |
    |---|---|
    | gd | W: backpropagation |
    | fa | drawn once from the seed, uniform with Xavier's deviation sqrt(2 / (fan_in + fan_out)) |
    | adafa | the weights at the time of the call |
    | sign-fa | scale times the signs of the weights, as they are at each step |

    What is between these layers (activations, pooling, norms, additions) keeps its exact backward pass. Feedback
    weights are buffers, `feedback`: they are saved and moved with the network, and no optimizer sees them.

    Args:
        module: the network; it stays as it is.
        rule: see above.
        scale: of sign-FA; "xavier" is sqrt(2 / (fan_in + fan_out)) of each layer.
        seed: of fa, from 0 to 2^32 - 1.

    Raises:
        ValueError: if there is nothing to replace, if another layer has weights whose errors would go back through
            themselves, or if the rule, scale or seed is none.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    >>> [layer.rule for layer in feedback_layers(feedback_alignment(network, "fa")).values()]
    ['fa', 'fa']
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module must be a torch.nn.Module, got {shown(module)}")
    _require_convertible(module, rule)
    generator = torch.Generator().manual_seed(require_seed(seed))
    copied = copy.deepcopy(module)
    for layer in copied.modules():
        if type(layer) in CONVERTED:
            layer.__class__ = CONVERTED[type(layer)]  # so that it keeps its parameters, hooks and settings
            assert isinstance(layer, (FeedbackLinear, FeedbackConv2d))
            layer.set_feedback(rule, scale, generator)
    return copied


def feedback_layers(module: nn.Module) -> dict[str, FeedbackLayer]:
    """The layers with feedback weights, by their names in the network, in its order.

    >>> list(feedback_layers(nn.Sequential(nn.Linear(2, 2), FeedbackLinear(2, 1))))
    ['1']
    """
    return {
        name: child for name, child in module.named_modules() if isinstance(child, (FeedbackLinear, FeedbackConv2d))
    }


def _require_convertible(module: nn.Module, rule: RuleName) -> None:
    layers = dict(module.named_modules())
    if not any(type(child) in CONVERTED for child in layers.values()):
        raise ValueError("module must have an nn.Linear or nn.Conv2d to put feedback in, got none")
    known = (*CONVERTED, nn.PReLU)
    for name, child in layers.items():
        own = any(True for _ in child.parameters(recurse=False))
        if own and type(child) not in known and not isinstance(child, SCALES_CHANNELS) and rule != "gd":
            raise ValueError(
                f"module must carry errors back through nn.Linear and nn.Conv2d only, got {name or 'itself'} "
                f"({type(child).__name__}) with parameters of its own: write it with these two"
            )


def _fans(weight: Tensor) -> int:
    """fan_in + fan_out."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    return fan_in + fan_out


def _xavier(weight: Tensor) -> float:
    """The deviation of Xavier's initialisation."""
    return (2 / _fans(weight)) ** 0.5


def _draw(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """Xavier's uniform initialisation of a tensor of this shape, drawn on the CPU: the same on every device."""
    drawn = torch.empty(weight.shape, dtype=weight.dtype)
    return nn.init.xavier_uniform_(drawn, generator=generator).to(weight.device)
