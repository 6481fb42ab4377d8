"""The exact reduction of a flow to the span of its data (theorems/README.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.flow import Flow
from flowsim.weights import AnyWeights, NetworkWeights


@dataclass(frozen=True, eq=False)
class Reduction(Generic[AnyWeights]):
    """Coordinates in the span of the inputs: X = C Q with orthonormal rows Q, r = min(n, d) of them.

    The first layer's rows move in the span only, so W_1(t) = (W_1 Q^T)(t) Q + W_1(0) (I - Q^T Q), and `flow` and
    `weights`, with inputs C and hidden weights W_1 Q^T, are the whole dynamics.
    """

    flow: Flow
    weights: AnyWeights
    basis: Float[Tensor, "*batch r d"] | None
    """Q; None if nothing is reduced, and flow and weights are the given ones."""
    offset: Float[Tensor, "*batch m d"] | None
    """W_1(0) (I - Q^T Q), which never moves."""

    def lift(self, weights: NetworkWeights) -> AnyWeights:
        """Return the full weights for reduced ones."""
        if self.basis is None or self.offset is None:
            return self.weights.with_layers(weights.layers)
        first, *others = weights.layers
        return self.weights.with_layers([first @ self.basis + self.offset, *others])


def reduce(flow: Flow, weights: AnyWeights) -> Reduction[AnyWeights]:
    """Return the reduction of a flow and its initial weights to the span of the inputs.

    Flow and weights carry the same batch dimensions. Where d > n the rows of Q are n right singular vectors, which
    contain the span whatever the rank; nothing is changed where d <= n, or where the flow does not stay in the span.

    >>> from flowsim import Dataset, GradientDescent, Weights
    >>> flow = Flow(Dataset(torch.ones(2, 7), [1, 1]), GradientDescent())
    >>> reduce(flow, Weights(torch.zeros(3, 7), torch.zeros(3))).weights.hidden.shape
    torch.Size([3, 2])
    """
    inputs = flow.dataset.inputs
    if not flow.stays_in_span or flow.dataset.dimension <= flow.dataset.samples:
        return Reduction(flow, weights, None, None)
    basis = torch.linalg.svd(inputs, full_matrices=False).Vh
    first, *others = weights.layers
    coordinates = first @ basis.mT
    return Reduction(
        flow.with_inputs(inputs @ basis.mT),
        weights.with_layers([coordinates, *others]),
        basis,
        first - coordinates @ basis,
    )
