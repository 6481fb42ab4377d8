"""What the batched kernel is for: two-layer networks whose flow between events has a Taylor series."""

from __future__ import annotations

import torch

from flowsim.flow import Flow
from flowsim.weights import NetworkWeights


def require_supported(flow: Flow, weights: NetworkWeights) -> None:
    """Check that this kernel can take a flow with such weights.

    Raises:
        ValueError: for networks with more than two layers; weight decay; a rule without a series.
    """
    if len(weights.layers) != 2:
        raise ValueError(
            "method 'event' takes rules and losses of one's own, and devices other than the CPU, with two-layer "
            f"networks only, got {len(weights.layers)} layers; use method='dopri5'"
        )
    if flow.decay > 0:
        raise ValueError(
            "method 'event' takes weight decay with the rules and losses of flowsim on the CPU only, "
            f"got decay={flow.decay:g}; use method='dopri5'"
        )
    at_rest = torch.zeros(2, *weights.layers[1].shape, dtype=torch.float64, device=weights.layers[1].device)
    if not flow.rule.fixed and flow.rule.feedback_term(at_rest, at_rest[:1]) is None:
        raise ValueError(
            "method 'event' needs a rule with the Taylor series of its feedback (fixed, or feedback_term), "
            f"got {type(flow.rule).__name__}; use method='dopri5'"
        )
