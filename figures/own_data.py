"""Runs on data of one’s own.

FA, sign-FA and GD from the same weights (FA if there is feedback), a panel for each rule, as `flowsim.plot` draws it:
output weights and whether they keep their signs (Lemma 5.4), cosines with the bounds that are proved, changes of what
Theorem 5.2 says is constant beside their estimated errors, neurons on their curves of equal c, and activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import panels
from flowsim import Solution, plot
from flowsim.plot.pattern import legend_handles
from flowsim.problems import Init, Source
from theorems import own_data

PLOTS: dict[str, Callable[[Solution, Axes], Axes]] = {
    "conserved_manifold": plot.phase,
    "conservation": plot.conserved,
    "alignment": plot.alignment,
    "signs": plot.signs,
    "activations": plot.activations,
}
"""Figures that there are of any problem, by name."""

OF_THEIR_OWN = {
    "dominance": "its bounds are proved for separable and nearly orthogonal data; flowsim check has them",
    "convergence": "its bounds are proved for separable and nearly orthogonal data; flowsim check has them",
    "no_plateau": "it runs one problem from weights of many sizes",
    "work_precision": "it compares methods on a problem with a known solution",
    "calibration": "it is about many random problems",
    "implicit_bias": "its limits are known for orthogonally separable data",
    "overview": "flowsim simulate FILE --plot PAGE draws it",
}
"""Why there is no figure of another problem."""

TITLES = {"fa": "FA", "sign-fa": "sign-FA", "gd": "GD"}
HEIGHT = 1.7
"""Inches of a panel."""


def require_drawable(names: list[str]) -> list[str]:
    """Return the names of figures to draw, all there are if none is given.

    Raises:
        ValueError: naming one that is not drawn of other data.

    >>> require_drawable(["signs", "calibration"])
    Traceback (most recent call last):
        ...
    ValueError: calibration does not go with --data: it is about many random problems
    """
    for name in names:
        if name not in PLOTS:
            raise ValueError(f"{name} does not go with --data: {OF_THEIR_OWN[name]}")
    return names or list(PLOTS)


def measure(source: Source, init: Init | None) -> dict[str, Solution]:
    """The runs by rule; errors as in `theorems.own_data.problems`."""
    return {rule: run() for rule, run in own_data.runs(source, init=init).items()}


def draw(name: str, measured: Mapping[str, Solution]) -> Figure:
    """A panel for each rule, one above the other."""
    figure, axes = panels(len(measured), 1, HEIGHT * len(measured))
    for panel, (rule, run) in zip(axes, measured.items(), strict=True):
        PLOTS[name](run, panel).set_title(TITLES[rule])
    if name == "activations":
        figure.legend(handles=legend_handles(), loc="outside upper left", ncols=4)
    return figure
