"""FA forgets where it starts on the way to infinity; gradient descent does not.

Exponential loss, to t = 10¹⁰⁰⁰, in the time log(1 + t). Above and in the middle: one sample, one active neuron and one
inactive (slope γ), from two starts. The ratio of their output weights tends to γ² under FA (dotted), as in the network
that spends the least Σ|v_j|² = Σ(2|v_j||w_j|)^(4/3)/4 on its margin; the start is felt like (log t)^(−1/3). Under GD it
falls to 0 like (log t)^(−(1−γ)/2), times what the start says. Below: FA on orthogonally separable data (n = 6, d = 8,
m = 6, γ = 0.3) from four Gaussian starts. The directions W/|W| approach the one point that the theorem of section 14.12
of theorems/README.md names, which data, signs of the feedback and slope determine, here computed by scipy from a convex
program; and the normalised margin of the network with these hidden weights, and b_j v_j = |w_j|²/2, approaches its
largest value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLACK, BLUE, PURPLE, RULES, SHADE, grid, panels
from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Solution, Weights, data, solve
from flowsim.initialization import gaussian, random_signs
from flowsim.rules import Rule
from flowsim.weights import stack
from theorems.implicit_bias import find_limit

SEEDS = (0, 1, 2, 3)
SLOPES = (0.3, 0.5, 0.7)
STARTS = ((0.1, -1.0), (1.0, -0.1))
"""Hidden weights of the active and of the inactive neuron."""
OUTPUT_GAP = 0.3
"""|v_j| - |w_j|^2 / 2 at the start."""
LINES = ("-", "--", "-.")
DECADES = 1000
TIMES = 200
SLOPE = 0.3

Ratio = Float[Tensor, "times starts"]


class Measured(NamedTuple):
    """What is plotted, over log10(t).

    Args:
        decades: log10(t) at the times.
        ratio: |v_-| / |v_+| by rule and slope.
        distance: of W / |W| from its limit.
        deficit: 1 - the normalised margin relative to the largest one.
    """

    decades: Float[Tensor, " times"]
    ratio: dict[tuple[str, float], Ratio]
    distance: Float[Tensor, "times seeds"]
    deficit: Float[Tensor, "times seeds"]


def measure(
    slopes: tuple[float, ...] = SLOPES, seeds: tuple[int, ...] = SEEDS, decades: float = DECADES, samples: int = 6
) -> Measured:  # fmt: skip
    """Run both problems, and solve for the limit of the second."""
    shown = torch.logspace(0, math.log10(decades), TIMES, dtype=torch.float64)
    times = (shown * math.log(10)).clamp(max=decades * math.log(10))  # log(1 + t) to rounding, but at the first
    ratio = {(rule, slope): ratios(one_sample_run(rule, slope, decades), times) for rule in LABELS for slope in slopes}
    solution = separable_run(samples, seeds, decades)
    weights = solution.evaluate(times)
    best = direction(solution.flow)
    directions = weights.hidden / weights.hidden.square().sum((-2, -1), keepdim=True).sqrt()
    distance = (directions - best / best.norm()).square().sum((-2, -1)).sqrt()
    margins = normalised_margin(solution.flow, weights.hidden)
    return Measured(shown, ratio, distance, 1 - margins / normalised_margin(solution.flow, best))


LABELS: dict[str, Rule] = {"FA": FeedbackAlignment([1.0, -1.0]), "GD": GradientDescent()}
"""The rules, with the feedback of one sample's problem."""


def one_sample_run(rule: str, slope: float, decades: float) -> Solution[Weights]:
    """x = y = 1; neuron 0 is active, neuron 1 inactive, and both outputs push the right way."""
    hidden = torch.tensor(STARTS, dtype=torch.float64).unsqueeze(-1)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    output = signs * (hidden.square().squeeze(-1) / 2 + OUTPUT_GAP)
    flow = Flow(Dataset([[1.0]], [1]), LABELS[rule], slope=slope)
    return solve(flow, Weights(hidden, output), decades * math.log(10), time="log")


