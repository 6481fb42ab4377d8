"""Convergence at the rates of Theorem 5.1.

Above, α = 1: adaFA on wide networks (m = 32), squared loss, four seeds. L(t)/L(0) stays below exp(−µt), with µ from
the smallest eigenvalue of the feedback tangent kernel along each run. Below, α = 2: FA, exponential loss,
orthogonally separable data (n = 8, m = 20), four seeds, to t = 10⁶. 1/L(t), on the right L(t), stays above 1/L(0) +
µt with Proposition 5.7’s µ = γ²κS0, the same for all seeds (dashed); above the same with the integral of S(t) in the
place of S0 t (green); and with the squared SVM margin of the data in that of κ (purple). From there to the loss is a
factor that has stopped growing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from figures.along import Curve, along
from figures.style import BLACK, BLUE, GREEN, PURPLE, RULES, grid, log_time_axis, panels
from flowsim import FeedbackAlignment, Flow, Solution, Weights, data, solve
from flowsim.initialization import adafa, gaussian, random_signs, with_gaps
from flowsim.weights import stack
from theorems.constants import mu_separable, mu_svm, total_gap
from theorems.observation import Observation
from theorems.proposition_5_7 import total_product
from theorems.theorem_5_1 import mu_kernel

SEEDS = (0, 1, 2, 3)
FIRST = 0.1
T_EXPONENTIAL, T_HARMONIC = 8.0, 1e6


class Measured(NamedTuple):
    """alpha = 1: L(t) / L(0) over mu t; alpha = 2: by name the curves of each seed, over t."""

    exponential: list[Curve]
    harmonic: list[dict[str, Curve]]


def measure(
    samples: int = 8, width: int = 20, seeds: tuple[int, ...] = SEEDS, t_final: float = T_HARMONIC
) -> Measured:  # fmt: skip
    """Run both ensembles."""
    wide = wide_run(seeds)
    mu = mu_kernel(wide)

    def loss(seen: Observation) -> Tensor:
        return seen.risk / seen.initial_risk

    exponential = [
        (rate * curves["loss"][0], curves["loss"][1])
        for rate, curves in zip(mu, along(wide, {"loss": loss}), strict=True)
    ]
    long = separable_run(samples, width, seeds, t_final)
    paper, svm, total = mu_separable(long), mu_svm(long), total_gap(long)
    observables = {
        "$1/L(t)$": lambda seen: 1 / seen.risk,
        "svm": lambda seen: 1 / seen.initial_risk + seen.of(svm / total) * seen.integral,
        "integral": lambda seen: 1 / seen.initial_risk + seen.of(paper / total) * seen.integral,
        "paper": lambda seen: 1 / seen.initial_risk + seen.of(paper) * seen.times,
    }
    return Measured(exponential, along(long, observables, rate=total_product))


def wide_run(seeds: tuple[int, ...]) -> Solution[Weights]:
    """adaFA in the kernel regime: four orthonormal inputs, weights twice as large as usual."""
    dataset = data.stack([data.nearly_orthogonal(4, 6, 0.0, seed) for seed in seeds])
    weights = stack([gaussian(32, 6, seed, scale=2.0) for seed in seeds])
    return solve(Flow(dataset, adafa(weights), "squared"), weights, T_EXPONENTIAL)


def separable_run(samples: int, width: int, seeds: tuple[int, ...], t_final: float) -> Solution[Weights]:
    """FA with all c_j = 0.05."""
    dataset = data.stack([data.orthogonally_separable(samples, samples + 2, 0.2, seed) for seed in seeds])
    rule = FeedbackAlignment(torch.stack([random_signs(width, seed) for seed in seeds]))
    hidden = torch.stack([gaussian(width, samples + 2, seed, scale=width**-0.5).hidden for seed in seeds])
    return solve(Flow(dataset, rule), with_gaps(hidden, rule, 0.05), t_final)


LOOKS = {
    "$1/L(t)$": (BLUE, "-", "$1/L(t)$"),
    "svm": (PURPLE, ":", r"$1/L(0) + \gamma^2 \mathrm{margin}^2 \int S$"),
    "integral": (GREEN, ":", r"$1/L(0) + \gamma^2 \kappa \int S$"),
    "paper": (BLACK, "--", r"$1/L(0) + \gamma^2 \kappa \, S_0 \, t$"),
}
"""Colour, line and legend of each curve for alpha = 2."""


def draw(measured: Measured) -> Figure:
    """alpha = 1 above, alpha = 2 below."""
    figure, (above, below) = panels(2, 1, 4.8)
    for place, (scaled, loss) in enumerate(measured.exponential):
        above.plot(scaled, loss, color=RULES["adaFA"], label=None if place else "$L(t)/L(0)$")
    ends = torch.tensor([0.0, max(scaled[-1].item() for scaled, _ in measured.exponential)])
    above.plot(ends, torch.exp(-ends), "--", color=BLACK, label=r"$\exp(-\mu t)$")
    above.set_yscale("log")
    above.set_xlabel(r"$\mu t$")
    above.set_title(r"$\alpha = 1$: adaFA, squared loss")
    above.legend(loc="upper right")
    for place, curves in enumerate(measured.harmonic):
        for name, (times, values) in curves.items():
            colour, line, label = LOOKS[name]
            below.plot(times, values, line, color=colour, label=None if place else label)
    below.set_yscale("log")
    log_time_axis(below, FIRST, measured.harmonic[0]["paper"][0][-1].item())
    below.set_title(r"$\alpha = 2$: FA, exponential loss")
    below.set_ylabel("$1/L(t)$ and bounds")
    losses = below.secondary_yaxis("right", functions=(_inverse, _inverse))  # type: ignore[arg-type]
    losses.set_ylabel("$L(t)$")
    below.legend(loc="upper left")
    for panel in (above, below):
        grid(panel)
    return figure


def _inverse(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):  # matplotlib asks for 1/0 before it knows the limits
        return np.divide(1.0, values)
