"""What the batched kernel is for: two-layer networks whose flow between events has a Taylor series."""

from __future__ import annotations

import torch

from flowsim.flow import Flow
from flowsim.losses import named
from flowsim.weights import NetworkWeights


def require_supported(flow: Flow, weights: NetworkWeights) -> None:
    """Check that this kernel can take a flow with such weights.

    Raises:
        ValueError: for networks with more than two layers; a flow that adds to its rule; an activation other than leaky
            ReLU; a rule or a loss without a series.
    """
    if len(weights.layers) != 2:
        raise ValueError(
            f"method 'event' is for two-layer networks, got {len(weights.layers)} layers; use method='dopri5'"
        )
    if not flow.follows_rule:
        raise ValueError(
            f"method 'event' is for flows that follow their rule, got {type(flow).__name__}; use method='dopri5'"
        )
    if flow.activation.leaky_slope is None:
        raise ValueError(
            f"method 'event' needs a piecewise linear activation, got {flow.activation!r}; use method='dopri5'"
        )
    at_rest = torch.zeros(2, *weights.layers[1].shape, dtype=torch.float64, device=weights.layers[1].device)
    if not flow.rule.fixed and flow.rule.feedback_term(at_rest, at_rest[:1]) is None:
        raise ValueError(
            "method 'event' needs a rule with the Taylor series of its feedback (fixed, or feedback_term), "
            f"got {type(flow.rule).__name__}; use method='dopri5'"
        )
    if named(flow.loss).series is None:
        raise ValueError(
            f"method 'event' needs a loss with a Taylor series, got {named(flow.loss).name!r}; use method='dopri5'"
        )
