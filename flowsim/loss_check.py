"""Whether the functions of a loss belong to each other: its gradient to its value, its series to its gradient.

A wrong sign or factor would not stop a run, but let it follow another flow than the one it is taken for. Compared are

    value                 has a number for each sample, `*batch x n`
    negative_gradient     with -d value / df by automatic differentiation
    log_value             with the logarithm of value
    series                its first terms with the derivatives of negative_gradient along f(t) = sum_k f_k t^k

at fixed random outputs of three sizes and random targets, where the value is finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowsim.losses import Derived, Loss
from flowsim.messages import first_line
from flowsim.validation import shown

SIZES = (0.3, 1.0, 3.0)
"""Sizes of the outputs: the labels are 1."""

POINTS = 32
"""Random outputs of each size, at least, in all samples together."""

ORDER = 4
"""Terms of a series after the first one that are compared."""

DIGITS = 1e-7
"""Largest deviation relative to the gradient of the sample: half of the digits of float64, which a formula may lose."""

ROUNDING = 1e-12
"""The same relative to the largest gradient, for differences of numbers that are not small, like y - softmax(f)."""


def require_consistent(loss: Loss, targets: Float[Tensor, "*batch n k"], signs: bool) -> None:
    """Check that the functions of a loss belong to each other, for targets of this shape: once for each loss, n and k.

    `signs`: whether the targets are labels -1 and +1, or one-hot classes.

    Raises:
        ValueError: naming the function that does not belong to the others, with the numbers that tell.
    """
    kind = (targets.shape[-2], targets.shape[-1], signs)
    if kind in loss.checked:
        return
    with torch.inference_mode(False), torch.enable_grad():
        _check(loss, *_points(targets, signs))
    loss.checked.add(kind)


def _points(like: Tensor, signs: bool) -> tuple[Float[Tensor, "points n k"], Float[Tensor, "points n k"]]:
    """Outputs and targets, always the same."""
    generator = torch.Generator().manual_seed(0)
    n, k = like.shape[-2:]
    shape = len(SIZES) * max(1, POINTS // n), n, k
    sizes = torch.tensor(SIZES, dtype=torch.float64).repeat(shape[0] // len(SIZES)).reshape(-1, 1, 1)
    outputs = sizes * torch.randn(shape, generator=generator, dtype=torch.float64)
    if signs:
        targets = torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
    else:
        targets = torch.nn.functional.one_hot(torch.randint(0, k, shape[:-1], generator=generator), k).double()
    return outputs.to(like.device), targets.to(like.device)


def _check(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    there = outputs.clone().requires_grad_()
    values = _called(loss, "value", outputs.shape[:-1], lambda: loss.value(there, targets))
    if not values.requires_grad:
        raise ValueError(
            f"loss {loss.name!r}: value must be made of torch's operations on the outputs, got a result that automatic "
            "differentiation cannot follow"
        )
    finite = torch.isfinite(values)
    if not finite.any():
        raise ValueError(
            f"loss {loss.name!r}: value must be finite somewhere, got {values.flatten()[0].item()} at all outputs "
            f"tried, of sizes {SIZES[0]} to {SIZES[-1]}"
        )
    derived = -_called(loss, "the gradient of value", outputs.shape, lambda: _derivative(values, there))
    differentiable = finite & torch.isfinite(derived).all(-1)
    if not differentiable.any() or (isinstance(loss.negative_gradient, Derived) and not differentiable[finite].all()):
        raise ValueError(
            f"loss {loss.name!r}: value must have a finite gradient by automatic differentiation where it is finite, "
            f"got {_first(-derived, finite & ~differentiable)}: torch.where gives NaN if its other branch does; clamp "
            "what is in there, or give negative_gradient"
        )
    given = _called(loss, "negative_gradient", outputs.shape, lambda: loss.negative_gradient(outputs, targets))
    wrong = differentiable & _differ(given, derived, derived.abs(), differentiable)
    if wrong.any():
        raise ValueError(
            f"loss {loss.name!r}: negative_gradient must be -d value / df, {_first(derived, wrong)} at outputs "
            f"{_first(outputs, wrong)} and targets {_first(targets, wrong)}, got {_first(given, wrong)}: mend it, or "
            "leave it out, and it is derived from value"
        )
    if loss.log_value is not None:
        _check_logarithm(loss, outputs, targets, values.detach(), finite)
    if loss.series is not None:
        _check_series(loss, outputs, targets, differentiable)


def _check_logarithm(
    loss: Loss, outputs: Tensor, targets: Tensor, values: Tensor, where: Bool[Tensor, "points n"]
) -> None:
    log_value = loss.log_value
    assert log_value is not None
    given = _called(loss, "log_value", values.shape, lambda: log_value(outputs, targets))
    wrong = where & ~((given.exp() - values).abs() <= DIGITS * values.abs())
    if wrong.any():
        raise ValueError(
            f"loss {loss.name!r}: log_value must be the logarithm of value, {values[wrong][0].log().item():.6g} at "
            f"outputs {_first(outputs, wrong)}, got {given[wrong][0].item():.6g}: mend it, or leave it out"
        )


def _check_series(loss: Loss, outputs: Tensor, targets: Tensor, where: Bool[Tensor, "points n"]) -> None:
    """Compare a random combination of the components, one number for each sample and term."""
    generator = torch.Generator().manual_seed(1)
    shape = ORDER + 2, *outputs.shape
    *curve, mixture = torch.randn(shape, generator=generator, dtype=torch.float64).to(outputs.device).unbind()
    curve[0] = outputs
    time = torch.zeros_like(outputs[..., :1]).requires_grad_()
    along = torch.zeros_like(outputs)
    for coefficients in reversed(curve):
        along = along * time + coefficients
    derivative = (mixture * loss.negative_gradient(along, targets)).sum(-1, keepdim=True)
    terms = _called(loss, "series", None, lambda: _terms(loss, curve, targets))
    factorial = 1
    for order, term in enumerate(terms):
        factorial *= max(order, 1)
        expected = derivative.detach() / factorial
        _require_array(loss, f"series, term {order},", term, outputs.shape)
        mixed = (mixture * term).sum(-1, keepdim=True)
        wrong = where & _differ(mixed, expected, (mixture * term).abs().sum(-1, keepdim=True), where)
        if wrong.any():
            raise ValueError(
                f"loss {loss.name!r}: series must give the Taylor coefficients of negative_gradient, but its term "
                f"{order} is off by {_first(mixed - expected, wrong)} of {_first(expected, wrong)}: mend it, or leave "
                "it out and use method='dopri5'"
            )
        if order < ORDER:
            derivative = _called(
                loss, "the derivative of negative_gradient", time.shape, lambda of=derivative: _derivative(of, time)
            )


def _terms(loss: Loss, curve: list[Tensor], targets: Tensor) -> list[Tensor]:
    assert loss.series is not None
    terms = loss.series(targets, ORDER)
    next(terms)
    return [terms.send(coefficients) for coefficients in curve]


def _derivative(of: Tensor, by: Tensor) -> Tensor:
    """d of / d by, where each number of `of` depends on its own row of `by`."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    (derivative,) = torch.autograd.grad(of.sum(), by, create_graph=True, allow_unused=True)
    return torch.zeros_like(by) if derivative is None else derivative


