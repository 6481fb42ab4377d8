"""The thresholds of the event-driven integrator stand in one order, as their meanings ask."""

import math

import pytest

from flowsim.integrators import LOOSER
from flowsim.integrators.event import tolerances as t

WELL = 5.0
"""What lies well above something else is at least so many times as large."""

SIZES = [
    t.CONVERGED, t.FINEST, t.SHORTEST, t.BLOCKED, t.TIE, t.ON_KINK, t.ZERO, t.AT_END, t.PARALLEL, t.NOTHING,
    t.RESTING, t.AT_REST, t.FARTHEST, t.INDEPENDENT, t.NEARLY_PARALLEL, t.NOISE, t.WHOLE, t.TOGETHER, t.SHRINKING,
    t.THROUGH, t.MOVED, t.FASTER, t.STEADY, t.LONGEST,
]  # fmt: skip
TIMES = [t.WINDOWS, t.UNDECIDED, t.EXCHANGES, t.IDLE, t.WINDOW, t.NEWTON]


def test_they_are_all_there_in_ascending_order_as_they_are_written() -> None:
    named = [value for name, value in vars(t).items() if name.isupper()]
    assert named == [t.EPS, t.TINY, t.LENGTHS, *SIZES, *TIMES, t.NARROW, t.SMALL]
    assert sorted(SIZES) == SIZES
    counts = [count if isinstance(count, int) else count[0] for count in TIMES]
    assert sorted(counts) == counts


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("BLOCKED", "ZERO"),  # a drive clamped to an end of its interval gives no speed
        ("ON_KINK", "ZERO"),
        ("AT_END", "AT_REST"),  # what leaves sliding by rounding is not sent back
        ("PARALLEL", "INDEPENDENT"),  # what shares a kink is not asked whether it depends
        ("PARALLEL", "NEARLY_PARALLEL"),
        ("ON_KINK", "NOTHING"),  # roundings add up on the way through a layer
        ("ON_KINK", "FARTHEST"),
        ("TIE", "TOGETHER"),
        ("NOISE", "MOVED"),
        ("UNDECIDED", "IDLE"),
    ],
)
def test_what_is_said_to_lie_well_above_does(below: str, above: str) -> None:
    assert getattr(t, above) >= WELL * getattr(t, below)


def test_roots_are_finer_than_what_tells_them_apart() -> None:
    assert t.EPS < t.CONVERGED < t.FINEST < t.TIE
    assert -math.log2(t.EPS) + 1 < t.NEWTON / 2, "half of the iterations may halve the step, half the bracket"


def test_parallel_inputs_are_among_the_candidates() -> None:
    """The square of the sine is that of the distance, up to the rounding of inner products of 1e6 numbers."""
    assert t.PARALLEL**2 + 1e6 * t.EPS < t.NEARLY_PARALLEL


def test_crawling_is_steady_and_steps_that_are_not_are_longer() -> None:
    assert 1 < t.FASTER < t.STEADY
    assert WELL * t.MOVED < 0.17, "what steps limited by the change of the weights move them by"
    assert t.IDLE < t.WINDOW
    assert t.SHRINKING * t.LONGEST == 1


def test_squares_of_lengths_and_sums_of_them_are_numbers() -> None:
    shortest, longest = t.LENGTHS
    assert 0 < shortest**2 < longest**2 < longest**2 * 1e6 < math.inf
    assert shortest**2 >= 2.0**-1022


def test_a_whole_order_is_found_whatever_rounding_does_to_it() -> None:
    """log(rtol) / log(LOOSER) is rounded by a few EPS of at most 20; a tolerance one part in 1e8 off is another one."""
    assert 100 * 20 * t.EPS < t.WHOLE < 1e-8 / math.log(LOOSER)
