"""What a solution is apart from its numbers: its own copies, what it can be asked, and where it ends."""

import copy
import importlib.metadata
import importlib.resources
import itertools
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sample_problems import RULES, gaussian_data, separable, sliding

import flowsim
from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    IntegrationError,
    IntegrationInterrupt,
    Solution,
    Weights,
    losses,
    solve,
)
from flowsim.initialization import adafa, deep_gaussian
from flowsim.integrators import runge_kutta
from flowsim.integrators.event import compiled
from flowsim.integrators.event.batched import rounds
from flowsim.integrators.event.compiled import kernel

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


# Copies that travel

TRAVELLING = list(
    zip([*RULES, "fa"], ["exponential", "logistic", "squared", losses.polynomial(1.3), losses.exponential], strict=True)
)
"""Every rule and every loss; what travels of the one does not depend on the other."""
ROUND_TRIPS = pytest.mark.parametrize(
    "again", [lambda item: pickle.loads(pickle.dumps(item)), copy.deepcopy], ids=["pickle", "deepcopy"]
)


@ROUND_TRIPS
@pytest.mark.parametrize(("rule", "loss"), TRAVELLING, ids=range(len(TRAVELLING)))
def test_solutions_travel_to_the_last_bit(rule: str, loss: str | losses.Loss, again: Callable) -> None:
    flow, weights = gaussian_data(rule, 2, samples=5, dimension=7, width=4)
    times = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64)
    solution = solve(replace(flow, loss=loss), weights, 1.0, rtol=1e-7)
    same = again(solution)
    assert equal(answers(same, times), answers(solution, times))
    assert again(same).companion.t_final == 1  # with the companion in it


@ROUND_TRIPS
def test_runge_kutta_solutions_travel_to_the_last_bit(again: Callable) -> None:
    dataset = Dataset(torch.eye(3), [0, 1, 2], classes=3)
    solution = solve(
        Flow(dataset, GradientDescent(), "cross-entropy"), deep_gaussian((3, 4, 4, 3), 0), 0.5,
        method="dopri5", rtol=1e-6,
    )  # fmt: skip
    times = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    assert equal(answers(again(solution), times), answers(solution, times))


@ROUND_TRIPS
def test_losses_come_back_as_themselves_and_others_as_what_they_are(again: Callable) -> None:
    for loss in losses.LOSSES.values():
        assert again(loss) is loss
    outputs, labels = torch.tensor([[0.3]]), torch.tensor([[1.0]])
    power = losses.polynomial(0.1 + 0.2)
    assert torch.equal(again(power).value(outputs, labels), power.value(outputs, labels))
    mine = replace(
        losses.polynomial(2),
        name="mine",
        value=a_value,
        negative_gradient=a_value,
        series=None,
        stride=None,
        log_value=None,
    )
    assert again(mine) == mine


