"""Output weights keep their signs: Dale’s principle.

b_j v_j(t) of 12 neurons under FA, b_j = ±1, on orthogonally separable data. All hidden weights start roughly against
the data, so that |w_j| first shrinks and then grows. Left, every c_j = b_j v_j(0) − |w_j(0)|²/2 > 0, the hypothesis
of Lemma 5.4: no output weight changes its sign, and none falls below its c_j. Right, the same hidden weights, but c_j
< 0 for half of the neurons. Five of these six change their sign (dashed), and change it back when |w_j|² has grown to
−2c_j, though all signs agree with b at the start: it is c_j ≥ 0 that keeps them. The sixth does not shrink far
enough.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from figures.style import panels
from flowsim import FeedbackAlignment, Flow, Solution, data, plot, solve
from flowsim.initialization import gaussian, random_signs, with_gaps

SEEDS = (0,)
T_FINAL = 10.0
WIDTH = 12
MET, BROKEN = "all $c_j > 0$", "half of the $c_j < 0$"


def measure(width: int = WIDTH, t_final: float = T_FINAL) -> dict[str, Solution]:
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
    weights = with_gaps(hidden.expand(2, -1, -1), rule, torch.stack([met, broken]))
    solution = solve(Flow(dataset, rule), weights, t_final)
    return {MET: solution[0], BROKEN: solution[1]}


def draw(measured: dict[str, Solution]) -> Figure:
    """A panel for each start."""
    figure, axes = panels(1, 2, 2.3, sharex=True, sharey=True)
    for panel, (name, run) in zip(axes, measured.items(), strict=True):
        plot.signs(run, panel).set_title(name)
    axes[1].set_ylabel("")
    axes[1].legend().remove()
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure
