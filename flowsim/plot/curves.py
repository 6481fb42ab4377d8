"""What is observed of a run, over time: a line for each trajectory, or the median and the spread of many."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from flowsim import observables
from flowsim.flow import Flow
from flowsim.plot.seen import Run, Seen, axes_or_new, see
from flowsim.plot.theme import BLACK, BLUE, COLOURS, ORANGE, RULES, SHADE, grid
from flowsim.weights import NetworkWeights

LINES = 8
"""So many trajectories have a line each; more are drawn as their median, with a band for the middle half and one for
all of them."""

WEIGHTS = 200
"""So many output weights are drawn by `signs`."""

DECADES = math.log(10)

STOPPED: dict[str, Any] = {"marker": "x", "linestyle": "", "color": BLACK, "markersize": 5, "zorder": 3}
"""The mark where a trajectory stopped before its end."""


def loss(run: Run, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Draw the loss L(t), on a logarithmic scale where it falls by more than a factor of 10.

    Up to 8 trajectories have a line each; of more, the line is the median, the bands are the middle half and all of
    them. A cross is where a trajectory stopped early. Runs of several rules on the same axes have the colours of their
    rules. In logarithmic time, log10 L is drawn, which may be below all floating-point numbers.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.
        label: of the legend; the rule's name if None.

    Returns:
        the axes.

    Raises:
        ValueError: if run is neither a solution nor a file with one, or ax no axes.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> axes = loss(solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0))
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('time $t$', 'loss $L$')
    """
    seen, axes = see(run), axes_or_new(ax)
    label, colour = label or seen.rule, _colours(axes, seen)[0]
    if seen.solution.settings.logarithmic:
        (values,) = seen.observe(lambda flow, weights: (flow.log_risk(weights) / DECADES,))
        axes.set_ylabel(r"loss: $\log_{10} L$")
    else:
        (values,) = seen.observe(lambda flow, weights: (flow.risk(weights),))
        positive = bool((values > 0).all())
        if positive and (values.min() < 0.1 * values.max() or axes.get_yscale() == "log"):
            axes.set_yscale("log")
        axes.set_ylabel("loss $L$")
    draw(axes, seen, values, colour, label)
    return _finished(axes, seen)


