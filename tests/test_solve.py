"""solve and its Solution: ensembles, dense output, events, failures."""

import math
from dataclasses import replace

import pytest
import torch
from sample_problems import separable

from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    IntegrationError,
    SignFeedbackAlignment,
    Weights,
    solve,
)
from flowsim.activation import Tanh
from flowsim.initialization import deep_gaussian
from flowsim.losses import exponential
from flowsim.weights import stack


def test_data_weights_and_feedback_broadcast_to_one_separable() -> None:
    flow, weights = separable(1)
    single = flow.map_matrices(weights, lambda matrix: matrix[0])
    starts = stack([single[1], single[1].map(lambda tensor: 0.5 * tensor)])
    solution = solve(single[0], starts, 1.0, rtol=1e-8)
    assert solution.evaluate(1.0).hidden.shape == (2, 3, 6)
    assert solution.evaluate(torch.zeros(4, 5)).hidden.shape == (4, 5, 2, 3, 6)
    assert solution.statistics["steps"].shape == (2,)


def test_weights_in_single_precision_are_taken_exactly_and_solved_in_double() -> None:
    weights = Weights(torch.tensor([[0.1]]), torch.tensor([0.2]))
    assert weights.hidden.dtype == weights.output.dtype == torch.float64
    assert weights.hidden.item() == torch.tensor(0.1).item() != 0.1


@pytest.mark.parametrize("t_final", [1e-50, 0.1, 1e6])
@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_short_and_long_runs_end_at_t_final(method: str, t_final: float) -> None:
    solution = solve(*one_neuron(0.5), t_final=t_final, method=method)
    assert solution.t_final == t_final
    assert torch.isfinite(solution.evaluate(t_final).hidden).all()


def test_dense_output_inside_steps_is_as_accurate_as_a_tighter_solve() -> None:
    flow, weights = separable(1)
    times = torch.linspace(0, 5, 301, dtype=torch.float64)
    solution, tighter = solve(flow, weights, 5.0, rtol=1e-8), solve(flow, weights, 5.0, rtol=1e-12, atol=1e-14)
    difference = (solution.evaluate(times).hidden - tighter.evaluate(times).hidden).abs().max()
    estimate = solution.error(times).hidden.max()
    assert difference < estimate


def test_a_trajectory_can_be_asked_for_at_times_of_its_own() -> None:
    """The same numbers, bit for bit, as in the answer for all trajectories at all times."""
    flow, weights = separable(3)
    solution = solve(flow, weights, 5.0, rtol=1e-8)
    trajectory, times = torch.tensor([2, 0, 2, 1]), torch.tensor([0.3, 4.0, 0.3, 5.0], dtype=torch.float64)
    pairs = range(4), trajectory
    for quantity in (solution.evaluate, solution.velocity):
        assert torch.equal(quantity(times, trajectory).hidden, quantity(times).hidden[pairs])
        assert torch.equal(quantity(times, trajectory).output, quantity(times).output[pairs])
    assert torch.equal(solution.pattern(times, trajectory)[0], solution.pattern(times)[0][pairs])
    inputs = solution.flow_of(trajectory).dataset.inputs
    assert torch.equal(inputs, flow.dataset.inputs[trajectory])
    with pytest.raises(ValueError, match="trajectory must be a number from 0 to 2, got 3"):
        solution.evaluate(1.0, torch.tensor(3))
    with pytest.raises(ValueError, match=r"trajectory must be shaped like the times, \(2,\), got \(1,\)"):
        solution.evaluate([1.0, 2.0], torch.tensor([0]))


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_pieces_cover_each_trajectory_and_no_event_lies_inside_one(method: str) -> None:
    solution = solve(*separable(2), 5.0, rtol=1e-8, method=method)
    pieces, events = solution.pieces, solution.events
    for trajectory in range(2):
        own = pieces.trajectory == trajectory
        start, end = pieces.start[own], pieces.end[own]
        assert start[0] == 0
        assert end[-1] == 5
        assert torch.equal(start[1:], end[:-1])
        assert (end >= start).all()
        assert torch.isin(events.time[events.trajectory == trajectory], start).all()


def test_events_are_the_zeros_of_the_pre_activations() -> None:
    flow, weights = separable(2)
    solution = solve(flow, weights, 5.0, rtol=1e-9)
    events = solution.events
    assert len(events) > 0
    z = flow.pre_activations(solution.evaluate(events.time))[0]
    at_event = z[range(len(events)), events.trajectory, events.sample, events.neuron]
    # a step retaken across a kink jumps by its error: |dz| <= |x| |dw| <= |x| sqrt(P) rtol max|theta|, here
    # 3 * sqrt(21) * 1e-9 * 2
    assert at_event.abs().max() < 3e-8
    start, end = (flow.pre_activations(solution.evaluate(t))[0] > 0 for t in (0.0, 5.0))
    changed = torch.nonzero(start != end)
    found = torch.stack([events.trajectory, events.sample, events.neuron], -1)
    assert {tuple(row) for row in changed.tolist()} == {tuple(row) for row in found.tolist()}
    assert (events.layer == 1).all()


