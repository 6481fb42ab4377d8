"""Whole runs: nesting, conservation, float solves inside, symmetries, and what is left undecided."""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import pytest
import torch
from flint import arb, ctx
from sample_problems import sliding

from enclosure.runs import assert_inside, balls, gaussian, one_neuron, weights_of
from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Undecided,
    Weights,
    enclose,
    solve,
)
from flowsim.enclosure import steps
from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.exact import exact_problem, problem_of
from flowsim.enclosure.points import at_local, conserved
from flowsim.enclosure.run import enclose_problem
from flowsim.enclosure.start import start
from flowsim.enclosure.tails import Tails
from flowsim.rules import Rule

RUNS = [
    (0, "fa", "exponential", 0.3),
    (1, "fa", "logistic", 0.0),
    (0, "sign-fa", "exponential", 0.3),
    (1, "sign-fa", "squared", 0.3),
    (0, "gd", "logistic", 0.3),
    (1, "gd", "squared", 0.0),
    (2, "fa", "exponential", 1.0),
]


@cache
def enclosed(seed: int, rule: str, loss: str, slope: float) -> Enclosure:
    return enclose(*gaussian(seed, rule, loss, slope), 10.0, bits=128)


@pytest.mark.parametrize("make", [sliding, one_neuron, lambda: gaussian(0, "sign-fa")])
def test_more_bits_lie_inside_of_fewer(make) -> None:
    flow, weights = make()
    few, many = (enclose(flow, weights, 8.0, bits=count) for count in (96, 160))
    assert_inside(many, few, [0.5, 1.7, 4.0, 8.0])
    for rough, sharp in zip(few.events, many.events, strict=True):
        assert rough[1:] == sharp[1:] and rough.time.overlaps(sharp.time) and sharp.time.rad() < rough.time.rad()


@pytest.mark.parametrize(("seed", "rule", "loss", "slope"), RUNS)
def test_what_is_conserved_lies_in_its_ball_at_every_step(seed: int, rule: str, loss: str, slope: float) -> None:
    enclosure = enclosed(seed, rule, loss, slope)
    with ctx.workprec(256):
        first = None
        for step in enclosure.steps:
            for local in (arb(0), (step.length / 2).mid(), step.length):
                gaps = conserved(at_local(enclosure.problem, step, local))
                first = first or gaps
                for gap, start_gap in zip(gaps, first, strict=True):
                    assert (gap - start_gap).contains(0) and gap.rad() < 1e-15


@pytest.mark.parametrize(("seed", "rule", "loss", "slope"), RUNS)
def test_the_float_solution_has_the_same_events_and_errors_within_its_estimate(
    seed: int, rule: str, loss: str, slope: float
) -> None:
    enclosure, solution = enclosed(seed, rule, loss, slope), solve(*gaussian(seed, rule, loss, slope), 10.0)
    compared = enclosure.compare(solution)
    assert compared.within and not compared.understated
    assert all(low <= high for low, high in zip(compared.lower, compared.upper, strict=True))
    for proved, found in zip(enclosure.events, solution.events, strict=True):
        assert (proved.sample, proved.neuron, proved.before, proved.after, proved.kind) == (
            found.sample, found.neuron, found.before, found.after, found.kind
        )  # fmt: skip
        assert abs(proved.time - found.time) < 1e-8


def test_runs_have_slides_that_begin_and_end_and_sign_changes() -> None:
    kinds = {event.kind for run in RUNS for event in enclosed(*run).events}
    assert kinds == {"crossing", "sliding entry", "sliding exit", "sign change"}


