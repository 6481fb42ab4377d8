"""Runs that crawl: weights that hardly move, in steps that stay short because the method is explicit.

Near a point of rest, or a slow curve that deviations from it decay to fast, the series is that of the deviations: steps
are as long as these decay, however little the weights move. Their number is in proportion to the time then.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.integrators.event.front import Front, largest

WINDOW = 100
"""Rounds, a step in each but at an event, that are looked at together."""

WINDOWS = 3
"""A trajectory crawls if it did so for so many windows in a row."""

MOVED = 0.03
"""Weights hardly move if they do by less than this part of the largest of them in a window. Steps that are limited by
how the weights change move them by 0.17 and more, where there are no events (measured)."""

STEADY = 1.25
"""Steps stay as they are if a window takes no longer or shorter than this times the one before."""

FASTER = 1.01
"""Weights that move by more than this times as much as in the window before are on their way from a saddle."""

NOISE = 1e-9
"""Less than this part of the largest weight is noise, whose growth says nothing."""


class CrawlingWarning(RuntimeWarning):
    """A trajectory hardly moves, and takes many short steps all the same."""


class Crawl:
    """Looks at trajectories under way every WINDOW rounds; warns of the first that crawls, once."""

    def __init__(self, front: Front) -> None:
        self.rounds = 0
        self.warned = False
        ensemble = int(front.index.max()) + 1 if len(front.index) else 0
        like = front.time
        self.calm = torch.zeros(ensemble, dtype=torch.long, device=like.device)
        self.gained = like.new_full((ensemble,), torch.nan)
        self.moved = like.new_full((ensemble,), torch.inf)
        self.since = like.new_zeros(ensemble)
        self.eventful = torch.ones(ensemble, dtype=torch.bool, device=like.device)
        self.mark = front

    def saw(self, events: Int[Tensor, " events"]) -> None:
        """Take note of the trajectories that had events."""
        self.eventful[events] = True

    def look(self, front: Front, allowed: Int[Tensor, " ensemble"]) -> dict[int, str]:
        """After a round: why some trajectories, by position, need not go on.

        `allowed` are the steps that they may take. Warns of the first trajectory that crawls, if it may go on.
        """
        self.rounds += 1
        if self.rounds % WINDOW or not len(front.index):
            return {}
        crawls = self._crawls(front)
        if not crawls.any():
            return {}
        index, steps = front.index, (front.end - front.time) / self.gained[front.index] * WINDOW
        hopeless = crawls & (steps > allowed)
        failed = {at: self._words(front, at, steps[at].item()) for at in torch.nonzero(hopeless).flatten().tolist()}
        slow = torch.nonzero(crawls & ~hopeless & (steps > WINDOWS * WINDOW)).flatten()
        if len(slow) and not self.warned:
            self.warned = True
            at = int(slow[0])
            message = f"trajectory {int(index[at])} crawls: {self._words(front, at, steps[at].item())}"
            warnings.warn(message, CrawlingWarning, stacklevel=7)  # where solve was called
        return failed

    def _crawls(self, front: Front) -> Bool[Tensor, " ensemble"]:
        index, old = front.index, self._old(front)
        gained = front.time - old.time
        pairs = zip(front.weights.layers, old.weights.layers, strict=True)
        moved = largest([now - then for now, then in pairs]) / front.size
        ratio = gained / self.gained[index]
        calm = ~self.eventful[index] & (moved < MOVED) & (front.steps - old.steps >= WINDOW)
        calm &= (ratio < STEADY) & (ratio > 1 / STEADY) & (moved <= FASTER * self.moved[index].clamp(min=NOISE))
        self.since[index] = torch.where(calm & (self.calm[index] > 0), self.since[index], old.time)
        self.calm[index] = torch.where(calm, self.calm[index] + 1, 0)
        self.gained[index], self.moved[index] = gained, moved
        self.eventful[:] = False
        self.mark = front
        return self.calm[index] >= WINDOWS

    def _old(self, front: Front) -> Front:
        """The trajectories as they were when they were looked at before."""
        return self.mark.of_trajectories(torch.searchsorted(self.mark.index, front.index))

    def _words(self, front: Front, at: int, steps: float) -> str:
        index = int(front.index[at])
        speed: Float[Tensor, ""] = self.moved[index] / self.gained[index]
        return (
            f"since t = {self.since[index].item():.4g} the problem is stiff: the weights move by only "
            f"{speed.item():.1g} of their size per unit of time, while a deviation from their path would decay fast, "
            f"and keeps the steps at {self.gained[index].item() / WINDOW:.3g}; the rest would take about "
            f"{steps:.2g} steps. End at an earlier t_final, or give more max_steps"
        )