def a_value(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs * labels


# One trajectory stops, the others do not notice


def some_stop() -> tuple[Flow, Weights]:
    """Five trajectories: y f falls from -300 without end in 1, and starts at -800 in 3. The others go on."""
    flow, weights = gaussian_data("fa", 5, samples=5, dimension=3, width=4)
    inputs, labels = flow.dataset.inputs.clone(), flow.dataset.labels.clone()
    (feedback,) = (matrix.squeeze(-2).clone() for matrix in flow.rule.feedback_matrices(weights))
    hidden, output = weights.hidden.clone(), weights.output.clone()
    for tensor in (inputs, hidden):
        tensor[STOPPING] = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    for tensor in (labels, feedback):
        tensor[STOPPING] = 1.0
    output[STOPPING] = torch.tensor([[-75.0], [-200.0]], dtype=torch.float64)
    return Flow(Dataset(inputs, labels), FeedbackAlignment(feedback)), Weights(hidden, output)


GOING_ON, STOPPING = [0, 2, 4], [1, 3]


@pytest.fixture(scope="module")
def partial() -> Solution:
    return solve(*some_stop(), 3.0, throw=False, rtol=1e-8)


def test_the_others_are_those_of_an_ensemble_without_the_failing_ones(partial: Solution) -> None:
    flow, weights = some_stop()
    alone = solve(*flow.map_matrices(weights, lambda matrix: matrix[GOING_ON]), 3.0, rtol=1e-8)
    assert partial.status.ended.tolist() == [True, False, True, False, True]
    assert partial.status.time[GOING_ON].tolist() == [3.0] * 3
    times = torch.linspace(0, 3, 17, dtype=torch.float64)
    ended = partial[partial.status.ended]
    assert equal(answers(ended, times), answers(alone, times))
    for name, count in alone.statistics.items():
        assert torch.equal(partial.statistics[name][GOING_ON], count)
    assert list(ended.events) == list(alone.events)


def test_a_partial_solution_can_be_asked_up_to_each_ones_own_time(partial: Solution) -> None:
    """And there it is that of a solve that ends there."""
    flow, weights = some_stop()
    time = partial.status.time[1].item()
    assert 0 < time < 1e-100
    assert "y f" in partial.status.reason[1]
    one = flow.map_matrices(weights, lambda matrix: matrix[1:2])
    ends = solve(*one, time, rtol=1e-8)
    asked = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64) * time
    for quantity in ("evaluate", "velocity", "error"):
        found = getattr(partial, quantity)(asked, torch.ones(4, dtype=torch.long)).layers
        assert all(torch.isfinite(layer[:-1]).all() for layer in found)
    found, there = partial.evaluate(asked, torch.ones(4, dtype=torch.long)), ends.evaluate(asked)
    torch.testing.assert_close(found.hidden[:-1], there.hidden[:-1, 0], rtol=1e-12, atol=0)
    assert partial.pieces.end[partial.pieces.trajectory == 1].max() == time
    assert len(partial.events[partial.events.trajectory == 1]) == len(ends.events)
    assert partial.flow_of(torch.tensor([1])).dataset.inputs.shape == (1, 5, 3)
    assert torch.equal(partial.evaluate(0.0).hidden, partial.start.hidden)
    assert partial.status.time[3] == 0
    torch.testing.assert_close(partial.start.hidden, weights.hidden, rtol=1e-14, atol=0)


def test_beyond_its_own_time_a_trajectory_is_refused_by_name(partial: Solution) -> None:
    time = partial.status.time[1].item()
    match = rf"times must lie in \[0, {time!r}\] for trajectory 1, got 2\.0: it stopped there \(.*\); ask the others"
    for quantity in (partial.evaluate, partial.velocity, partial.pattern, partial.error):
        with pytest.raises(ValueError, match=match):
            quantity(2.0, torch.tensor(1))
        with pytest.raises(ValueError, match="for trajectory 1, got 2"):
            quantity([2.0])
        assert quantity(3.0, torch.tensor(4)) is not None


def test_the_error_has_what_every_trajectory_reached(partial: Solution) -> None:
    with pytest.raises(IntegrationError, match="trajectory 1 stopped") as caught:
        solve(*some_stop(), 3.0, rtol=1e-8)
    error = caught.value
    assert (error.index, error.time, error.reason) == (1, partial.status.time[1], partial.status.reason[1])
    assert error.solution is not None
    times = torch.linspace(0, 3, 7, dtype=torch.float64)
    assert equal(answers(error.solution[GOING_ON], times), answers(partial[GOING_ON], times))


@pytest.mark.parametrize("loss", ["logistic", "squared", losses.polynomial(2)], ids=range(3))
def test_for_every_loss_a_trajectory_that_uses_up_its_steps_changes_no_other(loss: str | losses.Loss) -> None:
    flow, weights = gaussian_data("fa", 5, samples=6, dimension=3, width=4)
    flow = replace(flow, loss=loss)
    steps = solve(flow, weights, 5.0).statistics["steps"]
    most = int(steps.sort().values[2])
    some = solve(flow, weights, 5.0, max_steps=most, throw=False)
    assert torch.equal(some.status.ended, steps <= most)
    assert "max_steps" in some.status.reason[int(steps.argmax())]
    stopped = ~some.status.ended
    assert some.extend(6.0, throw=False).status.time[stopped].equal(some.status.time[stopped])
    kept = torch.nonzero(steps <= most).flatten()
    alone = solve(*flow.map_matrices(weights, lambda matrix: matrix[kept]), 5.0)
    times = torch.linspace(0, 5, 17, dtype=torch.float64)
    assert equal(answers(some[some.status.ended], times), answers(alone, times))


