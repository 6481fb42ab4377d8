"""Errors that travel: pickled, as by pools of workers, which break or hang if that fails, and copied."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, IntegrationError, IntegrationInterrupt, Weights, solve

ROUND_TRIPS = pytest.mark.parametrize(
    "again", [lambda item: pickle.loads(pickle.dumps(item)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
FLOW = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))


def too_steep() -> None:
    """exp(1e6) is no number."""
    solve(FLOW, Weights(torch.full((1, 1), 1e3), torch.tensor([-1e3])), 1.0)


def blows_up() -> None:
    """exp(2800) is none either, and is reached within 1e-132."""
    solve(FLOW, Weights(torch.ones(2, 1, 1), torch.tensor([[0.5], [-300.0]])), 1.0)


@ROUND_TRIPS
@pytest.mark.parametrize(("fails", "index"), [(too_steep, 0), (blows_up, 1)])
def test_integration_errors_keep_what_they_say(
    fails: Callable[[], None], index: int, again: Callable[[Any], Any]
) -> None:
    with pytest.raises(IntegrationError, match="y f") as caught:
        fails()
    error, same = caught.value, again(caught.value)
    assert type(same) is IntegrationError
    assert (str(same), same.time, same.reason, same.index) == (str(error), error.time, error.reason, index)
    assert again(IntegrationError(0.5, "because", 2, None)).solution is None


@ROUND_TRIPS
def test_integration_errors_keep_their_solution(again: Callable[[Any], Any]) -> None:
    with pytest.raises(IntegrationError) as caught:
        blows_up()
    error, same = caught.value, again(caught.value)
    assert error.solution is not None and same.solution is not None
    assert torch.equal(same.solution.evaluate(error.time).hidden, error.solution.evaluate(error.time).hidden)


@ROUND_TRIPS
def test_interruptions_keep_their_solution(again: Callable[[Any], Any]) -> None:
    same = again(IntegrationInterrupt(solve(FLOW, Weights(torch.ones(1, 1), torch.ones(1)), 1.0)))
    assert isinstance(same, IntegrationInterrupt)
    assert same.solution.t_final == 1
