"""Runs that crawl are told, and no others are."""

import warnings

import numpy as np
import pytest
import torch
from sample_problems import RULES, gaussian_data, separable

from flowsim import CrawlingWarning, Dataset, FeedbackAlignment, Flow, GradientDescent, IntegrationError, Weights, solve
from flowsim.integrators.event.crawl import Crawl, split_hopeless
from flowsim.integrators.event.tolerances import WINDOW
from flowsim.rules import Rule


def cannot_be_fitted(loss: str, rule: Rule | None = None) -> tuple[Flow, Weights]:
    """Five points in the plane under labels that three neurons cannot fit."""
    generator = np.random.default_rng(7_000_003)
    generator.integers([2, 2, 1], [6, 4, 4])
    inputs, hidden, output = (
        generator.standard_normal((5, 2)), generator.standard_normal((3, 2)), generator.standard_normal(3) * 0.5
    )  # fmt: skip
    labels = generator.choice([-1.0, 1.0], 5)
    return Flow(Dataset(inputs, labels), rule or GradientDescent(), loss), Weights(*map(torch.tensor, (hidden, output)))


def warned(problem: tuple[Flow, Weights], t_final: float, **options: object) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve(*problem, t_final, throw=False, **options)  # type: ignore[arg-type]
        solution.error(solution.status.time.min().item())  # the companion does not warn again
    assert all(item.category is CrawlingWarning for item in caught)
    assert all(item.filename == __file__ for item in caught)
    return [str(item.message) for item in caught]


@pytest.mark.parametrize(("loss", "t_final"), [("exponential", 500.0), ("logistic", 2000.0), ("squared", 1000.0)])
def test_runs_at_rest_are_told_once_with_what_is_left(loss: str, t_final: float) -> None:
    (message,) = warned(cannot_be_fitted(loss), t_final)
    assert message.startswith("trajectory 0 crawls: since t = ")
    assert "stiff" in message
    assert "\n" not in message
    # the number foretold, from where it is told: steps are as long in a second half of the run as they were in a first
    told = float(message.split("take about ")[1].split(" ")[0])
    steps = [int(solve(*cannot_be_fitted(loss), t, throw=False).statistics["steps"]) for t in (t_final / 2, t_final)]
    assert 0.2 * (steps[1] - steps[0]) < told < 2.2 * (steps[1] - steps[0])


@pytest.mark.parametrize(
    ("growth", "moves", "eventful", "crawls"),
    [(1.0, 0.0, False, True), (1.1, 1e-2, False, True), (1.5, 0.0, False, False), (0.5, 0.0, False, False),
     (1.0, 0.05, False, False), (1.0, 1e-4, False, True), (1.0, 0.0, True, False)],
)  # fmt: skip
def test_what_crawls_are_steady_steps_without_events_in_which_nothing_moves(
    growth: float, moves: float, eventful: bool, crawls: bool
) -> None:
    """A window of steps takes `growth` times the time of the one before, and moves the weights by `moves`."""
    weights, time, steps = torch.tensor([[0.3, -2.0]], dtype=torch.float64), torch.zeros(1).double(), torch.tensor([0])
    one, ends = torch.tensor([0]), torch.tensor([1e9], dtype=torch.float64)
    crawl, length, found = Crawl(time, weights, steps), 1.0, []
    for window in range(1, 7):
        time, steps = time + length, steps + WINDOW
        found += crawl.look(one, time, weights * (1 + moves * window), steps, torch.tensor([eventful]), ends)
        length *= growth
    assert bool(found) is crawls
    hopeless, slow = split_hopeless(found, [1000])
    assert hopeless == found
    assert slow == []


def test_trajectories_are_judged_alone_as_they_are_together() -> None:
    """Three of them; the second is not under way any more after the second window."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    zeros, none = torch.zeros(3).double(), torch.zeros(3, dtype=torch.long)
    together = Crawl(zeros, start, none)
    alone = [Crawl(zeros[:1], start[at : at + 1], none[:1]) for at in range(3)]
    lengths = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    found = []
    for window in range(1, 6):
        index = torch.tensor([0, 1, 2] if window < 3 else [0, 2])
        weights = start * (1 + window * torch.tensor([[1e-3], [0.0], [0.2]]).double())
        steps, ends = none + window * WINDOW, torch.full((3,), 1e6, dtype=torch.float64)
        rows = window * lengths, weights, steps, torch.zeros(3, dtype=torch.bool), ends
        found = together.look(index, *(row[index] for row in rows))
        single = [alone[at].look(torch.tensor([0]), *(row[at : at + 1] for row in rows)) for at in index.tolist()]
        assert found == [item._replace(position=at) for at, items in enumerate(single) for item in items]
        assert [index[item.position].item() for item in found] == ([0] if window >= 4 else [])
    (item,) = found
    assert item.since == 1.0
    assert item.speed == pytest.approx(1e-3 / 1.005)
    assert item.left == pytest.approx((1e6 - 5) * WINDOW)
    assert split_hopeless(found, [10**9, 0]) == ([], found)


def test_in_an_ensemble_the_one_that_crawls_is_named() -> None:
    flow, weights = cannot_be_fitted("squared")
    flow, weights = flow.map_matrices(weights, lambda matrix: matrix.expand(2, *matrix.shape[-2:]).clone())
    inputs = flow.dataset.inputs.clone()
    inputs[0] *= 1e-3  # slow, and so not at rest
    (message,) = warned((Flow(Dataset(inputs, flow.dataset.labels), flow.rule, "squared"), weights), 1000.0)
    assert message.startswith("trajectory 1 crawls")


@pytest.mark.parametrize("loss", ["exponential", "squared"])
def test_a_run_that_would_use_up_its_steps_stops_right_away_and_says_so(loss: str) -> None:
    problem = cannot_be_fitted(loss)
    with pytest.raises(IntegrationError, match=r"the problem is stiff: .* the rest would take about") as caught:
        solve(*problem, 1e7)
    solution = caught.value.solution
    assert solution is not None
    assert solution.statistics["steps"] < 1500
    assert warned(problem, 1e7) == []  # it is a status, then
    partial = solve(*problem, 1e7, throw=False)
    assert partial.status.reason.item() == caught.value.reason
    assert torch.isfinite(partial.error(partial.status.time.item()).hidden).all()


@pytest.mark.parametrize("t_final", [1e6, 1e9])
def test_long_runs_whose_steps_grow_are_not_told(t_final: float) -> None:
    assert warned(separable(3), t_final) == []
    assert warned((Flow(separable(1)[0].dataset, GradientDescent(), "logistic"), separable(1)[1]), t_final) == []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", ["exponential", "squared"])
def test_runs_with_events_all_along_are_not_told(rule: str, loss: str) -> None:
    assert warned(gaussian_data(rule, 2, samples=20, dimension=6, width=10, loss=loss), 5.0) == []


def test_a_slow_start_near_a_saddle_is_not_told() -> None:
    """Weights of 1e-6 grow by e in a time of about 1: they hardly move against 1, but against their own size."""
    generator = torch.Generator().manual_seed(0)
    weights = Weights(
        1e-6 * torch.randn(5, 3, generator=generator, dtype=torch.float64),
        1e-6 * torch.randn(5, generator=generator, dtype=torch.float64),
    )
    dataset = Dataset(torch.randn(6, 3, generator=generator, dtype=torch.float64), [1, -1, 1, -1, 1, 1])
    assert warned((Flow(dataset, GradientDescent(), "squared"), weights), 30.0) == []
    assert warned((Flow(dataset, FeedbackAlignment(torch.ones(5)), "exponential"), weights), 30.0) == []
