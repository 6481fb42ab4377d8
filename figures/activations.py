"""Which sample is active, inactive or sliding at which neuron.

FA on Gaussian inputs with labels at random, 4 neurons (blocks) and 12 samples (rows). Colours say on which side of
its kink z_ij = 0 each pre-activation is, or that it slides: it is pushed towards the kink from both sides and stays
at 0, as Filippov solutions do (theorems/README.md, section 1). Dots are the events of the run, where the flow is not
smooth: Theorem 5.2 holds through all of them. Adaptive Runge-Kutta methods chatter along a slide: the tighter the
tolerance, the shorter their steps there.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import panels
from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights, plot, solve
from flowsim.plot.pattern import legend_handles

SEEDS = (0,)
T_FINAL = 1000.0
SAMPLES, DIMENSION, WIDTH = 12, 5, 4


def measure(samples: int = SAMPLES, width: int = WIDTH, t_final: float = T_FINAL) -> Solution[Weights]:
    """Gaussian inputs, weights and output weights, labels and feedback +-1 at random."""
    generator = torch.Generator().manual_seed(SEEDS[0])

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dataset = Dataset(normal(samples, DIMENSION) / DIMENSION**0.5, normal(samples).sign())
    weights = Weights(normal(width, DIMENSION) / DIMENSION**0.5, normal(width) / width**0.5)
    return solve(Flow(dataset, FeedbackAlignment(normal(width).sign())), weights, t_final)


def draw(measured: Solution[Weights]) -> Figure:
    """Rows are samples, neuron by neuron, from the top."""
    figure, (panel,) = panels(1, 1, 3.6)
    plot.activations(measured, panel)
    figure.legend(handles=legend_handles(), loc="outside upper left", ncols=4)
    return figure
