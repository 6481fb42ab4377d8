"""Data sets: validation, the separability constants against brute force, and the generators' certificates."""

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from flowsim import Dataset
from flowsim.data import nearly_orthogonal, orthogonally_separable, stack

EPS = np.finfo(float).eps
INPUTS = [[1.0, 0.0], [0.0, 1.0]]
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def random_dataset(n: int, d: int, seed: int) -> Dataset:
    generator = np.random.default_rng(seed)
    return Dataset(generator.standard_normal((n, d)), generator.choice([-1.0, 1.0], n))


def products(dataset: Dataset) -> list[list[float]]:
    """x_i . x_k, by correctly rounded sums."""
    rows = dataset.inputs.tolist()
    return [[math.fsum(a * b for a, b in zip(left, right, strict=True)) for right in rows] for left in rows]


def brute_kappa(dataset: Dataset) -> float:
    gram, labels = products(dataset), dataset.labels.tolist()
    indices = range(len(labels))
    return min(labels[i] * labels[k] * gram[i][k] for i in indices for k in indices)


def brute_squared_radius(dataset: Dataset) -> float:
    gram = products(dataset)
    return min(gram[i][i] for i in range(len(gram)))


def brute_rho(dataset: Dataset) -> float:
    gram = products(dataset)
    n = len(gram)
    largest = max((abs(gram[i][k]) for i in range(n) for k in range(n) if i != k), default=0.0)
    return n * largest / brute_squared_radius(dataset)


def rounding(dataset: Dataset) -> float:
    """A bound of the rounding error of an inner product of two inputs: d eps |x_i| |x_k|, and once more to compare."""
    return 2 * (dataset.dimension + 1) * EPS * dataset.inputs.square().sum(-1).max().item()


# --- validation ------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[tuple[Any, ...], list[str]]] = {
    "label 0": ((INPUTS, [0, 1]), ["labels", "got 0 ", "(0,)"]),
    "label 0.5": ((INPUTS, [1, 0.5]), ["labels", "0.5", "(1,)"]),
    "label 2": ((INPUTS, [1, 2]), ["labels", "got 2 ", "(1,)"]),
    "label NaN": ((INPUTS, [math.nan, 1]), ["labels", "nan", "(0,)"]),
    "label inf": ((INPUTS, [1, -math.inf]), ["labels", "-inf", "(1,)"]),
    "too few labels": ((INPUTS, [1]), ["labels", "(2,)", "(1,)"]),
    "labels as a column": ((INPUTS, [[1], [1]]), ["labels", "(2,)", "(2, 1)"]),
    "labels as a row": ((INPUTS, [[1, 1]]), ["labels", "(2,)", "(1, 2)"]),
    "a single label": ((INPUTS, 1.0), ["labels", "(2,)", "()"]),
    "labels True and False": ((INPUTS, [True, False]), ["labels", "bool"]),
    "labels of strings": ((INPUTS, ["a", "b"]), ["labels", "numbers", "a", "<U1"]),
    "complex labels": ((INPUTS, np.array([1, 1j])), ["labels", "real", "complex"]),
    "input NaN": (([[1.0, 0.0], [math.nan, 1.0]], [1, 1]), ["inputs", "nan", "(1, 0)"]),
    "input inf": (([[1.0, math.inf], [0.0, 1.0]], [1, 1]), ["inputs", "inf", "(0, 1)"]),
    "1-d inputs": (([1.0, 2.0], [1, 1]), ["inputs", "(2,)"]),
    "a single input": ((3.0, 1), ["inputs", "()"]),
    "nothing": (([], []), ["inputs", "(0,)"]),
    "no samples": ((np.zeros((0, 3)), []), ["inputs", "(0, 3)"]),
    "no dimensions": (([[]], [1]), ["inputs", "(1, 0)"]),
    "ragged inputs": (([[1.0, 2.0], [3.0]], [1, 1]), ["inputs", "numbers"]),
    "inputs of strings": (([["a", "b"]], [1]), ["inputs", "numbers", "a", "<U1"]),
    "inputs None": ((None, [1]), ["inputs", "numbers", "None"]),
    "complex inputs": ((np.array(INPUTS) * 1j, [1, 1]), ["inputs", "real", "complex"]),
    "complex tensor": ((torch.tensor(INPUTS) * 1j, [1, 1]), ["inputs", "real", "complex"]),
    "class k": ((INPUTS, [0, 2], 2), ["labels", "0 .. 1", "got 2 ", "(1,)"]),
    "class -1": ((INPUTS, [0, -1], 2), ["labels", "0 .. 1", "got -1 ", "(1,)"]),
    "class 0.5": ((INPUTS, [0.5, 1], 2), ["labels", "0 .. 1", "0.5", "(0,)"]),
    "no classes": ((INPUTS, [0, 0], 0), ["classes", "got 0"]),
    "2.0 classes": ((INPUTS, [0, 1], 2.0), ["classes", "2.0"]),
    "classes True": ((INPUTS, [0, 0], True), ["classes", "True"]),
    "classes of strings": ((INPUTS, [0, 0], "2"), ["classes", "'2'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_with_one_line_that_names_argument_and_value(case: str) -> None:
    arguments, named = BAD[case]
    with pytest.raises(ValueError) as error:
        Dataset(*arguments)
    message = str(error.value)
    assert message.startswith(named[0])
    assert all(part in message + " " for part in named)
    assert "\n" not in message


def test_lists_become_float64_without_passing_through_float32() -> None:
    dataset = Dataset([[0.6, 1.2]], [1])
    assert dataset.inputs.dtype == dataset.labels.dtype == dataset.targets.dtype == torch.float64
    assert dataset.inputs.tolist() == [[0.6, 1.2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_other_number_types_are_converted_to_float64(dtype: torch.dtype) -> None:
    dataset = Dataset(torch.ones(2, 3, dtype=dtype), torch.ones(2, dtype=dtype))
    assert dataset.inputs.dtype == dataset.labels.dtype == torch.float64


@pytest.mark.parametrize(
    "array",
    [np.array([[1.0, 2.0]])[:, ::-1], np.array([[2.0, 1.0]], dtype=">f8"), np.array([[2.0, 1.0]], dtype=np.longdouble)],
    ids=["reversed view", "big-endian", "longdouble"],
)
def test_every_array_of_real_numbers_is_accepted_whatever_its_memory_layout(array: np.ndarray) -> None:
    assert Dataset(array, [1]).inputs.tolist() == [[2.0, 1.0]]


def test_targets_are_the_labels_in_a_column_or_the_classes_one_hot() -> None:
    assert Dataset(INPUTS, [1, -1]).targets.tolist() == [[1.0], [-1.0]]
    assert Dataset(INPUTS, [2, 0], 3).targets.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_constants_of_signs_are_refused_for_classes() -> None:
    dataset = Dataset(INPUTS, [0, 2], classes=3)
    for constant in ("signed_gram", "kappa", "svm_margin"):
        with pytest.raises(ValueError, match=r"labels must be -1 or \+1 .*3 classes"):
            getattr(dataset, constant)


# --- constants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_kappa_rho_and_radius_agree_with_loops_over_pairs(seed: int) -> None:
    dataset = random_dataset(1 + seed, 1 + (3 * seed) % 5, seed)
    error = rounding(dataset)
    smallest = brute_squared_radius(dataset)
    assert dataset.kappa.item() == pytest.approx(brute_kappa(dataset), rel=0, abs=error)
    assert dataset.squared_radius.item() == pytest.approx(smallest, rel=0, abs=error)
    # rho is a quotient: the errors of numerator and denominator add up relatively
    assert dataset.rho.item() == pytest.approx(
        brute_rho(dataset), rel=2 * error / smallest, abs=dataset.samples * error / smallest
    )


def test_rho_is_infinite_when_an_input_is_zero_and_zero_for_a_single_input() -> None:
    assert Dataset([[0.0, 0.0], [1.0, 0.0]], [1, 1]).rho.item() == math.inf
    assert Dataset([[1.0, 2.0]], [1]).rho.item() == 0


@pytest.mark.parametrize("exponent", [-500, -300, 300, 500])
def test_constants_scale_exactly_with_powers_of_two(exponent: int) -> None:
    """Also where squares of lengths over- or underflow on the way, as they would in |x|^4."""
    dataset = random_dataset(5, 3, 1)
    scaled = Dataset(np.ldexp(dataset.inputs.numpy(), exponent), dataset.labels)
    for name in ("gram", "signed_gram", "kappa", "squared_radius"):
        expected = np.ldexp(getattr(dataset, name).numpy(), 2 * exponent)
        assert np.array_equal(getattr(scaled, name).numpy(), expected)
    assert scaled.rho == dataset.rho


@pytest.mark.parametrize("exponent", [-1000, -565, 515, 1000])
def test_rho_does_not_depend_on_units_and_the_others_are_refused_where_they_are_no_numbers(exponent: int) -> None:
    dataset = random_dataset(5, 3, 1)
    scaled = Dataset(np.ldexp(dataset.inputs.numpy(), exponent), dataset.labels)
    assert scaled.rho == dataset.rho
    flows = "overflows" if exponent > 0 else "underflows"
    for name in ("gram", "signed_gram", "kappa", "squared_radius"):
        with pytest.raises(
            ValueError, match=f"inputs must be scaled: .* {flows} at index .*; multiply them all"
        ) as error:
            getattr(scaled, name)
        assert "\n" not in str(error.value)


def test_constants_that_are_numbers_are_right_where_other_products_are_none() -> None:
    long, short = 1e200, 1e-10
    dataset = Dataset([[long, 0.0], [0.0, 1.0], [short, short]], [1, 1, 1])
    assert dataset.kappa == 0  # of the first two; the square of the first overflows
    assert dataset.squared_radius == pytest.approx(2 * short**2, rel=4 * EPS)
    assert dataset.rho.item() == pytest.approx(3 * long * short / (2 * short**2), rel=8 * EPS)
    with pytest.raises(ValueError, match=r"x_i . x_k overflows at index \(0, 0\)"):
        _ = dataset.gram


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([[1e-170, 0.0], [1.0, 0.0]], "squared_radius"),
        ([[1e-170, 0.0], [1.0, 0.0]], "kappa"),
        ([[1e-170, 1.0], [-1e-170, 0.0]], "kappa"),  # -1e-340, which is no 0
        ([[1e170, 1.0], [-1e170, 1.0]], "kappa"),
        ([[1e160, 0.0], [1e160, 1e-160]], "squared_radius"),
        ([[1e-300, 0.0], [1e300, 1.0]], "rho"),
        ([[1.0, 0.0], [1e-320, 1.0]], "signed_gram"),
    ],
)
def test_constants_that_over_or_underflow_are_not_passed_on(rows: list, name: str) -> None:
    dataset = Dataset(rows, [1, 1])
    if name == "signed_gram":  # 1e-320 is a number
        assert dataset.signed_gram[0, 1] == 1e-320
        return
    with pytest.raises(ValueError, match=r"inputs must be scaled: .* (over|under)flows"):
        getattr(dataset, name)


def hard_margin_by_slsqp(signed: np.ndarray) -> float:
    """1 / min |w| subject to y_i w . x_i >= 1."""
    answer = minimize(
        lambda w: 0.5 * w @ w,
        signed.mean(0),
        jac=lambda w: w,
        constraints={"type": "ineq", "fun": lambda w: signed @ w - 1, "jac": lambda w: signed},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert answer.success
    return float(1 / np.linalg.norm(answer.x))


def smallest_on_simplex_by_enumeration(matrix: np.ndarray) -> float:
    """Min p^T M p over the simplex: on the minimiser's support, M p is constant."""
    values = []
    n = len(matrix)
    for size in range(1, n + 1):
        for support in itertools.combinations(range(n), size):
            block = matrix[np.ix_(support, support)]
            if np.linalg.cond(block) > 1e8:  # a smaller support does as well (Caratheodory)
                continue
            p = np.linalg.solve(block, np.ones(size))
            if (p >= 0).all():
                values.append(1 / p.sum())
    return min(values)


def separable_dataset(n: int, d: int, seed: int) -> Dataset:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((n, d))
    return Dataset(inputs, np.sign(inputs @ generator.standard_normal(d)))


@pytest.mark.parametrize("seed", range(12))
def test_svm_margin_agrees_with_two_other_optimisers(seed: int) -> None:
    dataset = separable_dataset(2 + seed % 6, 2 + seed % 4, seed)
    signed = (dataset.labels[:, None] * dataset.inputs).numpy()
    margin = dataset.svm_margin.item()
    # SLSQP stops when |w|^2/2 changes by 1e-14 of order 1; its constraints hold to about the square root at worst
    assert margin == pytest.approx(hard_margin_by_slsqp(signed), rel=1e-7)
    # enumeration solves systems of condition up to 1e8: relative error at most 1e8 eps
    assert margin**2 == pytest.approx(smallest_on_simplex_by_enumeration(signed @ signed.T), rel=1e-7)


@pytest.mark.parametrize("height", [1e-2, 1e-4, 1e-6])
def test_svm_margin_of_nearly_opposite_inputs_is_known_exactly(height: float) -> None:
    # rows (1, h), (-1, h): the margin is h. The separator comes from a system of condition 1/h with errors
    # of size eps, so that it is off (0, 1) by an angle eps/h^2; the margin follows with 1/h of that.
    dataset = Dataset([[1.0, height], [-1.0, height]], [1, 1])
    assert dataset.svm_margin.item() == pytest.approx(height, rel=4 * EPS / height**2, abs=4 * EPS / height)
    assert dataset.svm_margin.item() <= height * (1 + 4 * EPS)


@pytest.mark.parametrize("factor", [1e-150, 1e-3, 1e3, 1e150])
def test_svm_margin_scales_with_the_inputs(factor: float) -> None:
    dataset = separable_dataset(5, 3, 1)
    scaled = Dataset(dataset.inputs * factor, dataset.labels)
    # scaling rounds each input by eps/2; the margin is 1-Lipschitz in the largest input norm
    assert scaled.svm_margin.item() / factor == pytest.approx(dataset.svm_margin.item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_svm_margin_is_zero_exactly_when_no_separator_exists(seed: int) -> None:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((4, 3))
    signed = np.vstack([inputs, -(generator.uniform(0.5, 2.0, 4) @ inputs)])  # 0 lies inside the hull
    assert Dataset(signed, np.ones(5)).svm_margin.item() == 0
    assert Dataset([inputs[0], inputs[0]], [1, -1]).svm_margin.item() == 0


def test_svm_margin_is_zero_for_zero_inputs() -> None:
    assert Dataset([[0.0, 0.0]], [1]).svm_margin.item() == 0
    assert Dataset([[0.0, 0.0], [1.0, 0.0]], [1, 1]).svm_margin.item() == 0


def test_svm_margin_is_never_below_the_constants_of_orthogonal_separability() -> None:
    for seed in range(10):
        dataset = orthogonally_separable(6, 4, 0.2, seed)
        assert dataset.svm_margin.item() ** 2 >= 0.2 * (1 - 1e-12)  # m*^2 >= kappa, to rounding


def test_constants_of_an_ensemble_are_those_of_its_members() -> None:
    members = [random_dataset(4, 3, seed) for seed in range(6)]
    ensemble = stack([stack(members[:3]), stack(members[3:])])
    assert ensemble.batch_shape == (2, 3)
    for name in ("kappa", "rho", "squared_radius", "svm_margin"):
        alone = torch.stack([getattr(member, name) for member in members]).reshape(2, 3)
        together = getattr(ensemble, name)
        assert together.shape == (2, 3)
        # the same sums, possibly in another order: inner products of 3 numbers of order 1
        torch.testing.assert_close(together, alone, rtol=32 * EPS, atol=32 * EPS)


# --- generators ------------------------------------------------------------------------------------------------------

sizes = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)


def assert_labels_and_repeatability(dataset: Dataset, again: Dataset) -> None:
    assert set(dataset.labels.tolist()) == ({-1.0, 1.0} if dataset.samples > 1 else {dataset.labels[0].item()})
    assert torch.equal(dataset.inputs, again.inputs)
    assert torch.equal(dataset.labels, again.labels)


@PROPERTY
@given(sizes, sizes, st.floats(1e-8, 1e8), seeds)
def test_orthogonally_separable_data_exists_for_all_sizes_with_kappa_certified(
    n: int, d: int, kappa: float, seed: int
) -> None:
    dataset = orthogonally_separable(n, d, kappa, seed)
    assert dataset.inputs.shape == (n, d)
    assert_labels_and_repeatability(dataset, orthogonally_separable(n, d, kappa, seed))
    assert dataset.kappa >= kappa
    assert brute_kappa(dataset) >= kappa - rounding(dataset)


@PROPERTY
@given(sizes, sizes, st.floats(1e-8, 1e8), seeds)
def test_orthogonally_separable_data_attains_kappa(n: int, d: int, kappa: float, seed: int) -> None:
    dataset = orthogonally_separable(n, d, kappa, seed)
    # the documented construction has kappa as the smallest product: rounding, and an inflation of at most 1e-12
    assert brute_kappa(dataset) <= kappa * (1 + 2.1e-12) + rounding(dataset)


@PROPERTY
@given(st.integers(1, 10), st.integers(0, 6), st.floats(0, 1.5), seeds)
def test_nearly_orthogonal_data_exists_in_high_dimension_and_attains_rho(
    n: int, excess: int, share: float, seed: int
) -> None:
    d, rho = n + excess, share * n
    dataset = nearly_orthogonal(n, d, rho, seed)
    assert dataset.inputs.shape == (n, d)
    assert_labels_and_repeatability(dataset, nearly_orthogonal(n, d, rho, seed))
    assert dataset.rho <= rho
    error = 4 * n * (d + 1) * EPS  # of n times an inner product of unit vectors over R^2 = 1
    assert brute_rho(dataset) <= rho + error
    assert brute_squared_radius(dataset) == pytest.approx(1, abs=error)
    if n > 1:
        # aimed at 1e-9 relative below the request, and 8 eps
        assert brute_rho(dataset) >= min(rho, n) * (1 - 2e-9) - 16 * n * EPS - error


@PROPERTY
@given(st.integers(2, 12), st.integers(0, 4), st.floats(-16.5, -9), seeds)
def test_nearly_orthogonal_data_exists_for_tiny_rho(n: int, excess: int, exponent: float, seed: int) -> None:
    rho = 10.0**exponent
    assert nearly_orthogonal(n, n + excess, rho, seed).rho <= rho


@settings(PROPERTY, max_examples=25)
@given(st.integers(2, 9), st.data(), st.floats(0, 1), seeds)
def test_nearly_orthogonal_data_in_low_dimension_is_certified_or_refused_for_the_true_reason(
    n: int, data: st.DataObject, position: float, seed: int
) -> None:
    d = data.draw(st.integers(1, n - 1))
    welch = n * math.sqrt((n - d) / (d * (n - 1)))
    rho = welch + position * (n - welch)
    try:
        dataset = nearly_orthogonal(n, d, rho, seed)
    except ValueError as error:
        assert re.match(r"rho = .* is above the Welch bound .*, but no such inputs were found", str(error))
    else:
        assert dataset.rho <= rho
        assert brute_rho(dataset) <= rho + 4 * n * (d + 1) * EPS
        assert_labels_and_repeatability(dataset, nearly_orthogonal(n, d, rho, seed))


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 4), (5, 3), (9, 2), (20, 10)])
def test_rho_below_the_welch_bound_is_refused_with_the_bound(n: int, d: int) -> None:
    welch = n * math.sqrt((n - d) / (d * (n - 1)))
    with pytest.raises(ValueError, match=r"rho must be at least .*Welch") as error:
        nearly_orthogonal(n, d, 0.99 * welch, seed=0)
    assert f"{welch:.6g}" in str(error.value)
    assert f"got {0.99 * welch}" in str(error.value)