def ratios(solution: Solution[Weights], times: Float[Tensor, " times"]) -> Ratio:
    """|v_-| / |v_+|."""
    output = solution.evaluate(times).output.abs()
    return output[..., 1] / output[..., 0]


def separable_run(samples: int, seeds: tuple[int, ...], decades: float) -> Solution[Weights]:
    """The same data and feedback from one Gaussian start for each seed."""
    dataset = data.orthogonally_separable(samples, samples + 2, 0.2, seed=0)
    weights = stack([gaussian(samples, samples + 2, seed) for seed in seeds])
    flow = Flow(dataset, FeedbackAlignment(random_signs(samples, seed=0)), slope=SLOPE)
    return solve(flow, weights, decades * math.log(10), time="log")


def direction(flow: Flow) -> Float[Tensor, "m d"]:
    """Where W / |W| tends under FA on orthogonally separable data, up to a factor: w_j = b_j p_j."""
    assert isinstance(flow.rule, FeedbackAlignment) and isinstance(flow.rule.feedback, Tensor)
    feedback = flow.rule.feedback
    return feedback.unsqueeze(-1) * torch.from_numpy(find_limit(flow.dataset, feedback, flow.slope).point)


def normalised_margin(flow: Flow, hidden: Float[Tensor, "*times m d"]) -> Float[Tensor, "*times"]:
    """min_i y_i f_i / |v|^(3/2) of the network with these hidden weights and b_j v_j = |w_j|^2 / 2."""
    (feedback,) = flow.rule.feedback_matrices(Weights(hidden, hidden[..., 0]))
    output = hidden.square().sum(-1) / (2 * feedback[0])
    margins = flow.dataset.labels * flow.outputs(Weights(hidden, output))[..., 0]
    return margins.amin(-1) / output.square().sum(-1) ** 0.75


def draw(measured: Measured) -> Figure:
    """Ratios of both rules, distances below."""
    figure, (above, middle, below) = panels(3, 1, 5.8, sharex=True)
    slopes = sorted({slope for _, slope in measured.ratio})
    for (rule, slope), values in measured.ratio.items():
        panel = above if rule == "FA" else middle
        for curve in values.T:
            panel.plot(measured.decades, curve, LINES[slopes.index(slope)], color=RULES[rule])
    for slope, line in zip(slopes, LINES, strict=False):
        above.axhline(slope**2, linestyle=":", color=SHADE, linewidth=0.8)
        above.plot([], [], line, color=BLACK, label=f"$\\gamma = {slope:g}$")
    above.plot([], [], ":", color=SHADE, label="$\\gamma^2$")
    for panel, rule in ((above, "FA"), (middle, "GD")):
        panel.set_title(rule, color=RULES[rule])
        panel.set_ylabel("$|v_-| / |v_+|$")
        panel.set_ylim(0.01, 4)
    for place, (distance, deficit) in enumerate(zip(measured.distance.T, measured.deficit.T, strict=True)):
        name, missing = ("$|W/|W| -$ limit$|$", "1 − margin / largest margin") if place == 0 else (None, None)
        below.plot(measured.decades, distance, color=BLUE, label=name)
        below.plot(measured.decades, deficit, "--", color=PURPLE, label=missing)
    guide = measured.distance[-1].max() * (measured.decades / measured.decades[-1]) ** (-1 / 3)
    below.plot(measured.decades, 1.3 * guide, ":", color=BLACK, label="$(\\log t)^{-1/3}$")
    below.set_xscale("log")
    below.set_xlim(measured.decades[0].item(), measured.decades[-1].item())
    below.set_xlabel("$\\log_{10} t$")
    below.set_ylabel("distance, FA")
    below.legend(loc="lower left")
    for panel in (above, middle, below):
        panel.set_yscale("log")
        grid(panel)
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure
