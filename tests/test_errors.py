"""Errors that travel: pickled, copied, and out of the workers of a pool."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, IntegrationError, IntegrationInterrupt, Weights, solve

ROUND_TRIPS = pytest.mark.parametrize(
    "again", [lambda item: pickle.loads(pickle.dumps(item)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
FLOW = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))


def too_steep(_: int) -> None:
    """exp(1e6) is no number."""
    solve(FLOW, Weights(torch.full((1, 1), 1e3), torch.tensor([-1e3])), 1.0)


def blows_up(_: int) -> None:
    """exp(2800) is none either, and is reached within 1e-132."""
    solve(FLOW, Weights(torch.ones(2, 1, 1), torch.tensor([[0.5], [-300.0]])), 1.0)


@ROUND_TRIPS
def test_integration_errors_keep_what_they_say(again: Callable[[Any], Any]) -> None:
    with pytest.raises(IntegrationError) as caught:
        blows_up(0)
    error, same = caught.value, again(caught.value)
    assert type(same) is IntegrationError
    assert (str(same), same.time, same.reason, same.index) == (str(error), error.time, error.reason, 1)
    assert error.solution is not None
    assert same.solution is not None
    assert torch.equal(same.solution.evaluate(error.time).hidden, error.solution.evaluate(error.time).hidden)
    assert again(IntegrationError(0.5, "because", 2, None)).solution is None


@ROUND_TRIPS
def test_interruptions_keep_their_solution(again: Callable[[Any], Any]) -> None:
    same = again(IntegrationInterrupt(solve(FLOW, Weights(torch.ones(1, 1), torch.ones(1)), 1.0)))
    assert isinstance(same, IntegrationInterrupt)
    assert same.solution.t_final == 1


def test_integration_errors_arrive_from_the_worker_of_a_pool() -> None:
    # a worker whose exception cannot be read breaks the pool of an executor, and makes multiprocessing.Pool hang
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        errors = [pool.submit(work, 0).exception(timeout=300) for work in (too_steep, blows_up)]
    for index, error in enumerate(errors):
        assert isinstance(error, IntegrationError)
        assert error.index == index
        assert "y f" in error.reason
