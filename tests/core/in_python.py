"""The core's functions one by one, in Python as they are written: nothing is compiled (run by `test_core.py`)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conformance import reference
from conformance.reference_runs import flow_and_weights, random_problem

from flowsim import Dataset, Flow, GradientDescent, losses
from flowsim.initialization import deep_gaussian
from flowsim.integrators.event.batched.series import measure_gradient
from flowsim.integrators.event.compiled import (
    decide,
    kernel,
    loop,
    products,
    roots,
    scope,
    series,
    sliding,
    start,
    switch,
    watch,
)
from flowsim.integrators.event.compiled.losses import add_error_term, find_error_size, stride
from flowsim.integrators.event.compiled.problem import (
    Problem,
    State,
    Workspace,
    is_dead,
    is_kink,
    place,
    set_side,
    workspace,
)
from flowsim.integrators.event.records import Layout
from flowsim.weights import DeepWeights

EPS = np.finfo(float).eps
ORDER = 8
TERMS = ("u", "g", "h", "plain")
"""The arrays of a loss's recursion."""
FIELDS = [
    "signal", "layer", "sample", "neuron", "top", "block", "matrix", "factors", "pivots", "down", "raw", "drive",
]  # fmt: skip


@pytest.fixture(autouse=True)
def plain_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What numba makes of the class has no constructor in Python."""
    monkeypatch.setattr(sliding, "Slides", lambda *values: SimpleNamespace(**dict(zip(FIELDS, values, strict=True))))


def opened(flow: object, weights: DeepWeights) -> tuple[Problem, State, Workspace]:
    """What the core is given of the only trajectory."""
    one, start = flow.map_matrices(weights, lambda matrix: matrix.unsqueeze(0))  # type: ignore[attr-defined]
    layout = Layout.of(one, start)
    (problem,) = scope.find_problems(one, layout, False)
    flat = np.concatenate([layer.numpy().ravel() for layer in weights.layers])
    return problem, kernel._make_state(layout, flat), workspace(problem, ORDER)


# Groups of samples

MULTIPLES = np.array([1.0, 2.0, -3.0, np.nan, 0.0, -6.0])
"""Of the first input: nan is another direction."""


def grouped_flow(slope: float) -> tuple[Flow, DeepWeights]:
    """Samples alike, opposite, generic and 0, in a network of three layers."""
    x, other = np.array([0.4, -1.1, 0.3]), np.array([1.0, 0.2, -0.5])
    inputs = np.array([other if np.isnan(multiple) else multiple * x for multiple in MULTIPLES])
    dataset = Dataset(torch.from_numpy(inputs), [1, -1, 1, -1, 1, 1])
    return Flow(dataset, GradientDescent(), slope=slope), deep_gaussian((3, 4, 2, 1), 0)


def grouped() -> tuple[Problem, State, Workspace]:
    return opened(*grouped_flow(slope=0.3))


def group(level: int, i: int) -> list[int]:
    """Who has the kink of sample i: all multiples in the first layer, above it the positive ones."""
    if np.isnan(MULTIPLES[i]):
        return [i]
    shares = MULTIPLES / MULTIPLES[i]
    return np.flatnonzero(shares > 0 if level > 1 else shares**2 > 0).tolist()


@pytest.mark.parametrize(("level", "i"), [(1, 0), (1, 3), (2, 0), (2, 2), (2, 3)])
def test_samples_that_share_a_kink_are_on_its_sides_together_and_their_drives_add_up(level: int, i: int) -> None:
    """An opposite one is active where the first is not; above the first layer it has a kink of its own."""
    problem, state, _ = grouped()
    own = group(level, i)
    turned = {k: 1.0 if k == i else MULTIPLES[k] / MULTIPLES[i] for k in own}
    assert [k for k in own if is_kink(problem, level, k)] == [i]
    for value in (1, -1, 0):
        side = np.full_like(state.side, 7)
        set_side(problem, side, place(problem, level, i, 1), value)
        expected = np.full_like(side, 7)
        for k, share in turned.items():
            expected[place(problem, level, k, 1)] = value * np.sign(share)
        assert side.tolist() == expected.tolist()
    E = np.random.default_rng(0).standard_normal(len(state.side))
    ends = [
        sum(share * (1.0 if share * sign > 0 else 0.3) * E[place(problem, level, k, 1)] for k, share in turned.items())
        for sign in (1, -1)
    ]
    np.testing.assert_allclose(
        sliding.add_up_ends(problem, E, level, i, 1), np.array(ends, dtype=float), rtol=0, atol=1e-14
    )


def test_an_input_0_has_no_kink() -> None:
    problem, _, _ = grouped()
    assert not is_kink(problem, 1, 4) and not is_kink(problem, 2, 4)


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("active", [False, True])
def test_nothing_gets_past_a_layer_of_inactive_and_sliding_neurons_at_slope_0(slope: float, active: bool) -> None:
    problem, state, _ = grouped()
    problem = problem._replace(slope=slope)
    state.side[:] = 1
    state.side[[place(problem, 1, 3, j) for j in range(4)]] = [-1, 0, 1 if active else 0, -1]
    assert is_dead(problem, state.side, 2, 3) == (slope == 0 and not active)
    assert not is_dead(problem, state.side, 2, 0)
    assert not is_dead(problem, state.side, 1, 3)


# Products


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 5), (7, 1, 4), (9, 6, 2), (16, 15, 14)])
@pytest.mark.parametrize("add", [False, True])
def test_products_are_those_of_numpy(sizes: tuple[int, int, int], add: bool) -> None:
    """The last ones by BLAS."""
    n, m, p = sizes
    rng = np.random.default_rng(0)
    x, y, z = rng.standard_normal((n, p)), rng.standard_normal((m, p)), rng.standard_normal((n, m))
    cases = [
        (products.times_transposed, x, y, x @ y.T),
        (products.times, z, y, z @ y),
        (products.transposed_times, z, x, z.T @ x),
    ]
    for function, left, right, expected in cases:
        out = rng.standard_normal(expected.size)
        wanted = out + expected.ravel() if add else expected.ravel()
        function(out, left.ravel(), right.ravel(), sizes, np.empty(expected.size), add)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-14 * max(sizes))


# Roots


def first_by_numpy(c: np.ndarray) -> float:
    found = np.roots(c[::-1])
    real = found[(abs(found.imag) < 1e-9) & (found.real > 0) & (found.real <= 1)].real
    return real.min() if len(real) else np.inf


@pytest.mark.parametrize("degree", [2, 3, 6, 9, 14])
def test_first_roots_are_those_of_numpy(degree: int) -> None:
    rng = np.random.default_rng(degree)
    for _ in range(100):
        c = rng.standard_normal(degree + 1)
        c[0] = abs(c[0])
        found = roots.find_first_root(c.copy(), np.empty((5, degree + 1)))
        assert found == pytest.approx(first_by_numpy(c), rel=1e-9)


@pytest.mark.parametrize("exponent", [2, 10, 20, 30, 45])
def test_dips_are_found_however_short(exponent: int) -> None:
    """(t - 1/2)^2 - w^2 / 4 with all coefficients exact: roots at 1/2 -+ w/2."""
    width = 2.0**-exponent
    c = np.array([0.25 - width**2 / 4, -1.0, 1.0])
    found = roots.find_first_root(c, np.empty((5, 3)))
    if c[0] == 0.25:  # the dip is below the rounding of its coefficients
        assert found == np.inf or abs(found - 0.5) < 1e-7
    else:
        assert found == pytest.approx(0.5 - width / 2, rel=1e-15, abs=1e-15 / width)


def test_a_touch_from_above_is_no_root() -> None:
    assert roots.find_first_root(np.array([0.25 + 1e-10, -1.0, 1.0]), np.empty((5, 3))) == np.inf


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-6, 1e-4])
def test_of_three_roots_too_close_to_be_told_apart_one_is_found(spread: float) -> None:
    """The polynomial is negative behind them. Rounding leaves a triple root uncertain by EPS^(1/3) times about 10."""
    rng = np.random.default_rng(0)
    for centre in rng.uniform(0.05, 0.95, 60):
        near = centre * (1 + spread * rng.uniform(-1, 1, 3))
        c = np.poly(1 / np.array([*near, 1.7, -2.1]))  # of prod (1 - t / root), the lowest power first
        assert abs(roots.find_first_root(c, np.empty((5, 6))) - centre) < spread + 1e-4


@pytest.mark.parametrize("exponent", [10, 30, 43])
def test_two_roots_near_the_start_are_told_apart_down_to_the_finest_width(exponent: int) -> None:
    """(1 - t / r)(1 - t / 3r), exact up to a rounding: apart by 256 times the finest width at last."""
    r = 2.0**-exponent
    c = np.array([1.0, -4 / (3 * r), 1 / (3 * r * r), 0.0, 0.0])
    assert roots.find_first_root(c, np.empty((5, 5))) == pytest.approx(r, rel=1e-14, abs=0)


def test_a_root_at_the_end_to_which_newton_never_moves_is_found_to_rounding() -> None:
    """(1 - t)(2 + 2t - t^2): to a right end Newton's step is twice what is allowed after a halving, every time."""
    found = roots.find_first_root(np.array([2.0, 0.0, -3.0, 1.0]), np.empty((5, 4)))
    assert found == pytest.approx(1.0, rel=0, abs=2 * EPS)


