"""The plane in which each neuron stays on a curve: the norm of its weights in, and its weight out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from flowsim import observables
from flowsim.flow import Flow
from flowsim.plot.curves import STOPPED, spread
from flowsim.plot.seen import TIMES, Run, Seen, axes_or_new, see
from flowsim.plot.theme import BLUE, COLOURS, RULES, SHADE
from flowsim.validation import require_count
from flowsim.weights import NetworkWeights

NEURONS = 60
"""So many are drawn."""

CURVE = 600
"""Points of a curve of equal c."""


class Plane(NamedTuple):
    """Neurons of some trajectories, one column each."""

    norm: Float[Tensor, "times neurons"]
    """|w_j|, on the horizontal axis."""
    height: Float[Tensor, "times neurons"]
    """v_j, or Psi."""
    curves: tuple[Float[Tensor, "points neurons"], Float[Tensor, "points neurons"]]
    """|w_j| and height on the curve of equal c; NaN where there is none."""
    trajectory: list[int]
    colour: list[str]
    labels: tuple[str, str]
    whole: int
    """How many neurons there are."""


def phase(run: Run, ax: Axes | None = None) -> Axes:
    """Draw the path of each hidden neuron in the plane of |w_j| and v_j, with the curves of equal c (Theorem 5.2).

    A dot is the start, and a cross where a trajectory stopped early. Grey is the curve
    |w_j|^2 / 2 = Psi(v_j) - c_j(0), on which the neuron stays. With several layers or outputs Psi(W_{l+1}[:, j])
    stands in the place of v_j, which is b_j v_j for a scalar output under FA, and layers have colours of their own. The
    neurons of all trajectories are drawn; of more than 60 those that are evenly spread from the smallest c_j to the
    largest.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.

    Returns:
        the axes.

    Raises:
        ValueError: if run is neither a solution nor a file with one, ax no axes, or the rule conserves nothing.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> axes = phase(solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0))
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('$|w_j|$', '$v_j$')
    """
    seen, axes = see(run), axes_or_new(ax)
    _draw_paths(seen, axes, plane(seen))
    return axes


def animate(run: Run, ax: Axes | None = None, *, frames: int = 100) -> FuncAnimation:
    """Move the neurons of `phase` along their curves, through times that are as far apart as other plots show them.

    The animation must be kept until it is saved or shown: `animate(solution).save("run.gif", writer="pillow", dpi=100)`
    writes a GIF of 20 frames a second.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.
        frames: how many.

    Returns:
        the animation.

    Raises:
        ValueError: as for `phase`, or if frames is not between 2 and 300.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import io, matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> solution = solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0)
    >>> len(animate(solution, frames=2).to_jshtml()) > 1000
    True
    """
    seen, axes = see(run), axes_or_new(ax)
    frames = require_count("frames", frames, least=2, most=TIMES)
    found = plane(seen)
    paths = _draw_paths(seen, axes, found)
    places = torch.linspace(0, len(seen.times) - 1, frames).round().long().tolist()
    points = [axes.plot([], [], "o", color=path.get_color(), markersize=5, zorder=4)[0] for path in paths]
    title = axes.set_title(" ")

    def show(place: int) -> list[Artist]:
        for number, (path, point) in enumerate(zip(paths, points, strict=True)):
            norm, height = found.norm[: place + 1, number], found.height[: place + 1, number]
            path.set_data(norm, height)
            point.set_data(norm[-1:], height[-1:])
        title.set_text(f"${seen.symbol} = {seen.times[place].item():.3g}$")
        return [*paths, *points, title]

    return FuncAnimation(axes.figure.canvas.figure, show, frames=places, interval=50)


def plane(seen: Seen) -> Plane:
    """What `phase` draws, of at most NEURONS neurons."""
    start, layers = seen.start, seen.layers_with_law
    gaps = observables.conserved(seen.everyone, start, layers)
    of_output = len(start.layers) == 2 and start.layers[-1].shape[-2] == 1

    def where(flow: Flow, weights: NetworkWeights) -> list[Tensor]:
        norms = [weights.layers[number - 1].norm(dim=-1) for number in layers]
        if of_output:
            return [*norms, weights.layers[-1].squeeze(-2)]
        pairs = zip(observables.conserved(flow, weights, layers), norms, strict=True)
        return [*norms, *(gap + 0.5 * norm.square() for gap, norm in pairs)]

    found = seen.observe(where)
    gap = torch.cat([values.flatten() for values in gaps]).cpu()
    chosen = spread(gap, NEURONS)
    norm, height = (
        torch.cat([values.flatten(1) for values in some], 1)[:, chosen]
        for some in (found[: len(layers)], found[len(layers) :])
    )
    low, high = height.min().item(), height.max().item()
    margin = 0.05 * (high - low or 1.0)
    heights = torch.linspace(low - margin, high + margin, CURVE, dtype=torch.float64)
    potential = heights.unsqueeze(-1).expand(-1, len(gap))
    if of_output:
        output = heights.reshape(-1, 1, 1, 1).expand(-1, *start.layers[-1].shape).to(start.layers[-1])
        on_grid = start.with_layers([start.layers[0].expand(CURVE, *start.layers[0].shape), output])
        (gaps_on_grid,) = observables.conserved(seen.everyone, on_grid)
        potential = (gaps_on_grid + 0.5 * start.layers[0].square().sum(-1)).flatten(1).cpu()
    widths = [values.shape[-1] for values in gaps]
    owners = torch.cat([torch.arange(seen.count).repeat_interleave(width) for width in widths])[chosen]
    colours = [
        RULES.get(seen.rule, BLUE) if len(layers) == 1 else COLOURS[place % len(COLOURS)]
        for place, width in enumerate(widths)
        for _ in range(seen.count * width)
    ]
    return Plane(
        norm,
        height,
        (_norm_on_curve(2 * (potential - gap)[:, chosen]), heights),
        owners.tolist(),
        [colours[place] for place in chosen.tolist()],
        ("$|w_j|$", "$v_j$") if of_output else ("$|W_l[j, :]|$", r"$\Psi(W_{l+1}[:, j])$"),
        len(gap),
    )


def _norm_on_curve(squares: Float[Tensor, "points neurons"]) -> Float[Tensor, "points neurons"]:
    """The root of |w_j|^2 at the heights: NaN where it is below 0, but for the heights beside those where it is not."""
    there = squares >= 0
    beside = there.clone()
    beside[1:] |= there[:-1]
    beside[:-1] |= there[1:]
    return torch.where(beside, squares.clamp(min=0).sqrt(), torch.nan)


def _draw_paths(seen: Seen, axes: Axes, found: Plane) -> list[Line2D]:
    """Draw curves, paths and starts; return the paths."""
    norms, heights = found.curves
    axes.plot(norms, heights, color=SHADE, linewidth=0.5, zorder=1)
    paths = []
    for place, (index, colour) in enumerate(zip(found.trajectory, found.colour, strict=True)):
        norm, height = found.norm[:, place], found.height[:, place]
        paths += axes.plot(norm, height, color=colour)
        axes.plot(norm[0], height[0], "o", color=colour, markersize=3)
        if seen.stopped[index]:
            axes.plot(norm[-1], height[-1], **STOPPED)
    axes.set_xlim(0, 1.05 * found.norm.max().item() or 1.0)
    axes.set_ylim(heights[0].item(), heights[-1].item())
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    across, up = found.labels
    some = f" ({len(paths)} of {found.whole} neurons)" if len(paths) < found.whole else ""
    axes.set_xlabel(f"{across}{some}")
    axes.set_ylabel(up)
    return paths
