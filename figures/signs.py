"""Output weights keep their signs: Dale’s principle.

b_j v_j(t) of 12 neurons under FA, b_j = ±1, on orthogonally separable data. All hidden weights start roughly against
the data, so that |w_j| first shrinks and then grows. Left, every c_j = b_j v_j(0) − |w_j(0)|²/2 > 0, the hypothesis
of Lemma 5.4: no output weight changes its sign, and none falls below its c_j. Right, the same hidden weights, but c_j
< 0 for half of the neurons. Five of these six change their sign (dashed), and change it back when |w_j|² has grown to
−2c_j, though all signs agree with b at the start: it is c_j ≥ 0 that keeps them. The sixth does not shrink far
enough.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from figures.style import BLUE, ORANGE, SHADE, log_time_axis, log_times, panels
from flowsim import FeedbackAlignment, Flow, data, solve
from flowsim.initialization import gaussian, random_signs, with_gaps

SEEDS = (0,)
FIRST, T_FINAL = 0.01, 10.0
WIDTH = 12
MET, BROKEN = "all $c_j > 0$", "half of the $c_j < 0$"


class Measured(NamedTuple):
    """A run: b_j v_j(t), and c_j."""

    times: Float[Tensor, " times"]
    product: Float[Tensor, "times m"]
    gap: Float[Tensor, " m"]


def measure(width: int = WIDTH, times: int = 1000, t_final: float = T_FINAL) -> dict[str, Measured]:
    """Run both starts as an ensemble."""
    dataset = data.orthogonally_separable(samples=6, dimension=8, kappa=0.2, seed=SEEDS[0])
    signs = random_signs(width, SEEDS[0])
    rule = FeedbackAlignment(signs)
    towards = (dataset.labels.unsqueeze(-1) * dataset.inputs).mean(0)
    against = -signs.unsqueeze(-1) * towards / towards.norm()
    hidden = 0.6 * against + 0.4 * gaussian(width, 8, SEEDS[0]).hidden
    half = 0.5 * hidden.square().sum(-1)
    met = torch.full((width,), 0.05, dtype=torch.float64)
    broken = torch.where(torch.arange(width) % 2 == 0, -0.7 * half, met)
    gaps = torch.stack([met, broken])
    times_ = log_times(FIRST, t_final, times)
    output = (
        solve(Flow(dataset, rule), with_gaps(hidden.expand(2, -1, -1), rule, gaps), t_final).evaluate(times_).output
    )
    product = output * signs
    return {name: Measured(times_, product[:, number], gaps[number]) for number, name in enumerate([MET, BROKEN])}


def draw(measured: dict[str, Measured]) -> Figure:
    """A panel for each start."""
    figure, axes = panels(1, 2, 2.3, sharex=True, sharey=True)
    for panel, (name, run) in zip(axes, measured.items(), strict=True):
        changes = (run.product < 0).any(0)
        for product, changed in zip(run.product.T, changes, strict=True):
            colour, line = (ORANGE, "--") if changed else (BLUE, "-")
            panel.plot(run.times, product, line, color=colour, linewidth=0.9)
        panel.axhline(0, color=SHADE, linewidth=0.6)
        panel.set_title(name)
        log_time_axis(panel, FIRST, run.times[-1].item())
    axes[0].set_ylabel("$b_j v_j(t)$")
    handles = [
        Line2D([], [], color=BLUE, label="keeps its sign"),
        Line2D([], [], color=ORANGE, linestyle="--", label="changes its sign"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure
