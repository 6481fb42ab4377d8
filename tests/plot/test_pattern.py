"""Which side of its kinks each neuron is on: the pattern is that of the pre-activations, the dots are the events."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from sample_problems import gaussian_data, separable, sliding

from flowsim import Dataset, Flow, SignFeedbackAlignment, plot, solve
from flowsim.initialization import deep_gaussian, with_gaps
from flowsim.plot.pattern import GAP, ROWS, legend_handles, pattern
from flowsim.plot.seen import Seen


def blocks(axes: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Edges in time and the pattern, samples x pieces, of each block."""
    meshes = [each for each in axes.collections if isinstance(each, QuadMesh)]
    return [(np.asarray(mesh.get_coordinates())[0, :, 0], np.asarray(mesh.get_array()) - 1) for mesh in meshes]


def test_colours_are_the_sides_of_the_kinks_at_any_time() -> None:
    solution = solve(*gaussian_data("fa", 2, 12, 4, 3), 30.0)
    drawn = blocks(plot.activations(solution, trajectory=1))
    assert len(drawn) == 3
    times = np.linspace(0.01, 29.9, 57)
    (z,) = solution.flow.pre_activations(solution.evaluate(times.tolist()))
    slides = 0
    for neuron, (edges, sides) in enumerate(drawn):
        assert edges[0] == 0 and edges[-1] == 30.0
        at = sides[:, np.searchsorted(edges, times) - 1].T
        expected = z[:, 1, :, neuron].numpy()
        np.testing.assert_array_equal(at[at != 0], np.sign(expected)[at != 0])
        assert (abs(expected[at == 0]) < 1e-12).all()
        slides += (at == 0).sum()
    assert slides > 0
    mesh = next(each for each in plot.activations(solution).collections if isinstance(each, QuadMesh))
    for value, name in enumerate(["inactive", "sliding", "active"]):
        (patch,) = [handle for handle in legend_handles() if handle.get_label() == name]
        assert mesh.to_rgba(np.array([value]))[0].tolist() == pytest.approx(patch.get_facecolor())  # type: ignore


def test_dots_are_the_events_of_the_trajectory_at_the_rows_where_the_pattern_changes() -> None:
    solution = solve(*gaussian_data("fa", 2, 6, 4, 3), 30.0)
    axes = plot.activations(solution, trajectory=1)
    (dots,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
    own = [event for event in solution.events if event.trajectory == 1]
    expected = [(event.time, event.neuron * (6 + GAP) + event.sample + 0.5) for event in own]
    np.testing.assert_array_equal(dots.get_xydata(), expected)
    for event in own:
        edges, sides = blocks(axes)[event.neuron]
        after = int(np.searchsorted(edges, event.time, side="right"))
        assert [sides[event.sample, after - 2], sides[event.sample, after - 1]] == [event.before, event.after]


def test_a_neuron_that_slides_from_the_start_is_drawn_so() -> None:
    ((edges, sides),) = blocks(plot.activations(solve(*sliding(), 0.1)))
    assert sides[0, 0] == 0 and edges[0] == 0


def test_of_many_neurons_those_with_the_most_events_are_drawn() -> None:
    solution = solve(*gaussian_data("fa", 1, samples=30, dimension=12, width=10), 30.0)
    found = pattern(Seen(solution), 0)
    counts = [0] * 10
    for event in solution.events:
        counts[event.neuron] += 1
    assert len(found.neurons) == ROWS // 30 == 4
    chosen = [neuron for _, neuron in found.neurons]
    assert chosen == sorted(chosen)
    assert min(counts[j] for j in chosen) >= max(counts[j] for j in range(10) if j not in chosen)
    axes = plot.activations(solution)
    assert "(4 of 10 neurons, by events)" in axes.get_xlabel()
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(j + 1) for j in chosen]


def test_of_many_samples_those_with_the_most_events_are_drawn() -> None:
    solution = solve(*gaussian_data("gd", 1, samples=ROWS + 20, dimension=4, width=2), 1.0)
    found = pattern(Seen(solution), 0)
    assert len(found.samples) == ROWS and len(found.neurons) == 1
    assert {event.sample for event in solution.events} <= set(found.samples)
    assert f"1 of 2 neurons, {ROWS} of {ROWS + 20} samples" in plot.activations(solution).get_xlabel()


def test_layers_of_deep_networks_are_drawn_each() -> None:
    generator = torch.Generator().manual_seed(1)
    dataset = Dataset(torch.randn(6, 4, generator=generator, dtype=torch.float64), [1, -1, 1, 1, -1, -1])
    flow = Flow(dataset, SignFeedbackAlignment(), "logistic")
    solution = solve(flow, deep_gaussian((4, 3, 2, 1), 0), 10.0)
    axes = plot.activations(solution)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["1, 1", "1, 2", "1, 3", "2, 1", "2, 2"]
    z = torch.cat([each[-1] for each in flow.pre_activations(solution.evaluate([10.0]))], -1)
    for (_, sides), expected in zip(blocks(axes), z.T, strict=True):
        last = sides[:, -1]
        np.testing.assert_array_equal(last[last != 0], expected.sign()[last != 0])
        assert (abs(expected[last == 0]) < 1e-12).all()


def test_a_change_of_sign_is_a_triangle_above_its_neuron() -> None:
    """Sign-FA whose hidden weights start against the data, and gap below 0: v passes 0."""
    rule = SignFeedbackAlignment()
    weights = with_gaps(torch.tensor([[-1.0]], dtype=torch.float64), rule, -0.45)
    solution = solve(Flow(Dataset([[1.0]], [1]), rule), weights, 50.0)
    times = [event.time for event in solution.events if event.kind == "sign change"]
    assert times
    (triangles,) = [line for line in plot.activations(solution).get_lines() if line.get_marker() == "v"]
    np.testing.assert_array_equal(triangles.get_xydata(), [(time, -GAP / 2) for time in times])


def test_a_trajectory_that_stopped_is_drawn_to_where_it_got() -> None:
    solution = solve(*gaussian_data("fa", 2, 8, 5, 4), 100.0, max_steps=40, throw=False)
    axes = plot.activations(solution, trajectory=1)
    reached = solution.status.time[1].item()
    assert all(edges[-1] == reached for edges, _ in blocks(axes))
    (mark,) = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    np.testing.assert_array_equal(mark.get_xdata(), [reached, reached])


@pytest.mark.parametrize("trajectory", [2, -1, 0.5])
def test_a_trajectory_that_there_is_not_is_refused(trajectory: Any) -> None:
    with pytest.raises(ValueError, match=r"trajectory must be an integer of at (least 0|most 1), got"):
        plot.activations(solve(*separable(2), 1.0), trajectory=trajectory)
