"""Why a trajectory cannot go on, in words, whatever the kernel."""

from __future__ import annotations

from flowsim.flow import Flow
from flowsim.integrators import Settings, smallest_margin
from flowsim.weights import NetworkWeights

VANISHES = "the step size fell below rounding"
OVERFLOWS = "the weights overflow"
SERIES_OVERFLOWS = "the Taylor series overflows"
UNSETTLED = "the mode of neurons on several kinks at once could not be decided"
AT_APEX = "nothing of a sample gets through a hidden layer, and the layers above have no one mode to go on in"
AMBIGUOUS = "neurons above the first layer stay at 0 for samples that reach them alike, by drives not unique"


def describe_state(flow: Flow, weights: NetworkWeights, trajectory: int) -> str:
    """Speed and smallest margin of a trajectory of a flattened ensemble."""
    speed = max(layer[trajectory].abs().max().item() for layer in flow.velocity(weights).layers)
    lowest = smallest_margin(flow, weights)[trajectory].item()
    return f"velocities reach {speed:.3g} at the smallest margin y f = {lowest:.4g}"


def describe_exhaustion(settings: Settings) -> str:
    """That all steps were taken, and what to do."""
    return (
        f"max_steps = {settings.max_steps} steps taken; if there were few events, the problem is stiff (the weights "
        "move slowly while a deviation from their path would decay fast), or else give a larger max_steps"
    )
