"""A run at the times that are drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from sample_problems import gaussian_data, separable

from flowsim import Dataset, FeedbackAlignment, Flow, Weights, plot, solve
from flowsim.plot import seen as seen_module
from flowsim.plot.seen import TIMES, Seen, see


def test_times_go_from_0_to_the_end_evenly_on_the_axis_that_is_drawn() -> None:
    seen = Seen(solve(*separable(2), 1e4))
    times = seen.times
    assert len(times) == TIMES and times[0] == 0 and times[-1] == 1e4
    figure, axes = pyplot.subplots()
    seen.time_axis(axes)
    figure.draw_without_rendering()
    across = axes.transData.transform([(time, 0.0) for time in times.tolist()])[:, 0]
    steps = torch.from_numpy(across).diff()
    assert (steps > 0).all() and steps.max() < 1.1 * steps.min()


def test_an_event_right_after_the_start_does_not_stretch_the_axis() -> None:
    """The pre-activation of the second sample vanishes at about 1e-9."""
    dataset = Dataset([[1.0, 0.0], [0.0, 1.0]], [1, 1])

    def first(height: float) -> float | None:
        weights = Weights(torch.tensor([[0.5, -height]]), torch.tensor([0.5]))
        solution = solve(Flow(dataset, FeedbackAlignment([1.0])), weights, 100.0)
        assert height > 1e-3 or solution.events.time[0] < 1e-8
        return Seen(solution).first

    assert first(1e-9) == first(0.3) is not None


def test_short_runs_are_drawn_over_plain_time() -> None:
    axes = plot.loss(solve(*separable(1), 1e-3))
    assert axes.get_xscale() == "linear" and axes.get_xlim() == (0, 1e-3)


def test_ensembles_seen_in_parts_are_seen_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    solution = solve(*gaussian_data("fa", 5, 6, 4, 3), 10.0)

    def drawn() -> tuple[torch.Tensor, ...]:
        seen = Seen(solution)
        return seen.observe(lambda flow, weights: (flow.risk(weights), weights.layers[0]))

    whole = drawn()
    monkeypatch.setattr(seen_module, "CHUNK", 2 * TIMES * 15)
    assert len(Seen(solution).parts) == 3
    for one, other in zip(whole, drawn(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def test_a_saved_run_is_drawn_as_the_solution_is(tmp_path: Path) -> None:
    solution = solve(*separable(1), 10.0)
    solution.save(tmp_path / "run.npz")
    for path in (tmp_path / "run.npz", str(tmp_path / "run.npz")):
        here, there = (np.asarray(plot.loss(run).get_lines()[0].get_xydata()) for run in (solution, path))
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    ("run", "ax", "message"),
    [
        (3, None, "run must be a flowsim.Solution or the path of a saved one, got 3"),
        ("missing.npz", None, "missing.npz cannot be read: No such file or directory"),
        ("solution", "here", "ax must be axes of matplotlib, or None for new ones, got 'here'"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(run: object, ax: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        plot.loss(solve(*separable(1), 1.0) if run == "solution" else run, ax)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_what_is_seen_is_shared() -> None:
    seen = see(solve(*separable(1), 1.0))
    assert see(seen) is seen