def test_no_root_takes_more_than_120_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 - (t / r)^5 for r = 1e-60: 200 halvings from the right end of the interval, to what is no time at all."""
    evaluated = []
    evaluate = roots.evaluate
    monkeypatch.setattr(roots, "evaluate", lambda c, t: evaluated.append(t) or evaluate(c, t))
    found = roots.find_first_root(np.array([1.0, 0.0, 0.0, 0.0, 0.0, -1e300]), np.empty((5, 6)))
    assert len(evaluated) <= 120 and 0 < found < 2.0**-50


# Losses

NAMES = ["exponential", "logistic", "squared", "polynomial", "cross-entropy"]


@pytest.mark.parametrize("name", NAMES)
def test_terms_of_losses_are_those_of_the_torch_generators(name: str) -> None:
    loss = losses.polynomial(1.5) if name == "polynomial" else losses.named(name)
    rng = np.random.default_rng(0)
    k = 3 if name == "cross-entropy" else 1
    targets = np.eye(3)[rng.integers(0, 3, 4)] if k == 3 else np.sign(rng.standard_normal((4, 1)))
    codes = {losses.named(each): code for each, code in zip(losses.LOSSES, [0, 1, 3, 4], strict=True)}
    problem = SimpleNamespace(targets=targets, loss=codes.get(loss, 2), power=1.5)
    curve = 0.3 * rng.standard_normal((ORDER, 4 * k))
    work = SimpleNamespace(**{each: np.zeros((ORDER + 1, 4 * k)) for each in TERMS})
    terms = loss.series(torch.from_numpy(targets), ORDER)  # type: ignore[misc]
    next(terms)
    for order, f in enumerate(curve):
        out = np.empty(4 * k)
        add_error_term(problem, work, f.copy(), out, order, 0.7, 0.0, 0.0)
        expected = 0.7 * terms.send(torch.from_numpy(f.reshape(4, k))).numpy().ravel()
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14 * (1 + abs(expected).max()))


def terms_of(name: str, curve: np.ndarray, y: np.ndarray, time: float, rate: float) -> np.ndarray:
    """What the core makes of the outputs."""
    problem = SimpleNamespace(targets=y, loss=["exponential", "logistic", "polynomial"].index(name), power=1.5)
    work = SimpleNamespace(**{each: np.zeros((ORDER + 1, len(y))) for each in TERMS})
    out = np.empty((ORDER, len(y)))
    for order, f in enumerate(curve):
        add_error_term(problem, work, f.copy(), out[order], order, 1.0, time, rate)
    return out


@pytest.mark.parametrize("time", [0.0, 1.3, 20.0])
@pytest.mark.parametrize("name", ["exponential", "logistic", "polynomial"])
def test_terms_in_logarithmic_time_are_those_of_the_product_with_the_exponential(name: str, time: float) -> None:
    rng, rate = np.random.default_rng(0), 0.7
    y, curve = np.sign(rng.standard_normal((4, 1))), 0.3 * rng.standard_normal((ORDER, 4))
    curve[0] += time * y[:, 0]
    slopes = terms_of(name, curve, y, 0.0, 0.0)
    factors = [math.exp(time) * rate**k / math.factorial(k) for k in range(ORDER)]
    expected = [sum(factors[r] * slopes[k - r] for r in range(k + 1)) for k in range(ORDER)]
    found = terms_of(name, curve, y, time, rate)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["exponential", "logistic"])
def test_terms_in_logarithmic_time_neither_overflow_nor_underflow(name: str) -> None:
    """e^900 is too large, and e^-900 too small: only s - u matters, and the logistic loss is the exponential one."""
    rng = np.random.default_rng(0)
    y, curve = np.sign(rng.standard_normal((4, 1))), 0.3 * rng.standard_normal((ORDER, 4))
    far = curve.copy()
    far[0] += 900 * y[:, 0]
    np.testing.assert_allclose(
        terms_of(name, far, y, 900.0, 0.7), terms_of("exponential", curve, y, 0.0, 0.7), rtol=1e-11, atol=1e-12
    )


def gradient_in_long_doubles(name: str, f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-dl/df of rows of outputs."""
    if name == "squared":
        return y - f
    if name == "cross-entropy":
        p = np.exp(f - f.max(-1, keepdims=True))
        return y - p / p.sum(-1, keepdims=True)
    u = y * f
    return y * {"exponential": np.exp(-u), "logistic": 1 / (1 + np.exp(u)), "polynomial": 1.5 * (1 + u) ** -2.5}[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_rounding_of_an_error_is_relative_to_the_size_of_what_adds_up_to_it(name: str) -> None:
    """Outputs are sums of 4 products; the loss is fitted to rounding, or to e^-20, where it subtracts targets."""
    rng, k = np.random.default_rng(0), 3 if name == "cross-entropy" else 1
    products = 0.1 * rng.standard_normal((200, k, 4))
    if k == 3:
        products += 5 * np.eye(3)[rng.integers(0, 3, 200), :, None]
    f, exact = products.sum(-1), products.astype(np.longdouble).sum(-1)
    targets = {"squared": f + EPS * rng.integers(-2, 3, f.shape), "cross-entropy": np.eye(3)[f.argmax(-1)]}.get(
        name, np.sign(rng.standard_normal(f.shape))
    )
    code = {"exponential": 0, "logistic": 1, "polynomial": 2, "squared": 3, "cross-entropy": 4}[name]
    problem = SimpleNamespace(targets=targets, loss=code, power=1.5)
    work = SimpleNamespace(**{each: np.zeros((1, 200 * k)) for each in TERMS})
    found, spread = np.empty(200 * k), abs(products).sum(-1)
    add_error_term(problem, work, f.ravel(), found, 0, 1.0, 0.0, 0.0)
    sizes = np.array([find_error_size(problem, work, i, spread.flat[i]) for i in range(200 * k)])
    wanted = gradient_in_long_doubles(name, exact, targets.astype(np.longdouble)).ravel()
    errors, of_sample = abs(found - wanted), spread.max(-1, keepdims=True).repeat(k, -1).ravel()
    assert (errors <= 8 * EPS * (1 + of_sample) * sizes).all()  # products and quotients are as exact as f is
    assert (errors > 1e3 * EPS * abs(wanted)).any() == (name in ("squared", "cross-entropy"))
    loss = losses.polynomial(1.5) if name == "polynomial" else losses.named(name)
    parts = [torch.from_numpy(part) for part in (found.reshape(f.shape), targets, spread)]
    np.testing.assert_allclose(measure_gradient(loss, *parts).numpy().ravel(), sizes, rtol=1e-12)


def test_large_outputs_of_a_softmax_do_not_overflow() -> None:
    problem = SimpleNamespace(targets=np.array([[0.0, 1.0]]), loss=4, power=0.0)
    work = SimpleNamespace(**{each: np.zeros((2, 2)) for each in TERMS})
    out = np.empty(2)
    add_error_term(problem, work, np.array([1000.0, -1000.0]), out, 0, 1.0, 0.0, 0.0)
    assert out.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(("name", "radius"), [("exponential", np.inf), ("logistic", np.pi), ("cross-entropy", np.pi)])
def test_strides_are_finite_and_within_the_radius_of_the_loss(name: str, radius: float) -> None:
    """Poles of 1 / (1 + e^u) are at u = +-i pi; the difference of two outputs moves by twice what each does."""
    code = {"exponential": 0, "logistic": 1, "cross-entropy": 4}[name]
    problem = SimpleNamespace(targets=np.array([[1.0, 0.0]]), loss=code)
    found = stride(problem, np.zeros(2), 0)
    assert 0.5 < found * (2 if name == "cross-entropy" else 1) < min(radius, 4.0)


@pytest.mark.parametrize("y", [1.0, -1.0])
def test_the_stride_of_a_polynomial_loss_is_half_the_way_to_its_singularity(y: float) -> None:
    """At y f = -1, on either side of 0."""
    problem = SimpleNamespace(targets=np.array([[y]]), loss=2)
    for f in (-0.9 * y, 0.0, 5.0 * y):
        assert stride(problem, np.array([f]), 0) == pytest.approx(0.5 * abs(f + y))


# Series


@pytest.mark.parametrize("seed", range(12))
def test_off_the_kinks_the_first_term_is_the_velocity_and_the_sum_solves_the_flow(seed: int) -> None:
    """d/dt of the sum at h is the velocity there up to the term left out: 2^ORDER times less at h / 2."""
    flow, weights = flow_and_weights(random_problem(seed))
    problem, state, work = opened(flow, weights)
    start.start_mode(problem, state, work)
    series.set_feedback(problem, state, work.B)
    series.expand(problem, state, work, ORDER, 1.0)
    velocity = np.concatenate([layer.numpy().ravel() for layer in flow.velocity(weights).layers])
    np.testing.assert_allclose(work.W[1], velocity, rtol=0, atol=1e-14 * (1 + abs(velocity).max()))
    z = np.concatenate([each.numpy().ravel() for each in flow.pre_activations(weights)])
    np.testing.assert_allclose(work.z[0, : len(z)], z, rtol=0, atol=1e-14 * (1 + abs(z).max()))
    signs = [np.sign(each.numpy()) for each in flow.pre_activations(weights)]
    slopes = [torch.from_numpy(np.where(each > 0, 1.0, flow.slope)) for each in signs]
    feedback = flow.rule.feedback_matrices(weights)
    residuals = []
    for h in (0.1, 0.05):
        k = np.arange(ORDER + 1.0)
        at, moves = h**k @ work.W, (k * h ** (k - 1)) @ work.W
        shapes = [layer.shape for layer in weights.layers]
        there = DeepWeights(tuple(map(torch.from_numpy, reference.split(at, shapes))))
        matrices = None if random_problem(seed).rule == "gd" else feedback
        exact = reference.join([layer.numpy() for layer in flow.velocity(there, slopes, matrices).layers])
        residuals.append(abs(moves - exact).max())
    assert residuals[1] < 1e-13 or residuals[0] / residuals[1] > 0.6 * 2**ORDER


# Slides


def probe_rates(given: reference.Problem, state: State, now: reference.Motion, slid: np.ndarray) -> np.ndarray:
    """d speed / d(beta z) where phi' is smooth, by differences: that of neurons that slide lies in between."""
    layers = reference.split(state.weights, given.weight_shapes)
    feedback = reference.feedback_of(given, layers, reference.Mode(state.side, np.sign(state.weights).astype(int)))
    flat = np.where(state.side > 0, 1.0, given.slope)
    share = (now.signal[slid] / now.drive[slid] - given.slope) / (1 - given.slope)
    flat[slid] = 0.0
    a, z = reference.forward(given.inputs, layers, reference.split(flat, given.kink_shapes))
    error = reference.LOSSES[given.loss](z[-1], given.targets) / len(given.inputs)

    def speed(offset: np.ndarray) -> np.ndarray:
        slopes = flat.copy()
        slopes[slid] = given.slope + (1 - given.slope) * (share + share * (1 - share) * offset)
        parts = reference.split(slopes, given.kink_shapes)
        deltas, _ = reference.backward(error, parts, feedback, reference.split(0 * slopes, given.kink_shapes))
        velocity = [delta.T @ before for delta, before in zip(deltas, a, strict=True)]
        return reference.join(reference.speeds(a, layers, parts, velocity))[slid]

    h = 1e-4
    return np.stack([(speed(h * unit) - speed(-h * unit)) / (2 * h) for unit in np.eye(len(slid))], 1)


@pytest.mark.parametrize("seed", range(30))
def test_drives_are_those_of_the_probed_matrix_of_the_second_implementation(seed: int) -> None:
    """On random slid sides; z need not be 0 there, but for the activations of the slid kinks it is taken as 0."""
    given = random_problem(seed)
    flow, weights = flow_and_weights(given)
    problem, state, work = opened(flow, weights)
    start.start_mode(problem, state, work)
    rng = np.random.default_rng(seed)
    slid = rng.choice(len(state.side), min(4, len(state.side)), replace=False)
    state.side[slid] = 0
    mode = reference.Mode(state.side.astype(int), np.sign(state.weights).astype(int))
    expected = reference.motion(given, state.weights, mode)
    if np.linalg.cond(expected.matrix) > 1e4:
        pytest.skip("drives that are hardly unique")
    series.set_feedback(problem, state, work.B)
    slides = series.expand(problem, state, work, 1, 1.0)
    np.testing.assert_allclose(slides.drive[0], expected.signal[slides.signal], rtol=0, atol=1e-11)
    np.testing.assert_allclose(work.W[1], expected.velocity, rtol=0, atol=1e-11)
    assert abs(work.z[1, slides.signal]).max() < 1e-11
    if slides.top > 1:
        order = np.argsort(slides.signal)
        np.testing.assert_allclose(slides.matrix[np.ix_(order, order)], expected.matrix, rtol=0, atol=1e-12)
        if expected.drive[slides.signal].all():  # a neuron that gets nothing does not slide
            rates = probe_rates(given, state, expected, slides.signal)
            near = 1e-6 * (1 + abs(rates).max())
            np.testing.assert_allclose(sliding.linearize(problem, work, slides), rates, rtol=0, atol=near)
            real = np.linalg.eigvals(rates).real
            if abs(real).min() > 1e-6 * abs(real).max():
                assert sliding.is_stable(problem, work, slides) == (real.max() < 0)
        assert (work.slopes[slides.signal] == 0).all()
        inverse = np.linalg.inv(slides.matrix)
        for s in range(len(order)):
            assert sliding.stiffness(slides, s) == pytest.approx(1 / inverse[s, s], rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_systems_whose_rows_must_be_exchanged_are_solved(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(20):
        matrix, right = rng.standard_normal((size, size)), rng.standard_normal(size)
        slides = SimpleNamespace(
            matrix=matrix, factors=np.empty((size, size)), pivots=np.empty(size, np.int64), block=np.array([0, size]),
            signal=np.arange(size), top=2,
        )  # fmt: skip
        sliding._decompose(slides, 0, size)
        x = right.copy()
        sliding._substitute(slides.factors, slides.pivots, x)  # not refined, which would hide an error
        np.testing.assert_allclose(
            x, np.linalg.solve(matrix, right), rtol=0, atol=1e-13 * np.linalg.cond(matrix) ** 1.0
        )


def test_the_largest_size_is_that_of_a_negative_number_too() -> None:
    assert products.find_size(np.array([1.0, -3.0, 2.0])) == 3.0
    assert products.find_size(np.array([1.0, -np.inf])) == np.inf
    assert np.isnan(products.find_size(np.array([np.inf, np.nan, 1.0])))


def test_a_length_is_found_where_its_square_would_over_or_underflow() -> None:
    for exponent in (-1000, -600, 0, 600, 1000):
        assert products.find_length(np.array([3.0, -4.0]) * 2.0**exponent) == 5 * 2.0**exponent
    assert products.find_length(np.zeros(2)) == products.find_length(np.zeros(0)) == 0
    assert products.find_length(np.array([1.0, -np.inf])) == np.inf


def test_what_begins_to_get_a_sample_at_slope_0_is_on_the_side_of_where_it_goes() -> None:
    """The direction in which a_1 leaves 0 is how fast the active ones below arrived at 0, from either side."""
    flow, weights = grouped_flow(slope=0.0)
    problem, state, work = opened(flow, weights)
    rng = np.random.default_rng(1)
    for active in ([0], [1, 3], [0, 1, 2, 3]):
        state.side[:] = -1
        work.heading[:] = rng.standard_normal(len(state.side))
        decide.note_dead(problem, state, work)
        assert work.dead[2, 3]
        below, above = ([place(problem, level, 3, j) for j in range(width)] for level, width in ((1, 4), (2, 2)))
        moves = np.zeros(4)
        for j in active:
            state.side[below[j]], moves[j] = 1, abs(work.heading[below[j]])
        decide._revive(problem, state, work)
        assert state.side[above].tolist() == np.sign(weights.layers[1].numpy() @ moves).tolist()
        assert state.contact[above].tolist() == [1, 1]
        assert (state.side[[place(problem, 2, i, j) for i in (0, 1, 2, 5) for j in range(2)]] == -1).all()


@pytest.mark.parametrize(("p", "level", "column"), [(0, 2, 0), (6, 2, 2), (7, 2, 3), (8, 3, 0), (9, 3, 1)])
def test_a_weight_whose_sign_flips_is_0_exactly(p: int, level: int, column: int) -> None:
    """W_2 is 2 x 4, W_3 1 x 2."""
    problem, state, _ = grouped()
    before, state.sign[:] = state.weights.copy(), -1
    assert switch._flip_sign(problem, state, p) == (level, column)
    assert np.flatnonzero(state.weights != before).tolist() == [12 + p]
    assert state.weights[12 + p] == 0
    for found, there, elsewhere in ((state.sign, 1, -1), (state.sign_contact, 1, 0)):
        assert found[p] == there and (np.delete(found, p) == elsewhere).all()


def test_a_step_ends_all_contacts_but_those_at_rest_and_the_rounds_without_one() -> None:
    problem, state, work = grouped()
    start.start_mode(problem, state, work)
    series.set_feedback(problem, state, work.B)
    slides = series.expand(problem, state, work, ORDER, 1.0)
    state.contact[:5], state.sign_contact[:2], state.counts[2], work.still[3:5] = 2, 1, 7, True
    h = 0.05 ** np.arange(ORDER + 1.0)
    assert loop._move(problem, state, work, slides, h)
    np.testing.assert_allclose(state.weights, h @ work.W, rtol=0, atol=1e-14)
    assert np.flatnonzero(state.contact).tolist() == [3, 4]
    assert not state.sign_contact.any()
    assert state.counts.tolist() == [1, 0, 0]


def slide(
    problem: Problem, state: State, work: Workspace, where: list[tuple[int, int, int]]
) -> tuple[list[int], SimpleNamespace]:
    """The places of kinks that slide, by layer, sample and neuron, and the slides of the series expanded there."""
    slid = [place(problem, *each) for each in where]
    for q in slid:
        set_side(problem, state.side, q, 0)
    series.set_feedback(problem, state, work.B)
    return slid, series.expand(problem, state, work, ORDER, 1.0)


def test_a_step_ends_on_the_kinks_that_neurons_slide_on_however_far_it_began_from_them() -> None:
    """1e-12 from them. A projection is rounded by some EPS of weights times activations, of at most 4 numbers each."""
    problem, state, work = grouped()
    start.start_mode(problem, state, work)
    where = [(1, 0, 0), (1, 3, 0), (2, 3, 1)]
    first, second = state.weights[:12].reshape(4, 3), state.weights[12:20].reshape(2, 4)
    normals = problem.inputs[[0, 3]]
    first[0] -= np.linalg.pinv(normals) @ (normals @ first[0])
    slid, _ = slide(problem, state, work, where)
    a = work.a[0, place(problem, 1, 3, 0) : place(problem, 1, 3, 0) + 4].copy()
    second[1] -= a * (a @ second[1]) / (a @ a)
    first[0] += 1e-12 * normals[0]
    second[1] += 1e-12 * a
    slides = series.expand(problem, state, work, ORDER, 1.0)
    assert (abs(work.z[0, slid]) > 100 * EPS).all()
    assert loop._move(problem, state, work, slides, 1e-3 ** np.arange(ORDER + 1.0))
    work.W[0] = state.weights
    series.go_forward(problem, work, 0, 2)
    assert abs(work.z[0, slid]).max() < 16 * EPS


def test_a_kink_depends_on_those_that_its_neuron_slides_on_if_its_input_is_a_combination_of_theirs() -> None:
    problem, state, work = grouped()
    inputs = problem.inputs.copy()
    inputs[4] = 0.3 * inputs[0] - 1.7 * inputs[3]
    inputs[5] = inputs[4] + 1e-6
    problem = problem._replace(inputs=inputs, gram=inputs @ inputs.T)
    start.start_mode(problem, state, work)
    _, slides = slide(problem, state, work, [(1, 0, 0), (1, 3, 0), (1, 0, 2)])
    for neuron, expected in ((0, [0, 3, 4]), (2, [0]), (1, [])):
        assert [i for i in (0, 3, 4, 5) if watch.depends_on_slides(problem, slides, i, neuron)] == expected


@pytest.mark.parametrize("also", [False, True])
def test_a_neuron_crosses_without_a_decision_only_if_it_is_on_one_kink_alone(also: bool) -> None:
    """Where it slides on another one, as well: what jumps at its crossing may throw it out there."""
    flow, _ = grouped_flow(slope=0.3)
    problem, state, work = opened(flow, deep_gaussian((3, 2, 1), 0))
    start.start_mode(problem, state, work)
    state.plan[0] = 0  # stepping
    arriving, other = place(problem, 1, 0, 1), place(problem, 1, 3, 1)
    state.side[arriving], work.kind[0], work.which[0], work.root[0] = -1, 0, arriving, 0.5
    _, slides = slide(problem, state, work, [(1, 3, 1)] if also else [])
    work.z[1, arriving] = 1e3  # so fast that its crossing is beyond doubt
    switch.switch_mode(problem, state, work, slides, 1, 0.5, 1e-3 ** np.arange(ORDER + 1.0))
    assert state.queue[: state.plan[2]].tolist() == [arriving, other][: 1 + also]
    assert state.side[arriving] == 1
    assert state.plan[0] == (1 if also else 0)  # deciding, or stepping


def test_a_sign_that_flips_above_the_second_layer_concerns_all_that_slides() -> None:
    """The feedback of every neuron below changes, and with it the drives of the first layer."""
    problem, state, work = grouped()
    problem = problem._replace(rule=2)  # signs
    start.start_mode(problem, state, work)
    slid = [place(problem, 1, 3, 0), place(problem, 1, 3, 2)]
    state.side[slid] = 0
    series.set_feedback(problem, state, work.B)
    slides = series.expand(problem, state, work, ORDER, 1.0)
    work.kind[0], work.which[0], work.root[0] = 3, 8, 0.5
    switch.switch_mode(problem, state, work, slides, 1, 0.5, 1e-3 ** np.arange(ORDER + 1.0))
    assert state.plan[0] == 1  # deciding
    assert set(slid) <= set(state.queue[: state.plan[2]].tolist())


def test_where_a_row_of_weights_became_0_all_kinks_of_its_neuron_are_decided() -> None:
    problem, state, work = grouped()
    start.start_mode(problem, state, work)
    state.weights[12:16] = 0.0  # of the first neuron of layer 2
    state.queue[0], state.plan[2] = place(problem, 2, 0, 0), 1
    decide.prepare_decision(problem, state, work)
    assert sorted(state.queue[: state.plan[2]]) == [place(problem, 2, i, 0) for i in (0, 2, 3)]


def test_a_neuron_that_nothing_gets_to_arrives_with_all_those_below_it_a_rounding_later() -> None:
    """1e-13 from their kinks they are not on them up to rounding, and yet nothing gets through."""
    problem, state, work = grouped()
    start.start_mode(problem, state, work)
    x, rows = problem.inputs[3] / np.linalg.norm(problem.inputs[3]), state.weights[:12].reshape(4, 3)
    for _ in range(2):
        rows -= np.outer(rows @ x, x)
    rows += 1e-13 * np.outer(np.linalg.norm(rows, axis=1), x)
    work.W[0] = state.weights
    arrived = np.zeros(len(state.side), bool)
    arrived[place(problem, 2, 3, 0)] = True
    switch._fill_queue(problem, state, work, arrived, True, np.ones(4, bool), np.ones(ORDER + 1))
    expected = [place(problem, 1, 3, j) for j in range(4)] + [place(problem, 2, 3, j) for j in range(2)]
    assert set(expected[:5]) <= set(state.queue[: state.plan[2]].tolist()) <= set(expected)