def test_sign_changes_of_output_weights_are_events_under_sign_fa_only() -> None:
    """v starts at -0.1 and grows: sign-FA's feedback flips where it passes 0, from then on v > 0."""
    dataset = Dataset([[1.0]], [1])
    weights = Weights([[2.0]], [-0.1])  # type: ignore[arg-type]
    solution = solve(Flow(dataset, SignFeedbackAlignment(), slope=0.5), weights, 1.0)
    (event,) = [index for index, sample in enumerate(solution.events.sample.tolist()) if sample == -1]
    time = solution.events.time[event]
    before, at, after = solution.evaluate([0.9 * time.item(), time.item(), 1.1 * time.item()]).output[:, 0].tolist()
    assert before < 0 < after
    assert abs(at) < 1e-9
    fixed = solve(Flow(dataset, FeedbackAlignment([1.0]), slope=0.5), weights, 1.0)
    assert (fixed.events.sample >= 0).all()


def test_reduction_to_the_span_of_the_data_changes_nothing() -> None:
    """D = 30 > n = 4, against the same data rotated into R^4 by hand, with the orthogonal part of W put aside."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(4, 30, generator=generator, dtype=torch.float64) / 5
    hidden = torch.randn(3, 30, generator=generator, dtype=torch.float64) / 5
    rows = torch.linalg.qr(inputs.mT)[0].mT
    output = torch.tensor([0.5, -0.5, 0.2], dtype=torch.float64)
    labels, rule = [1, -1, 1, 1], SignFeedbackAlignment()
    full = solve(Flow(Dataset(inputs, labels), rule), Weights(hidden, output), 0.3, rtol=1e-11, atol=1e-13)
    small = solve(
        Flow(Dataset(inputs @ rows.mT, labels), rule), Weights(hidden @ rows.mT, output), 0.3, rtol=1e-11, atol=1e-13
    )
    here, there = full.evaluate(0.3), small.evaluate(0.3)
    rest = hidden - hidden @ rows.mT @ rows
    torch.testing.assert_close(here.hidden, there.hidden @ rows + rest, rtol=0, atol=1e-9)
    torch.testing.assert_close(here.output, there.output, rtol=0, atol=1e-9)


def one_neuron(output: float) -> tuple[Flow, Weights]:
    return Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0])), Weights(torch.ones(1, 1), torch.tensor([output]))


def test_overflow_of_the_loss_is_explained() -> None:
    with pytest.raises(IntegrationError, match=r"t = 0: the velocity overflows.* y f = -800") as caught:
        solve(*one_neuron(-800.0), t_final=1.0)
    assert caught.value.time == 0
    assert caught.value.solution is None


def test_a_trial_step_that_overflows_is_rejected_and_the_run_goes_on() -> None:
    """Long steps on a flat loss meet a steep one: y f = -25 decays slowly at first under a wrong sign of b."""
    flow = Flow(Dataset([[3.0]], [1]), FeedbackAlignment([-1.0]))
    weights = Weights(torch.full((1, 1), 1.0), torch.tensor([2.0]))
    solution = solve(flow, weights, 50.0, rtol=1e-6, atol=1e-8)
    assert math.isfinite(flow.risk(solution.evaluate(50.0)))


UNIT = Dataset([[1.0]], [1]), FeedbackAlignment([1.0])
UNKNOWN = replace(exponential, name="unknown", series=None)
OWN = replace(exponential, name="own")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_final": 0.0}, "t_final must be a finite number above 0, got 0.0"),
        ({"t_final": math.inf}, "t_final must be a finite number above 0, got inf"),
        ({"t_final": math.nan}, "t_final must be a finite number above 0, got nan"),
        ({"t_final": "1"}, "t_final must be a finite number above 0, got '1'"),
        ({"rtol": 0.0}, "rtol must be a finite number above 0, got 0.0"),
        ({"atol": -1.0}, "atol must be a finite number above 0, got -1.0"),
        ({"method": "rk4"}, "method must be one of event, dopri5, .* got 'rk4'"),
        (
            {"weights": deep_gaussian((1, 2, 2, 1), 0), "flow": Flow(UNIT[0], GradientDescent(), OWN)},
            "method 'event' takes rules and losses of one's own, .* with two-layer networks only, got 3 layers",
        ),
        (
            {"flow": Flow(*UNIT, OWN, decay=0.1)},
            "method 'event' takes weight decay with the rules and losses of flowsim .* got decay=0.1; use method=",
        ),
        (
            {"flow": Flow(*UNIT, activation=Tanh())},
            r"method 'event' needs a piecewise linear activation, got Tanh\(\); use method='dopri5'",
        ),
        ({"flow": Flow(*UNIT, UNKNOWN)}, "method 'event' needs a loss with a Taylor series, got 'unknown'"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1, got 0"),
        ({"weights": Weights(torch.ones(1, 1), torch.tensor([math.nan]))}, "output must be finite, got nan at index"),
        ({"weights": Weights(torch.full((1, 1), math.inf), torch.ones(1))}, "hidden must be finite, got inf at index"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict, message: str) -> None:
    flow, weights = one_neuron(0.5)
    with pytest.raises(ValueError, match=message) as caught:
        solve(**{"flow": flow, "weights": weights, "t_final": 1.0, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("times", [-0.1, 2.5, [0.0, math.nan]])
def test_times_outside_the_run_are_refused(times: float) -> None:
    solution = solve(*one_neuron(0.5), t_final=2.0)
    with pytest.raises(ValueError, match="times must"):
        solution.evaluate(times)
