"""Alignment dominance: how much is promised, how much is measured.

The dominance ratio ⟨grad, fa⟩/L² along one FA run each on orthogonally separable and on nearly orthogonal data (n =
8, m = 20, γ = 0.3, exponential loss), with what Proposition 5.7 promises: the paper’s constant µ (black, dashed), γ²
S0 (SVM margin)² in its place (purple, dashed), and both with S(t) = v·b in the place of S0 (solid), which grows with
the weights. The ratio jumps at kinks, and stays above all of them. By t = 10⁴ it is 380 and 590 times the constant µ;
those with S(t) level off at factors of 14 to 30.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from figures.along import Curve, along
from figures.style import BLACK, BLUE, PURPLE, grid, log_time_axis, panels
from flowsim import Solution
from theorems.constants import mu_nearly_orthogonal, mu_separable, mu_svm, total_gap
from theorems.ensembles import DataKind, Shape, margin_run
from theorems.observation import Observation
from theorems.proposition_5_7 import total_product
from theorems.theorem_5_1 import Mu

SEEDS = (0,)
FIRST, T_FINAL = 0.01, 1e4
SHAPE = Shape(samples=8, width=20, slope=0.3)

CONSTANTS: dict[DataKind, Mu] = {"separable": mu_separable, "nearly orthogonal": mu_nearly_orthogonal}
"""The paper's."""

RATIO = r"$\langle \mathrm{grad}, \mathrm{fa} \rangle / L^2$"
LOOKS = {
    RATIO: (BLUE, "-"),
    r"$\mu$ of the paper": (BLACK, "--"),
    r"$\mu(t) = \mu \, S(t) / S_0$": (BLACK, "-"),
    r"$\gamma^2 S_0 \, \mathrm{margin}^2$": (PURPLE, "--"),
    r"$\gamma^2 S(t) \, \mathrm{margin}^2$": (PURPLE, "-"),
}
"""Names in the legend, colours and lines."""

Measured = dict[DataKind, dict[str, Curve]]


def measure(shape: Shape = SHAPE, t_final: float = T_FINAL) -> Measured:
    """Run FA on both kinds of data."""
    found: Measured = {}
    for kind, mu in CONSTANTS.items():
        solution = margin_run(kind, "fa", shape, len(SEEDS), "cpu", t_final=t_final)
        found[kind] = along(solution, dict(zip(LOOKS, _observables(solution, mu), strict=True)))[0]
    return found


def _observables(solution: Solution, mu: Mu) -> list[Callable[[Observation], Float[Tensor, "nodes pieces"]]]:
    """What is plotted, in the order of `LOOKS`."""

    def constant(value: Tensor) -> Callable[[Observation], Tensor]:
        return lambda seen: seen.of(value).expand_as(seen.times)

    def grown(value: Tensor) -> Callable[[Observation], Tensor]:
        return lambda seen: seen.of(value / total_gap(solution)) * total_product(seen)

    paper, svm = mu(solution), mu_svm(solution)
    return [lambda seen: seen.dominance(2), constant(paper), grown(paper), constant(svm), grown(svm)]


def draw(measured: Measured) -> Figure:
    """A panel for each kind of data."""
    figure, axes = panels(2, 1, 4.0, sharex=True)
    for panel, (kind, curves) in zip(axes, measured.items(), strict=True):
        for name, (times, values) in curves.items():
            colour, line = LOOKS[name]
            panel.plot(times, values, line, color=colour, label=name if panel is axes[0] else None)
        panel.set_yscale("log")
        panel.set_title("orthogonally separable data" if kind == "separable" else f"{kind} data")
        panel.set_ylabel("ratio and bounds")
        log_time_axis(panel, FIRST, curves[RATIO][0][-1].item())
        grid(panel)
    axes[0].set_xlabel("")
    figure.legend(loc="outside upper left", ncols=2)
    return figure