def alignment(run: Run, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    r"""Draw the cosines of forward and feedback weights, cos(W_l, B_l) of the layers l = 2 .. H+1 (Definition 4.1).

    Dotted lines are the bounds that the paper proves, where its hypotheses hold: 1/sqrt(N_l) under sign-FA
    (Proposition 5.3), and min |b_j| / |b|, which is 1/sqrt(m) for b_j = +-1, under FA with all c_j >= 0 (Lemma 5.4).
    Several trajectories and runs as in `loss`; layers have colours of their own.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.
        label: of the legend; the rule's name, or the layer, if None.

    Returns:
        the axes.

    Raises:
        ValueError: as for `loss`, or if the feedback is direct past other layers.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> alignment(solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0)).get_ylabel()
    'alignment $\\cos(v, b)$'
    """
    seen, axes = see(run), axes_or_new(ax)
    cosines = seen.observe(observables.alignment)
    layers, colours = len(cosines), _colours(axes, seen, len(cosines))
    for number, (values, colour) in enumerate(zip(cosines, colours, strict=True), 2):
        name = f"layer {number}" if layers > 1 else seen.rule
        draw(axes, seen, values, colour, name if label is None else f"{label}, {name}" if layers > 1 else label)
    for values, colour in zip(observables.alignment_bound(seen.everyone, seen.start), colours, strict=True):
        _draw_bound(axes, seen, values.cpu(), colour)
    axes.axhline(0, color=SHADE, linewidth=0.5)
    axes.set_ylim(top=1.04)
    scalar = seen.start.layers[-1].shape[-2] == 1
    axes.set_ylabel(rf"alignment $\cos({'v, b' if layers == 1 and scalar else 'W_l, B_l'})$")
    return _finished(axes, seen)


def _draw_bound(axes: Axes, seen: Seen, bounds: Float[Tensor, " ensemble"], colour: str) -> None:
    """The bounds of trajectories that have one: each of up to LINES, or the smallest."""
    known = bounds[~bounds.isnan()]
    if not len(known):
        return
    (*_, last), many = seen.start.layers, len(seen.start.layers) > 2
    equal = torch.allclose(known, torch.full_like(known, last.shape[-1] ** -0.5), rtol=1e-12)
    of_output = r"$1/\sqrt{m}$" if equal else r"min $|b_j|/|b|$"
    name = r"$1/\sqrt{N_l}$" if many or last.shape[-2] > 1 else of_output
    if len(known) < seen.count:
        name += f" ({len(known)} of {seen.count})"
    different = torch.unique(known)
    for bound in different.tolist() if len(different) <= LINES else [different[0].item()]:
        axes.axhline(bound, color=colour, linestyle=":", label=_if_new(axes, name))


def conserved(run: Run, ax: Axes | None = None) -> Axes:
    """Draw by how much what Theorem 5.2 says is constant has changed, beside the estimated error of the solution.

    Solid: the largest |c_j(t) - c_j(0)| over the neurons j of each hidden layer that has the law, with
    c_j = Psi(W_{l+1}[:, j]) - |W_l[j, :]|^2 / 2. Dashed: the error of c_j that follows from `Solution.error`, rounding
    included, to first order, at t and at 0; of several trajectories the largest. The solid line should be below the
    dashed one, unless weight decay or an activation that is not homogeneous breaks the law. Where nothing has changed
    at all there is nothing to draw on a logarithmic scale. The companion solve costs as much as the solution did.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.

    Returns:
        the axes.

    Raises:
        ValueError: as for `loss`, or if the rule conserves nothing.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> axes = conserved(solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0))
    >>> [line.get_label() for line in axes.lines]
    ['deviation', 'estimated error']
    """
    seen, axes = see(run), axes_or_new(ax)
    deviations, errors, layers = conserved_and_errors(seen)
    colours = _colours(axes, seen, len(layers))
    axes.set_yscale("log")
    for number, values, error, colour in zip(layers, deviations, errors, colours, strict=True):
        name = f"layer {number}" if len(seen.start.layers) > 2 else "deviation"
        draw(axes, seen, values.masked_fill(values == 0, torch.nan), colour, name)
        label = _if_new(axes, "estimated error")
        axes.plot(seen.times, error.amax(1), "--", color=colour, linewidth=0.9, label=label)
    axes.set_ylabel("deviation $|c_j(t) - c_j(0)|$")
    return _finished(axes, seen, legend="lower right")


def conserved_and_errors(
    seen: Seen,
) -> tuple[list[Float[Tensor, "times ensemble"]], list[Float[Tensor, "times ensemble"]], list[int]]:
    """The largest |c_j(t) - c_j(0)| of each hidden layer with a law, its estimated error, and which layers these are.

    The gradient of Psi is the feedback (Theorem 5.2), so that errors e of the weights, the same for all of a layer,
    are errors up to e_{l+1} |B_{l+1}[:, j]|_1 + e_l |W_l[j, :]|_1 of c_j.
    """
    layers = seen.layers_with_law
    gaps = seen.observe(lambda flow, weights: observables.conserved(flow, weights, layers))

    def reach(flow: Flow, weights: NetworkWeights) -> list[Tensor]:
        feedback = flow.rule.feedback_matrices(weights)
        norms = [weights.layers[number - 1].abs().sum(-1) for number in layers]
        above = [feedback[number - 1].abs().sum(-2).expand_as(norm) for number, norm in zip(layers, norms, strict=True)]
        return [*norms, *above]

    reached = seen.observe(reach)
    parts = [[layer[..., 0, :1].cpu() for layer in seen.errors(part).layers] for part in seen.parts]
    error = [torch.cat(columns, 1) for columns in zip(*parts, strict=True)]
    errors = []
    for number, below, above in zip(layers, reached[: len(layers)], reached[len(layers) :], strict=True):
        at = (error[number] * above + error[number - 1] * below).amax(-1)
        errors.append(at + at[0])
    return [(gap - gap[0]).abs().amax(-1) for gap in gaps], errors, layers


def signs(run: Run, ax: Axes | None = None) -> Axes:
    """Draw the output weights over time, times the sign that they should keep: those that change it are dashed.

    Under FA b_j v_j(t), which stays above 0 where all c_j >= 0 (Lemma 5.4, Dale's principle); under rules without
    fixed feedback v_j(t) sign(v_j(0)). A line for each entry of the output layer and each trajectory;
    of more than 200 those that are evenly spread from the one that comes lowest to the one that stays highest.

    Args:
        run: a solution, or the path of a saved one.
        ax: where to; a new figure of pyplot if None.

    Returns:
        the axes.

    Raises:
        ValueError: as for `loss`.

    >>> from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
    >>> import matplotlib; matplotlib.use("agg")
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> signs(solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), t_final=2.0)).get_ylabel()
    'output weights $b_j v_j$'
    """
    seen, axes = see(run), axes_or_new(ax)
    kept, symbol = _kept_signs(seen)
    (values,) = seen.observe(lambda flow, weights: (weights.layers[-1],))
    products = (values * kept.cpu()).flatten(2)
    lowest = products.amin(0)
    chosen = spread(lowest.flatten(), WEIGHTS)
    looks = {True: (BLUE, "-", "keeps its sign"), False: (ORANGE, "--", "at times the other sign")}
    for place in chosen.flip(0).tolist():  # the lowest on top
        index, entry = divmod(place, lowest.shape[-1])
        colour, line, label = looks[bool(lowest[index, entry] >= 0)]
        curve = products[:, index, entry]
        axes.plot(seen.at[:, index], curve, line, color=colour, linewidth=0.9, label=_if_new(axes, label))
        if seen.stopped[index]:
            _mark_stop(axes, seen, index, curve)
    axes.axhline(0, color=SHADE, linewidth=0.6)
    axes.set_ylabel(f"output weights {symbol}")
    _finished(axes, seen)
    if lowest.numel() > WEIGHTS:
        axes.set_xlabel(f"{axes.get_xlabel()} ({WEIGHTS} of {lowest.numel()} weights)")
    return axes


def spread(values: Float[Tensor, " many"], most: int) -> Int[Tensor, " some"]:
    """Which to draw: all in order of their values, or so many that are evenly spread from smallest to largest.

    >>> spread(torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), 3).tolist()
    [1, 0, 3]
    """
    order = values.argsort(stable=True)
    return order[torch.linspace(0, len(order) - 1, min(most, len(order))).round().long()]


def _kept_signs(seen: Seen) -> tuple[Float[Tensor, "ensemble k m"], str]:
    """What output weights are multiplied with, and their symbol."""
    rule, output = seen.everyone.rule, seen.start.layers[-1]
    vector = output.shape[-2] > 1
    if rule.fixed and rule.at_zero == "nothing":
        return rule.feedback_matrices(seen.start)[-1].expand_as(output), "$B_{kj} V_{kj}$" if vector else "$b_j v_j$"
    entry = "V_{kj}" if vector else "v_j"
    return torch.where(output < 0, -1.0, 1.0).to(output), rf"${entry} \, \mathrm{{sign}} \, {entry}(0)$"


def draw(axes: Axes, seen: Seen, values: Float[Tensor, "times ensemble"], colour: str, label: str) -> None:
    """Draw values along every trajectory: as lines, or as median, middle half and all of them."""
    if seen.count <= LINES:
        for index in range(seen.count):
            axes.plot(seen.at[:, index], values[:, index], color=colour, label=None if index else label)
    else:
        there = values.masked_fill(seen.beyond, torch.nan)
        shares = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=values.dtype)
        lowest, low, median, high, highest = torch.nanquantile(there, shares, dim=1)
        axes.fill_between(seen.times, lowest, highest, color=colour, alpha=0.15, linewidth=0)
        axes.fill_between(seen.times, low, high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(seen.times, median, color=colour, label=f"{label}, median of {seen.count}")
    for index in torch.nonzero(torch.tensor(seen.stopped)).flatten().tolist():
        _mark_stop(axes, seen, index, values[:, index])


def _mark_stop(axes: Axes, seen: Seen, index: int, curve: Float[Tensor, " times"]) -> None:
    axes.plot(seen.reached[index], curve[-1], **STOPPED, label=_if_new(axes, "stopped"))


def _if_new(axes: Axes, label: str) -> str | None:
    """The label, unless something on the axes has it."""
    return None if label in axes.get_legend_handles_labels()[1] else label


def _colours(axes: Axes, seen: Seen, count: int = 1) -> list[str]:
    """Colours that no line on the axes has: the rule's first, if there is one curve."""
    taken = {line.get_color() for line in axes.lines}
    own = [RULES.get(seen.rule, BLUE)] if count == 1 else []
    free = [colour for colour in dict.fromkeys([*own, *COLOURS]) if colour not in taken]
    return list(itertools.islice(itertools.cycle(free or COLOURS), count))


def _finished(axes: Axes, seen: Seen, legend: Any = "best") -> Axes:
    """With time, faint lines, and a legend where there is more than one name."""
    seen.time_axis(axes)
    grid(axes)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc=legend)
    return axes
