"""The driver: one step of every trajectory after another, each with its own length and its own events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators import Settings, StoppedError, smallest_margin, too_steep
from flowsim.integrators.event.front import EPS, Front, Mode, largest
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.path import EventPath
from flowsim.integrators.event.roots import powers
from flowsim.integrators.event.scratch import Scratch
from flowsim.integrators.event.series import Series, Sliding, summed, taylor
from flowsim.integrators.event.switch import corrected, start, switched
from flowsim.integrators.event.watch import negligible, times, watched
from flowsim.losses import named
from flowsim.solution import LOOSER
from flowsim.weights import NetworkWeights, Weights

TIE = 8 * EPS
"""Events are simultaneous if they are at most so far apart, relative to the step."""

LONGEST = 1e3
"""Largest growth of the step from one to the next."""

IDLE = 50
"""Rounds in a row in which a mode may be corrected without a step; many more than kinks meet in one point."""

UNDECIDED = 10
"""Corrections after which a mode is left as it is over a step so short that the difference is below the tolerance."""

UNSETTLED = "the mode of a neuron on several kinks at once could not be decided"


def order_for(rtol: float) -> int:
    """Order of the series: each term is about 30 times smaller than the one before at the end of a full step.

    The least work per unit time would be at e^2 (Jorba and Zou 2005); but most steps end at an event, well before.
    And 30 is LOOSER, so that the companion has one order less: the two differ by a term then even where they take the
    same steps, from event to event.

    >>> order_for(1e-10), order_for(LOOSER * 1e-10)
    (8, 7)
    """
    return max(3, math.ceil(1 - math.log(min(rtol, 1.0), LOOSER) - 1e-9))  # less what rounding does to a whole number


def integrate(
    flow: Flow,
    weights: NetworkWeights,
    t_final: float,
    settings: Settings,
    advanced: Callable[[float], None] = lambda gained: None,
) -> EventPath:
    """Integrate every trajectory of a flattened ensemble of two-layer networks, each with its own steps and events.

    Args:
        flow: data and feedback with one batch dimension.
        weights: initial weights with one batch dimension.
        t_final: end of the time interval.
        settings: tolerances per step, in the maximum norm over a trajectory's weights; steps allowed.
        advanced: called after each round with the time gained.

    Raises:
        ValueError: for networks with more than two layers; a flow that adds to its rule; an activation other than leaky
            ReLU; a rule or a loss without a series.
        StoppedError: if a trajectory cannot go on.
    """
    _require_supported(flow, weights)
    here = Weights(*weights.layers)
    _require_start(flow, here)
    kinks = Kinks.of(flow.dataset.inputs)
    front, settled = start(flow, kinks, here, t_final)
    path = EventPath(flow, weights, kinks, order_for(settings.rtol), t_final, [], torch.zeros_like(front.steps))
    if not settled.all():
        raise _stopped(path, front, ~settled, lambda position: UNSETTLED)
    problem, near, scratch = flow, kinks, Scratch(kinks.inputs.dtype, kinks.inputs.device)
    while True:
        path.terms[front.index] += path.order
        front, gained = _round(path, problem, near, front, settings, scratch)
        advanced(gained.sum().item())
        going = front.time < t_final
        if not going.any():
            return path
        exhausted = going & (front.steps >= settings.max_steps)
        if exhausted.any():
            raise _stopped(path, front, exhausted, lambda _: _exhausted(settings))
        if not going.all():
            remaining = torch.nonzero(going).squeeze(-1)
            problem, _ = problem.map_matrices(front.weights, lambda matrix, index=remaining: matrix[index])
            near = near.of_trajectories(remaining)
            front = front.of_trajectories(remaining)


def _require_supported(flow: Flow, weights: NetworkWeights) -> None:
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


def _require_start(flow: Flow, weights: Weights) -> None:
    finite = torch.isfinite(largest(flow.velocity(weights).layers))
    if not finite.all():
        index = int((~finite).nonzero()[0])
        raise StoppedError(index, 0.0, too_steep(smallest_margin(flow, weights)[index]), None)


def _exhausted(settings: Settings) -> str:
    return (
        f"max_steps = {settings.max_steps} steps taken; if there were few events, the problem is stiff (the weights "
        "move slowly while a deviation from their path would decay fast), or else give more"
    )


def _state(flow: Flow, front: Front, position: int) -> str:
    """Speed and smallest margin of a trajectory, as the reason for a stop."""
    speed = largest(flow.velocity(front.weights).layers)[position].item()
    lowest = smallest_margin(flow, front.weights)[position].item()
    return f"velocities reach {speed:.3g} at the smallest margin y f = {lowest:.4g}"


def _stopped(
    path: EventPath, front: Front, which: Bool[Tensor, " ensemble"], reason: Callable[[int], str]
) -> StoppedError:
    """The error for the first of the trajectories that cannot go on."""
    position = int(which.nonzero()[0])
    index, time = int(front.index[position]), front.time[position].item()
    return StoppedError(index, time, reason(position), path.only(index, time) if time > 0 else None)


def _round(
    path: EventPath, flow: Flow, kinks: Kinks, front: Front, settings: Settings, scratch: Scratch
) -> tuple[Front, Float[Tensor, " ensemble"]]:
    """One step for each trajectory, or a correction of its mode. Also: the time gained."""
    sliding = Sliding.of(kinks, front.mode.side, front.touching())
    series = taylor(flow, kinks, front.weights, front.mode, sliding, front.unit, path.order, scratch)
    allowed = settings.atol + settings.rtol * front.size
    step = _step(front, series, _changes_of_outputs(flow, series), allowed, settings, path.t_final, scratch)
    if step.vanishes.any():
        raise _stopped(
            path, front, step.vanishes, lambda at: f"the step size fell below rounding: {_state(flow, front, at)}"
        )
    watch, still = watched(flow, kinks, front, series, step.ratio, scratch)
    moving = ~step.overflow
    wrong = watch.polynomial[:, 0] <= 0
    if wrong.any():
        undecided = (front.idle >= UNDECIDED)[watch.trajectory]
        if undecided.any():
            ignored = wrong & undecided & negligible(kinks, watch, step.ratio, allowed)
            watch, wrong = watch.where(~ignored), wrong[~ignored]
        wrong &= moving[watch.trajectory]
        front = corrected(flow, kinks, front, series, step.ratio, watch.where(wrong))
        moving = moving.index_put((watch.trajectory[wrong],), moving.new_zeros(()))
    if not moving.all():
        watch = watch.where(moving[watch.trajectory])
    root = times(flow, front, watch)
    share = torch.ones_like(front.time).scatter_reduce(0, watch.trajectory, root, "amin")
    hit = watch.where(torch.isfinite(root) & (root <= share[watch.trajectory] + TIE))
    gained = (share * step.length).masked_fill(~moving, 0.0)
    time = (front.time + gained).masked_fill(moving & step.last & (share == 1), path.t_final)
    path.append(front, moving)

    monomials = step.ratio * powers(share, path.order)
    hidden_before = front.weights.hidden
    front = _advanced(front, series, step, monomials, time, moving, still)
    infinite = ~torch.isfinite(front.size)
    if infinite.any():
        raise _stopped(path, front, infinite, lambda at: "the weights overflow")
    stuck = front.idle > IDLE
    if stuck.any():
        why = ("the Taylor series overflows" if step.overflow[stuck][0] else UNSETTLED) + ": "
        raise _stopped(path, front, stuck, lambda at: why + _state(flow, front, at))
    if hit.what.shape[-1]:
        front, settled = switched(flow, kinks, front, hit, hidden_before, series, monomials)
        if not settled.all():
            raise _stopped(path, front, ~settled, lambda at: UNSETTLED)
    if flow.rule.at_zero == "vanishes":  # only that of neurons that slide is watched
        output = front.weights.output
        sign = torch.where(output == 0, front.mode.sign, output.sign().to(front.mode.sign.dtype))
        front = replace(front, mode=Mode(front.mode.side, sign))
    return front, gained


@dataclass(frozen=True, eq=False)
class Step:
    """How far the trajectories may go.

    Args:
        length: of the step, in time.
        ratio: (length / unit)^k, for the series.
        unit: for the next series: the length without regard to the end.
        last: whether the step leads to the end.
        overflow: whether the series is not finite.
        vanishes: whether the length is below the rounding of time.
    """

    length: Float[Tensor, " ensemble"]
    ratio: Float[Tensor, "ensemble terms"]
    unit: Float[Tensor, " ensemble"]
    last: Bool[Tensor, " ensemble"]
    overflow: Bool[Tensor, " ensemble"]
    vanishes: Bool[Tensor, " ensemble"]


def _step(
    front: Front,
    series: Series,
    changes: Float[Tensor, "terms-2 ensemble"] | None,
    allowed: Float[Tensor, " ensemble"],
    settings: Settings,
    t_final: float,
    scratch: Scratch,
) -> Step:
    """How far the series of each trajectory can be trusted."""
    hidden = torch.abs(series.hidden, out=scratch.empty("absolute values", *series.hidden.shape)).amax((-2, -1))
    sizes = torch.maximum(hidden, series.output.abs().amax((-2, -1)))
    share, overflow = _trusted(sizes, changes, allowed, EPS * front.size, math.sqrt(settings.rtol))
    # where a mode cannot be decided, shorter and shorter steps make it matter less
    length = share * 0.5 ** (front.idle - UNDECIDED).clamp(min=0) * front.unit
    remaining = t_final - front.time
    last = ~overflow & (length >= remaining)
    unit = length.clamp(max=t_final)
    length = torch.where(last, remaining, length)
    vanishes = ~overflow & ~last & (length <= 4 * EPS * front.time)
    return Step(length, powers(length / front.unit, len(series.f)), unit, last, overflow, vanishes)


def _trusted(
    sizes: Float[Tensor, "terms ensemble"],
    changes: Float[Tensor, "terms-2 ensemble"] | None,
    allowed: Float[Tensor, " ensemble"],
    rounding: Float[Tensor, " ensemble"],
    decay: float,
) -> tuple[Float[Tensor, " ensemble"], Bool[Tensor, " ensemble"]]:
    """The longest step in units such that what the series leaves out is small, and where the series is not finite.

    `sizes` are those of the terms of the weights.

    Three conditions, as no single one says enough:

        the last two terms are allowed
        they are at most `decay` times the largest term before them, or below rounding: the terms of what is still
            small against the weights might grow, and those left out be larger than those kept
        `changes`, those of the outputs relative to the loss's stride, are at most 1 in sum over their terms: where the
            loss is flat the terms are tiny, however near the step comes to where it is steep
    """
    inverse, of_gaps = _inverse_orders(len(sizes) - 1, sizes.dtype, sizes.device)
    last, earlier = sizes[-2:], sizes[1:-2]
    decaying = (decay * earlier.unsqueeze(1) / last) ** of_gaps
    below_rounding, tolerated = (torch.stack([rounding, allowed]).unsqueeze(1) / last) ** inverse[-2:]
    by_decay = torch.maximum(decaying.amax(0), below_rounding).nan_to_num(nan=math.inf)  # 0 / 0: no terms at all
    share = torch.minimum(tolerated, by_decay).amin(0).clamp(max=LONGEST)
    if changes is not None:
        share = torch.minimum(share, 0.5 * changes.pow(-inverse[:-1]).amin(0))
    overflow = ~torch.isfinite(last.sum(0))
    return share.masked_fill(overflow, 0.0), overflow


@cache
def _inverse_orders(order: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """1 / k for k = 1 .. order, as a column; and 1 / (l - k) for k up to order - 2 and the last two l."""
    orders = torch.arange(1, order + 1, dtype=dtype, device=device).unsqueeze(-1)
    return 1 / orders, 1 / (orders[-2:] - orders[:-2].unsqueeze(1))


def _changes_of_outputs(flow: Flow, series: Series) -> Float[Tensor, "terms-2 ensemble"] | None:
    """The Taylor coefficients of order 1 and more of the outputs, the largest relative to the stride of the loss."""
    stride = named(flow.loss).stride
    if stride is None:
        return None
    relative = series.f[1:] / stride(series.f[0], flow.dataset.targets)
    return relative.abs().amax((-2, -1))


def _advanced(
    front: Front,
    series: Series,
    step: Step,
    monomials: Float[Tensor, "ensemble terms"],
    time: Float[Tensor, " ensemble"],
    moving: Bool[Tensor, " ensemble"],
    still: Bool[Tensor, "ensemble n m"],
) -> Front:
    """The front at the end of the step, before the mode changes there."""
    hidden, output = summed(series.hidden, monomials).mT, summed(series.output, monomials)
    sliding = series.sliding
    if sliding.trajectory.numel():
        rows = sliding.trajectory, sliding.neuron
        hidden[rows] = sliding.along(hidden[rows])
    moved = moving.reshape(-1, 1, 1)
    weights = Weights(
        torch.where(moved, hidden, front.weights.hidden), torch.where(moved, output, front.weights.output)
    )
    return replace(
        front,
        time=time,
        weights=weights,
        size=largest(weights.layers),
        contact=front.contact * (still | ~moved),
        sign_contact=front.sign_contact.masked_fill(moved, 0),
        unit=torch.where(step.overflow, 1e-3 * front.unit, torch.where(moving, step.unit, front.unit)),
        steps=front.steps + moving,
        idle=(front.idle + 1).masked_fill(moving, 0),
    )
