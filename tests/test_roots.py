"""First roots of polynomials."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim.integrators.event.batched import roots
from flowsim.integrators.event.batched.roots import find_earliest_roots, list_powers

EPS = torch.finfo(torch.float64).eps


def with_roots(*roots: complex) -> torch.Tensor:
    """prod (1 - t / root), lowest power first, padded to degree 9."""
    coefficients = np.real(np.poly(1 / np.array(roots)))  # of the polynomial in 1 / t, the highest power first
    return torch.tensor(np.pad(coefficients, (0, 10 - len(coefficients))))


def first_roots(polynomials: torch.Tensor) -> torch.Tensor:
    """Of each polynomial, alone in its group."""
    return find_earliest_roots(polynomials, torch.arange(len(polynomials)), len(polynomials), 0.0)


def first(*polynomials: torch.Tensor) -> list[float]:
    return first_roots(torch.stack(polynomials)).tolist()


def test_powers_start_with_one() -> None:
    assert list_powers(torch.tensor([0.0, 2.0]).double(), 3).tolist() == [[1, 0, 0, 0], [1, 2, 4, 8]]


def test_the_first_of_several_roots_is_found_to_rounding() -> None:
    found = first(with_roots(0.3), with_roots(0.9, 0.2, -0.5), with_roots(1.0), with_roots(0.5, 0.25, 0.75, 1.5))
    assert found == pytest.approx([0.3, 0.2, 1.0, 0.25], rel=1e-14)


def test_without_a_root_in_the_interval_there_is_none() -> None:
    assert (
        first(with_roots(1.01), with_roots(-0.3), with_roots(0.5 + 0.1j, 0.5 - 0.1j), with_roots(-2.0))
        == [math.inf] * 4
    )


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
def test_a_dip_below_zero_is_found_however_short(width: float) -> None:
    """Rounding of the coefficients, of order 1, moves a root by about EPS / |p'| = EPS / width."""
    (found,) = first(with_roots(0.37, 0.37 * (1 + width), 1.8, -0.4))
    assert found == pytest.approx(0.37, abs=64 * EPS / width)


def test_a_touch_from_above_is_no_root() -> None:
    assert first(with_roots(0.5 + 1e-5j, 0.5 - 1e-5j)) == [math.inf]


def test_a_multiple_root_where_newton_is_slow_is_found() -> None:
    """Newton's method gains one bit per iteration at a root of order 9; rounding leaves it uncertain by EPS^(1/9)."""
    (found,) = first(with_roots(*[0.5] * 9))
    assert found == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-6, 1e-4])
def test_of_three_roots_too_close_to_be_told_apart_one_is_found(spread: float) -> None:
    """The polynomial is negative behind them. Rounding leaves a triple root uncertain by EPS^(1/3) times about 10."""
    random = np.random.default_rng(0)
    centres = random.uniform(0.05, 0.95, 500)
    roots = centres[:, None] * (1 + spread * random.uniform(-1, 1, (500, 3)))
    found = first_roots(torch.stack([with_roots(*row, 1.7, -2.1) for row in roots])).numpy()
    assert (abs(found - centres) < spread + 1e-4).all()


@pytest.mark.parametrize("exponent", [10, 30, 43])
def test_two_roots_near_the_start_are_told_apart_down_to_the_finest_width(exponent: int) -> None:
    """(1 - t / r)(1 - t / 3r), exact up to a rounding: apart by 256 times the finest width at last."""
    r = 2.0**-exponent
    polynomial = torch.tensor([1.0, -4 / (3 * r), 1 / (3 * r * r), 0.0], dtype=torch.float64)
    assert first(polynomial) == pytest.approx([r], rel=1e-14, abs=0)


def test_a_root_at_the_end_to_which_newton_never_moves_is_found_to_rounding() -> None:
    """(1 - t)(2 + 2t - t^2): to a right end Newton's step is twice what is allowed after a halving, every time."""
    found = first(torch.tensor([2.0, 0.0, -3.0, 1.0], dtype=torch.float64))
    assert found == pytest.approx([1.0], rel=0, abs=2 * EPS)


def test_no_root_takes_more_than_120_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 - (t / r)^5 for r = 1e-60: 200 halvings from the right end of the interval, to what is no time at all."""
    taken = []
    monkeypatch.setattr(roots, "list_powers", lambda *given: taken.append(given) or list_powers(*given))
    (found,) = first(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, -1e300], dtype=torch.float64))
    assert len(taken) <= 120 + 1 and 0 < found < 2.0**-50  # and one for the group


def test_a_root_does_not_depend_on_the_others_that_are_sought_with_it() -> None:
    """One that has converged stays, however long others take."""
    slow, quick = with_roots(*[0.5] * 9), with_roots(0.3, 0.8)
    assert first(quick, slow)[0] == first(quick)[0]


@pytest.mark.parametrize("within", [0.0, 1e-6, 0.1])
def test_of_each_group_no_root_near_the_first_is_left_out(within: float) -> None:
    """The guess which root is first is wrong in many of the groups."""
    random = np.random.default_rng(0)
    polynomials = torch.tensor(random.standard_normal((2000, 10)))
    polynomials[:, 0] = polynomials[:, 0].abs()
    group = torch.tensor(random.integers(0, 300, 2000))
    every = first_roots(polynomials)
    least = torch.full((300,), math.inf, dtype=torch.float64).scatter_reduce(0, group, every, "amin")[group]
    found = find_earliest_roots(polynomials, group, 300, within)
    left_out = torch.isinf(found) & torch.isfinite(every)
    assert left_out.sum() > 500
    assert (every[left_out] > least[left_out] + within).all()
    torch.testing.assert_close(found[~left_out], every[~left_out], rtol=1e-13, atol=0)


def test_a_flat_start_before_a_steep_end_is_no_trap() -> None:
    """1 - (t / r)^9: Newton's first steps are huge."""
    for root in (0.2, 0.7, 0.999):
        polynomial = torch.zeros(10, dtype=torch.float64)
        polynomial[0], polynomial[9] = 1.0, -(root**-9)
        assert first(polynomial) == pytest.approx([root], rel=1e-14)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1, 1), min_size=10, max_size=10), st.floats(1e-3, 1))
def test_there_is_no_sign_change_before_the_root_and_one_at_it(coefficients: list[float], constant: float) -> None:
    """Against a fine grid, which finds the sign changes that are no dips."""
    polynomial = torch.tensor([constant, *coefficients[1:]], dtype=torch.float64)
    (root,) = first(polynomial)
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    values = (list_powers(grid, 9) * polynomial).sum(-1)
    rounding = 64 * EPS * (1 + sum(map(abs, coefficients)))
    assert (values[grid < root - 1e-3] > -rounding).all()
    if math.isfinite(root):
        assert abs((list_powers(torch.tensor(root, dtype=torch.float64), 9) * polynomial).sum().item()) <= rounding
    else:
        assert (values > -rounding).all()
