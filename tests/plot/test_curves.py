"""Curves over time: what is drawn is what numpy computes from the weights, and ends where trajectories end."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from sample_problems import gaussian_data, separable

from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    Weights,
    plot,
    solve,
)
from flowsim.initialization import deep_gaussian
from flowsim.plot.curves import LINES, WEIGHTS
from flowsim.plot.theme import RULES


def data_of(line: Line2D) -> tuple[Any, np.ndarray]:
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


def solid(axes: Axes) -> list[Line2D]:
    """The curves: no dashed ones, no bounds, no marks, no axes."""
    return [line for line in axes.get_lines() if line.get_linestyle() == "-" and len(data_of(line)[0]) > 2]


def labelled(axes: Axes, start: str) -> list[Line2D]:
    return [line for line in axes.get_lines() if str(line.get_label()).startswith(start)]


def own_loss(weights: Any, flow: Flow, index: int | None = None) -> np.ndarray:
    """mean exp(-y f) of two-layer weights `times x m x d`."""
    inputs, labels = flow.dataset.inputs.numpy(), flow.dataset.labels.numpy()
    if index is not None and inputs.ndim > 2:
        inputs, labels = inputs[index], labels[index]
    z = np.einsum("tmd,nd->tnm", weights.hidden.numpy(), inputs)
    outputs = np.einsum("tnm,tm->tn", np.where(z > 0, z, flow.slope * z), weights.output.numpy())
    return np.exp(-labels * outputs).mean(-1)


def three() -> Solution[Weights]:
    return solve(*separable(3), 50.0)


def deep(outputs: int = 1) -> Solution[DeepWeights]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    labels: Any = [1, -1, 1, 1, -1] if outputs == 1 else [0, 1, 2, 0, 1]
    dataset = Dataset(inputs, labels, classes=None if outputs == 1 else outputs)
    rule = FeedbackAlignment(deep_gaussian((4, 6, 5, outputs), 1).layers[1:])
    loss = "logistic" if outputs == 1 else "cross-entropy"
    return solve(Flow(dataset, rule, loss), deep_gaussian((4, 6, 5, outputs), 0), 10.0)


def stopped() -> Solution[Weights]:
    """Trajectories that come to different times."""
    solution = solve(*gaussian_data("fa", 3, samples=8, dimension=5, width=4), 100.0, max_steps=40, throw=False)
    assert len(set(solution.status.time.tolist())) == 3 and not solution.status.ended.any()
    return solution


# --- loss ---


def test_loss_of_few_trajectories_is_a_line_for_each() -> None:
    solution = three()
    lines = solid(plot.loss(solution))
    assert len(lines) == 3
    for index, line in enumerate(lines):
        times, values = data_of(line)
        assert times[0] == 0 and times[-1] == 50.0
        weights = solution[index].evaluate(times)
        np.testing.assert_allclose(values, own_loss(weights, solution.flow, index), rtol=1e-9)


def test_loss_of_many_trajectories_is_their_median_and_two_bands() -> None:
    solution = solve(*separable(LINES + 3), 10.0)
    axes = plot.loss(solution)
    (line,) = solid(axes)
    times, median = data_of(line)
    every = np.stack([own_loss(solution[k].evaluate(times), solution.flow, k) for k in range(LINES + 3)])
    np.testing.assert_allclose(median, np.median(every, 0), rtol=1e-9)
    whole, half = [band.get_paths()[0].vertices for band in axes.collections]
    for band, low, high in [(whole, every.min(0), every.max(0)), (half, *np.quantile(every, [0.25, 0.75], 0))]:
        middle = len(times) // 2
        at = band[np.isclose(band[:, 0], times[middle], rtol=1e-12), 1]
        np.testing.assert_allclose(sorted(at), [low[middle], high[middle]], rtol=1e-9)
    assert f"median of {LINES + 3}" in str(line.get_label())


def test_loss_in_logarithmic_time_is_that_in_plain_time() -> None:
    flow, weights = separable(1)
    axes = plot.loss(solve(flow, weights, 3.0, time="log"))
    times, values = data_of(solid(axes)[0])
    plain = solve(flow, weights, float(np.expm1(3.0)) * (1 + 1e-12))
    expected = own_loss(plain[0].evaluate(np.expm1(times).tolist()), flow, 0)
    np.testing.assert_allclose(10**values, expected, rtol=1e-8)
    assert "log(1 + t)" in axes.get_xlabel() and axes.get_xscale() == "linear"


def test_loss_below_all_numbers_is_drawn_in_logarithmic_time() -> None:
    _, values = data_of(solid(plot.loss(solve(*separable(1), 2000.0, time="log")))[0])
    assert np.isfinite(values).all() and values[-1] < -800


def test_runs_on_the_same_axes_have_the_colours_of_their_rules_and_a_legend() -> None:
    flow, weights = separable(1)
    axes = plot.loss(solve(flow, weights, 10.0))
    assert axes.get_legend() is None
    for rule in (GradientDescent(), SignFeedbackAlignment()):
        plot.loss(solve(Flow(flow.dataset, rule), weights, 20.0), axes)
    again = plot.loss(solve(Flow(flow.dataset, flow.rule, slope=0.5), weights, 5.0), axes, label="slope 0.5")
    fa, gd, sign, other = [to_hex(line.get_color()) for line in solid(again)]
    assert [fa, gd, sign] == [RULES[name] for name in ("FA", "GD", "sign-FA")] and other not in (fa, gd, sign)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["FA", "GD", "sign-FA", "slope 0.5"]
    assert axes.get_xlim() == (0, 20.0)


def test_adafa_is_told_from_fa() -> None:
    assert labelled(plot.loss(solve(*gaussian_data("adafa", 2, 4, 3, 2), 1.0)), "adaFA")


# --- alignment ---


def test_alignment_is_the_cosine_of_output_and_feedback() -> None:
    solution = three()
    axes = plot.alignment(solution)
    feedback = solution.flow.rule.feedback_matrices(solution.start)[0][:, 0].numpy()
    lines = solid(axes)[:3]
    for b, (index, line) in zip(feedback, enumerate(lines), strict=True):
        times, values = data_of(line)
        v = solution[index].evaluate(times).output.numpy()
        np.testing.assert_allclose(values, v @ b / np.linalg.norm(v, axis=1) / np.linalg.norm(b), rtol=1e-12)


def test_bound_of_lemma_5_4_is_drawn_where_its_hypotheses_hold_only() -> None:
    flow, weights = separable(3)
    (bound,) = labelled(plot.alignment(solve(flow, weights, 1.0)), "$1/")
    assert data_of(bound)[1][0] == pytest.approx(3**-0.5)
    wrong = Weights(weights.hidden, weights.output * torch.tensor([[1.0, 1.0, 0.1], [1, 1, 1], [1, 1, 1]]))
    (bound,) = labelled(plot.alignment(solve(flow, wrong, 1.0)), "$1/")
    assert str(bound.get_label()).endswith("(2 of 3)")
    assert not labelled(plot.alignment(solve(flow, Weights(weights.hidden, -weights.output), 1.0)), "$1/")
    assert not labelled(plot.alignment(solve(Flow(flow.dataset, GradientDescent()), weights, 1.0)), "$1/")
    decay = Flow(flow.dataset, flow.rule, decay=0.1)
    assert not labelled(plot.alignment(solve(decay, weights, 1.0)), "$1/")


def test_bound_of_unequal_feedback_is_its_smallest_share() -> None:
    flow = Flow(Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1]), FeedbackAlignment([1.0, -3.0]))
    weights = Weights(torch.tensor([[0.1, 0.2], [0.2, 0.1]]), torch.tensor([1.0, -1.0]))
    (bound,) = labelled(plot.alignment(solve(flow, weights, 5.0)), "min")
    assert data_of(bound)[1][0] == pytest.approx(10**-0.5)


def test_layers_of_deep_networks_are_told_apart_and_bounded_each() -> None:
    fa = deep(outputs=3)
    sign = solve(Flow(fa.flow.dataset, SignFeedbackAlignment(), "cross-entropy"), fa.weights, 2.0)
    for solution, rule in [(fa, fa.flow.rule), (sign, sign.flow.rule)]:
        axes = plot.alignment(solution)
        lines = labelled(axes, "layer")
        assert [line.get_label() for line in lines] == ["layer 2", "layer 3"]
        assert lines[0].get_color() != lines[1].get_color()
        for layer, line in enumerate(lines, 1):
            times, values = data_of(line)
            weights = solution.evaluate(times)
            w, b = weights.layers[layer], rule.feedback_matrices(weights)[layer - 1].expand_as(weights.layers[layer])
            w, b = w.flatten(1).numpy(), b.flatten(1).numpy()
            expected = (w * b).sum(1) / np.linalg.norm(w, axis=1) / np.linalg.norm(b, axis=1)
            np.testing.assert_allclose(values, expected, rtol=1e-12)
    bounds = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert [data_of(bound)[1][0] for bound in bounds] == pytest.approx([30**-0.5, 15**-0.5])


# --- conserved ---


def test_conserved_is_the_largest_change_beside_an_error_that_is_above_it() -> None:
    solution = solve(*separable(1, width=4), 50.0)[0]
    axes = plot.conserved(solution)
    (line,), (dashed,) = labelled(axes, "deviation"), labelled(axes, "estimated")
    times, values = data_of(line)
    weights, b = solution.evaluate(times), solution.flow.rule.feedback_matrices(solution.start)[0][0].numpy()
    w, v = weights.hidden.numpy(), weights.output.numpy()
    gaps = b * v - 0.5 * (w**2).sum(-1)
    expected = abs(gaps - gaps[0]).max(-1)
    drawn = ~np.isnan(values)
    np.testing.assert_allclose(values[drawn], expected[drawn], rtol=0, atol=1e-15)
    assert (expected[~drawn] == 0).all() and drawn.sum() > 200
    error = solution.error(times)
    of_gap = (error.output.numpy() * abs(b) + error.hidden.numpy()[..., 0] * abs(w).sum(-1)).max(-1)
    np.testing.assert_allclose(data_of(dashed)[1], of_gap + of_gap[0], rtol=1e-12)
    assert (expected <= data_of(dashed)[1]).all()


@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
def test_estimated_error_of_what_is_conserved_is_what_errors_of_the_weights_do_to_it(rule: str) -> None:
    flow, weights = gaussian_data(rule, 1, 6, 4, 3)
    solution = solve(flow, weights, 5.0)[0]
    (dashed,) = labelled(plot.conserved(solution), "estimated")
    at, error = solution.evaluate(5.0), solution.error(5.0)
    by = error.output[0].item(), error.hidden[0, 0].item()
    largest = 0.0
    for sign in (-1.0, 1.0):  # moved as far as it can be, scaled up for rounding
        scale = 1e-6 / max(by)
        output = at.output + sign * scale * by[0] * solution.flow.rule.feedback_matrices(at)[0][0].sign()
        hidden = at.hidden - sign * scale * by[1] * at.hidden.sign()
        moved = plot_free_gaps(solution.flow, Weights(hidden, output)) - plot_free_gaps(solution.flow, at)
        largest = max(largest, (moved.abs() / scale).max().item())
    at_start = data_of(dashed)[1][0] / 2
    assert data_of(dashed)[1][-1] - at_start == pytest.approx(largest, rel=1e-4)


def plot_free_gaps(flow: Flow, weights: Weights) -> torch.Tensor:
    """c_j, written out for each rule."""
    v, half = weights.output, 0.5 * weights.hidden.square().sum(-1)
    if isinstance(flow.rule, GradientDescent):
        return 0.5 * v.square() - half
    return flow.rule.feedback_matrices(weights)[0][0] * v - half


def test_conserved_leaves_out_layers_without_a_law() -> None:
    start = deep_gaussian((4, 6, 5, 1), 0)
    rule = DirectFeedbackAlignment(deep_gaussian((4, 6, 1), 2).layers[1:] + deep_gaussian((4, 5, 1), 3).layers[1:])
    flow = Flow(deep().flow.dataset, rule, "logistic")
    axes = plot.conserved(solve(flow, start, 1.0))
    assert [line.get_label() for line in labelled(axes, "layer")] == ["layer 2"]


def test_weight_decay_breaks_the_law_and_is_seen() -> None:
    flow, weights = separable(1)
    axes = plot.conserved(solve(Flow(flow.dataset, flow.rule, decay=0.1), weights, 1.0))
    (line,), (dashed,) = labelled(axes, "deviation"), labelled(axes, "estimated")
    assert data_of(line)[1][-1] > 1e3 * data_of(dashed)[1][-1]


# --- signs ---


def test_signs_are_output_weights_times_feedback_dashed_where_they_are_negative() -> None:
    solution = solve(*gaussian_data("fa", 2, 8, 5, 4), 20.0)
    axes = plot.signs(solution)
    b = solution.flow.rule.feedback_matrices(solution.start)[0][:, 0].numpy()
    lines = [line for line in axes.get_lines() if len(data_of(line)[0]) > 2]
    assert len(lines) == 8
    expected = {}
    for index in range(2):
        v = solution[index].evaluate(data_of(lines[0])[0]).output.numpy()
        expected |= {(index, j): b[index, j] * v[:, j] for j in range(4)}
    for line in lines:
        values = data_of(line)[1]
        ((key, _),) = [item for item in expected.items() if np.allclose(item[1], values, rtol=1e-12, atol=0)]
        assert line.get_linestyle() == ("--" if expected.pop(key).min() < 0 else "-")
    assert not expected
    assert {line.get_linestyle() for line in lines} == {"-", "--"}, "both kinds are there"


def test_signs_without_fixed_feedback_are_relative_to_the_start() -> None:
    for rule in ("gd", "sign-fa"):
        solution = solve(*gaussian_data(rule, 1, 8, 5, 4), 20.0)[0]
        lines = [line for line in plot.signs(solution).get_lines() if len(data_of(line)[0]) > 2]
        v = solution.evaluate(data_of(lines[0])[0]).output.numpy()
        drawn = np.stack([data_of(line)[1] for line in lines])
        order = np.argsort(-(v * np.sign(v[0])).min(0))
        np.testing.assert_allclose(drawn, (v * np.sign(v[0])).T[order], rtol=1e-12)


def test_of_many_output_weights_the_lowest_and_the_highest_are_among_those_drawn() -> None:
    solution = solve(*gaussian_data("fa", 30, 4, 3, 8), 1.0)
    axes = plot.signs(solution)
    lines = [line for line in axes.get_lines() if len(data_of(line)[0]) > 2]
    assert len(lines) == WEIGHTS and f"{WEIGHTS} of 240" in axes.get_xlabel()
    at = solution.evaluate(data_of(lines[0])[0])
    lowest = (at.output * solution.flow.rule.feedback_matrices(solution.start)[0][:, 0]).amin(0)
    drawn = [data_of(line)[1].min() for line in lines]
    assert min(drawn) == pytest.approx(lowest.min().item()) and max(drawn) == pytest.approx(lowest.max().item())


def test_signs_of_vector_outputs_are_entry_by_entry() -> None:
    solution = deep(outputs=3)
    lines = [line for line in plot.signs(solution).get_lines() if len(data_of(line)[0]) > 2]
    at = solution.evaluate(data_of(lines[0])[0]).layers[-1]
    feedback = solution.flow.rule.feedback_matrices(solution.start)[-1]
    expected = sorted((at * feedback)[-1].flatten().tolist())
    assert sorted(data_of(line)[1][-1] for line in lines) == pytest.approx(expected, rel=1e-12)


# --- trajectories that stopped ---


@pytest.mark.parametrize("draw", [plot.loss, plot.alignment, plot.conserved])
def test_trajectories_that_stopped_are_drawn_to_where_they_got_and_marked(draw: Any) -> None:
    solution = stopped()
    axes = draw(solution)
    crosses = [data_of(line) for line in axes.get_lines() if line.get_marker() == "x"]
    ends = [[values[-1] for values in data_of(line)] for line in solid(axes) if line.get_linewidth() > 1][:3]
    assert [end[0] for end in ends] == solution.status.time.tolist()
    np.testing.assert_array_equal([[x[0], y[0]] for x, y in crosses], ends)


def test_median_is_of_the_trajectories_that_are_still_there() -> None:
    solution = solve(*gaussian_data("fa", LINES + 2, 8, 5, 4), 100.0, max_steps=40, throw=False)
    axes = plot.loss(solution)
    times, median = data_of(solid(axes)[0])
    reached = solution.status.time.numpy()
    place = int(np.searchsorted(times, np.median(reached)))
    there = [k for k in range(LINES + 2) if reached[k] >= times[place]]
    assert 0 < len(there) < LINES + 2
    values = [own_loss(solution[k].evaluate(times[place : place + 1]), solution.flow, k)[0] for k in there]
    assert median[place] == pytest.approx(np.median(values), rel=1e-12)
    assert sum(line.get_marker() == "x" for line in axes.get_lines()) == LINES + 2
