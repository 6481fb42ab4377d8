"""Alignment of output and feedback weights, over time and over widths.

The cosine of v and b on orthogonally separable data, b_j = ±1 for FA and sign-FA. FA from an aligned start with all c_j
> 0 keeps cos ≥ 1/√m (Lemma 5.4). From a Gaussian v(0), independent of b, nothing is promised: it starts around 0,
though here it rises. adaFA starts at 1, as b = v(0), whether all c_j > 0 (its bound is then min|b_j|/|b|) or v(0) is
Gaussian. sign-FA keeps cos ≥ 1/√m from every start (Proposition 5.3), even one where a single |v_j(0)| is a thousand
times as large as all others, which is nearly the bound. Below: the smallest cosine over the whole of 0 ≤ t ≤ 100, mean
and standard error over 8 seeds, against 1/√m.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from figures.style import BLACK, RULES, SHADE, grid, log_time_axis, panels
from figures.widths import width_axis
from flowsim import FeedbackAlignment, Flow, SignFeedbackAlignment, Solution, Weights, data, observables, solve
from flowsim.initialization import adafa, gaussian, random_signs
from flowsim.rules import Rule
from flowsim.times import log_times
from theorems.lemma_5_4 import bound
from theorems.measurement import Compared, alone, infimum
from theorems.observation import Observation

SEEDS = tuple(range(8))
FIRST, T_FINAL = 0.01, 100.0
SAMPLES, DIMENSION, KAPPA = 4, 6, 0.2
WIDTH, WIDTHS = 20, (5, 10, 20, 50)

Kind = tuple[str, str]
"""The rule and the start."""

POSITIVE, GAUSSIAN, ONE = "all $c_j > 0$", "Gaussian $v(0)$", "one large $|v_j(0)|$"
"""Starts."""

LOOKS: dict[str, tuple[Any, str, Any]] = {
    POSITIVE: ("-", "o", "full"),
    GAUSSIAN: ("--", "o", "none"),
    ONE: ("-.", "s", "none"),
}
"""Line, marker and how it is filled, of each start."""

KINDS: tuple[Kind, ...] = (
    ("FA", POSITIVE),
    ("FA", GAUSSIAN),
    ("adaFA", POSITIVE),
    ("adaFA", GAUSSIAN),
    ("sign-FA", GAUSSIAN),
    ("sign-FA", ONE),
)


class Measured(NamedTuple):
    """What is plotted: cosines of seed 0 at times, smallest cosines of all seeds by width, bounds of Lemma 5.4."""

    times: Float[Tensor, " times"]
    cosine: dict[Kind, Float[Tensor, " times"]]
    width: int
    adafa_bound: float
    widths: tuple[int, ...]
    smallest: dict[Kind, Float[Tensor, "widths seeds"]]


def measure(
    width: int = WIDTH, widths: tuple[int, ...] = WIDTHS, seeds: tuple[int, ...] = SEEDS, t_final: float = T_FINAL
) -> Measured:
    """Run all rules from both kinds of starts."""
    times = log_times(FIRST, t_final)[1:]
    cosine, smallest = {}, {}
    adafa_bound = 0.0
    for kind in KINDS:
        one = run(kind, width, seeds[:1], t_final)
        cosine[kind] = observables.alignment(one.flow, one.evaluate(times))[0].squeeze(-1)
        if kind == ("adaFA", POSITIVE):
            adafa_bound = bound(one).item()
        smallest[kind] = torch.stack([infimum(cosines, run(kind, m, seeds, t_final)) for m in widths])
    return Measured(times, cosine, width, adafa_bound, widths, smallest)


def cosines(seen: Observation) -> Compared:
    """cos(v, b)."""
    return alone(observables.alignment(seen.flow, seen.weights, seen.feedback)[0].unsqueeze(-1))


def run(kind: Kind, width: int, seeds: tuple[int, ...], t_final: float) -> Solution[Weights]:
    """An ensemble with a trajectory for each seed."""
    name, start = kind
    dataset = data.stack([data.orthogonally_separable(SAMPLES, DIMENSION, KAPPA, seed) for seed in seeds])
    normal = [gaussian(width, DIMENSION, seed) for seed in seeds]
    hidden = torch.stack([weights.hidden for weights in normal]) / width**0.5
    output = torch.stack([weights.output for weights in normal])
    signs = torch.stack([random_signs(width, seed) for seed in seeds])
    if start == POSITIVE:
        gaps = 0.5 * output.abs()
        # for adaFA c_j = v_j^2 - |w_j|^2 / 2, since b = v(0)
        output = signs * (gaps + 0.5 * hidden.square().sum(-1)) ** (0.5 if name == "adaFA" else 1.0)
    elif start == ONE:
        hidden, output = 0.01 * hidden, signs * torch.where(torch.arange(width) == 0, 1.0, 1e-3)
    weights = Weights(hidden, output)
    rules: dict[str, Rule] = {
        "FA": FeedbackAlignment(signs),
        "adaFA": adafa(weights),
        "sign-FA": SignFeedbackAlignment(),
    }
    return solve(Flow(dataset, rules[name]), weights, t_final)


def draw(measured: Measured) -> Figure:
    """Over time above, over widths below."""
    figure, (above, below) = panels(2, 1, 4.6)
    for name, start in measured.cosine:
        line, marker, filled = LOOKS[start]
        above.plot(measured.times, measured.cosine[name, start], line, color=RULES[name])
        smallest = measured.smallest[name, start]
        error = (smallest.std(-1) / smallest.shape[-1] ** 0.5).numpy()
        below.errorbar(
            measured.widths, smallest.mean(-1).numpy(), error, color=RULES[name], linestyle=line, linewidth=0.9,
            marker=marker, markersize=3, fillstyle=filled, capsize=2,
        )  # fmt: skip
    above.axhline(measured.width**-0.5, color=BLACK, linestyle=":")
    above.axhline(measured.adafa_bound, color=RULES["adaFA"], linestyle=":")
    log_time_axis(above, measured.times[0].item(), measured.times[-1].item())
    above.set_title(f"one run, $m = {measured.width}$")
    above.set_ylabel("alignment $\\cos(v, b)$")
    widths = torch.tensor(measured.widths, dtype=torch.float64)
    below.plot(widths, widths.rsqrt(), ":", color=BLACK)
    width_axis(below, measured.widths)
    below.set_title("over widths")
    below.set_ylabel("smallest $\\cos(v, b)$")
    for panel in (above, below):
        panel.set_ylim(top=1.04)
        panel.axhline(0, color=SHADE, linewidth=0.5)
        grid(panel)
    figure.legend(handles=_key(measured.cosine), loc="outside upper left", ncols=3)
    return figure


def _key(kinds: Iterable[Kind]) -> list[Line2D]:
    """Rules by their colours, starts by their lines and markers, and bounds: a row of the legend each."""
    names, starts = (list(dict.fromkeys(column)) for column in zip(*kinds, strict=True))
    rules = [Line2D([], [], color=RULES[name], linewidth=3, label=name) for name in names]
    looks = [
        Line2D([], [], color=SHADE, linestyle=line, marker=marker, markersize=3, fillstyle=filled, label=start)
        for start in starts
        for line, marker, filled in [LOOKS[start]]
    ]
    bounds = [
        Line2D([], [], color=BLACK, linestyle=":", label="$1/\\sqrt{m}$"),
        Line2D([], [], color=RULES["adaFA"], linestyle=":", label="min$|b_j|/|b|$"),
    ]
    return [row[place] for place in range(3) for row in (rules, looks, bounds) if place < len(row)]
