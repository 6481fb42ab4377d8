"""Networks of three and four layers: the second implementation, the law, tolerances, other methods."""

import itertools
from typing import cast

import numpy as np
import pytest
import torch

from conformance.deep_problems import (
    RULES,
    gaussian_data,
    largest_difference,
    law_deviation,
    slides_that_hold_each_other,
)
from conformance.kernels import solve
from conformance.reference_runs import SEEDS, flow_and_weights, load_runs
from flowsim import Dataset, DeepWeights, GradientDescent, SignFeedbackAlignment, Solution
from flowsim.flow import Flow
from flowsim.integrators.event.path import EventPath
from flowsim.rules import Rule

RUNS = load_runs()


def events_of(solution: Solution) -> list[tuple[tuple, float]]:
    """Layer, sample, neuron, before, after, and the time."""
    return sorted((tuple(event)[2:7], event.time) for event in solution.events)


@pytest.mark.parametrize("rtol", [1e-10, 1e-12])
@pytest.mark.parametrize("seed", SEEDS)
def test_states_and_events_are_those_of_the_second_implementation(seed: int, rtol: float) -> None:
    """Below 100 steps with errors of at most rtol and weights below 10: 1 rtol on the whole, as was measured (.15).

    The time of an event is that error over the speed of the pre-activation there, above 1e-3 in all runs.
    """
    problem, expected = RUNS[seed]
    solution = solve(*flow_and_weights(problem), problem.t_final, rtol=rtol, atol=rtol / 100)
    found = [layer.numpy() for layer in solution.evaluate(problem.t_final).layers]
    assert max(np.abs(ours - theirs).max() for ours, theirs in zip(found, expected.layers, strict=True)) < rtol
    wanted = sorted((event[1:], event.time) for event in expected.events)
    assert [what for what, _ in events_of(solution)] == [what for what, _ in wanted]
    times = [[time for _, time in events] for events in (events_of(solution), wanted)]
    np.testing.assert_allclose(*times, rtol=0, atol=100 * rtol)


@pytest.mark.parametrize("seed", [7, 95])
def test_another_slope_has_other_states(seed: int) -> None:
    """The control of the comparison."""
    problem, expected = RUNS[seed]
    flow, weights = flow_and_weights(problem)
    other = Flow(flow.dataset, flow.rule, flow.loss, problem.slope + 1e-6)
    found = [layer.numpy() for layer in solve(other, weights, problem.t_final).evaluate(problem.t_final).layers]
    assert max(np.abs(ours - theirs).max() for ours, theirs in zip(found, expected.layers, strict=True)) > 1e-8


@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("rule", RULES)
def test_eq_2_holds_to_1e_11_at_every_neuron_through_slides(rule: str, layers: int) -> None:
    flow, weights = gaussian_data(rule, layers, seeds=2)
    solution = solve(flow, weights, 20.0, rtol=1e-12, atol=1e-14)
    assert solution.statistics["slides"].sum() > 0
    # the law holds for every sum of Taylor terms up to their truncation, 1e-12 of the weights in each of some 200 steps
    assert law_deviation(solution) < 1e-11


@pytest.mark.parametrize("rule", RULES)
def test_the_state_converges_as_the_tolerance_tightens_and_the_estimate_covers_its_error(rule: str) -> None:
    flow, weights = gaussian_data(rule, 3, seeds=2)
    times = torch.tensor([0.3, 3.0, 20.0], dtype=torch.float64)
    best = solve(flow, weights, 20.0, rtol=1e-13, atol=1e-15).evaluate(times)
    errors = []
    for rtol in (1e-6, 1e-8, 1e-10, 1e-12):
        solution = solve(flow, weights, 20.0, rtol=rtol, atol=rtol / 100)
        at = solution.evaluate(times)
        errors.append(largest_difference(at, best))
        # each error per step is at most rtol times weights below 10, in below 1000 steps
        assert errors[-1] < 1e4 * rtol
        estimate = max(layer.max().item() for layer in solution.error(times).layers)
        assert errors[-1] < estimate + 1e-13
    assert all(later < earlier / 20 or later < 1e-12 for earlier, later in itertools.pairwise(errors))


def before_the_first_slide(solution: Solution) -> float:
    entries = solution.events.time[solution.events.after == 0]
    return 0.9 * entries.min().item() if len(entries) else solution.t_final


@pytest.mark.parametrize(("rule", "layers"), [("fa", 3), ("sign-fa", 4)])
def test_a_runge_kutta_method_agrees_before_the_first_slide(rule: str, layers: int) -> None:
    """dopri8 steps across each kink with an error of about its tolerance, some 20 kinks, and growth by below 100."""
    flow, weights = gaussian_data(rule, layers, seeds=1)
    end = before_the_first_slide(solve(flow, weights, 20.0))
    ours = solve(flow, weights, end).evaluate(end)
    theirs = solve(flow, weights, end, method="dopri8", rtol=1e-11, atol=1e-13).evaluate(end)
    assert largest_difference(ours, weights) > 1e-2
    assert largest_difference(ours, theirs) < 1e-8


def test_a_direct_feedback_runs_from_event_to_event_and_conserves_its_law_at_the_last_hidden_layer() -> None:
    flow, weights = gaussian_data("direct", 3, seeds=2)
    solution = solve(flow, weights, 20.0, rtol=1e-12, atol=1e-14)
    assert solution.statistics["slides"].sum() > 0
    assert law_deviation(solution, [2]) < 1e-11


def test_slides_that_attract_only_together_are_kept() -> None:
    solution = solve(*slides_that_hold_each_other(), 25.0, rtol=1e-10, atol=1e-12)
    assert solution.status.time == 25
    assert law_deviation(solution) < 1e-9


@pytest.mark.parametrize("rule", [GradientDescent(), SignFeedbackAlignment()])
@pytest.mark.parametrize("seed", range(7))
def test_what_a_sample_comes_back_to_at_slope_0_is_on_its_side_at_once(rule: Rule, seed: int) -> None:
    """No neuron of the first layer is active for sample 1 until one becomes so; W_2 > 0 then activates all above it."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    inputs = torch.tensor([[1.0, 0.2], [0.9, -1.1]], dtype=torch.float64)
    layers = (
        torch.stack([0.3 + 0.2 * uniform(2), 0.35 + 0.15 * uniform(2)], 1),
        0.5 + uniform(2, 2),
        0.5 + uniform(1, 2),
    )
    solution = solve(Flow(Dataset(inputs, [1, 1]), rule, "exponential", 0.0), DeepWeights(layers), 8.0)
    first, *above = list(solution.events)[:3]
    assert (first.layer, first.sample, first.after) == (1, 1, 1)
    assert [(event.layer, event.sample, event.neuron, event.after) for event in above] == [(2, 1, 0, 1), (2, 1, 1, 1)]
    assert first.time == above[0].time == above[1].time
    front = cast(EventPath, solution.path).front
    assert torch.equal(front.rounds, front.steps), "no round in which the series contradict the mode"