@pytest.mark.parametrize("factor", [1.0001, 1.01, 1.1, 1.5])
@pytest.mark.parametrize("n", [3, 5, 8])
def test_rho_slightly_above_the_simplex_is_attained_or_refused_as_not_found(n: int, factor: float) -> None:
    rho = factor * n / (n - 1)  # d = n - 1: the simplex has n/(n-1)
    for seed in range(3):
        try:
            dataset = nearly_orthogonal(n, n - 1, rho, seed)
        except ValueError as error:
            assert "above the Welch bound" in str(error), f"seed {seed}"
            assert "no such inputs were found" in str(error)
        else:
            assert dataset.rho <= rho


def test_generators_accept_a_single_input_in_one_dimension() -> None:
    for dataset in (orthogonally_separable(1, 1, 2.0, 0), nearly_orthogonal(1, 1, 0.0, 0)):
        assert dataset.inputs.shape == (1, 1)
        assert dataset.rho == 0
    assert orthogonally_separable(6, 1, 2.0, 0).kappa.item() == pytest.approx(2.0, rel=1e-11)


def test_rho_zero_gives_exactly_orthogonal_inputs() -> None:
    dataset = nearly_orthogonal(5, 7, 0, seed=3)
    assert torch.equal(dataset.gram, torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize("d", [1, 3, 5])
def test_rho_of_n_and_more_is_feasible_in_every_dimension(d: int) -> None:
    for rho in (5.0, 7.0, 1e6):
        assert nearly_orthogonal(5, d, rho, seed=0).rho <= rho


@pytest.mark.parametrize("kappa", [0, -1.0, math.nan, math.inf, "1", None, 1e308])
def test_kappa_that_cannot_be_had_is_refused(kappa: Any) -> None:
    # 1e308: sums of the products overflow, so that no constant could be certified
    with pytest.raises(ValueError, match="kappa must be") as error:
        orthogonally_separable(5, 3, kappa, seed=0)
    assert repr(kappa) in str(error.value)


@pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf, "1", None])
def test_rho_that_makes_no_sense_is_refused(rho: Any) -> None:
    with pytest.raises(ValueError, match="rho must be a finite number of at least 0") as error:
        nearly_orthogonal(3, 5, rho, seed=0)
    assert repr(rho) in str(error.value)


@pytest.mark.parametrize("generate", [orthogonally_separable, nearly_orthogonal])
@pytest.mark.parametrize(("sizes", "name"), [((0, 3), "samples"), ((2.5, 3), "samples"), ((4, -1), "dimension")])
def test_sizes_that_are_no_positive_integers_are_refused(generate: Any, sizes: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {min(sizes)}"):
        generate(*sizes, 0.5, seed=0)


@pytest.mark.parametrize("generate", [orthogonally_separable, nearly_orthogonal])
def test_different_seeds_give_different_data(generate: Any) -> None:
    assert not torch.equal(generate(4, 6, 0.5, seed=0).inputs, generate(4, 6, 0.5, seed=1).inputs)
