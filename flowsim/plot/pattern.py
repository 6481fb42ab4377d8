"""Which sample is active, inactive or sliding at which neuron, over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from flowsim.events import Events
from flowsim.plot.seen import Run, Seen, axes_or_new, see
from flowsim.plot.theme import BLACK, BLUE, GREY, ORANGE
from flowsim.validation import require_count

Thing = TypeVar("Thing")

ROWS = 120
"""So many rows are drawn, a neuron having as many as there are samples."""

GAP = 1
"""Rows between neurons."""

SEPARATED = 60
"""Up to so many rows have white lines between them."""


class Pattern(NamedTuple):
    """The sides of kinks of some neurons and samples between edges in time: 1 active, -1 inactive, 0 sliding.

    Neurons are pairs of hidden layer, from 1, and number, from 0.
    """

    edges: Float[Tensor, " pieces_and_one"]
    sides: Int[Tensor, "pieces neurons samples"]
    neurons: list[tuple[int, int]]
    samples: list[int]
    events: Events


def activations(run: Run, ax: Axes | None = None, *, trajectory: int = 0) -> Axes:
    """Draw on which side of its kink z_ij = 0 each sample i is at each hidden neuron j, or that it slides along it.

    Blocks of rows are neurons, their rows samples. Dots are events; a triangle above a block is a change of the sign of
    an outgoing weight of the neuron. At most 120 rows: where there are more, the neurons with the most events, as many
    as fit, and of more than 120 samples those with the most events; what is drawn of them is said below. A dotted
    line is where the trajectory stopped early.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.
        trajectory: which one of the flattened ensemble.

    Returns:
        the axes.

    Raises:
        ValueError: if run is neither a solution nor a file with one, ax no axes, or there is no such trajectory.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0], [-1.0]], [1, 1]), FeedbackAlignment([1.0]))
    >>> axes = activations(solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0))
    >>> axes.get_ylabel()
    'neuron $j$ (rows: samples $i$)'
    """
    seen, axes = see(run), axes_or_new(ax)
    trajectory = require_count("trajectory", trajectory, least=0, most=seen.count - 1)
    found = pattern(seen, trajectory)
    rows = len(found.samples)
    tops = [place * (rows + GAP) for place in range(len(found.neurons))]
    colours = ListedColormap([GREY, ORANGE, BLUE])
    for place, top in enumerate(tops):
        borders = range(top, top + rows + 1)
        block = found.sides[:, place].T.numpy() + 1
        axes.pcolormesh(found.edges.numpy(), borders, block, cmap=colours, vmin=0, vmax=2, linewidth=0)
        for border in borders if len(tops) * rows <= SEPARATED else ():
            axes.axhline(border, color="white", linewidth=0.3)
    _draw_events(axes, found, tops)
    if seen.stopped[trajectory]:
        axes.axvline(found.edges[-1].item(), color=BLACK, linestyle=":", linewidth=0.9)
    seen.time_axis(axes)
    _label_rows(axes, seen, found, tops)
    return axes


def pattern(seen: Seen, trajectory: int) -> Pattern:
    """The pattern in the middle of every piece, which does not change within one, of the rows that are drawn."""
    solution = seen.solution
    own = solution.pieces.trajectory == trajectory
    start, end = solution.pieces.start[own], solution.pieces.end[own]
    middle = (start + end) / 2
    layers = solution.pattern(middle, torch.full_like(middle, trajectory, dtype=torch.long))
    events = solution.events[solution.events.trajectory == trajectory]
    every = [(layer, neuron) for layer, sides in enumerate(layers, 1) for neuron in range(sides.shape[-1])]
    samples = _busiest(range(layers[0].shape[-2]), events.sample.tolist(), ROWS)
    at_neurons = list(zip(events.layer.tolist(), events.neuron.tolist(), strict=True))
    neurons = _busiest(every, at_neurons, max(1, ROWS // len(samples)))
    sides = torch.stack([layers[layer - 1][:, samples, neuron] for layer, neuron in neurons], 1).cpu()
    changes = torch.ones(len(sides), dtype=torch.bool)
    changes[1:] = (sides[1:] != sides[:-1]).flatten(1).any(1)
    edges = torch.cat([start.cpu()[changes], end.cpu()[-1:]])
    return Pattern(edges, sides[changes], neurons, samples, events)


def _busiest(things: Sequence[Thing], happened: Iterable[Thing], most: int) -> list[Thing]:
    """As many of the things as are wanted, in their order: those to which most happened, the first of equals.

    >>> _busiest("abc", "ccbb", 1), _busiest("abc", "ccb", 2)
    (['b'], ['b', 'c'])
    """
    counts = Counter(happened)
    chosen = set(sorted(things, key=lambda thing: -counts[thing])[:most])
    return [thing for thing in things if thing in chosen]


def _draw_events(axes: Axes, found: Pattern, tops: list[int]) -> None:
    """A dot in the row of each kink that is met, a triangle above the block of a neuron for a change of sign."""
    top_of, row_of = dict(zip(found.neurons, tops, strict=True)), {s: row for row, s in enumerate(found.samples)}
    dots, triangles = [], []
    for event in found.events:
        top = top_of.get((event.layer, event.neuron))
        if top is not None and event.sample < 0:
            triangles.append((event.time, top - GAP / 2))
        elif top is not None and event.sample in row_of:
            dots.append((event.time, top + row_of[event.sample] + 0.5))
    for points, marker, size in [(dots, "o", 1.6), (triangles, "v", 3)]:
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=BLACK, markersize=size, clip_on=marker != "v")


def _label_rows(axes: Axes, seen: Seen, found: Pattern, tops: list[int]) -> None:
    rows, deep = len(found.samples), len(seen.start.layers) > 2
    names = [f"{layer}, {neuron + 1}" if deep else str(neuron + 1) for layer, neuron in found.neurons]
    axes.set_ylim(tops[-1] + rows, 0)
    axes.set_yticks([top + 0.5 * rows for top in tops], names)
    axes.tick_params(axis="y", length=0)
    neurons = sum(layer.shape[-2] for layer in seen.start.layers[:-1])
    samples = seen.solution.flow.dataset.samples
    left_out = [
        f"{len(shown)} of {count} {name}"
        for shown, count, name in [(found.neurons, neurons, "neurons"), (found.samples, samples, "samples")]
        if len(shown) < count
    ]
    if left_out:
        axes.set_xlabel(f"{axes.get_xlabel()} ({', '.join(left_out)}, by events)")
    axes.set_ylabel(f"{'layer $l$, ' if deep else ''}neuron $j$ (rows: samples $i$)")


def legend_handles() -> list[Line2D | Patch]:
    """What the colours and marks of `activations` mean, for a legend outside of the axes, which are full.

    >>> [handle.get_label() for handle in legend_handles()]
    ['active', 'inactive', 'sliding', 'event']
    """
    sides = {"active": BLUE, "inactive": GREY, "sliding": ORANGE}
    return [
        *(Patch(color=colour, label=name) for name, colour in sides.items()),
        Line2D([], [], color=BLACK, marker="o", markersize=2, linestyle="", label="event"),
    ]
