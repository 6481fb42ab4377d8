"""A round: one step of every trajectory under way, or a correction of its mode."""

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
from flowsim.integrators import Settings
from flowsim.integrators.event.batched.batch import Batch, Mode, find_largest
from flowsim.integrators.event.batched.roots import list_powers
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.batched.series import Series, Sliding, expand, sum_series
from flowsim.integrators.event.batched.switch import correct_modes, switch_modes
from flowsim.integrators.event.batched.watch import Watch, find_times, set_watch, tell_negligible
from flowsim.integrators.event.kinks import Kinks
from flowsim.integrators.event.reasons import OVERFLOWS, SERIES_OVERFLOWS, UNSETTLED, VANISHES, describe_state
from flowsim.integrators.event.tolerances import EPS, IDLE, LONGEST, SHORTEST, SHRINKING, TIE, UNDECIDED
from flowsim.losses import named
from flowsim.weights import Weights


@dataclass(frozen=True, eq=False)
class Going:
    """The trajectories under way, and their parts of the problem."""

    batch: Batch
    flow: Flow
    kinks: Kinks

    def of_trajectories(self, some: Int[Tensor, " some"]) -> Going:
        """Some of the trajectories."""
        flow, _ = self.flow.map_matrices(self.batch.weights, lambda matrix: matrix[some])
        return Going(self.batch.of_trajectories(some), flow, self.kinks.of_trajectories(some))


class Outcome(NamedTuple):
    """What a round did: where the trajectories are, which moved, which had events, why some cannot go on."""

    going: Going
    moving: Bool[Tensor, " ensemble"]
    hit: Int[Tensor, " events"]
    failed: dict[int, str]


def take_round(order: int, going: Going, settings: Settings, scratch: Scratch) -> Outcome:
    """One step for each trajectory, or a correction of its mode."""
    batch, flow, kinks = going.batch, going.flow, going.kinks
    failed: dict[int, str] = {}
    sliding = Sliding.of(kinks, batch.mode.side, batch.touching())
    series = expand(flow, kinks, batch.weights, batch.mode, sliding, batch.unit, order, scratch)
    allowed = settings.atol + settings.rtol * batch.size
    step = _choose_step(batch, series, _measure_changes(flow, series), allowed, settings, scratch)
    add_reasons(failed, step.vanishes, lambda at: f"{VANISHES}: {describe_state(flow, going.batch.weights, at)}")
    watch, still = set_watch(flow, kinks, batch, series, step.ratio, scratch)
    batch, watch, moving = _hold_to_correct(going, series, step, watch, allowed)
    root = find_times(flow, batch, watch)
    share = torch.ones_like(batch.time).scatter_reduce(0, watch.trajectory, root, "amin")
    hit = watch.where(torch.isfinite(root) & (root <= share[watch.trajectory] + TIE))
    before, monomials = batch, step.ratio * list_powers(share, order)
    batch = _move(before, series, step, share, monomials, moving, still)
    infinite = ~torch.isfinite(batch.size)
    if infinite.any():  # these stay where they were
        add_reasons(failed, infinite, lambda at: OVERFLOWS)
        moving = moving & ~infinite
        hit = hit.where(moving[hit.trajectory])
        batch = _move(before, series, step, share, monomials, moving, still)
    moved = batch
    add_reasons(
        failed, batch.idle > IDLE,
        lambda at: f"{SERIES_OVERFLOWS if step.overflow[at] else UNSETTLED}: {describe_state(flow, moved.weights, at)}",
    )  # fmt: skip
    if hit.what.shape[-1]:
        batch, settled = switch_modes(flow, kinks, batch, hit, before.weights.hidden, series, monomials)
        add_reasons(failed, ~settled, lambda at: UNSETTLED)
    if flow.rule.at_zero == "vanishes":  # only that of neurons that slide is watched
        batch = _read_signs(batch)
    return Outcome(Going(batch, flow, kinks), moving, hit.trajectory, failed)


def add_reasons(failed: dict[int, str], which: Bool[Tensor, " ensemble"], reason: Callable[[int], str]) -> None:
    """Take note of trajectories that cannot go on, each with its first reason."""
    if which.any():
        for position in torch.nonzero(which).flatten().tolist():
            failed.setdefault(position, reason(position))


def _hold_to_correct(
    going: Going, series: Series, step: Step, watch: Watch, allowed: Float[Tensor, " ensemble"]
) -> tuple[Batch, Watch, Bool[Tensor, " ensemble"]]:
    """Change modes in which something would happen at once; those trajectories do not move.

    Also: what is watched of those that do, and which these are.
    """
    batch, moving = going.batch, ~(step.overflow | step.vanishes)
    wrong = watch.polynomial[:, 0] <= 0
    if wrong.any():
        undecided = (batch.idle >= UNDECIDED)[watch.trajectory]
        if undecided.any():
            ignored = wrong & undecided & tell_negligible(going.kinks, watch, step.ratio, allowed)
            watch, wrong = watch.where(~ignored), wrong[~ignored]
        wrong &= moving[watch.trajectory]
        batch = correct_modes(going.flow, going.kinks, batch, series, step.ratio, watch.where(wrong))
        moving = moving.index_put((watch.trajectory[wrong],), moving.new_zeros(()))
    if not moving.all():
        watch = watch.where(moving[watch.trajectory])
    return batch, watch, moving