def test_with_runge_kutta_methods_the_others_go_on_too() -> None:
    flow, weights = sliding()
    starts = Weights(torch.stack([weights.hidden, weights.hidden + 1.0]), torch.stack([weights.output] * 2))
    solution = solve(flow, starts, 0.1, method="dopri5", max_steps=300, throw=False)
    assert solution.status.ended.tolist() == [False, True]
    assert "slides on a kink" in solution.status.reason[0]
    alone = solve(flow, starts.map(lambda tensor: tensor[1:]), 0.1, method="dopri5", max_steps=300)
    times = torch.linspace(0, 0.1, 7, dtype=torch.float64)
    assert equal(answers(solution[1:], times), answers(alone, times))
    until = solution.status.time[0] * torch.linspace(0, 1, 7, dtype=torch.float64)
    assert torch.isfinite(solution.evaluate(until, torch.zeros(7, dtype=torch.long)).hidden).all()


def interrupt_batched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compiled, "has_compiled_series", lambda flow: False)
    interrupt_call(patch, rounds, "_move", 12)


def interrupt_runge_kutta(patch: pytest.MonkeyPatch) -> None:
    interrupt_call(patch, runge_kutta, "_packed", 60)


def interrupt_call(patch: pytest.MonkeyPatch, module: ModuleType, name: str, at: int) -> None:
    calls, original = itertools.count(1), getattr(module, name)

    def interrupted(*arguments: object) -> object:
        if next(calls) == at:
            raise KeyboardInterrupt
        return original(*arguments)

    patch.setattr(module, name, interrupted)


