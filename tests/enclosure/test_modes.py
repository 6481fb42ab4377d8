"""Which mode follows on a kink, and when none is proved to."""

import math

import pytest
from flint import arb

from flowsim.enclosure.exact import exact_problem
from flowsim.enclosure.modes import Mode, decide
from flowsim.enclosure.run import enclose_problem
from flowsim.errors import Undecided


def mode_of(inputs: list[list[float]], sign: int, slope: float = 0.25) -> Mode:
    """One neuron, active everywhere; drives are given to `decide` as they are."""
    neuron = [1.0] * len(inputs[0])
    problem = exact_problem(inputs, [1] * len(inputs), [neuron], [1], feedback=[sign], slope=slope, loss="exponential")
    return Mode(problem, (1,) * problem.kinks, frozenset(), sign)


def sides(inputs: list[list[float]], sign: int, met: list[int], drives: list[float], slope: float = 0.25):
    return decide(mode_of(inputs, sign, slope), met, [arb(q) for q in drives]).sides


@pytest.mark.parametrize(("other", "side"), [(3.0, 1), (0.5, 0), (0.1, -1)])
def test_an_attracting_kink_is_crossed_or_slid_along_as_the_clamp_says(other: float, side: int) -> None:
    """On the kink of (1, 0) with drive -1 the speeds are other - 1 and other - 1/4."""
    assert sides([[1, 0], [1, 1]], 1, [0], [-1.0, other])[0] == side
    assert sides([[1, 0], [1, 1]], -1, [0], [1.0, -other])[0] == side


@pytest.mark.parametrize("other", [1.0, 0.25])
def test_a_drive_at_the_very_end_of_its_interval_is_not_decided(other: float) -> None:
    with pytest.raises(Undecided, match="0 modes"):
        sides([[1, 0], [1, 1]], 1, [0], [-1.0, other])


def test_a_repelling_kink_is_crossed_in_the_direction_of_travel_only() -> None:
    assert sides([[1, 0], [1, 1]], 1, [0], [1.0, 0.5])[0] == 1
    assert sides([[1, 0], [1, 1]], 1, [0], [1.0, -3.0])[0] == -1
    with pytest.raises(Undecided) as undecided:
        sides([[1, 0], [1, 1]], 1, [0], [1.0, -0.5])
    assert undecided.value.final


def test_balls_that_are_too_wide_decide_nothing() -> None:
    with pytest.raises(Undecided):
        decide(mode_of([[1, 0], [1, 1]], 1), [0], [arb(-1), arb(0.9, 0.2)])


def test_a_corner_of_two_attracting_kinks_holds_the_neuron_by_both() -> None:
    inputs = [[1, 0.5], [0.5, 1], [1, 1]]
    assert sides(inputs, 1, [0, 1], [-1.0, -1.0, 0.75])[:2] == (0, 0)
    assert sides(inputs, 1, [0, 1], [-1.0, -1.0, 3.0])[:2] == (1, 1)


def test_a_slide_goes_on_through_a_repelling_kink_that_is_crossed_along_it() -> None:
    """Kink 0 attracts whatever kink 1 allows; along it, kink 1 is crossed."""
    assert sides([[1, 0], [0.125, 1], [1, 0.5]], 1, [0, 1], [-1.0, 0.25, 0.5])[:2] == (0, 1)


def test_a_dead_neuron_rests_on_the_kink_that_it_comes_to() -> None:
    after = decide(mode_of([[1, 0]], 1, slope=0.0), [0], [arb(-1)])
    assert after.sides == (-1,) and after.resting == {0}


def test_a_neuron_without_feedback_rests_on_however_many_kinks_it_is_on() -> None:
    """b = 0, w = 0 on seven kinks. With b = 1, and speeds that depend on all of them, seven are too many to try."""
    around = [[math.cos(2 * math.pi * k / 7), math.sin(2 * math.pi * k / 7)] for k in range(7)]
    problem = exact_problem(around, [1] * 7, [[0, 0]], [0.5], feedback=[0], slope=0.25, loss="exponential")
    (step, *_), everywhere = enclose_problem(problem, 1.0).steps, list(range(7))
    assert step.state.modes[0].resting == frozenset(everywhere)
    with pytest.raises(Undecided, match="7 kinks at once"):
        sides(around, 1, everywhere, [-1.0] * 7)


def test_dependent_kinks_have_no_unique_drives_and_are_not_decided() -> None:
    with pytest.raises(Undecided):
        sides([[1, 0], [0, 1], [-1, -1]], 1, [0, 1, 2], [-1.0, -1.0, -1.0])


def test_kinks_that_are_reached_together_along_a_slide_are_found_exactly() -> None:
    mode = mode_of([[1, 0], [1, 1], [3, -2], [1 / 3, 1]], 1).with_sides({0: 0})
    assert mode.shared(1) == [1, 2, 3]
    three = mode_of([[1, 0, 0], [1, 1, 0], [5, 1, 0], [5, 1, 2.0**-60]], 1).with_sides({0: 0})
    assert three.shared(1) == [1, 2] and three.shared(3) == [3]


def test_a_neuron_that_leaves_a_slide_and_begins_to_drive_a_kink_it_rests_on_is_undecided() -> None:
    """It slides between x and -x, and rests on the kink of a third sample, until the other neuron has f(x) < -1."""
    inputs = [[1, 0, 0], [-1, 0, 0], [0.125, 0.25, 0], [0.5, 0, 0.125]]
    problem = exact_problem(
        inputs, [-1] * 4, [[0, 0, -1], [0.5, 0, 0.25]], [1, -1], feedback=[1, -2], slope=0, loss="squared"
    )
    before = enclose_problem(problem, 1.2)
    assert not before.events and before.steps[0].state.modes[0].resting == {1}
    with pytest.raises(Undecided, match="rests on") as undecided:
        enclose_problem(problem, 1.25)
    assert undecided.value.final
