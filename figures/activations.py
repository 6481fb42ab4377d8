"""Which sample is active, inactive or sliding at which neuron.

FA on Gaussian inputs with labels at random, 4 neurons (blocks) and 12 samples (rows). Colours say on which side of
its kink z_ij = 0 each pre-activation is, or that it slides: it is pushed towards the kink from both sides and stays
at 0, as Filippov solutions do (theorems/README.md, section 1). Dots are the events of the run, where the flow is not
smooth: Theorem 5.2 holds through all of them. Adaptive Runge-Kutta methods chatter along a slide: the tighter the
tolerance, the shorter their steps there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from figures.style import BLACK, BLUE, GREY, ORANGE, log_time_axis, panels
from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights, solve
from flowsim.solution import Events

SEEDS = (0,)
FIRST, T_FINAL = 0.01, 1000.0
SAMPLES, DIMENSION, WIDTH = 12, 5, 4
GAP = 1
"""Rows between neurons."""


class Measured(NamedTuple):
    """The pattern between edges in time: 1 active, -1 inactive, 0 sliding; and the events."""

    edges: Float[Tensor, " pieces_and_one"]
    pattern: Int[Tensor, "pieces n m"]
    events: Events


def measure(samples: int = SAMPLES, width: int = WIDTH, t_final: float = T_FINAL) -> Measured:
    """Run it, and ask for the pattern in the middle of every piece: it does not change within one."""
    solution = run(samples, width, t_final)
    pieces = solution.pieces
    (pattern,) = solution.pattern((pieces.start + pieces.end) / 2)
    return Measured(torch.cat([pieces.start, pieces.end[-1:]]), pattern, solution.events)


def run(samples: int, width: int, t_final: float) -> Solution[Weights]:
    """Gaussian inputs, weights and output weights, labels and feedback +-1 at random."""
    generator = torch.Generator().manual_seed(SEEDS[0])

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dataset = Dataset(normal(samples, DIMENSION) / DIMENSION**0.5, normal(samples).sign())
    weights = Weights(normal(width, DIMENSION) / DIMENSION**0.5, normal(width) / width**0.5)
    return solve(Flow(dataset, FeedbackAlignment(normal(width).sign())), weights, t_final)


def draw(measured: Measured) -> Figure:
    """Rows are samples, neuron by neuron, from the top."""
    figure, (panel,) = panels(1, 1, 3.6)
    samples, width = measured.pattern.shape[-2:]
    rows = measured.pattern.transpose(-2, -1).flatten(-2).T.numpy()
    edges = measured.edges.clamp(min=FIRST / 10).numpy()  # a logarithmic axis has no 0
    colours = ListedColormap([GREY, ORANGE, BLUE])
    tops = [neuron * (samples + GAP) for neuron in range(width)]
    for top, block in zip(tops, rows.reshape(width, samples, -1), strict=True):
        borders = range(top, top + samples + 1)
        panel.pcolormesh(edges, borders, block + 1, cmap=colours, vmin=0, vmax=2, linewidth=0)
        for border in borders:
            panel.axhline(border, color="white", linewidth=0.3)
    row = measured.events.neuron * (samples + GAP) + measured.events.sample
    panel.plot(measured.events.time, row + 0.5, "o", color=BLACK, markersize=1.6)
    panel.set_ylim(tops[-1] + samples, 0)
    panel.set_yticks([top + 0.5 * samples for top in tops], [str(neuron + 1) for neuron in range(width)])
    panel.tick_params(axis="y", length=0)
    panel.set_ylabel("neuron $j$ (rows: samples $i$)")
    log_time_axis(panel, FIRST, measured.edges[-1].item())
    handles = [
        Patch(color=BLUE, label="active"),
        Patch(color=GREY, label="inactive"),
        Patch(color=ORANGE, label="sliding"),
        Line2D([], [], color=BLACK, marker="o", markersize=2, linestyle="", label="event"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure
