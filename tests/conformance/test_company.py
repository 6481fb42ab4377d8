"""A run is the same to the last bit alone, in an ensemble, on any number of threads, extended, stored and copied."""

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_problems import gaussian_data
from torch import Tensor

import flowsim
from conformance import deep_problems
from conformance.kernels import solve
from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights
from flowsim.integrators.event.path import EventPath

T_FINAL = 2.0
TIMES = torch.linspace(0, T_FINAL, 23, dtype=torch.float64)
RULES = ["gd", "fa", "sign-fa"]
PROBLEMS: dict[int, Callable[[str], tuple[Flow, Any]]] = {
    2: lambda rule: gaussian_data(rule, 3, samples=10, dimension=4, width=6),
    3: lambda rule: deep_problems.gaussian_data(rule, 3, seeds=3),
}
EVERY = pytest.mark.parametrize(("rule", "layers"), [(rule, layers) for rule in RULES for layers in PROBLEMS])


@cache
def solved(kernel: str, rule: str, layers: int) -> Solution:
    """By the kernel whose turn it is, on one thread."""
    return solve(*PROBLEMS[layers](rule), T_FINAL)


def answers(solution: Solution, times: Tensor = TIMES) -> list[Tensor]:
    """Whatever a solution says about some times, its companion's word included."""
    curves = [quantity(times).layers for quantity in (solution.evaluate, solution.velocity, solution.error)]
    return [*(tensor for curve in [*curves, solution.pattern(times)] for tensor in curve), solution.events.time]


def require_equal(some: list[Tensor], others: list[Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@EVERY
def test_alone_and_in_any_company(kernel: str, rule: str, layers: int) -> None:
    (flow, weights), together = PROBLEMS[layers](rule), solved(kernel, rule, layers)
    assert together.statistics["slides"].sum() > 0
    for some in ([2, 0], [1, 1, 1, 0]):
        fewer = solve(*flow.map_matrices(weights, lambda matrix, some=some: matrix[some]), T_FINAL)
        require_equal(answers(fewer)[:-1], answers(together[some])[:-1])
        for name, count in fewer.statistics.items():
            assert torch.equal(count, together.statistics[name][some])
    alone = solve(*flow.map_matrices(weights, lambda matrix: matrix[1]), T_FINAL)
    require_equal(answers(alone), answers(together[1]))


@pytest.mark.parametrize(("rule", "layers"), [("gd", 2), ("fa", 3)])
def test_on_any_number_of_threads(kernel: str, rule: str, layers: int) -> None:
    expected = answers(solved(kernel, rule, layers))
    for count in (2, 3):
        with threads(count):
            require_equal(answers(solve(*PROBLEMS[layers](rule), T_FINAL)), expected)


@EVERY
def test_extended_stored_and_copied(kernel: str, rule: str, layers: int, tmp_path: Path) -> None:
    (flow, weights), solution = PROBLEMS[layers](rule), solved(kernel, rule, layers)
    solution.save(tmp_path / "solution.npz")
    for same in (
        flowsim.load(tmp_path / "solution.npz"),
        pickle.loads(pickle.dumps(solution)),
        copy.deepcopy(solution),
    ):
        require_equal(answers(same), answers(solution))
    longer, whole = (part.extend(1.5 * T_FINAL) for part in (solution, flowsim.load(tmp_path / "solution.npz")))
    times = 1.5 * TIMES
    require_equal(answers(longer, times), answers(whole, times))
    require_equal(answers(longer)[:4], answers(solution)[:4])
    # the step that ended at T_FINAL is one step more, with an error of its own: 1e-10 of weights below 10
    at_once = solve(flow, weights, 1.5 * T_FINAL)
    pairs = zip(longer.evaluate(times).layers, at_once.evaluate(times).layers, strict=True)
    assert max((here - there).abs().max().item() for here, there in pairs) < 1e-7
    assert longer.events.kind == at_once.events.kind


@pytest.mark.parametrize("layers", PROBLEMS)
def test_one_that_stops_says_why_and_changes_no_other(kernel: str, layers: int) -> None:
    (flow, weights), solution = PROBLEMS[layers]("fa"), solved(kernel, "fa", layers)
    steps = solution.statistics["steps"]
    most = int(steps.sort().values[1])
    assert steps.max() > most
    some = solve(flow, weights, T_FINAL, max_steps=most, throw=False)
    assert torch.equal(some.status.ended, steps <= most)
    assert all("max_steps" in reason for reason in some.status.reason[~some.status.ended])
    assert (some.status.time[~some.status.ended] < T_FINAL).all()
    require_equal(answers(some[some.status.ended])[:-1], answers(solution[steps <= most])[:-1])
    on = some.extend(1.01 * T_FINAL, throw=False)
    assert torch.equal(on.status.time[~some.status.ended], some.status.time[~some.status.ended])


@pytest.mark.parametrize("layers", PROBLEMS)
def test_an_extension_may_take_max_steps_of_its_own(kernel: str, layers: int) -> None:
    flow, weights = PROBLEMS[layers]("fa")
    most = int(solved(kernel, "fa", layers).statistics["steps"].max())
    longer = solve(flow, weights, T_FINAL, max_steps=most).extend(1.5 * T_FINAL)
    assert longer.status.ended.all()
    assert longer.statistics["steps"].max() > most


def test_a_trajectory_that_does_not_move_is_stored_once_however_often_it_is_chosen(kernel: str) -> None:
    flow = Flow(Dataset([[[1.0]], [[1.0]]], [[1], [1]]), FeedbackAlignment([1.0]))
    weights = Weights(torch.ones(2, 1, 1), torch.tensor([[0.3], [-800.0]]))  # the second one's velocity overflows
    solution = solve(flow, weights, 1.0, throw=False)
    for some in (solution, solution[[1, 0]], solution[[1, 0]][[1, 0]]):
        path = some.path
        assert isinstance(path, EventPath)
        assert path.steps.count[some.status.time == 0].tolist() == [1]
