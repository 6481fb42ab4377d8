"""The driver: rounds of all trajectories under way, until each of them comes to its end or cannot go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.flat import join
from flowsim.flow import Flow
from flowsim.integrators import INTERRUPTED, Settings, smallest_margin, too_steep, unnoticed
from flowsim.integrators.event.batched.batch import Batch, find_largest
from flowsim.integrators.event.batched.rounds import Going, add_reasons, take_round
from flowsim.integrators.event.batched.scope import require_supported
from flowsim.integrators.event.batched.scratch import Scratch
from flowsim.integrators.event.batched.switch import start_batch
from flowsim.integrators.event.crawl import Crawl, split_hopeless, warn_of
from flowsim.integrators.event.kernel import Reasons
from flowsim.integrators.event.kinks import find_kinks
from flowsim.integrators.event.reasons import UNSETTLED, describe_exhaustion
from flowsim.integrators.event.records import Front, Layout, Record, open_steps
from flowsim.integrators.event.tolerances import WINDOW
from flowsim.losses import named
from flowsim.progress import Course
from flowsim.weights import NetworkWeights, Weights


def begin(flow: Flow, weights: NetworkWeights, settings: Settings) -> tuple[Front, Reasons]:
    """Where the trajectories of a flattened ensemble of two-layer networks start, and why some cannot.

    Args:
        flow: data and feedback with one batch dimension.
        weights: initial weights with one batch dimension.
        settings: not needed to start, but for the time, which is not logarithmic.

    Raises:
        ValueError: as `require_supported`; for inputs whose squares over- or underflow.
    """
    require_supported(flow, weights)
    if settings.logarithmic:
        raise ValueError(
            "time 'log' is for the rules and losses of flowsim on the CPU, "
            f"got {type(flow.rule).__name__}, {named(flow.loss).name!r} on {flow.dataset.inputs.device}; use time='t'"
        )
    kinks = find_kinks(flow)
    here = Weights.sharing(*weights.layers)
    batch, settled = start_batch(flow, kinks, here)
    reasons: list[str | None] = [None if fine else UNSETTLED for fine in settled.tolist()]
    for index in torch.nonzero(~torch.isfinite(find_largest(flow.velocity(here).layers))).flatten().tolist():
        reasons[index] = too_steep(smallest_margin(flow, here)[index])
    return batch.as_front(Layout.of(flow, weights), kinks), tuple(reasons)


def proceed(
    flow: Flow,
    front: Front,
    order: int,
    reasons: Reasons,
    ends: Float[Tensor, " ensemble"],
    settings: Settings,
    advanced: Callable[[float], None] = unnoticed,
) -> tuple[list[Record], Front, Reasons]:
    """Go on with every trajectory to its end, each with its own steps and events.

    Args:
        flow: of the flattened ensemble.
        front: where they are.
        order: of the series.
        reasons: why some of them stopped before.
        ends: of the time intervals.
        settings: tolerances per step, in the maximum norm over a trajectory's weights; steps allowed.
        advanced: called after each round with the share of the work done.
    """
    run = _Run(flow, front, order, reasons, ends, settings)
    try:
        while len(run.state.going.batch.index):
            advanced(run.advance())
    except KeyboardInterrupt:
        run.interrupt()
    return run.outcome()


class State(NamedTuple):
    """The trajectories under way, those that are not, and how many records there are."""

    going: Going
    parked: tuple[Batch, ...]
    records: int


class _Run:
    """A run from a front. An interruption may come at any place: all that counts is exchanged at once."""

    def __init__(
        self, flow: Flow, front: Front, order: int, reasons: Reasons, ends: Float[Tensor, " ensemble"],
        settings: Settings,
    ) -> None:  # fmt: skip
        self.before, self.order, self.settings = front, order, settings
        self.records: list[Record] = []
        self.reasons = [None if reason == INTERRUPTED else reason for reason in reasons]
        self.kinks = find_kinks(flow)
        self.scratch = Scratch(front.weights.dtype, front.weights.device)
        self.resumed = torch.where(front.steps > 0, front.time, -1.0)
        self.ends, self.way, self.most = ends, ends - front.time, front.steps + settings.max_steps
        batch = Batch.of_front(front, ends)
        free = torch.tensor([reason is None for reason in self.reasons], device=ends.device)
        going = free & (batch.time < ends)
        self.state = State(
            Going(batch, flow, self.kinks).of_trajectories(torch.nonzero(going).squeeze(-1)),
            (batch.of_trajectories(torch.nonzero(~going).squeeze(-1)),),
            0,
        )
        self.rounds, self.warned = 0, False
        self.count, self.share, self.course = len(self.state.going.batch.index), 0.0, Course()
        self.crawl = Crawl(front.time, front.weights, front.steps)
        self.eventful = torch.zeros_like(free)

    def advance(self) -> float:
        """One round of all trajectories under way. Also: the share of the work done, in sum."""
        going, parked, _ = self.state
        outcome = take_round(self.order, going, self.settings, self.scratch)
        after, failed = outcome.going, outcome.failed
        batch = after.batch
        self.rounds += 1
        self.eventful[batch.index[outcome.hit]] = True
        if outcome.moving.any():
            self._record(going, outcome.moving)
        arrived = batch.time >= batch.end
        allowed = self.most[batch.index] - batch.steps
        add_reasons(failed, (allowed <= 0) & ~arrived, lambda at: describe_exhaustion(self.settings))
        if self.rounds % WINDOW == 0:
            self._look_for_crawling(batch, allowed.tolist(), failed)
        for position, reason in failed.items():
            self.reasons[int(batch.index[position])] = reason
        stays = arrived.index_fill(0, torch.tensor(list(failed), dtype=torch.long, device=arrived.device), True)
        if stays.any():
            parked = (*parked, batch.of_trajectories(torch.nonzero(stays).squeeze(-1)))
            after = after.of_trajectories(torch.nonzero(~stays).squeeze(-1))
        self.state = State(after, parked, len(self.records))
        before, gained = self.share, (batch.time - going.batch.time) / self.way[batch.index]
        self.share += gained.sum().item() / self.count
        return self.count * self.course.gained([before], self.share)

    def _record(self, going: Going, moving: Tensor) -> None:
        """Write down the steps that start where some of the trajectories are."""
        batch, side = going.batch, going.kinks.of_samples(going.batch.mode.side)
        if not moving.all():
            some = torch.nonzero(moving).squeeze(-1)
            batch, side = batch.of_trajectories(some), side[some]
        weights, sign = join(batch.weights.layers), batch.mode.sign.flatten(1)
        opens = open_steps(batch.time, self.resumed[batch.index])
        self.records.append(Record(self.before.layout, batch.index, batch.time, opens, weights, side.flatten(1), sign))

    def _look_for_crawling(self, batch: Batch, allowed: list[int], failed: dict[int, str]) -> None:
        """Give those that would use up their steps a reason, and warn of the first other one that crawls, once."""
        index, weights = batch.index, join(batch.weights.layers)
        found = self.crawl.look(index, batch.time, weights, batch.steps, self.eventful[index], batch.end)
        self.eventful[:] = False
        hopeless, slow = split_hopeless(found, allowed)
        for item in hopeless:
            failed.setdefault(item.position, str(item))
        if slow and not self.warned:
            self.warned = True
            warn_of(int(index[slow[0].position]), slow[0])

    def interrupt(self) -> None:
        """Give the trajectories under way their reason."""
        for index in self.state.going.batch.index.tolist():
            self.reasons[index] = INTERRUPTED

    def outcome(self) -> tuple[list[Record], Front, Reasons]:
        """What all trajectories have gone, and where they are."""
        batch = Batch.of_all([*self.state.parked, self.state.going.batch])
        front = batch.as_front(self.before.layout, self.kinks)
        return self.records[: self.state.records], front, tuple(self.reasons)
