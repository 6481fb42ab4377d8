"""Runs that crawl: weights that hardly move, in steps that stay short because the method is explicit.

Near a point of rest, or a slow curve that deviations from it decay to fast, the series is that of the deviations: steps
are as long as these decay, however little the weights move. Their number is in proportion to the time then.
"""

from __future__ import annotations

import inspect
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowsim.integrators.event.tolerances import FASTER, MOVED, NOISE, STEADY, WINDOW, WINDOWS


class CrawlingWarning(RuntimeWarning):
    """A trajectory hardly moves, and takes many short steps all the same."""


class Crawling(NamedTuple):
    """A trajectory that crawls: its place among those looked at, since when, its speed, its steps, and how many more.

    `speed` is in parts of the largest weight per unit of time, which is called `symbol`.
    """

    position: int
    since: float
    speed: float
    length: float
    left: float
    symbol: str = "t"

    def __str__(self) -> str:
        return (
            f"since {self.symbol} = {self.since:.4g} the problem is stiff: the weights move by only {self.speed:.1g} "
            "of their size per unit of time, while a deviation from their path would decay fast, and keeps the steps "
            f"at {self.length:.3g}; the rest would take about {self.left:.2g} steps. End at an earlier t_final, or "
            "give more max_steps"
        )


class Crawl:
    """What was seen of trajectories, one or many, in the windows before. They are looked at after WINDOW rounds each.

    Args:
        time, weights, steps: of each trajectory at the start.
        symbol: what the time is called.
    """

    def __init__(
        self,
        time: Float[Tensor, " ensemble"],
        weights: Float[Tensor, "ensemble parameters"],
        steps: Int[Tensor, " ensemble"],
        symbol: str = "t",
    ) -> None:
        self.symbol = symbol
        self.time, self.weights, self.steps = time.clone(), weights.clone(), steps.clone()
        self.calm = torch.zeros_like(steps)
        self.gained = torch.full_like(time, torch.nan)
        self.moved = torch.full_like(time, torch.inf)
        self.since = torch.zeros_like(time)

    def look(
        self,
        index: Int[Tensor, " some"],
        time: Float[Tensor, " some"],
        weights: Float[Tensor, "some parameters"],
        steps: Int[Tensor, " some"],
        eventful: Bool[Tensor, " some"],
        ends: Float[Tensor, " some"],
    ) -> list[Crawling]:
        """After a window: those that crawl of the trajectories `index`, which are under way.

        `eventful` are those that had events in the window, `ends` where each of them is going.
        """
        gained = time - self.time[index]
        moved = (weights - self.weights[index]).abs().amax(-1) / weights.abs().amax(-1)
        ratio = gained / self.gained[index]
        calm = ~eventful & (moved < MOVED) & (steps - self.steps[index] >= WINDOW)
        calm &= (ratio < STEADY) & (ratio > 1 / STEADY) & (moved <= FASTER * self.moved[index].clamp(min=NOISE))
        self.since[index] = torch.where(calm & (self.calm[index] > 0), self.since[index], self.time[index])
        self.calm[index] = torch.where(calm, self.calm[index] + 1, 0)
        self.gained[index], self.moved[index] = gained, moved
        self.time[index], self.weights[index], self.steps[index] = time, weights, steps
        rows = torch.nonzero(self.calm[index] >= WINDOWS).flatten()
        gained, moved = gained[rows], moved[rows]
        columns = rows, self.since[index[rows]], moved / gained, gained / WINDOW, (ends - time)[rows] / gained * WINDOW
        return [
            Crawling(*row, symbol=self.symbol) for row in zip(*(column.tolist() for column in columns), strict=True)
        ]


def split_hopeless(found: list[Crawling], allowed: list[int]) -> tuple[list[Crawling], list[Crawling]]:
    """Those that would take more steps than the trajectories may, and others of which one is to be warned.

    `allowed` are the steps left to each trajectory that was looked at.
    """
    hopeless = [item for item in found if item.left > allowed[item.position]]
    slow = [item for item in found if WINDOWS * WINDOW < item.left <= allowed[item.position]]
    return hopeless, slow


def warn_of(trajectory: int, found: Crawling) -> None:
    """Warn of a trajectory that crawls, at the place outside of flowsim where the run was asked for."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "flowsim":
        frame, level = frame.f_back, level + 1
    warnings.warn(f"trajectory {trajectory} crawls: {found}", CrawlingWarning, stacklevel=level)
