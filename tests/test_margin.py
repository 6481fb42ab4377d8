"""The SVM margin against exact rational arithmetic, on data scaled as badly as floating point can."""

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim import Dataset, margin
from flowsim.margin import TOLERANCE, hard_margin

EPS = np.finfo(float).eps
PROPERTY = settings(max_examples=50, deadline=None, derandomize=True)
Vector = list[Fraction]


def dot(left: Vector, right: Vector) -> Fraction:
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def solved(matrix: list[Vector], right: Vector) -> Vector | None:
    """By elimination with fractions; None if the matrix is singular."""
    rows = [[*row, entry] for row, entry in zip(matrix, right, strict=True)]
    size = len(rows)
    for column in range(size):
        pivot = next((row for row in range(column, size) if rows[row][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [entry / rows[column][column] for entry in rows[column]]
        for row in range(size):
            if row != column:
                factor = rows[row][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    return [row[-1] for row in rows]


def exact_square(rows: np.ndarray) -> Fraction:
    """The squared distance of 0 from the hull: the least over the faces whose nearest point lies in them.

    All sets of rows are tried: the point sum p_i s_i with G p = lambda 1 and sum p = 1, if p >= 0. By Caratheodory one
    of the affinely independent sets has it.
    """
    exact = [[Fraction(float(entry)) for entry in row] for row in rows]
    squares = []
    for size in range(1, min(len(exact), len(exact[0]) + 1) + 1):
        for face in itertools.combinations(exact, size):
            bordered = [[*(dot(a, b) for b in face), Fraction(-1)] for a in face]
            bordered.append([*[Fraction(1)] * size, Fraction(0)])
            answer = solved(bordered, [*[Fraction(0)] * size, Fraction(1)])
            if answer is not None and min(answer[:-1]) >= 0:
                squares.append(answer[-1])
    return min(squares)


def assert_right(rows: np.ndarray) -> None:
    """Never too large, and at most TOLERANCE too small: exactly 0 if the true margin is."""
    found, square = Fraction(hard_margin(rows)), exact_square(rows)
    assert found**2 <= square
    assert found**2 >= square * Fraction(1 - 2.01 * TOLERANCE)
    assert (found == 0) == (square == 0)


def badly_scaled(n: int, d: int, seed: int, spread: float, tilt: float) -> np.ndarray:
    """Rows of lengths 10^-spread to 10^spread, half of the time nearly (tilt) orthogonal to the separator."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n, d))
    if seed % 2:
        rows[:, 0] = tilt * np.abs(rows[:, 0])
    return rows * 10.0 ** generator.uniform(-spread, spread, (n, 1))


@PROPERTY
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 8.0, 100.0]),
    st.sampled_from([1.0, 1e-3, 1e-6, 1e-9, 1e-15, 1e-30]),
)  # fmt: skip
def test_margin_is_that_of_exact_arithmetic_whatever_the_scales(
    n: int, d: int, seed: int, spread: float, tilt: float
) -> None:
    assert_right(badly_scaled(n, d, seed, spread, tilt))


@PROPERTY
@given(st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=6))
def test_margin_of_small_integers_with_zeros_copies_and_opposites_is_that_of_exact_arithmetic(rows: list) -> None:
    assert_right(np.array(rows, dtype=float))


@PROPERTY
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**32), st.integers(-30, 10))
def test_margin_tells_zero_inside_the_hull_from_zero_just_outside(n: int, d: int, seed: int, exponent: int) -> None:
    """Rows whose weighted sum is 0 exactly, and the same with one more coordinate 2^exponent."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(-50, 50, (n, d)).astype(float)
    rows = np.vstack([rows, -(generator.integers(1, 5, n) @ rows)]).astype(float)
    assert hard_margin(rows) == 0
    lifted = np.hstack([rows, np.full((len(rows), 1), 2.0**exponent)])
    height = 2.0**exponent
    assert height * (1 - TOLERANCE) <= hard_margin(lifted) <= height


@pytest.mark.parametrize(
    ("rows", "margin"),
    [
        ([[1e-9, s] for s in (1.96, 1.31, -1.21, 0.66, 0.4)], 1e-9),
        ([[1e-300, s] for s in (1e300, -1e-300)], 1e-300),
        ([[1e-6, 1.56, 0.64], [1e-6, -1.22, 1.81], [1e-6, -2.02, -0.75], [1e-6, 0.82, -1.03]], 1e-6),
        ([[1e8, 4e7], [1e-8, 6e-10], [2e-9, 6.4e-9]], 6.355441980645942e-09),
        ([[5e-324, 1.0], [5e-324, -1.0]], 5e-324),
        ([[1.0, -1.0], [-1.0, 1.0 + EPS]], 0.0),
        ([[1e300, 1e-300], [-1e300, 1e-300], [0.0, -1e-300]], 0.0),
    ],
)  # fmt: skip
def test_margins_known_by_hand(rows: list, margin: float) -> None:
    if rows[0] == [1.0, -1.0]:  # |(1, -1) x (-1, 1 + eps)| / |difference|, below the rounding of the rows
        margin = EPS / math.sqrt(8)
    assert hard_margin(np.array(rows)) == pytest.approx(margin, rel=2 * TOLERANCE, abs=0)


SEPARABLE = np.array([[1.0, 0.3, 0.2], [0.5, 1.0, -0.4], [0.3, -0.2, 0.9], [2.0, 1.0, 3.0]])


@pytest.mark.parametrize("exponent", [-1000, -600, -565, 515, 1000])
def test_margin_scales_exactly_with_powers_of_two(exponent: int) -> None:
    scaled = Dataset(np.ldexp(SEPARABLE, exponent), [1] * 4)
    assert scaled.svm_margin.item() == math.ldexp(Dataset(SEPARABLE, [1] * 4).svm_margin.item(), exponent)


@PROPERTY
@given(st.integers(2, 8), st.integers(2, 6), st.integers(0, 2**32))
def test_margin_depends_neither_on_order_nor_on_coordinates_nor_on_labels(n: int, d: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n, d))
    rows *= np.sign(rows @ generator.standard_normal(d))[:, None]
    margin = hard_margin(rows)
    turn = np.linalg.qr(generator.standard_normal((d, d)))[0]
    # a turn rounds rows of lengths below 10 by a few eps each, and the margin is 1-Lipschitz in the longest
    rounding = 10 * d * EPS + 2 * TOLERANCE * margin
    assert hard_margin(rows @ turn) == pytest.approx(margin, rel=0, abs=rounding)
    assert hard_margin(rows[generator.permutation(n)][:, generator.permutation(d)]) == pytest.approx(
        margin, rel=2 * TOLERANCE
    )
    labels = generator.choice([-1.0, 1.0], n)
    assert Dataset(labels[:, None] * rows, labels).svm_margin.item() == margin


def test_margin_of_many_rows_in_the_plane_is_that_of_the_angles() -> None:
    """Unit vectors from angle -a to b around the axis: the separator halves the angle."""
    angles = np.linspace(-1.2, 1.4, 200)
    rows = np.stack([np.cos(angles), np.sin(angles)], -1)
    assert hard_margin(rows) == pytest.approx(math.cos(1.3), rel=4 * EPS / math.cos(1.3))


def test_zero_columns_and_unused_dimensions_do_not_matter() -> None:
    padded = np.hstack([SEPARABLE, np.zeros((4, 5))])
    assert hard_margin(padded) == hard_margin(SEPARABLE)
    inside = np.random.default_rng(0).standard_normal((30, 4))
    assert hard_margin(np.hstack([inside, np.zeros((30, 3))])) == hard_margin(inside) == 0


def test_a_margin_that_takes_too_long_to_verify_is_announced_with_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margin, "WORK", 0)
    with pytest.warns(UserWarning, match="svm_margin could not be verified: it lies between .* and .*") as caught:
        found = Dataset([[1e-9, 2.0], [1e-9, -1.0]], [1, 1]).svm_margin.item()
    assert "\n" not in str(caught[0].message)
    assert 0 <= found <= 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hard_margin(SEPARABLE) > 0  # floating point is enough


def test_a_wrong_answer_of_least_squares_is_noticed_and_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As scipy 1.15 gave them: the margin is verified, whatever p is made of."""
    expected = hard_margin(SEPARABLE)
    for wrong in ([1.0, 0, 0, 0], [1.0, 1, 1, 1], [0, 0, 0, 1.0]):
        monkeypatch.setattr(margin, "nnls", lambda *_, wrong=wrong: (np.array(wrong), 0.0))
        assert hard_margin(SEPARABLE) == pytest.approx(expected, rel=2 * TOLERANCE)


@pytest.mark.parametrize(
    ("rows", "cure"), [(np.full((1, 4), 1.7e308), r"2\^-10"), (np.array([[5e-324, 1.0], [0.0, -1.0]]), r"2\^10")]
)
def test_margins_that_no_float_can_hold_are_refused(rows: np.ndarray, cure: str) -> None:
    with pytest.raises(ValueError, match=f"inputs must be scaled: .* multiply them all by {cure}") as error:
        hard_margin(rows)
    assert "\n" not in str(error.value)


def test_bounds_hold_for_any_weights() -> None:
    """Weak duality, with rounding: for p far from the best one too."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        rows = np.abs(generator.standard_normal((4, 3)))
        scaled = rows / 2.0 ** np.frexp(rows.max())[1]
        bounds = margin._bounds(scaled, generator.uniform(0, 1, 4))
        square = exact_square(scaled)
        assert Fraction(bounds.lower) ** 2 <= square <= Fraction(bounds.upper) ** 2


@pytest.mark.parametrize("extended", [np.longdouble, np.float64])
def test_bounds_are_wide_enough_for_the_rounding_of_their_own_sums(
    monkeypatch: pytest.MonkeyPatch, extended: type
) -> None:
    """Pairs of rows that are opposite but for a height, at the best p: products cancel, and nothing is to spare."""
    monkeypatch.setattr(margin, "Extended", extended)
    generator = np.random.default_rng(0)
    for exponent in range(20):
        for _ in range(10):
            height = generator.uniform(0.5, 1) * 2.0**-exponent
            along, across = np.array([0.375, -0.5]), height * np.array([0.5, 0.375])
            rows = np.stack([across + along, across - along])
            bounds = margin._bounds(rows, np.ones(2))
            assert Fraction(bounds.lower) ** 2 <= exact_square(rows) <= Fraction(bounds.upper) ** 2


def test_the_margin_of_an_ensemble_is_on_the_shape_of_its_members() -> None:
    ensemble = Dataset(torch.tensor(np.stack([SEPARABLE, 2 * SEPARABLE])).unsqueeze(1), torch.ones(2, 1, 4))
    assert ensemble.svm_margin.shape == (2, 1)
    assert ensemble.svm_margin[1, 0] == 2 * ensemble.svm_margin[0, 0]
