"""The plane of |w_j| and v_j: paths are those of the weights, and stay on curves that are those of equal c."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from PIL import Image
from sample_problems import gaussian_data, separable

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Weights, plot, solve
from flowsim.initialization import deep_gaussian
from flowsim.plot.plane import NEURONS
from flowsim.plot.theme import SHADE
from flowsim.rules import Rule


def split(axes: Axes) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Curves of equal c, and paths, as points."""
    lines: list[Line2D] = [line for line in axes.get_lines() if len(np.asarray(line.get_xydata())) > 2]
    points = [(line.get_color() == SHADE, np.asarray(line.get_xydata())) for line in lines]
    return [each for grey, each in points if grey], [each for grey, each in points if not grey]


def psi(rule: Rule, v: np.ndarray, b: float) -> np.ndarray:
    """The potentials of the paper, written out."""
    if isinstance(rule, GradientDescent):
        return v**2 / 2
    return abs(v) if isinstance(rule, SignFeedbackAlignment) else b * v


@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
def test_paths_are_the_weights_and_lie_on_the_curves_of_equal_c(rule: str) -> None:
    solution = solve(*gaussian_data(rule, 2, 8, 5, 4), 20.0)
    axes = plot.phase(solution)
    curves, paths = split(axes)
    assert len(curves) == len(paths) == 8
    end = solution.evaluate(20.0)
    expected = sorted(zip(end.hidden.norm(dim=-1).flatten().tolist(), end.output.flatten().tolist(), strict=True))
    np.testing.assert_allclose(sorted(tuple(path[-1]) for path in paths), expected, rtol=1e-12)
    feedback = solution.flow.rule.feedback_matrices(solution.start)[0][:, 0].flatten().tolist()
    outputs = solution.start.output.flatten().tolist()
    for curve, path in zip(curves, paths, strict=True):
        b = feedback[outputs.index(path[0, 1])]  # of the neuron that starts there
        gap = psi(solution.flow.rule, path[0, 1], b) - path[0, 0] ** 2 / 2
        norm, v = curve[~np.isnan(curve[:, 0])].T
        inner = norm > 0
        np.testing.assert_allclose(norm[inner] ** 2 / 2, psi(solution.flow.rule, v[inner], b) - gap, rtol=1e-9)
        np.testing.assert_allclose(path[:, 0] ** 2 / 2, psi(solution.flow.rule, path[:, 1], b) - gap, atol=1e-9)


def test_curves_of_gradient_descent_have_both_branches_where_c_is_positive() -> None:
    flow = Flow(Dataset([[1.0]], [1]), GradientDescent())
    weights = Weights(torch.tensor([[0.5], [0.5]]), torch.tensor([1.0, -1.0]))
    ((norm, v), _) = [curve.T for curve in split(plot.phase(solve(flow, weights, 1.0)))[0]]
    assert np.isnan(norm[abs(v) < 0.85]).all(), "|w| < 0 there: c = 3/8, v = +-sqrt(3/4) at w = 0"
    for side in (v > 0.9, v < -0.9):
        np.testing.assert_allclose(norm[side] ** 2, v[side] ** 2 - 0.75)


def test_curves_begin_at_the_axis() -> None:
    """Where w passes 0 the norm has no derivative by v."""
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    (curve,), (path,) = split(plot.phase(solve(flow, Weights(torch.tensor([[-1.0]]), torch.tensor([0.55])), 20.0)))
    assert path[:, 0].min() < 0.05 and np.nanmin(curve[:, 0]) == 0


def test_several_layers_and_outputs_are_drawn_over_psi() -> None:
    generator = torch.Generator().manual_seed(0)
    dataset = Dataset(torch.randn(5, 4, generator=generator, dtype=torch.float64), [0, 1, 2, 0, 1], classes=3)
    rule = FeedbackAlignment(deep_gaussian((4, 3, 2, 3), 1).layers[1:])
    solution = solve(Flow(dataset, rule, "cross-entropy"), deep_gaussian((4, 3, 2, 3), 0), 5.0)
    axes = plot.phase(solution)
    curves, paths = split(axes)
    at = solution.evaluate(5.0).layers
    expected = [
        (layer[j].norm().item(), (above[:, j] * feedback[:, j]).sum().item())
        for layer, above, feedback in zip(at, at[1:], rule.feedback_matrices(solution.start), strict=False)
        for j in range(len(layer))
    ]
    np.testing.assert_allclose(sorted(tuple(path[-1]) for path in paths), sorted(expected), rtol=1e-12)
    assert len({line.get_color() for line in axes.get_lines()} - {SHADE}) == 2, "a colour for each layer"
    for curve, path in zip(curves, paths, strict=True):
        norm, height = curve[curve[:, 0] > 0].T
        np.testing.assert_allclose(height - norm**2 / 2, path[0, 1] - path[0, 0] ** 2 / 2, atol=1e-12)


def test_of_many_neurons_those_from_the_smallest_to_the_largest_c_are_drawn() -> None:
    solution = solve(*gaussian_data("sign-fa", 20, 4, 3, 6), 0.5)
    axes = plot.phase(solution)
    _, paths = split(axes)
    assert len(paths) == NEURONS and f"({NEURONS} of 120 neurons)" in axes.get_xlabel()
    start = solution.start
    gaps = (start.output.abs() - start.hidden.square().sum(-1) / 2).flatten()
    drawn = [abs(path[0, 1]) - path[0, 0] ** 2 / 2 for path in paths]
    assert drawn == sorted(drawn)
    assert (drawn[0], drawn[-1]) == pytest.approx((gaps.min().item(), gaps.max().item()), rel=1e-12)


def test_stopped_neurons_are_marked_where_they_are() -> None:
    solution = solve(*gaussian_data("fa", 2, 8, 5, 4), 100.0, max_steps=40, throw=False)
    axes = plot.phase(solution)
    crosses = [tuple(np.asarray(line.get_xydata())[0]) for line in axes.get_lines() if line.get_marker() == "x"]
    ends = [solution[k].evaluate(solution.status.time[k].item()) for k in range(2)]
    expected = [
        (norm, v) for end in ends for norm, v in zip(end.hidden.norm(dim=-1).tolist(), end.output.tolist(), strict=True)
    ]
    np.testing.assert_allclose(sorted(crosses), sorted(expected), rtol=1e-12)


def test_animation_moves_the_neurons_to_where_they_are_at_its_times(tmp_path: Path) -> None:
    solution = solve(*separable(1), 20.0)
    animation = plot.animate(solution, frames=3)
    animation.save(tmp_path / "run.gif", writer="pillow", dpi=40)
    with Image.open(tmp_path / "run.gif") as image:
        assert getattr(image, "n_frames", 1) == 3
    (axes,) = animation._fig.axes  # type: ignore[attr-defined]
    assert axes.get_title() == "$t = 20$"
    points = [np.asarray(line.get_xydata())[0] for line in axes.get_lines() if line.get_markersize() == 5]
    end = solution.evaluate(20.0)
    expected = torch.stack([end.hidden.norm(dim=-1).flatten(), end.output.flatten()], -1).tolist()
    np.testing.assert_allclose(sorted(map(tuple, points)), sorted(map(tuple, expected)), rtol=1e-12)


@pytest.mark.parametrize("frames", [1, 301, 2.5])
def test_frames_are_some_but_not_too_many(frames: int) -> None:
    with pytest.raises(ValueError, match="frames must be"):
        plot.animate(solve(*separable(1), 1.0), frames=frames)
