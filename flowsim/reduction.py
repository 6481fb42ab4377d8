"""The exact reduction of a flow to the span of its data (theorems/README.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Generic

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.weights import AnyWeights, NetworkWeights

EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class Reduction(Generic[AnyWeights]):
    """Coordinates in the span of the inputs: X = C Q with orthonormal rows Q, r = min(n, d) of them.

    The rule moves the first layer's rows in the span only, so

        W_1(t) = (W_1 Q^T)(t) Q + e^(-decay t) W_1(0) (I - Q^T Q),

    and `flow` and `weights`, with inputs C and hidden weights W_1 Q^T, are the whole dynamics.
    """

    flow: Flow
    weights: AnyWeights
    basis: Float[Tensor, "*batch r d"] | None
    """Q; None if nothing is reduced, and flow and weights are the given ones."""
    offset: Float[Tensor, "*batch m d"] | None
    """W_1(0) (I - Q^T Q), which does nothing but decay."""

    def of_trajectories(self, some: Int[Tensor, " some"]) -> Reduction[AnyWeights]:
        """Return the reduction of some trajectories of a flattened ensemble, in this order."""
        flow, weights = self.flow.map_matrices(self.weights, lambda matrix: matrix[some])
        parts = [part if part is None else part[some] for part in (self.basis, self.offset)]
        return Reduction(flow, weights, *parts)

    def lift(
        self, weights: NetworkWeights, times: Float[Tensor, "*some"],
        trajectory: Int[Tensor, " some"] | slice = EVERY, logarithmic: bool = False,
    ) -> AnyWeights:  # fmt: skip
        """Return the full weights for reduced ones at some times, of some trajectories of a flattened ensemble.

        Times are t, or s = log(1 + t) if `logarithmic`.
        """
        if self.basis is None or self.offset is None:
            return self.weights.with_layers(weights.layers)
        first, *others = weights.layers
        offset = self.offset[trajectory]
        if self.flow.decay > 0:
            offset = self._left_of(offset, times.expm1() if logarithmic else times)
        return self.weights.with_layers([first @ self.basis[trajectory] + offset, *others])

    def lift_velocity(
        self, velocity: NetworkWeights, times: Float[Tensor, "*some"],
        trajectory: Int[Tensor, " some"] | slice = EVERY, logarithmic: bool = False,
    ) -> AnyWeights:  # fmt: skip
        """Return the velocity of the full weights for that of reduced ones at some times, likewise."""
        if self.basis is None or self.offset is None:
            return self.weights.with_layers(velocity.layers)
        first, *others = velocity.layers
        moves = torch.zeros_like(self.offset[trajectory])
        if self.flow.decay > 0:
            # under s = log(1 + t) the rate of e^(-decay t) is e^s times that in t: one exponent, as e^s may overflow
            exponents = times - self.flow.decay * times.expm1() if logarithmic else -self.flow.decay * times
            moves = -self.flow.decay * exponents.exp().unsqueeze(-1).unsqueeze(-1) * self.offset[trajectory]
        return self.weights.with_layers([first @ self.basis[trajectory] + moves, *others])

    def _left_of(self, offset: Float[Tensor, "*some m d"], times: Float[Tensor, "*some"]) -> Float[Tensor, "*some m d"]:
        """What decay has left of the offset."""
        return torch.exp(-self.flow.decay * times).unsqueeze(-1).unsqueeze(-1) * offset


def reduce(flow: Flow, weights: AnyWeights, *, turned: bool = False) -> Reduction[AnyWeights]:
    """Return the reduction of a flow and its initial weights to the span of the inputs.

    Flow and weights carry the same batch dimensions. Where d > n the rows of Q are n right singular vectors, which
    contain the span whatever the rank; nothing is changed where d <= n, or where the flow does not stay in the span.

    With `turned` coordinates, Q is multiplied by a fixed orthogonal matrix: the same flow, but other rounding errors.

    Raises:
        ValueError: if the rule's feedback depends on the first layer, which is another one in other coordinates.

    >>> from flowsim import Dataset, GradientDescent, Weights
    >>> flow = Flow(Dataset(torch.ones(2, 7), [1, 1]), GradientDescent())
    >>> reduce(flow, Weights(torch.zeros(3, 7), torch.zeros(3))).weights.hidden.shape
    torch.Size([3, 2])
    """
    inputs = flow.dataset.inputs
    reduced = flow.dataset.dimension > flow.dataset.samples
    if not flow.stays_in_span or not (reduced or turned):
        return Reduction(flow, weights, None, None)
    if reduced:
        basis = torch.linalg.svd(inputs, full_matrices=False).Vh
    else:
        basis = torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device).expand(*inputs.shape[:-2], -1, -1)
    if turned:
        basis = _orthogonal(basis.shape[-2]).to(basis) @ basis
    first, *others = weights.layers
    coordinates = first @ basis.mT
    there = weights.with_layers([coordinates, *others])
    for ours, theirs in zip(*(flow.rule.feedback_matrices(each) for each in (weights, there)), strict=True):
        if not torch.equal(ours, theirs):
            raise ValueError(
                f"rule {type(flow.rule).__name__} must not depend on the first layer's weights, but it does"
            )
    return Reduction(flow.with_inputs(inputs @ basis.mT), there, basis, first - coordinates @ basis)


@cache
def _orthogonal(size: int) -> Float[Tensor, "size size"]:
    """A fixed orthogonal matrix without zeros."""
    normal = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(normal).Q