@pytest.mark.parametrize("rule", ["fa", "gd", "sign-fa"])
def test_a_start_in_balls_contains_runs_from_all_starts_within(rule: str) -> None:
    flow, weights = gaussian(1, rule)
    problem, size = problem_of(flow, weights), 2.0**-40
    exact = start(problem)
    wide = replace(
        exact,
        hidden=tuple(tuple(entry + arb(0, size) for entry in row) for row in exact.hidden),
        output=tuple(entry + arb(0, size) for entry in exact.output),
    )
    enclosure = enclose_problem(problem, 4.0, bits=128, beginning=wide)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        signs = [2.0 * torch.randint(2, x.shape, generator=generator) - 1 for x in (weights.hidden, weights.output)]
        moved = Weights(weights.hidden + size * 0.999 * signs[0], weights.output + size * 0.999 * signs[1])
        run = enclose(flow, moved, 4.0, bits=128)
        solution = solve(flow, moved, 4.0, rtol=1e-13, atol=1e-15)
        for time in (0.5, 2.0, 4.0):
            floats = solution.evaluate(time)
            numbers = [*floats.output.tolist(), *floats.hidden.reshape(-1).tolist()]
            for outer, inner, number in zip(balls(enclosure.at(time)), balls(run.at(time)), numbers, strict=True):
                assert outer.contains(inner)
                assert (outer + arb(0, 1e-13)).contains(arb(number))


@pytest.mark.parametrize("rule", ["fa", "sign-fa"])
def test_fractions_that_are_no_floats_are_taken_exactly(rule: str) -> None:
    """Thirds everywhere; the law of Theorem 5.2 with the exact b holds to all digits, through a crossing."""
    third = Fraction(1, 3)
    problem = exact_problem(
        [[third, 1], [2 * third, -third]],
        [1, -1],
        [[-third / 3, 0]],
        [2 * third],
        feedback=[third] if rule == "fa" else None,
        scale=None if rule == "fa" else third,
        slope=third,
        loss="exponential",
    )
    enclosure = enclose_problem(problem, 10.0)
    assert enclosure.events
    with ctx.workprec(256):
        gaps = []
        for time in (0, 10):
            point = enclosure.at(time)
            gaps.append(point.output[0] / 3 - sum(w * w for w in point.hidden[0]) / 2)
        assert (gaps[1] - gaps[0]).contains(0) and gaps[1].rad() < 1e-60


def test_bits_are_raised_where_they_do_not_suffice() -> None:
    flow, weights = gaussian(0, "fa", sizes=(8, 5, 6))
    enclosure = enclose(flow, weights, 20.0, bits=53)
    assert enclosure.bits > 53
    assert_inside(enclose(flow, weights, 20.0, bits=enclosure.bits + 32), enclosure, [20.0])


def test_two_events_that_only_more_bits_tell_apart_are_told_apart() -> None:
    """Two neurons cross 1e-45 apart."""
    near = Fraction(-1, 2) + Fraction(1, 10**45)
    problem = exact_problem(
        [[1], [2]], [1, 1], [[Fraction(-1, 2)], [near]], [1, 1], feedback=[1, 1], slope=0.5, loss="exponential"
    )
    enclosure = enclose_problem(problem, 3.0, bits=64)
    assert enclosure.bits > 64
    assert [event.neuron for event in enclosure.events] == [1, 0]


def test_symmetric_samples_that_cross_at_once_are_undecided_and_not_guessed() -> None:
    flow = Flow(Dataset([[1.0, 0.0], [0.0, 1.0]], [1, 1]), FeedbackAlignment([1.0]))
    with pytest.raises(Undecided, match="not proved to come") as undecided:
        enclose(flow, weights_of([[-0.5, -0.5]], [0.5]), 5.0)
    assert undecided.value.time is not None


def test_equal_neurons_and_samples_and_parallel_inputs_are_as_good_as_a_larger_weight() -> None:
    """The doubled sample has twice the weight; the doubled neuron acts twice."""
    data = [[1.0, 0.5], [-0.5, 1.0], [1.0, 0.5], [-2.0, -1.0]]
    flow = Flow(Dataset(data, [1, -1, 1, -1]), FeedbackAlignment([1.0, 1.0, -0.5]))
    weights = weights_of([[0.25, -1.0], [0.25, -1.0], [0.5, 0.75]], [0.5, 0.5, 0.25])
    enclosure = enclose(flow, weights, 10.0)
    assert enclosure.compare(solve(flow, weights, 10.0)).within
    point = enclosure.at(10.0)
    assert point.output[0] is point.output[1] and len(point.hidden) == 3
    assert enclosure.events