def _read_signs(batch: Batch) -> Batch:
    """The signs that the output weights have, where they have one."""
    output = batch.weights.output
    sign = torch.where(output == 0, batch.mode.sign, output.sign().to(batch.mode.sign.dtype))
    return replace(batch, mode=Mode(batch.mode.side, sign))


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


def _choose_step(
    batch: Batch,
    series: Series,
    changes: Float[Tensor, "orders ensemble"] | None,
    allowed: Float[Tensor, " ensemble"],
    settings: Settings,
    scratch: Scratch,
) -> Step:
    """How far the series of each trajectory can be trusted."""
    hidden = torch.abs(series.hidden, out=scratch.empty("absolute values", *series.hidden.shape)).amax((-2, -1))
    sizes = torch.maximum(hidden, series.output.abs().amax((-2, -1)))
    share, overflow = _trust(sizes, changes, allowed, EPS * batch.size, math.sqrt(settings.rtol))
    # where a mode cannot be decided, shorter and shorter steps make it matter less
    length = share * 0.5 ** (batch.idle - UNDECIDED).clamp(min=0) * batch.unit
    remaining = batch.end - batch.time
    last = ~overflow & (length >= remaining)
    unit = torch.minimum(length, batch.end)
    length = torch.where(last, remaining, length)
    vanishes = ~overflow & ~last & (length <= SHORTEST * batch.time)
    return Step(length, list_powers(length / batch.unit, len(series.f)), unit, last, overflow, vanishes)


def _trust(
    sizes: Float[Tensor, "terms ensemble"],
    changes: Float[Tensor, "orders ensemble"] | None,
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
    inverse, of_gaps = _invert_orders(len(sizes) - 1, sizes.dtype, sizes.device)
    last, earlier = sizes[-2:], sizes[1:-2]
    decaying = _raise_to(decay * earlier.unsqueeze(1) / last, of_gaps)
    below_rounding, tolerated = _raise_to(torch.stack([rounding, allowed]).unsqueeze(1) / last, inverse[-2:])
    by_decay = torch.maximum(decaying.amax(0), below_rounding).nan_to_num(nan=math.inf)  # 0 / 0: no terms at all
    share = torch.minimum(tolerated, by_decay).amin(0).clamp(max=LONGEST)
    if changes is not None:
        share = torch.minimum(share, 0.5 * _raise_to(changes, -inverse[:-1]).amin(0))
    overflow = ~torch.isfinite(last.sum(0))
    return share.masked_fill(overflow, 0.0), overflow


def _raise_to(base: Tensor, exponent: Tensor) -> Tensor:
    """base^exponent, the same wherever a trajectory is in the ensemble: torch's powers are rounded by their place."""
    return torch.exp(exponent * torch.log(base))


@cache
def _invert_orders(order: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """1 / k for k = 1 .. order, as a column; and 1 / (l - k) for k up to order - 2 and the last two l."""
    orders = torch.arange(1, order + 1, dtype=dtype, device=device).unsqueeze(-1)
    return 1 / orders, 1 / (orders[-2:] - orders[:-2].unsqueeze(1))


def _measure_changes(flow: Flow, series: Series) -> Float[Tensor, "orders ensemble"] | None:
    """The Taylor coefficients of order 1 and more of the outputs, the largest relative to the stride of the loss."""
    stride = named(flow.loss).stride
    if stride is None:
        return None
    relative = series.f[1:] / stride(series.f[0], flow.dataset.targets)
    return relative.abs().amax((-2, -1))


def _move(
    batch: Batch,
    series: Series,
    step: Step,
    share: Float[Tensor, " ensemble"],
    monomials: Float[Tensor, "ensemble terms"],
    moving: Bool[Tensor, " ensemble"],
    still: Bool[Tensor, "ensemble n m"],
) -> Batch:
    """The batch at the end of the step, after a share of its length, before the mode changes there."""
    gained = (share * step.length).masked_fill(~moving, 0.0)
    time = torch.where(moving & step.last & (share == 1), batch.end, batch.time + gained)
    hidden, output = sum_series(series.hidden, monomials).mT, sum_series(series.output, monomials)
    sliding = series.sliding
    if sliding.trajectory.numel():
        rows = sliding.trajectory, sliding.neuron
        hidden[rows] = sliding.along(hidden[rows])
    moved = moving.reshape(-1, 1, 1)
    weights = Weights.sharing(
        torch.where(moved, hidden, batch.weights.hidden), torch.where(moved, output, batch.weights.output)
    )
    return replace(
        batch,
        time=time,
        weights=weights,
        size=find_largest(weights.layers),
        contact=batch.contact * (still | ~moved),
        sign_contact=batch.sign_contact.masked_fill(moved, 0),
        unit=torch.where(step.overflow, SHRINKING * batch.unit, torch.where(moving, step.unit, batch.unit)),
        steps=batch.steps + moving,
        rounds=batch.rounds + 1,
        idle=(batch.idle + 1).masked_fill(moving, 0),
    )
