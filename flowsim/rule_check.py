"""Whether what a rule of one's own says about its feedback is so: its Taylor terms, that it is fixed, its potentials.

A wrong sign or factor would not stop a run, but let it follow another flow than that of its feedback matrices, or call
conserved what is not. Along curves W_l(t) = W_l0 + W_l1 t + .. of random coefficients, compared are

    fixed            with B(t) = B(0), where no weight changes its sign
    feedback_term    with the Taylor terms of B(t), on two layers
    potentials       with d Psi(W_{l+1}[:, i]) / dt = <B_{l+1}[:, i], W_{l+1}'[:, i]> at t = 0

B and Psi are asked for their values alone, and so may be computed by whatever a rule likes: they are interpolated at
Chebyshev points of |t| <= `RADIUS`. Half the radius gives the terms once more. By what these differ they are not known,
as where a feedback has a kink; where the feedback is not a number, nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.rules import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
    is_one_of,
)
from flowsim.validation import shown
from flowsim.weights import NetworkWeights

ORDER = 3
"""Taylor terms after the first one that are compared."""

SIZES = 0.5, 1.5
"""Of the weights at t = 0; the further coefficients are below 1, so that no weight reaches 0 before t = 0.3."""

RADIUS = 0.05
"""Of the times: up to there no weight changes its sign."""

NODES = 12
"""Values that are interpolated. What is smooth but for weights 0 is known to (RADIUS / 0.3)^NODES < 1e-9."""

DIGITS = 1e-6
"""Largest deviation relative to the feedback of the trajectory: rounding in the third term is some 700 eps
(RADIUS / 2)^-3 = 1e-8."""

UNKNOWN = 10.0
"""So many times the difference between both radii a term may deviate."""


class Terms(NamedTuple):
    """Taylor terms, the first index being their order, and what they may be wrong by."""

    value: Float[Tensor, "terms *rest"]
    error: Float[Tensor, "terms *rest"]


def require_consistent(rule: Rule, weights: NetworkWeights, batch_shape: torch.Size) -> None:
    """Check that what a rule of one's own says about its feedback is so, for weights of these shapes.

    `batch_shape` is that of data, rule and weights together.

    Raises:
        ValueError: naming what contradicts the feedback, with the numbers that tell.
    """
    if not is_one_of(rule, GradientDescent, FeedbackAlignment, SignFeedbackAlignment, DirectFeedbackAlignment):
        check(rule, weights, batch_shape)


def check(rule: Rule, weights: NetworkWeights, batch_shape: torch.Size) -> None:
    """`require_consistent`, of any rule."""
    first, *above = (layer.expand(*batch_shape, *layer.shape[-2:]) for layer in weights.layers)
    generator = torch.Generator().manual_seed(0)
    curves = [_draw(layer, generator) for layer in above]

    def along(times: Float[Tensor, " nodes"]) -> NetworkWeights:
        layers = [_values(curve, times) for curve in curves]
        return weights.with_layers([first.expand(len(times), *first.shape), *layers])

    feedback = [
        _taylor(lambda times, at=index: rule.feedback_matrices(along(times))[at], (*batch_shape, *shape), first)
        for index, shape in enumerate(rule.feedback_shapes(weights))
    ]
    if rule.fixed:
        _require_fixed(rule, feedback)
    elif len(curves) == 1:
        _require_terms(rule, curves[0], feedback[0])
    _require_one_each(rule, rule.potentials(along(torch.zeros(1))), [layer.shape[-1] for layer in above])
    for number in rule.layers_with_law(along(torch.zeros(1))):
        shape = (*batch_shape, above[number - 1].shape[-1])
        potential = _taylor(lambda times, at=number - 1: rule.potentials(along(times))[at], shape, first)
        _require_potential(rule, number, curves[number - 1], feedback[number - 1], potential)


def _draw(layer: Float[Tensor, "*batch p q"], generator: torch.Generator) -> Float[Tensor, "terms *batch p q"]:
    """The coefficients of a curve, always the same."""
    shape = ORDER + 1, *layer.shape
    smallest, largest = SIZES
    curve = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    curve[0] = curve[0].sign() * (smallest + (largest - smallest) * curve[0].abs())
    return curve.to(layer.device)


def _values(curve: Float[Tensor, "terms *rest"], times: Float[Tensor, " nodes"]) -> Float[Tensor, "nodes *rest"]:
    powers = times.to(curve).unsqueeze(-1) ** torch.arange(len(curve), device=curve.device)
    return torch.tensordot(powers, curve, dims=1)


def _taylor(function: Callable[[Tensor], Tensor | None], shape: Sequence[int], like: Tensor) -> Terms:
    """The terms up to `ORDER` of an array of this shape that is a function of time."""
    nodes = torch.cos(math.pi * (torch.arange(NODES, dtype=torch.float64, device=like.device) + 0.5) / NODES)
    inverse = torch.linalg.inv(torch.vander(nodes, increasing=True))[: ORDER + 1]

    def interpolated(radius: float) -> Tensor:
        values = function(radius * nodes)
        assert values is not None, "a layer has a potential at all weights, or at none"
        scales = radius ** -torch.arange(ORDER + 1, dtype=torch.float64, device=like.device)
        return torch.tensordot(scales.unsqueeze(-1) * inverse, values.to(torch.float64).expand(NODES, *shape), dims=1)

    wide, narrow = interpolated(RADIUS), interpolated(RADIUS / 2)
    return Terms(narrow, (wide - narrow).abs())


def _differ(got: Tensor, expected: Tensor, error: Tensor, size: Tensor) -> Tensor:
    """Where a deviation is above rounding, and above what is not known."""
    known = torch.isfinite(expected) & torch.isfinite(error)
    return known & ~((got - expected).abs() <= DIGITS * size + UNKNOWN * error)


def _size(feedback: Terms) -> Float[Tensor, "*batch"]:
    """The largest entry of the feedback, and of its terms, of each trajectory."""
    return torch.nan_to_num(feedback.value.abs()).amax((0, -2, -1))


def _require_fixed(rule: Rule, feedback: Sequence[Terms]) -> None:
    for layer, terms in enumerate(feedback, 2):
        moves, error = terms.value[1:], terms.error[1:]
        moved = _differ(torch.zeros_like(moves), moves, error, _size(terms)[..., None, None])
        if moved.any():
            raise ValueError(
                f"rule {type(rule).__name__} says that its feedback is fixed, but that of layer {layer} moves by "
                f"{_first(moves, moved)} where weights move by 1: leave fixed out"
            )


def _require_terms(rule: Rule, curve: Float[Tensor, "terms *batch k m"], feedback: Terms) -> None:
    for order in range(1, ORDER + 1):
        term = rule.feedback_term(curve[: order + 1], feedback.value[:order])
        if term is None:
            return
        expected = feedback.value[order]
        if not isinstance(term, Tensor) or term.shape != expected.shape:
            raise ValueError(
                f"feedback_term of rule {type(rule).__name__} must have the shape of the output weights, "
                f"{tuple(expected.shape)}, got {shown(term)}"
            )
        wrong = _differ(term, expected, feedback.error[order], _size(feedback)[..., None, None])
        if wrong.any():
            raise ValueError(
                f"feedback_term of rule {type(rule).__name__} must be the Taylor term of its feedback, "
                f"{_first(expected, wrong)} of order {order}, got {_first(term, wrong)}: mend it, or leave it out and "
                "use method='dopri5'"
            )


def _require_one_each(rule: Rule, potentials: Sequence[Tensor | None], widths: Sequence[int]) -> None:
    given = [None if each is None else each.shape[-1] for each in potentials]
    if len(given) != len(widths) or any(one not in (None, m) for one, m in zip(given, widths, strict=True)):
        raise ValueError(
            f"potentials of rule {type(rule).__name__} must have for each hidden layer one number for each neuron, "
            f"{list(widths)}, or None, got {given}"
        )


def _require_potential(
    rule: Rule, number: int, curve: Float[Tensor, "terms *batch p q"], feedback: Terms, potential: Terms
) -> None:
    name = f"potentials of rule {type(rule).__name__}"
    if feedback.value.shape != curve.shape:
        raise ValueError(
            f"{name} must be None at hidden layer {number}: its feedback is not shaped like the forward weights, "
            f"{tuple(curve.shape[-2:])}, but {tuple(feedback.value.shape[-2:])}"
        )
    expected, got = (feedback.value[0] * curve[1]).sum(-2), potential.value[1]
    error = potential.error[1] + feedback.error[0].sum(-2)
    size = _size(feedback).unsqueeze(-1) * curve.shape[-2]
    wrong = _differ(got, expected, error, size)
    if wrong.any():
        raise ValueError(
            f"{name} must have the feedback for their gradient, and so rise by {_first(expected, wrong)} at hidden "
            f"layer {number}, got {_first(got, wrong)}: mend them, or leave them out"
        )


def _first(values: Tensor, where: Tensor) -> float:
    """The first number where `where` is true."""
    return float(f"{values[where][0].item():.6g}")
