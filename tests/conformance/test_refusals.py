"""Where there is no one way to go on a run stops and says so; where there is one, next to it, it goes on."""

import pytest
import torch

from conformance.kernels import solve
from conformance.reference_runs import flow_and_weights, random_problem
from flowsim import Dataset, DeepWeights, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment
from flowsim.rules import Rule

ONE = torch.ones(1, 1, dtype=torch.float64)


def layers(*rows: list[list[float]]) -> DeepWeights:
    return DeepWeights(tuple(torch.tensor(matrix, dtype=torch.float64) for matrix in rows))


def test_a_sample_whose_whole_layer_arrives_at_0_stops_the_run() -> None:
    """The second implementation finds two consistent modes there."""
    problem = random_problem(122)
    solution = solve(*flow_and_weights(problem), problem.t_final, throw=False)
    assert not solution.status.ended.item()
    assert "gets through a hidden layer" in solution.status.reason.item()


def test_drives_above_the_first_layer_that_are_not_unique_stop_the_run() -> None:
    """Activations .4 and -slope of one neuron: the one above, of weight 0, is pushed back to 0 from both sides.

    From above at the speed E (.4 - slope^2), from below at slope E (.4 - 1), with E = -1/2 at both samples.
    """
    flow = Flow(Dataset([[0.4, 1.0], [-1.0, 0.3]], [-1, -1]), FeedbackAlignment((ONE, ONE)), slope=0.5)
    solution = solve(flow, layers([[1.0, 0.0]], [[0.0]], [[0.0]]), 1.0, throw=False)
    assert solution.status.time.item() == 0
    assert "drives not unique" in solution.status.reason.item()


def test_a_slide_under_sign_fa_that_hangs_on_the_sign_of_a_weight_0_stops_the_run() -> None:
    """Sample 1 gets only to the neuron whose outgoing weight is 0, and is pushed back by what sample 2 pushes."""
    flow = Flow(Dataset([[1.0, -1.0], [0.5, 1.0]], [-1, 1]), SignFeedbackAlignment(), slope=0.0)
    weights = layers([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0]], [[0.1]])
    solution = solve(flow, weights, 1.0, throw=False)
    assert solution.status.time.item() == 0
    assert "drives not unique" in solution.status.reason.item()
    # a control: with fixed feedback the same slide is gone on from
    fixed = Flow(flow.dataset, FeedbackAlignment((torch.ones(1, 2).double(), ONE)), slope=0.0)
    assert (solve(fixed, weights, 0.1).pattern(0.1)[1][0] == 0).any()


@pytest.mark.parametrize("rule", [GradientDescent(), FeedbackAlignment((ONE, ONE)), SignFeedbackAlignment()])
@pytest.mark.parametrize("above", [0.7, -0.7])
def test_with_slope_0_what_begins_to_get_a_sample_is_on_the_side_of_its_weight(rule: Rule, above: float) -> None:
    """Sample 1 is inactive below until sample 2 has turned the neuron's weights."""
    flow = Flow(Dataset([[1.0, -1.0], [1.0, 0.0]], [1, 1]), rule, "squared", slope=0.0)
    weights = layers([[0.5, 0.52]], [[0.8]], [[0.9]])
    solution = solve(flow, weights, 1.0)
    first, second = solution.pattern(torch.tensor([0.0, 1.0]).double())
    assert first[:, 0, 0].tolist() == [-1, 1]
    assert second[:, 0, 0].tolist() == [-1, 1]


def test_the_only_neuron_below_that_slides_for_a_sample_stops_the_run() -> None:
    """Its activation is 0 there: nothing says on which side the neuron above is, which the drive depends on."""
    flow = Flow(Dataset([[1.0, 0.0], [0.3, 1.0]], [-1, 1]), FeedbackAlignment((ONE, ONE)), slope=0.1)
    weights = layers([[0.0, 1.0]], [[0.5]], [[0.5]])
    solution = solve(flow, weights, 1.0, throw=False)
    assert solution.status.time.item() == 0
    assert "gets through a hidden layer" in solution.status.reason.item()
    # a control: without a layer between, it slides
    shallow = Flow(flow.dataset, FeedbackAlignment((ONE,)), slope=0.1)
    assert solve(shallow, layers([[0.0, 1.0]], [[0.5]]), 0.1).pattern(0.1)[0][0, 0].item() == 0