@pytest.mark.parametrize("rule", [GradientDescent(), FeedbackAlignment([1.0]), SignFeedbackAlignment()])
def test_a_start_on_a_repelling_kink_has_several_solutions_and_is_refused(rule) -> None:
    flow = Flow(Dataset([[1.0, 0.0], [-1.0, 1.0]], [1, 1]), rule)
    with pytest.raises(Undecided) as undecided:
        enclose(flow, weights_of([[0.0, 1.0]], [1.0]), 1.0)
    assert undecided.value.time == 0 and undecided.value.final


def test_hidden_weights_zero_are_refused_where_solutions_branch_and_taken_where_they_do_not() -> None:
    branching = Flow(Dataset([[1.0, 0.0], [-1.0, 0.5]], [1, 1]), FeedbackAlignment([1.0]))
    with pytest.raises(Undecided):
        enclose(branching, weights_of([[0.0, 0.0]], [0.5]), 1.0)
    separable = Flow(Dataset([[1.0, 0.0], [0.5, 0.5]], [1, 1]), FeedbackAlignment([1.0]))
    enclosure = enclose(separable, weights_of([[0.0, 0.0]], [0.5]), 5.0)
    assert enclosure.compare(solve(separable, weights_of([[1e-300, 1e-300]], [0.5]), 5.0)).within


def test_gradient_descent_from_zero_weights_on_kinks_is_undecided() -> None:
    with pytest.raises(Undecided):
        enclose(Flow(Dataset([[1.0]], [1]), GradientDescent()), weights_of([[0.0]], [0.0]), 1.0)


def test_sign_feedback_at_zero_takes_the_sign_that_the_weight_moves_to() -> None:
    flow = Flow(Dataset([[1.0]], [-1]), SignFeedbackAlignment(0.5))
    enclosure = enclose(flow, weights_of([[1.0]], [0.0]), 2.0)
    assert enclosure.at(2.0).output[0] < 0 and enclosure.at(2.0).hidden[0][0] > 1
    with pytest.raises(Undecided, match="take a sign"):
        enclose(flow, weights_of([[0.0]], [0.0]), 2.0)


def test_a_linear_network_has_no_events() -> None:
    flow, weights = gaussian(3, "gd", "squared", slope=1.0)
    assert not enclose(flow, weights, 5.0, bits=128).events


def test_a_dead_neuron_stands_still_exactly() -> None:
    flow = Flow(Dataset([[1.0, 0.0]], [-1]), FeedbackAlignment([1.0]), slope=0.0)
    weights = weights_of([[0.5, 0.25]], [0.25])
    enclosure = enclose(flow, weights, 20.0)
    (death,) = enclosure.events
    assert (death.before, death.after) == (1, -1)
    assert enclosure.at(20.0).hidden[0][0].contains(0) and enclosure.compare(solve(flow, weights, 20.0)).within


@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.0, 0.5)])
def test_neurons_on_the_same_sides_leave_a_shared_kink_at_one_time(factors: tuple[float, float]) -> None:
    """By exact reasoning: the drives that hold them are the same up to b_j, whatever their weights."""
    flow = Flow(Dataset([[1.0, 0.0], [0.6, 1.2]], [-1, 1]), FeedbackAlignment(list(factors)))
    weights = weights_of([[0.0, 0.3], [0.0, 0.7]], [0.1, 0.2])
    enclosure = enclose(flow, weights, 10.0, bits=128)
    leaving = [event for event in enclosure.events if event.kind == "sliding exit"]
    assert [(event.neuron, event.sample) for event in leaving] == [(0, 0), (1, 0)]
    assert str(leaving[0].time) == str(leaving[1].time)
    found = solve(flow, weights, 10.0, rtol=1e-12, atol=1e-14)
    assert enclosure.compare(found).within
    times = [event.time for event in found.events if event.kind == "sliding exit"]
    assert times == pytest.approx([float(leaving[0].time)] * 2, abs=1e-10)


