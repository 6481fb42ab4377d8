"""What a solution is apart from its numbers: its own copies, what it can be asked, and where it ends."""

import numpy as np
import pytest
import torch

from flowsim import Dataset, DeepWeights, FeedbackAlignment, Flow, GradientDescent, Solution, Weights, solve
from flowsim.initialization import adafa

METHODS = pytest.mark.parametrize("method", ["event", "dopri5"])
UNIT = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
START = Weights(torch.full((1, 1), 0.5), torch.tensor([0.3]))


def answers(solution: Solution, times: torch.Tensor) -> list[torch.Tensor]:
    """Whatever a solution says about some times."""
    curves = [quantity(times).layers for quantity in (solution.evaluate, solution.velocity, solution.error)]
    return [tensor.clone() for curve in [*curves, solution.pattern(times)] for tensor in curve]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


# Copies of its own


@METHODS
def test_writing_into_the_callers_tensors_changes_nothing(method: str) -> None:
    """Neither the values nor the error, whose companion is solved only when it is asked for."""
    generator = torch.Generator().manual_seed(0)
    inputs, hidden, output, feedback = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in [(4, 2), (3, 2), (3,), (3,)]
    )
    labels = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    given = inputs, labels, hidden, output, feedback

    def solved() -> Solution:
        return solve(
            Flow(Dataset(inputs, labels), FeedbackAlignment(feedback)), Weights(hidden, output), 0.3,
            method=method, rtol=1e-8,
        )  # fmt: skip

    times = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    expected, solution = answers(solved(), times), solved()
    for tensor in given:
        tensor.fill_(1.0)
    assert equal(answers(solution, times), expected)


def test_training_the_weights_given_afterwards_changes_nothing() -> None:
    """The tensors of Weights are the caller's too; those of the layers of a deep network likewise."""
    layers = DeepWeights((torch.full((2, 1), 0.5), torch.full((2, 2), 0.3), torch.full((1, 2), 0.2)))
    flow = Flow(UNIT.dataset, GradientDescent())
    solution = solve(flow, layers, 0.5, method="dopri5", rtol=1e-8)
    before = solution.evaluate(0.5).layers
    for layer in layers.layers:
        layer.mul_(3.0)
    assert solution.error(0.5).layers[0].max() < 1e-6
    for now, then in zip(solution.evaluate(0.5).layers, before, strict=True):
        assert torch.equal(now, then)


@METHODS
def test_tensors_that_require_grad_are_taken_as_numbers(method: str) -> None:
    torch.manual_seed(0)
    hidden, output, inputs, feedback = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in [(3, 2), (3,), (2, 2), (3,)]
    )
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    weights = Weights(hidden, output)
    for rule, number in [
        (FeedbackAlignment(feedback * 1.0), FeedbackAlignment(feedback.detach())),
        (FeedbackAlignment((feedback.unsqueeze(0),)), FeedbackAlignment(feedback.detach())),
        (adafa(weights), FeedbackAlignment(output.detach())),
    ]:
        found = answers(solve(Flow(Dataset(inputs, [1, -1]), rule), weights, 1.0, method=method, rtol=1e-8), times)
        plain = Flow(Dataset(inputs.detach(), [1, -1]), number), Weights(hidden.detach(), output.detach())
        assert equal(found, answers(solve(*plain, 1.0, method=method, rtol=1e-8), times))
        assert not any(tensor.requires_grad for tensor in found)
    weights.hidden.requires_grad_()
    assert not solve(Flow(Dataset(inputs, [1, -1]), GradientDescent()), weights, 1.0).evaluate(1.0).hidden.requires_grad
    assert not DeepWeights((hidden, output.unsqueeze(0))).layers[0].requires_grad


# The end of the interval


@pytest.mark.parametrize(
    "times", [0.1 + 0.2, np.arange(0, 0.31, 0.1), torch.linspace(0, 0.3, 11), np.linspace(0, 0.3, 11, dtype=np.float32)]
)
def test_times_beyond_the_end_by_rounding_are_the_end(times: object) -> None:
    solution = solve(UNIT, START, 0.3)
    found, end = solution.evaluate(times), solution.evaluate(0.3)  # type: ignore[arg-type]
    assert torch.equal(found.hidden.reshape(-1)[-1], end.hidden.reshape(-1)[-1])


def test_times_beyond_the_end_by_more_are_refused_with_numbers_that_differ() -> None:
    solution = solve(UNIT, START, 0.3)
    with pytest.raises(ValueError, match=r"times must lie in \[0, t_final\] = \[0, 0\.3\], got 0\.3000000000001$"):
        solution.evaluate(0.3000000000001)
    with pytest.raises(ValueError, match="times must lie"):
        solution.evaluate(torch.tensor(0.3001))
