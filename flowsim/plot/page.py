"""A page with all plots of a run."""

from __future__ import annotations

import textwrap

from matplotlib import pyplot
from matplotlib.figure import Figure

from flowsim.errors import UndefinedError
from flowsim.losses import named
from flowsim.plot import curves, pattern, plane
from flowsim.plot.seen import Run, Seen, see
from flowsim.plot.theme import style

SIZE = (7.0, 4.34)
"""Inches: two columns of a paper with what is between them."""

DPI = 150
"""Of a window, and of a file where `savefig` is told no other."""

PLOTS = {
    "Loss": curves.loss,
    "Alignment": curves.alignment,
    "Conserved (Theorem 5.2)": curves.conserved,
    "Signs": curves.signs,
    "Neurons": plane.phase,
    "Activations": pattern.activations,
}
"""By title, row by row."""


def overview(run: Run) -> Figure:
    """Draw a page of a run: loss, alignment, what is conserved, signs, phase and activations.

    Of an ensemble the activations are those of its first trajectory. In the place of a plot that there is not for the
    rule stands why. It is drawn in `style()`, in which `.savefig("run.png")` writes the page
    as it is meant: how dense ticks are is decided then.

    Args:
        run: a solution, or the path of a saved one.

    Returns:
        a new figure of pyplot.

    Raises:
        ValueError: if run is neither a solution nor the path of a file with one.

    >>> import matplotlib, torch; matplotlib.use("agg")
    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> solution = solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0)
    >>> [axes.get_title() for axes in overview(solution).axes][:3]
    ['Loss', 'Alignment', 'Conserved (Theorem 5.2)']
    """
    seen = see(run)
    with style():
        return _drawn(seen)


def _drawn(seen: Seen) -> Figure:
    """The page."""
    figure, panels = pyplot.subplots(2, 3, figsize=SIZE, dpi=DPI, layout="constrained")
    for axes, (title, draw) in zip(panels.flat, PLOTS.items(), strict=True):
        axes.set_title(title)
        try:
            draw(seen, axes)
        except UndefinedError as error:
            axes.clear()
            axes.set_axis_off()
            axes.set_title(title)
            axes.text(0.5, 0.5, textwrap.fill(str(error), 36), ha="center", va="center", transform=axes.transAxes)
    figure.legend(handles=pattern.legend_handles(), loc="outside lower right", ncols=4)
    figure.suptitle(_described(seen))
    return figure


def _described(seen: Seen) -> str:
    """The rule, the loss, the sizes."""
    flow, layers = seen.solution.flow, seen.start.layers
    widths = ", ".join(str(layer.shape[-2]) for layer in layers[:-1])
    sizes = f"n = {flow.dataset.samples}, d = {flow.dataset.dimension}, m = {widths}"
    outputs = f", {layers[-1].shape[-2]} outputs" if layers[-1].shape[-2] > 1 else ""
    slope = flow.activation.leaky_slope
    phi = repr(flow.activation) if slope is None else f"slope {slope:g}"
    decay = f", decay {flow.decay:g}" if flow.decay else ""
    many = f"; {seen.count} trajectories" if seen.count > 1 else ""
    return f"{seen.rule}, {named(flow.loss).name} loss, {phi}{decay}; {sizes}{outputs}{many}"
