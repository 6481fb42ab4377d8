"""Tables for polynomials through the nodes of a piece: against closed forms, and bounds against dense samples."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from theorems.polynomial import (
    BERNSTEIN,
    DERIVATIVES,
    FEWER,
    INTEGRAL_ROUNDINGS,
    INTEGRALS,
    LEGENDRE,
    NODES,
    PLACES,
    lower_bound,
)


def test_nodes_integrals_and_coefficients_are_exact_for_polynomials() -> None:
    assert PLACES[0] == 0
    assert PLACES[-1] == 1
    for degree in range(NODES):
        values = PLACES**degree
        # rounding of the inverse Vandermonde matrices, which have condition numbers of some 10
        torch.testing.assert_close(INTEGRALS @ values, PLACES ** (degree + 1) / (degree + 1), rtol=0, atol=1e-14)
        legendre = torch.special.legendre_polynomial_p(2 * PLACES - 1, degree)
        assert ((LEGENDRE @ legendre) - torch.eye(NODES, dtype=torch.float64)[degree]).abs().max() < 1e-13
    over = INTEGRALS[-1]
    for degree in range(2 * NODES - 2):  # Lobatto quadrature
        assert over @ PLACES**degree == pytest.approx(1 / (degree + 1), rel=1e-13)


def test_entries_of_the_integrals_are_off_by_less_than_is_allowed_for_their_rounding() -> None:
    """Lagrange polynomials of the nodes, integrated with 40 digits; the sum of the products takes the rest."""
    with mpmath.workdps(40):
        nodes = [mpmath.mpf(place) for place in PLACES.tolist()]
        vandermonde = mpmath.matrix([[node**k for k in range(NODES)] for node in nodes])
        powers = mpmath.matrix([[node ** (k + 1) / (k + 1) for k in range(NODES)] for node in nodes])
        exact = powers * vandermonde**-1
        off = [sum(abs(exact[i, k] - INTEGRALS[i, k].item()) for k in range(NODES)) for i in range(NODES)]
        assert off[0] == 0
        assert max(off) < (INTEGRAL_ROUNDINGS - NODES) * torch.finfo(torch.float64).eps
    assert not INTEGRALS[0].any() and not FEWER[0].any(), "at the start of a piece nothing is added, not even rounding"


def test_integrals_follow_an_exponential_to_rounding_at_every_node() -> None:
    """E^{3 s}: outputs change by 3 in a step at most."""
    exact = (torch.exp(3 * PLACES) - 1) / 3
    assert (INTEGRALS @ torch.exp(3 * PLACES) - exact).abs().max() < 1e-14 * math.exp(3)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_bernstein_coefficients_bound_the_polynomial_from_below(coefficients: list[float]) -> None:
    controls = BERNSTEIN @ torch.tensor(coefficients, dtype=torch.float64)
    at = torch.linspace(0, 1, 201, dtype=torch.float64)
    values = sum(c * torch.special.legendre_polynomial_p(2 * at - 1, degree) for degree, c in enumerate(coefficients))
    assert isinstance(values, torch.Tensor)
    assert controls.min() <= values.min() + 1e-12
    assert controls[0] == pytest.approx(values[0].item(), abs=1e-12)
    assert controls[-1] == pytest.approx(values[-1].item(), abs=1e-12)


def test_derivatives_and_integrals_by_fewer_nodes_are_exact_for_polynomials() -> None:
    for degree in range(NODES):
        slope = degree * PLACES ** max(degree - 1, 0)
        # the entries of the table add up to 500
        torch.testing.assert_close(DERIVATIVES @ PLACES**degree, slope, rtol=0, atol=500 * 16 * 2.2e-16)
    for degree in range(NODES - 2):
        torch.testing.assert_close(FEWER @ PLACES**degree, PLACES ** (degree + 1) / (degree + 1), rtol=0, atol=1e-14)
    assert (FEWER @ PLACES ** (NODES - 2) - PLACES ** (NODES - 1) / (NODES - 1)).abs().max() > 1e-12, "of lower degree"
    assert not FEWER[:, [0, -1]].any()


@pytest.mark.parametrize("rate", [3.0, -6.0, 12.0])
def test_two_rules_of_different_degree_differ_by_more_than_the_better_one_is_off(rate: float) -> None:
    exact = (torch.exp(rate * PLACES) - 1) / rate
    values = torch.exp(rate * PLACES)
    estimate, off = ((INTEGRALS - FEWER) @ values).abs().amax(), (INTEGRALS @ values - exact).abs().amax()
    assert off < estimate
    assert estimate < 1e-6 * math.exp(max(rate, 0))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=NODES, max_size=NODES), st.floats(-20, 20), st.floats(-3, 3))
def test_the_lower_bound_is_one_of_any_polynomial_of_the_degree(
    coefficients: list[float], shift: float, size: float
) -> None:
    """Against a sample of 2000 points, with values and changes of any sizes."""
    at = np.linspace(-1, 1, 2001)
    nodes = (2 * PLACES - 1).numpy()
    values, samples = (
        10**size * np.polynomial.legendre.legval(points, coefficients) + shift for points in (nodes, at)
    )  # fmt: skip
    assert lower_bound(torch.from_numpy(values).unsqueeze(-1)).item() <= samples.min()


def test_the_lower_bound_of_a_flat_or_linear_function_is_its_minimum_up_to_rounding() -> None:
    values = torch.stack([torch.full_like(PLACES, 7.0), 2 + PLACES, 3 - PLACES, 1e-30 * PLACES], -1)
    torch.testing.assert_close(lower_bound(values), torch.tensor([7.0, 2, 2, 0]).double(), rtol=0, atol=3e-14)