def _called(loss: Loss, name: str, shape: torch.Size | None, function: Callable) -> Any:
    """What a function of the user's returns, an array of this shape if one is given."""
    try:
        result = function()
    except Exception as error:  # whatever it is, in one line
        raise ValueError(
            f"loss {loss.name!r}: {name} must work on outputs and targets *batch x n x k, got {type(error).__name__}: "
            f"{first_line(error)}"
        ) from None
    if shape is not None:
        _require_array(loss, name, result, shape)
    return result


def _require_array(loss: Loss, name: str, result: Tensor, shape: torch.Size) -> None:
    if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float64:
        wanted = "one number for each sample" if name in ("value", "log_value") else "shaped like the outputs"
        raise ValueError(
            f"loss {loss.name!r}: {name} must be {wanted}, of shape {tuple(shape)} and dtype torch.float64, "
            f"got {shown(result)}"
        )


def _differ(got: Tensor, expected: Tensor, size: Tensor, where: Tensor) -> Bool[Tensor, "points n"]:
    """Whether the deviation is above rounding, for each sample."""
    size = torch.where(where, size.detach().amax(-1), 0.0)
    deviation = (got - expected).detach().abs().amax(-1)
    return ~(deviation <= DIGITS * size + ROUNDING * size.max())


def _first(values: Tensor, where: Tensor) -> list[float]:
    """The first row where `where` is true."""
    return [float(f"{value:.6g}") for value in values[where][0].tolist()[:4]]