def test_a_run_ends_with_the_step_that_takes_all_of_the_time_and_not_with_one_that_may(monkeypatch) -> None:
    """The first step is made to end in the ball of all remaining time: a sliver is left, and is the last step."""
    end, horizon, left = Fraction(1, 300), steps._horizon, []

    def first_short(tails, remaining):
        left.append(remaining)
        return (remaining.mid(), False) if len(left) == 1 else horizon(tails, remaining)

    monkeypatch.setattr(steps, "_horizon", first_short)
    enclosure = enclose_problem(problem_of(*one_neuron()), end, bits=128)
    with ctx.workprec(128):
        assert len(enclosure.steps) == 2 and left[1].contains(0)
        assert not any(step.length < remaining for step, remaining in zip(enclosure.steps[1:], left[1:], strict=True))
        last = enclosure.steps[-1]
        tails = Tails(last.disc, [last.disc.rho], [last.disc.rho], [], [])
        reach, is_last = horizon(tails, arb(10) ** 9)
        assert not is_last and horizon(tails, reach + arb(0, 1e-30))[1]


def test_a_run_much_shorter_than_its_series_reach_takes_one_step() -> None:
    """Few coefficients are taken, as an event is near; they reach that far from a disc that is not so small."""
    near = Fraction(1, 10**12)
    problem = exact_problem([[1]], [1], [[-near]], [1], feedback=[1], slope=Fraction(3, 10), loss="exponential")
    assert len(enclose_problem(problem, near, bits=192).steps) == 1


@pytest.mark.parametrize("rule", [FeedbackAlignment([1.0, 0.5, 1.0]), SignFeedbackAlignment(0.5)])
def test_neurons_with_multiples_of_the_same_weights_arrive_at_one_time(rule: Rule) -> None:
    """By exact reasoning: what moves w_j is b_j times what moves the others, whatever their v_j are."""
    flow = Flow(Dataset([[1.0, 0.0], [0.6, 1.2]], [1, 1]), rule)
    hidden = [[-0.5, 0.3], [-0.25, 0.15], [-0.4, 0.25]]
    if isinstance(rule, SignFeedbackAlignment):
        hidden[1] = hidden[0]
    enclosure = enclose(flow, weights_of(hidden, [0.5, 0.25, 0.75]), 5.0, bits=128)
    arrivals = {(event.neuron, event.sample): event.time for event in enclosure.events}
    assert {0, 1, 2} == {neuron for neuron, _ in arrivals}
    for sample in {sample for _, sample in arrivals}:
        assert str(arrivals[0, sample]) == str(arrivals[1, sample])
        assert not arrivals[0, sample].overlaps(arrivals[2, sample])
    assert enclosure.compare(solve(flow, weights_of(hidden, [0.5, 0.25, 0.75]), 5.0, rtol=1e-11, atol=1e-13)).within


def test_neurons_are_twins_no_longer_when_the_sign_of_one_has_changed() -> None:
    flow = Flow(Dataset([[1.0, 0.0], [0.6, 1.2]], [-1, -1]), SignFeedbackAlignment(0.5))
    weights = weights_of([[0.5, 0.3], [0.5, 0.3]], [0.02, 0.5])
    enclosure = enclose(flow, weights, 3.0, bits=128)
    changed = [step for step in enclosure.steps if any(change.kink is None for change in step.changes)]
    assert changed, "the first sign changes"
    assert enclosure.steps[0].state.twins == (0, 0)
    assert enclosure.steps[-1].state.twins == (0, 1)
    assert enclosure.compare(solve(flow, weights, 3.0, rtol=1e-11, atol=1e-13)).within
