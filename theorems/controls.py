"""Flows that break a hypothesis on purpose: they exist for controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flowsim import Flow
from flowsim.weights import AnyWeights


class TanhFlow(Flow):
    """The activation is tanh, which is not positively homogeneous: phi'(z) z is not phi(z)."""

    def activation(self, pre_activations: Tensor) -> tuple[Tensor, Tensor]:
        """tanh(z) and 1 - tanh(z)^2."""
        values = torch.tanh(pre_activations)
        return values, 1 - values.square()


@dataclass(frozen=True, eq=False)
class DecayFlow(Flow):
    """Weight decay is added to the rule: d theta / dt = -fa - decay theta."""

    decay: float = 0.1
    stays_in_span: ClassVar[bool] = False

    def velocity(self, weights: AnyWeights) -> AnyWeights:
        """-fa - decay theta."""
        pairs = zip(super().velocity(weights).layers, weights.layers, strict=True)
        return weights.with_layers([moves - self.decay * layer for moves, layer in pairs])