def interrupt_compiled(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, which comes to the main thread while it waits for those of the trajectories, and tells them to stop."""
    calls, follow, go_on = itertools.count(1), kernel._Track._follow, kernel._Track._go_on
    main, told = threading.main_thread().ident, {}
    assert main is not None

    def followed(track: Any, news: Any, stop: threading.Event) -> None:
        told[track] = stop
        follow(track, news, stop)

    def interrupted(track: Any, *arguments: Any) -> Any:
        if next(calls) == 3:
            signal.pthread_kill(main, signal.SIGINT)
            assert told[track].wait(60)
        return go_on(track, *arguments)

    patch.setattr(kernel, "WINDOW", 5)
    patch.setattr(kernel._Track, "_follow", followed)
    patch.setattr(kernel._Track, "_go_on", interrupted)


INTERRUPTIONS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "compiled": ("event", interrupt_compiled),
    "batched": ("event", interrupt_batched),
    "dopri5": ("dopri5", interrupt_runge_kutta),
}


@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_an_interruption_hands_over_what_was_reached_and_can_be_gone_on_from(name: str) -> None:
    flow, weights = separable(3)
    t_final, (method, interrupt) = 2.0, INTERRUPTIONS[name]
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch)
        with pytest.raises(IntegrationInterrupt) as caught:
            solve(flow, weights, t_final, method=method, rtol=1e-8)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch)
        solution = solve(flow, weights, t_final, method=method, rtol=1e-8, throw=False)
    with pytest.MonkeyPatch.context() as patch:
        if name == "batched":
            patch.setattr(compiled, "has_compiled_series", lambda flow: False)
        through = solve(flow, weights, t_final, method=method, rtol=1e-8)
    assert "interrupted from the keyboard" in solution.status.reason
    if name != "compiled":  # whose threads go on until they notice
        assert torch.equal(solution.status.time, caught.value.solution.status.time)
    for index, end in enumerate(solution.status.time.tolist()):
        times = torch.linspace(0, end, 5, dtype=torch.float64)
        which = torch.full((5,), index)
        assert torch.isfinite(solution.error(times, which).hidden).all()
        found, there = (run.evaluate(times, which).hidden for run in (solution, through))
        torch.testing.assert_close(found, there, rtol=0, atol=1e-6)
    on = solution.extend(t_final)
    assert on.status.ended.all()
    torch.testing.assert_close(on.evaluate(t_final).hidden, through.evaluate(t_final).hidden, rtol=0, atol=1e-6)
    if method == "event":  # the same steps: as if nothing had been
        times = torch.linspace(0, t_final, 9, dtype=torch.float64)
        assert equal(answers(on, times), answers(through, times))
        assert torch.equal(on.statistics["steps"], through.statistics["steps"])


# Parts, and what comes after


@cache
def two_by_three(rule: str, method: str) -> Solution:
    flow, weights = gaussian_data(rule, 6, samples=4, dimension=3, width=2)
    problem = flow.map_matrices(weights, lambda matrix: matrix.reshape(2, 3, *matrix.shape[-2:]))
    return solve(*problem, 0.1, method=method, rtol=1e-6)


@METHODS
@pytest.mark.parametrize("rule", ["gd", "sign-fa"])
@pytest.mark.parametrize(
    "index", [1, -1, (1, 2), slice(0, 1), (slice(None), 1), [1, 0], torch.tensor([[True, False, True]] * 2), ...]
)
def test_an_index_gives_the_solution_of_a_part_to_the_last_bit(index: object, rule: str, method: str) -> None:
    solution = two_by_three(rule, method)
    part, times = solution[index], torch.linspace(0, 0.1, 5, dtype=torch.float64)
    numbers = torch.arange(6).reshape(2, 3)[index]  # type: ignore[index]
    assert part.batch_shape == numbers.shape
    at = (slice(None), *index) if isinstance(index, tuple) else (slice(None), index)
    whole = [*solution.evaluate(times).layers, *solution.velocity(times).layers, *solution.error(times).layers]
    theirs = [*part.evaluate(times).layers, *part.velocity(times).layers, *part.error(times).layers]
    for layer, own in zip([*whole, *solution.pattern(times)], [*theirs, *part.pattern(times)], strict=True):
        flat = layer.reshape(5, 6, *layer.shape[-2:])[:, numbers.reshape(-1)]
        assert torch.equal(flat.reshape(own.shape), own), at
    for name, count in part.statistics.items():
        assert torch.equal(count, solution.statistics[name].reshape(6)[numbers])
    for place, number in enumerate(numbers.reshape(-1).tolist()):
        own = [event[:1] + event[2:] for event in part.events if event.trajectory == place]
        assert own == [event[:1] + event[2:] for event in solution.events if event.trajectory == number]
    assert part.flow.require_fit(part.weights) == numbers.shape


def test_indices_that_select_nothing_are_refused() -> None:
    solution = solve(UNIT, START, 0.3)
    with pytest.raises(IndexError, match="a solution of one trajectory has no batch dimension to index, got 0"):
        solution[0]
    ensemble = solve(UNIT, Weights(torch.ones(2, 1, 1), torch.ones(2, 1)), 0.3)
    with pytest.raises(ValueError, match=r"the index must select one trajectory at least of batch shape \(2,\)"):
        ensemble[[]]
    assert [part.batch_shape for part in ensemble] == [torch.Size([])] * 2
    with pytest.raises(IndexError):
        ensemble[2]


@pytest.mark.parametrize(
    ("rule", "method", "end"), [*((rule, "event", 4.0) for rule in RULES), ("separable", "dopri5", 2.0)]
)
def test_an_extension_starts_with_the_same_bits_and_ends_where_one_solve_does(
    rule: str, method: str, end: float
) -> None:
    problem = separable(3) if rule == "separable" else gaussian_data(rule, 3, samples=6, dimension=3, width=4)
    flow, weights = problem
    first = 1.0
    begun, once = (solve(flow, weights, t, method=method, rtol=1e-9) for t in (first, end))
    times = torch.linspace(0, first, 23, dtype=torch.float64)
    before = [*begun.evaluate(times).layers, *begun.velocity(times).layers, *begun.pattern(times)]
    on = begun.extend(end)
    assert on.t_final == end
    assert equal([*on.evaluate(times).layers, *on.velocity(times).layers, *on.pattern(times)], before)
    later = torch.linspace(0, end, 41, dtype=torch.float64)
    for found, there, error in zip(
        on.evaluate(later).layers, once.evaluate(later).layers, on.error(later).layers, strict=True
    ):
        assert (found - there).abs().amax() <= error.amax()
    assert on.companion.t_final == end
    assert [event[1:] for event in on.events] == [event[1:] for event in once.events]
    assert (on.statistics["steps"] >= begun.statistics["steps"]).all()


def test_what_slides_goes_on_sliding_when_it_is_extended() -> None:
    """Solution 2 of theorems/README.md, section 8: no event but the exit of a solve in one go, whose time it is."""
    flow, weights = sliding()
    once = solve(flow, weights, 2.0)
    (exit_,) = [event for event in once.events if event.kind == "sliding exit"] or [None]
    begun = solve(flow, weights, 0.1)
    assert begun.pattern(0.1)[0][0, 0] == 0
    on = begun.extend(2.0)
    assert on.pattern(0.11)[0][0, 0] == 0
    assert [event[1:] for event in on.events] == [event[1:] for event in once.events]
    if exit_ is not None:
        assert on.events[0].time == pytest.approx(exit_.time, rel=1e-9)
    for again in (begun.extend(0.5).extend(1.0).extend(2.0), on):
        torch.testing.assert_close(again.evaluate(2.0).hidden, once.evaluate(2.0).hidden, rtol=0, atol=1e-9)


def test_extensions_that_lead_nowhere_are_refused() -> None:
    solution = solve(UNIT, START, 0.3)
    with pytest.raises(ValueError, match=r"t_final must be later than the end of the solution, 0\.3, got 0\.2"):
        solution.extend(0.2)
    with pytest.raises(ValueError, match="t_final must be a finite number above 0, got nan"):
        solution.extend(float("nan"))
    flow, weights = some_stop()
    stays = solve(flow, weights, 1.0, throw=False).extend(2.0, throw=False)
    assert stays.status.ended.tolist() == [True, False, True, False, True]
    assert stays.status.time[GOING_ON].tolist() == [2.0] * 3
    with pytest.raises(IntegrationError, match="trajectory 1 stopped"):
        stays.extend(3.0)


# What is printed


def test_objects_are_told_in_one_short_line() -> None:
    flow, weights = some_stop()
    classes = Flow(Dataset(torch.eye(3), [0, 1, 2], classes=3), GradientDescent(), "cross-entropy", 0)
    assert repr(flow) == "Flow(Dataset(inputs (5, 5, 3), labels +-1), FeedbackAlignment, exponential loss, slope 0.3)"
    assert repr(classes) == "Flow(Dataset(inputs (3, 3), 3 classes), GradientDescent, cross-entropy loss, slope 0)"
    assert repr(weights) == "Weights(hidden (5, 4, 3), output (5, 4))"
    assert repr(deep_gaussian((3, 4, 5, 1), 0)) == "DeepWeights((4, 3), (5, 4), (1, 5))"
    solution = solve(flow, weights, 0.5, throw=False)
    said = repr(solution)
    assert "\n" not in said
    for part in (repr(flow), repr(weights), "t_final=0.5", "event", "3 of 5 ended; trajectory 1 stopped at t = "):
        assert part in said
    assert repr(solution[0].status) == "Status(1 ended)"


def test_the_version_is_that_of_the_distribution() -> None:
    assert flowsim.__version__ == importlib.metadata.version("flowsim")


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files("flowsim").joinpath("py.typed").is_file()
