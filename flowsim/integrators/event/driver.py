"""The driver: one step of every trajectory after another, each with its own length and its own events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.flow import Flow
from flowsim.integrators import INTERRUPTED, LOOSER, Settings, smallest_margin, too_steep, unnoticed
from flowsim.integrators.event.crawl import Crawl
from flowsim.integrators.event.front import EPS, Front, Mode, largest
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.path import EventPath, Record
from flowsim.integrators.event.roots import powers
from flowsim.integrators.event.scratch import Scratch
from flowsim.integrators.event.series import Series, Sliding, summed, taylor
from flowsim.integrators.event.switch import corrected, start, switched
from flowsim.integrators.event.watch import negligible, times, watched
from flowsim.losses import named
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


def begin(flow: Flow, weights: NetworkWeights, settings: Settings) -> EventPath:
    """The path of no steps of a flattened ensemble of two-layer networks.

    Args:
        flow: data and feedback with one batch dimension.
        weights: initial weights with one batch dimension.
        settings: whose tolerance gives the order of the series.

    Raises:
        ValueError: for networks with more than two layers; a flow that adds to its rule; an activation other than leaky
            ReLU; a rule or a loss without a series.
    """
    _require_supported(flow, weights)
    kinks = Kinks.of(flow.dataset.inputs)
    here = Weights.sharing(*weights.layers)
    front, settled = start(flow, kinks, here)
    reasons: list[str | None] = [None if fine else UNSETTLED for fine in settled.tolist()]
    for index in torch.nonzero(~torch.isfinite(largest(flow.velocity(here).layers))).flatten().tolist():
        reasons[index] = too_steep(smallest_margin(flow, here)[index])
    return EventPath(flow, weights, kinks, order_for(settings.rtol), (), front, tuple(reasons))


def proceed(
    path: EventPath,
    ends: Float[Tensor, " ensemble"],
    settings: Settings,
    advanced: Callable[[float], None] = unnoticed,
) -> EventPath:
    """Go on with every trajectory to its end, each with its own steps and events.

    Args:
        path: what they have gone so far.
        ends: of the time intervals.
        settings: tolerances per step, in the maximum norm over a trajectory's weights; steps allowed.
        advanced: called after each round with the share of the way gained.
    """
    run = _Run(path, ends, settings)
    try:
        while len(run.state.going.front.index):
            advanced(run.advance())
    except KeyboardInterrupt:
        run.interrupt()
    return run.path()


@dataclass(frozen=True, eq=False)
class Going:
    """The trajectories under way, and their parts of the problem."""

    front: Front
    flow: Flow
    kinks: Kinks

    def of_trajectories(self, some: Int[Tensor, " some"]) -> Going:
        """Some of the trajectories."""
        flow, _ = self.flow.map_matrices(self.front.weights, lambda matrix: matrix[some])
        return Going(self.front.of_trajectories(some), flow, self.kinks.of_trajectories(some))


class State(NamedTuple):
    """The trajectories under way, those that are not, and how many records there are."""

    going: Going
    parked: tuple[Front, ...]
    records: int


class _Run:
    """A run from where a path ends. An interruption may come at any place: all that counts is exchanged at once."""

    def __init__(self, path: EventPath, ends: Float[Tensor, " ensemble"], settings: Settings) -> None:
        self.before, self.settings, self.records = path, settings, list(path.records)
        self.reasons = [None if reason == INTERRUPTED else reason for reason in path.reasons]
        self.scratch = Scratch(path.kinks.inputs.dtype, path.kinks.inputs.device)
        self.resumed = torch.where(path.front.steps > 0, path.front.time, -1.0)
        self.way = ends - path.front.time
        front = replace(path.front, end=ends, unit=torch.minimum(path.front.unit, ends))
        free = torch.tensor([reason is None for reason in self.reasons], device=ends.device)
        going = free & (front.time < ends)
        self.state = State(
            Going(front, path.flow, path.kinks).of_trajectories(torch.nonzero(going).squeeze(-1)),
            (front.of_trajectories(torch.nonzero(~going).squeeze(-1)),),
            len(self.records),
        )
        self.crawl = Crawl(self.state.going.front)

    def advance(self) -> float:
        """One round of all trajectories under way. Also: the share of the way that they gained, in sum."""
        going, parked, _ = self.state
        after, moving, hit, failed = _round(self.before.order, going, self.settings, self.scratch)
        front = after.front
        self.crawl.saw(front.index[hit])
        if moving.any():
            some = going.front if moving.all() else going.front.of_trajectories(torch.nonzero(moving).squeeze(-1))
            self.records.append(Record.of(some, self.resumed[some.index]))
        arrived = front.time >= front.end
        exhausted = front.steps - self.before.front.steps[front.index] >= self.settings.max_steps
        _fail(failed, exhausted & ~arrived, lambda at: _exhausted(self.settings))
        left = self.before.front.steps[front.index] + self.settings.max_steps - front.steps
        for position, reason in self.crawl.look(front, left).items():
            failed.setdefault(position, reason)
        for position, reason in failed.items():
            self.reasons[int(front.index[position])] = reason
        stays = arrived.index_fill(0, torch.tensor(list(failed), dtype=torch.long, device=arrived.device), True)
        if stays.any():
            parked = (*parked, front.of_trajectories(torch.nonzero(stays).squeeze(-1)))
            after = after.of_trajectories(torch.nonzero(~stays).squeeze(-1))
        self.state = State(after, parked, len(self.records))
        return ((front.time - going.front.time) / self.way[front.index]).sum().item()

    def interrupt(self) -> None:
        """Give the trajectories under way their reason."""
        for index in self.state.going.front.index.tolist():
            self.reasons[index] = INTERRUPTED

    def path(self) -> EventPath:
        """What all trajectories have gone."""
        return replace(
            self.before,
            records=tuple(self.records[: self.state.records]),
            front=Front.of_all([*self.state.parked, self.state.going.front]),
            reasons=tuple(self.reasons),
        )


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


def _round(
    order: int, going: Going, settings: Settings, scratch: Scratch
) -> tuple[Going, Bool[Tensor, " ensemble"], Int[Tensor, " events"], dict[int, str]]:
    """One step for each trajectory, or a correction of its mode.

    Also: which moved, which had events, and why some cannot go on.
    """
    front, flow, kinks = going.front, going.flow, going.kinks
    failed: dict[int, str] = {}
    sliding = Sliding.of(kinks, front.mode.side, front.touching())
    series = taylor(flow, kinks, front.weights, front.mode, sliding, front.unit, order, scratch)
    allowed = settings.atol + settings.rtol * front.size
    step = _step(front, series, _changes_of_outputs(flow, series), allowed, settings, scratch)
    _fail(failed, step.vanishes, lambda at: f"the step size fell below rounding: {_state(flow, front, at)}")
    watch, still = watched(flow, kinks, front, series, step.ratio, scratch)
    moving = ~(step.overflow | step.vanishes)
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
    before, hidden_before = front, front.weights.hidden
    monomials = step.ratio * powers(share, order)
    front = _advanced(before, series, step, share, monomials, moving, still)
    infinite = ~torch.isfinite(front.size)
    if infinite.any():  # these stay where they were
        _fail(failed, infinite, lambda at: "the weights overflow")
        moving = moving & ~infinite
        hit = hit.where(moving[hit.trajectory])
        front = _advanced(before, series, step, share, monomials, moving, still)
    _fail(
        failed, front.idle > IDLE,
        lambda at: f"{'the Taylor series overflows' if step.overflow[at] else UNSETTLED}: {_state(flow, front, at)}",
    )  # fmt: skip
    if hit.what.shape[-1]:
        front, settled = switched(flow, kinks, front, hit, hidden_before, series, monomials)
        _fail(failed, ~settled, lambda at: UNSETTLED)
    if flow.rule.at_zero == "vanishes":  # only that of neurons that slide is watched
        output = front.weights.output
        sign = torch.where(output == 0, front.mode.sign, output.sign().to(front.mode.sign.dtype))
        front = replace(front, mode=Mode(front.mode.side, sign))
    return Going(front, flow, kinks), moving, hit.trajectory, failed


def _fail(failed: dict[int, str], which: Bool[Tensor, " ensemble"], reason: Callable[[int], str]) -> None:
    """Take note of trajectories that cannot go on, each with its first reason."""
    if which.any():
        for position in torch.nonzero(which).flatten().tolist():
            failed.setdefault(position, reason(position))


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
    scratch: Scratch,
) -> Step:
    """How far the series of each trajectory can be trusted."""
    hidden = torch.abs(series.hidden, out=scratch.empty("absolute values", *series.hidden.shape)).amax((-2, -1))
    sizes = torch.maximum(hidden, series.output.abs().amax((-2, -1)))
    share, overflow = _trusted(sizes, changes, allowed, EPS * front.size, math.sqrt(settings.rtol))
    # where a mode cannot be decided, shorter and shorter steps make it matter less
    length = share * 0.5 ** (front.idle - UNDECIDED).clamp(min=0) * front.unit
    remaining = front.end - front.time
    last = ~overflow & (length >= remaining)
    unit = torch.minimum(length, front.end)
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
    decaying = _power(decay * earlier.unsqueeze(1) / last, of_gaps)
    below_rounding, tolerated = _power(torch.stack([rounding, allowed]).unsqueeze(1) / last, inverse[-2:])
    by_decay = torch.maximum(decaying.amax(0), below_rounding).nan_to_num(nan=math.inf)  # 0 / 0: no terms at all
    share = torch.minimum(tolerated, by_decay).amin(0).clamp(max=LONGEST)
    if changes is not None:
        share = torch.minimum(share, 0.5 * _power(changes, -inverse[:-1]).amin(0))
    overflow = ~torch.isfinite(last.sum(0))
    return share.masked_fill(overflow, 0.0), overflow


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """base^exponent, the same wherever a trajectory is in the ensemble: torch's powers are rounded by their place."""
    return torch.exp(exponent * torch.log(base))


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
    share: Float[Tensor, " ensemble"],
    monomials: Float[Tensor, "ensemble terms"],
    moving: Bool[Tensor, " ensemble"],
    still: Bool[Tensor, "ensemble n m"],
) -> Front:
    """The front at the end of the step, after a share of its length, before the mode changes there."""
    gained = (share * step.length).masked_fill(~moving, 0.0)
    time = torch.where(moving & step.last & (share == 1), front.end, front.time + gained)
    hidden, output = summed(series.hidden, monomials).mT, summed(series.output, monomials)
    sliding = series.sliding
    if sliding.trajectory.numel():
        rows = sliding.trajectory, sliding.neuron
        hidden[rows] = sliding.along(hidden[rows])
    moved = moving.reshape(-1, 1, 1)
    weights = Weights.sharing(
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
        rounds=front.rounds + 1,
        idle=(front.idle + 1).masked_fill(moving, 0),
    )
