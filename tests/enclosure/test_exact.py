"""What is taken exactly, merged and refused."""

import pickle
from fractions import Fraction
from typing import Any

import pytest
import torch
from flint import fmpq

from enclosure.runs import weights_of
from flowsim import Dataset, DirectFeedbackAlignment, FeedbackAlignment, Flow, GradientDescent, Weights, enclose
from flowsim.enclosure.exact import exact_problem, problem_of, rational
from flowsim.losses import Loss, polynomial, squared
from flowsim.weights import DeepWeights


def test_floats_are_the_dyadic_rationals_that_they_are_and_fractions_themselves() -> None:
    assert rational(0.1) == fmpq(3602879701896397, 2**55) != fmpq(1, 10)
    assert rational(Fraction(1, 10)) == fmpq(1, 10)


def test_equal_samples_and_equal_neurons_are_merged_with_their_multiplicities() -> None:
    problem = exact_problem(
        [[1, 2], [3, 0], [1, 2], [1, 2]], [1, 1, 1, -1], [[1, 1], [0, 1], [1, 1]], [1, 2, 1], slope=0.5, loss="logistic"
    )
    assert [sample.weight for sample in problem.samples] == [fmpq(1, 2), fmpq(1, 4), fmpq(1, 4)]
    assert [neuron.count for neuron in problem.neurons] == [2, 1]
    assert problem.neuron_of == (0, 1, 0)


def test_neurons_with_other_feedback_are_others() -> None:
    same = {"hidden": [[1], [1]], "output": [1, 1], "slope": 0.5, "loss": "exponential"}
    assert len(exact_problem([[1]], [1], feedback=[1, 1], **same).neurons) == 1
    assert len(exact_problem([[1]], [1], feedback=[1, 2], **same).neurons) == 2


def test_parallel_inputs_share_a_kink_exactly_and_nearly_parallel_ones_do_not() -> None:
    third = Fraction(1, 3)
    problem = exact_problem(
        [[1, 3], [third, 1], [-2, -6], [0, 0], [1 / 3, 1.0]], [1] * 5, [[1, 1]], [1], slope=0, loss="exponential"
    )
    assert [sample.kink for sample in problem.samples] == [0, 0, 0, None, 1]
    assert [sample.factor for sample in problem.samples] == [1, fmpq(1, 3), -2, 0, 1]
    assert problem.names == (0, 4)


def test_what_cannot_be_enclosed_is_refused_by_name() -> None:
    data, one = Dataset([[1.0]], [1]), Weights(torch.ones(1, 1), torch.ones(1))
    with pytest.raises(ValueError, match="batch shape"):
        enclose(Flow(data, GradientDescent()), Weights(torch.ones(2, 1, 1), torch.ones(2, 1)), 1.0)
    with pytest.raises(ValueError, match="DeepWeights"):
        problem_of(Flow(data, GradientDescent()), DeepWeights((torch.ones(1, 1),) * 3))  # pyright: ignore
    with pytest.raises(ValueError, match="rule must be"):
        enclose(Flow(data, DirectFeedbackAlignment([1.0])), one, 1.0)
    with pytest.raises(ValueError, match="decay"):
        enclose(Flow(data, FeedbackAlignment([1.0]), decay=0.1), one, 1.0)
    with pytest.raises(ValueError, match="t_final"):
        enclose(Flow(data, FeedbackAlignment([1.0])), one, 0.0)
    with pytest.raises(ValueError, match="weights must have one output to be enclosed, got 2"):
        enclose(Flow(Dataset([[1.0]], [0], 2), GradientDescent(), "squared"), weights_of([[1.0]], [[1.0], [1.0]]), 1.0)
    with pytest.raises(ValueError, match="labels must be"):
        enclose(Flow(Dataset([[1.0]], [0], 1), GradientDescent(), "squared"), one, 1.0)


def test_a_loss_that_only_has_the_name_of_another_is_not_taken_for_it() -> None:
    double = Loss("squared", lambda outputs, targets: (outputs - targets).square().sum(-1), targets="any")
    one, data = Weights(torch.ones(1, 1), torch.ones(1)), Dataset([[1.0]], [1])
    for loss, name in [(double, "squared"), (polynomial(2), r"polynomial\(2\)")]:
        said = f"flowsim's own exponential, logistic, squared to be enclosed, got the Loss '{name}'"
        with pytest.raises(ValueError, match=said):
            enclose(Flow(data, GradientDescent(), loss), one, 1.0)
    assert problem_of(Flow(data, GradientDescent(), pickle.loads(pickle.dumps(squared))), one).loss.name == "squared"


@pytest.mark.parametrize(
    "wrong",
    [{"labels": [1.5]}, {"labels": [0]}, {"slope": 1.5}, {"slope": -0.5}, {"scale": -1}, {"scale": 1, "feedback": [1]}],
)
def test_numbers_for_which_nothing_is_proved_are_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"labels": [1], "slope": 0.5, "loss": "squared"}
    with pytest.raises(ValueError, match="must be"):
        exact_problem([[1]], hidden=[[1]], output=[1], **(right | wrong))
