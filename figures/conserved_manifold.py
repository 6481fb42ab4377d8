"""What one neuron conserves.

One hidden neuron and three orthogonally separable inputs in the plane, under GD, FA (b = 1) and sign-FA. Arrows point
forward in time, and grey curves are the sets of equal c of Theorem 5.2: hyperbolas v² − |w|² = 2c for GD, parabolas
v = c + |w|²/2 for FA, |v| = c + |w|²/2 for sign-FA. Every run stays on the one that it starts on;
where the hidden weights start against the data it goes in, turns, and comes back on the same curve. Where c > 0, v
never changes its sign (for FA: Lemma 5.4); where c < 0 it does here, under FA and GD smoothly, under sign-FA with a
corner. (Compare Figure 1 of the paper.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from figures.style import BLACK, RULES, SHADE, panels
from flowsim import FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, data, solve
from flowsim.initialization import with_gaps
from flowsim.rules import Rule
from flowsim.times import log_times

SEEDS = (0,)
LARGEST, HIGHEST, T_FINAL = 2.0, 2.3, 1000.0

STARTS = {
    "GD": [(0.7, 0.3, 1, 1), (0.2, 1.3, -1, 1), (0.4, 1.2, 1, -1), (-0.3, 1.8, 1, -1), (-1.0, 1.9, 1, -1)],
    "FA": [(1.0, 0.3, 1, 1), (0.3, 1.2, -1, 1), (-0.4, 1.4, -1, 1), (-1.1, 0.4, 1, 1), (-1.8, 0.4, 1, 1)],
    "sign-FA": [(1.0, 0.3, 1, 1), (0.3, 1.3, -1, 1), (0.4, 1.2, 1, -1), (-0.3, 1.7, 1, -1), (-1.0, 1.9, 1, -1)],
}
"""c, |w(0)|, the side of the inputs that w(0) is on (1: active on all, -1: on none), the sign of v(0) (but for FA)."""


class Measured(NamedTuple):
    """The runs of one rule: |w(t)|, v(t) and c."""

    norm: Float[Tensor, "times runs"]
    output: Float[Tensor, "times runs"]
    gap: Float[Tensor, " runs"]


LEARNING: dict[str, Rule] = {
    "GD": GradientDescent(),
    "FA": FeedbackAlignment([1.0]),
    "sign-FA": SignFeedbackAlignment(),
}


def measure(times: int = 400, t_final: float = T_FINAL) -> dict[str, Measured]:
    """Run the neurons of each rule as an ensemble."""
    dataset = data.orthogonally_separable(samples=3, dimension=2, kappa=0.3, seed=SEEDS[0])
    towards = (dataset.labels.unsqueeze(-1) * dataset.inputs).sum(0)
    towards = towards / towards.norm()
    found = {}
    for name, rule in LEARNING.items():
        gap, norm, side, sign = torch.tensor(STARTS[name], dtype=torch.float64).unbind(-1)
        hidden = (side * norm)[:, None, None] * towards
        weights = with_gaps(hidden, rule, gap.unsqueeze(-1), None if name == "FA" else sign.unsqueeze(-1))
        flow = Flow(dataset, rule)
        at = solve(flow, weights, t_final).evaluate(log_times(1e-3, t_final, times))
        found[name] = Measured(at.hidden.norm(dim=-1).squeeze(-1), at.output.squeeze(-1), gap)
    return found


def draw(measured: dict[str, Measured]) -> Figure:
    """A panel for each rule."""
    figure, axes = panels(1, len(measured), 2.0, sharey=True)
    for panel, (name, runs) in zip(axes, measured.items(), strict=True):
        _level_sets(panel, name, runs.gap)
        for norm, output in zip(runs.norm.T, runs.output.T, strict=True):
            panel.plot(norm, output, color=RULES[name])
            panel.plot(norm[0], output[0], "o", color=RULES[name], markersize=3)
        _arrows(panel, runs, RULES[name])
        panel.axhline(0, color=SHADE, linewidth=0.4)
        panel.set_title(name)
        panel.set_xlim(0, LARGEST)
        panel.set_ylim(-HIGHEST, HIGHEST)
        panel.set_xticks([0, 1, 2])
    axes[len(axes) // 2].set_xlabel("size of the hidden weights $|w|$")
    axes[0].set_ylabel("output weight $v$")
    axes[0].set_yticks([-2, -1, 0, 1, 2])
    key = {
        "run": Line2D([], [], color=BLACK),
        "its start": Line2D([], [], color=BLACK, marker="o", markersize=3, linestyle=""),
        "equal $c$": Line2D([], [], color=SHADE, linewidth=0.5),
    }
    figure.legend(list(key.values()), list(key), loc="outside upper left", ncols=3)
    return figure


def _level_sets(panel: Axes, name: str, gaps: Tensor) -> None:
    norm = torch.linspace(0, LARGEST, 400, dtype=torch.float64)
    for gap in gaps:
        value = LEARNING[name].inverse_potential(gap + norm.unsqueeze(-1).square() / 2, None).squeeze(-1)
        for sign in (1,) if name == "FA" else (1, -1):
            panel.plot(norm, sign * value, color=SHADE, linewidth=0.5, zorder=1)


def _arrows(panel: Axes, runs: Measured, colour: str) -> None:
    """One on the way in and one on the way out of each run, as far from dots, turns and other arrows as can be.

    Many runs come back on the curve on which they went in.
    """
    scale = torch.tensor([LARGEST, HIGHEST], dtype=torch.float64)  # a panel is twice as high as it is wide
    paths = torch.stack([runs.norm, runs.output], -1)
    turns = runs.norm.argmin(0)
    taken = torch.cat([paths[0], paths[turns, torch.arange(len(turns))]]) / scale
    for path, turn in zip(paths.unbind(1), turns.tolist(), strict=True):
        for way in (path[: turn + 1], path[turn:]):
            inside = (way[1:].abs() < 0.93 * scale).all(-1).nonzero().squeeze(-1)
            if len(inside) > 1:
                distance = torch.cdist(way[1:][inside] / scale, taken).amin(-1)
                at = int(inside[distance.argmax()])
                tail, tip = ((way[place, 0].item(), way[place, 1].item()) for place in (at, at + 1))
                panel.annotate("", tip, tail, arrowprops={"arrowstyle": "-|>", "color": colour, "mutation_scale": 6})
                taken = torch.cat([taken, way[None, at + 1] / scale])
