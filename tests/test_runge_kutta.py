"""torchdiffeq's methods: independent trajectories, dense output, and where they stop."""

import pytest
import torch
from sample_problems import separable, sliding

from flowsim import Dataset, DeepWeights, Flow, GradientDescent, IntegrationError, Weights, solve
from flowsim.initialization import deep_gaussian


def test_a_trajectory_does_not_depend_on_the_rest_of_its_separable() -> None:
    flow, weights = separable(3)
    together = solve(flow, weights, 2.0, method="dopri5", rtol=1e-8)
    times = torch.linspace(0, 2, 20, dtype=torch.float64)
    for index in range(3):
        problem = flow.map_matrices(weights, lambda matrix, index=index: matrix[index])
        alone = solve(*problem, 2.0, method="dopri5", rtol=1e-8)
        for name, count in alone.statistics.items():
            assert count == together.statistics[name][index]
        steps, others = (run.path.tracks[which] for run, which in [(together, index), (alone, 0)])  # type: ignore
        assert torch.equal(steps.times, others.times)
        assert torch.equal(steps.states, others.states)
        # the steps agree bit by bit; in dense output, products over an ensemble round differently from single ones
        torch.testing.assert_close(
            together.evaluate(times).hidden[:, index], alone.evaluate(times).hidden, rtol=0, atol=1e-13
        )


def test_data_of_lower_rank_in_the_ensemble_changes_nothing_for_the_others() -> None:
    flow, weights = separable(2)
    inputs = flow.dataset.inputs.clone()
    inputs[0] = flow.dataset.labels[0].unsqueeze(-1) * inputs[0, :1]  # rank 1
    mixed = Flow(Dataset(inputs, flow.dataset.labels), flow.rule)
    together = solve(mixed, weights, 2.0, method="dopri5", rtol=1e-8)
    for index in range(2):
        alone = solve(
            *mixed.map_matrices(weights, lambda matrix, index=index: matrix[index]), 2.0, method="dopri5", rtol=1e-8
        )
        assert torch.equal(together.path.tracks[index].states, alone.path.tracks[0].states)  # type: ignore


def test_the_start_is_the_given_start_and_dense_output_is_continuous_across_steps() -> None:
    flow, weights = separable(1)
    solution = solve(flow, weights, 5.0, method="dopri5", rtol=1e-9)
    torch.testing.assert_close(
        solution.evaluate(0.0).hidden, weights.hidden, rtol=0, atol=1e-14
    )  # rotated there and back
    steps = solution.path.tracks[0].times[1:-1]  # type: ignore[attr-defined]
    before, after = (solution.evaluate(steps * (1 + side)) for side in (-1e-13, 1e-13))
    # the velocity is below 10, and 2e-13 * 5 * 10 = 1e-11
    torch.testing.assert_close(before.hidden, after.hidden, rtol=0, atol=1e-11)
    torch.testing.assert_close(before.output, after.output, rtol=0, atol=1e-11)


def test_deep_weights_come_back_as_deep_weights() -> None:
    flow = Flow(Dataset([[1.0, 0.5]], [1]), GradientDescent())
    solution = solve(flow, deep_gaussian((2, 3, 3, 1), seed=0), 1.0, method="dopri5", rtol=1e-8)
    assert isinstance(solution.evaluate(0.5), DeepWeights)
    assert isinstance(solution.error(0.5), DeepWeights)


def test_a_sliding_neuron_stops_the_run_with_what_was_reached() -> None:
    flow, weights = sliding()
    with pytest.raises(
        IntegrationError, match="more than max_steps = 300 steps; it may be that a neuron slides"
    ) as caught:
        solve(flow, weights, 1.0, method="dopri5", max_steps=300)
    stop = caught.value
    assert stop.index == 0
    assert stop.solution is not None
    assert stop.solution.t_final == stop.time > 0
    assert stop.solution.evaluate(stop.time).hidden.shape == (1, 2)
    with pytest.raises(ValueError, match="times must lie in"):
        stop.solution.evaluate(1.0)


@pytest.mark.parametrize("more_dimensions", [0, 3])
def test_in_an_ensemble_the_error_names_the_trajectory_that_stopped_and_has_its_solution(more_dimensions: int) -> None:
    flow, weights = sliding()
    wide = Flow(Dataset(torch.nn.functional.pad(flow.dataset.inputs, (0, more_dimensions)), [-1, 1]), flow.rule)
    hidden = torch.nn.functional.pad(weights.hidden, (0, more_dimensions))
    starts = Weights(torch.stack([hidden + 1.0, hidden]), torch.stack([weights.output] * 2))
    with pytest.raises(IntegrationError, match="trajectory 1 stopped") as caught:
        solve(wide, starts, 0.1, method="dopri5", max_steps=300)
    assert caught.value.index == 1
    assert caught.value.solution is not None
    torch.testing.assert_close(caught.value.solution.evaluate(0.0).hidden[1], hidden, rtol=0, atol=1e-15)
