"""Starts that are special, slopes 0 and 1, every loss, several outputs, decay: closed forms and choices."""

import math
from functools import cache
from typing import cast

import pytest
import torch
from scipy.integrate import quad, solve_ivp

from conformance.deep_problems import largest_difference
from conformance.kernels import solve
from conformance.random_flows import difference, find_faults
from flowsim import (
    Dataset,
    DeepWeights,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Weights,
)
from flowsim.initialization import deep_gaussian
from flowsim.integrators.event.path import EventPath
from flowsim.losses import polynomial
from flowsim.rules import Rule

DECAY = 0.3
T_FINAL = 3.0
TIMES = torch.linspace(0, T_FINAL, 31, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Several layers with one neuron each are functions of one variable


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_chain_of_single_neurons_on_one_sample_moves_in_the_time_of_the_quadrature(depth: int, side: float) -> None:
    """GD from equal weights w of a chain with all of its neurons on one side: dw/dt = e^(-c w^L) c w^(L - 1).

    The neurons are active for x > 0, and w > 0 keeps them so; for x < 0 the first is inactive, with c = slope^(L-1) x,
    and so are all above it.
    """
    slope, w0, w1 = 0.3, 0.5, 1.2
    factor = side if side > 0 else -(slope ** (depth - 1))
    flow = Flow(Dataset([[side]], [int(side)]), GradientDescent(), slope=slope)
    weights = DeepWeights(tuple(torch.full((1, 1), w0, dtype=torch.float64) for _ in range(depth)))
    u = abs(factor)
    time = quad(lambda w: math.exp(u * w**depth) / (u * w ** (depth - 1)), w0, w1, epsabs=1e-14, epsrel=1e-13)[0]
    solution = solve(flow, weights, time, rtol=1e-12, atol=1e-14)
    # below 100 steps of errors of 1e-12
    for layer in solution.evaluate(time).layers:
        assert abs(layer.item() - w1) < 1e-10
    assert len(solution.events) == 0


# Weights whose squares underflow


def test_weights_too_small_to_be_squared_leave_0_as_others_do() -> None:
    """GD, n = 1, w = v = a: da/dt = a e^(-a^2), and a / a(0) is e^t until a is of size 1.

    Ten trajectories at once, each from where the one before it ends, go all the way from 1e-170.
    """
    a0, a1, parts = 1e-170, 0.9, 10
    time = math.log(a1) - math.log(a0) + quad(lambda a: math.expm1(a * a) / a, 0, a1, epsabs=1e-14)[0]
    starts = [a0 * math.exp(time * part / parts) for part in range(parts)]
    flow = Flow(Dataset([[1.0]], [1]), GradientDescent())
    first = torch.tensor(starts, dtype=torch.float64)
    solution = solve(
        flow, Weights(first.reshape(-1, 1, 1), first.reshape(-1, 1)), time / parts, rtol=1e-12, atol=1e-300
    )
    # errors of 1e-12 per step, relative to a, in below 400 steps
    assert solution.statistics["steps"].max() < 400
    for layer in solution.evaluate(time / parts).layers:
        assert layer.flatten().tolist() == pytest.approx([*starts[1:], a1], rel=4e-10, abs=0)


def test_a_neuron_at_a_distance_too_small_to_be_squared_is_not_on_its_kink() -> None:
    """At slope 0 nothing moves it from the inactive side, though the kink repels."""
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]), slope=0.0)
    for z in (-1e-100, -1e-170, -1e-300):
        start = Weights(torch.full((1, 1), z, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64))
        solution = solve(flow, start, 1.0)
        assert solution.evaluate(1.0).hidden.item() == z


def test_activations_too_small_to_be_squared_cross_a_kink_of_the_layer_above() -> None:
    """W_1 = (2, 1) s moves at the speed (-1, 1) s phi'(z_2), with W_2 = (1, -1) and f = 0 up to s: z_2 = 0 at 1/2."""
    s = 2.0**-560
    w1, w2, top = ([[2 * s], [s]], [[1.0, -1.0]], [[1.0]])
    weights = DeepWeights(tuple(torch.tensor(layer, dtype=torch.float64) for layer in (w1, w2, top)))
    rule = FeedbackAlignment([torch.tensor([[-s, s]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)])
    solution = solve(Flow(Dataset([[1.0]], [1]), rule, slope=0.3), weights, 1.0)
    assert solution.events.time.tolist() == pytest.approx([0.5], rel=1e-14)
    end = (solution.evaluate(1.0).layers[0].flatten() / s).tolist()
    assert end == pytest.approx([2 - 0.5 - 0.5 * 0.3, 1 + 0.5 + 0.5 * 0.3], rel=1e-14)


# Decay


@pytest.mark.parametrize("layers", [2, 3])
def test_weights_that_no_data_move_decay_exponentially(layers: int) -> None:
    weights = deep_gaussian((3, *[4] * (layers - 1), 1), 0)
    flow = Flow(Dataset(torch.zeros(2, 3), [1, -1]), GradientDescent(), "squared", decay=DECAY)
    weights = weights.with_layers([*weights.layers[:-1], 0.0 * weights.layers[-1]])
    at = solve(flow, weights, T_FINAL, rtol=1e-12, atol=1e-14).evaluate(TIMES)
    left = torch.exp(-DECAY * TIMES).reshape(-1, 1, 1)
    assert largest_difference(at, weights.with_layers([left * layer for layer in weights.layers])) < 1e-10


def test_one_linear_neuron_with_decay_on_the_squared_loss_comes_to_rest_where_its_cubic_says() -> None:
    """GD, v = w, x = y = 1: dw/dt = (1 - w^2) w - l w, so w^2 = s w0^2 / (w0^2 + (s - w0^2) e^(-2 s t)), s = 1 - l."""
    w0, s = 0.2, 1 - DECAY
    flow = Flow(Dataset([[1.0]], [1]), GradientDescent(), "squared", 1.0, decay=DECAY)
    solution = solve(flow, Weights(torch.tensor([[w0]]).double(), torch.tensor([w0]).double()), T_FINAL, rtol=1e-12)
    w0 = solution.start.hidden.item()
    expected = (s * w0**2 / (w0**2 + (s - w0**2) * torch.exp(-2 * s * TIMES))).sqrt()
    torch.testing.assert_close(solution.evaluate(TIMES).hidden[:, 0, 0], expected, rtol=0, atol=1e-10)


# Losses, outputs and slopes against a Runge-Kutta method of scipy, where no neuron slides

LOSSES = {
    "exponential": "exponential", "logistic": "logistic", "squared": "squared", "polynomial": polynomial(1.5),
    "cross-entropy": "cross-entropy", "squared of classes": "squared",
}  # fmt: skip
RULES, SLOPES = ["gd", "fa", "sign-fa", "direct"], [0.0, 0.3, 1.0]
COMBINED = [
    (layers, rule, loss, SLOPES[(layers + number + place) % 3])
    for layers in (2, 3)
    for number, rule in enumerate(RULES)
    for place, loss in enumerate(LOSSES)
]
"""For each number of layers every rule with every loss, and every slope with each of either."""


@pytest.mark.parametrize(("layers", "rule", "loss", "slope"), COMBINED)
def test_the_flow_is_that_of_scipy_for_every_rule_with_every_loss_and_with_every_slope(
    layers: int, rule: str, loss: str, slope: float
) -> None:
    flow, weights = random_start(layers, rule, loss, slope)
    solution = solve(flow, weights, 1.0, rtol=1e-11, atol=1e-13)
    end, expected = before_the_first_slide(layers, rule, loss, slope)
    assert 1e-3 < end < min([1.0, *solution.events.time[solution.events.after == 0].tolist()])
    assert largest_difference(solution.evaluate(end), expected) < 1e-7


def random_start(layers: int, rule: str, loss: str, slope: float) -> tuple[Flow, DeepWeights]:
    classes = 3 if loss in ("cross-entropy", "squared of classes") else None
    labels = [0, 1, 2, 1] if classes else [1, -1, 1, 1]
    weights = deep_gaussian((3, *(4, 3)[: layers - 1], classes or 1), 1)
    return Flow(Dataset(normal(4, 3, seed=3), labels, classes), fitting(rule, weights), LOSSES[loss], slope), weights


@cache
def before_the_first_slide(layers: int, rule: str, loss: str, slope: float) -> tuple[float, DeepWeights]:
    """A time, and the weights then, by scipy, once for all kernels; DOP853 crosses a kink to about its tolerance."""
    flow, weights = random_start(layers, rule, loss, slope)
    events = solve(flow, weights, 1.0).events
    end = 0.9 * min([1.0, *events.time[events.after == 0].tolist()])
    shapes = [layer.shape for layer in weights.layers]

    def layers_of(state: torch.Tensor) -> DeepWeights:
        parts = state.split([shape.numel() for shape in shapes])
        return weights.with_layers([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    def rate(_: float, state: object) -> object:
        moves = flow.velocity(layers_of(torch.as_tensor(state)))
        return torch.cat([move.flatten() for move in moves.layers]).numpy()

    start = torch.cat([layer.flatten() for layer in weights.layers]).numpy()
    run = solve_ivp(rate, (0, end), start, method="DOP853", rtol=1e-10, atol=1e-12)
    return end, layers_of(torch.from_numpy(run.y[:, -1]))


def fitting(rule: str, weights: DeepWeights) -> Rule:
    """A rule whose feedback has the shapes of these weights."""
    above = [normal(*layer.shape, seed=20 + level) for level, layer in enumerate(weights.layers[1:])]
    outputs = weights.layers[-1].shape[0]
    direct = [normal(outputs, layer.shape[1], seed=30 + level) for level, layer in enumerate(weights.layers[1:])]
    return {
        "gd": GradientDescent(), "sign-fa": SignFeedbackAlignment(0.7), "fa": FeedbackAlignment(tuple(above)),
        "direct": DirectFeedbackAlignment(tuple(direct)),
    }[rule]  # fmt: skip


# Inputs and neurons in special positions change nothing that they should not


def plain(layers: int, rule: str = "fa") -> tuple[Flow, DeepWeights]:
    weights = deep_gaussian((3, *(4, 3)[: layers - 1], 1), 2)
    return Flow(Dataset(normal(4, 3, seed=9), [1, -1, 1, -1]), fitting(rule, weights)), weights


@pytest.mark.parametrize("layers", [2, 3])
def test_all_samples_taken_twice_do_what_they_do_once(layers: int) -> None:
    """The mean over them is the same, and every event happens twice."""
    flow, weights = plain(layers)
    inputs, labels = flow.dataset.inputs, flow.dataset.labels
    double = Flow(Dataset(inputs.repeat(2, 1), labels.repeat(2)), flow.rule)
    single, twice = (solve(each, weights, T_FINAL, rtol=1e-11, atol=1e-13) for each in (flow, double))
    assert difference(single, twice, TIMES) < 1e-8
    assert len(twice.events) == 2 * len(single.events) > 0


@pytest.mark.parametrize("layers", [2, 3])
def test_an_input_0_only_slows_the_others_down(layers: int) -> None:
    """Its output is 0, and it moves no weight: time goes slower by 4 / 5."""
    flow, weights = plain(layers)
    more = Flow(Dataset(torch.cat([flow.dataset.inputs, torch.zeros(1, 3).double()]), [1, -1, 1, -1, 1]), flow.rule)
    fast = solve(flow, weights, T_FINAL, rtol=1e-11, atol=1e-13)
    slow = solve(more, weights, 1.25 * T_FINAL, rtol=1e-11, atol=1e-13)
    assert largest_difference(slow.evaluate(1.25 * TIMES), fast.evaluate(TIMES)) < 1e-8


@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
@pytest.mark.parametrize("layers", [2, 3])
def test_equal_neurons_stay_equal(rule: str, layers: int) -> None:
    flow, weights = plain(layers, rule)
    first, second, *rest = weights.layers
    first, second = first.clone(), second.clone()
    first[1], second[:, 1] = first[0], second[:, 0]
    fixed = rule == "fa"
    matrices = flow.rule.feedback_matrices(weights)
    if fixed:
        below = matrices[0].clone()
        below[:, 1] = below[:, 0]
        flow = Flow(flow.dataset, FeedbackAlignment((below, *matrices[1:])))
    at = solve(flow, DeepWeights((first, second, *rest)), T_FINAL, rtol=1e-11, atol=1e-13).evaluate(TIMES)
    assert (at.layers[0][:, 1] - at.layers[0][:, 0]).abs().max() < 1e-9
    assert (at.layers[1][:, :, 1] - at.layers[1][:, :, 0]).abs().max() < 1e-9


@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_special_starts_of_two_layers_are_gone_on_from_without_a_fault(rule: str, slope: float) -> None:
    flow, weights = plain(2, rule)
    flow = Flow(flow.dataset, flow.rule, slope=slope)
    starts = special_starts(flow, weights)
    start = DeepWeights(tuple(torch.stack(layers) for layers in zip(*starts.values(), strict=True)))
    loose, tight = (solve(flow, start, T_FINAL, rtol=rtol, atol=rtol / 100) for rtol in (1e-9, 1e-11))
    for index, kind in enumerate(starts):
        assert find_faults(tight[index], TIMES) == [], kind
        # errors per step of 1e-9, grown by at most 1000 until t = 3
        assert difference(loose[index], tight[index], TIMES) < 1e-6, kind


def special_starts(flow: Flow, weights: DeepWeights) -> dict[str, tuple[torch.Tensor, ...]]:
    hidden, output = weights.layers
    x, nothing, first_0, on_kink = flow.dataset.inputs[0], 0 * output, hidden.clone(), hidden.clone()
    first_0[0] = 0
    on_kink[:2] -= torch.outer(on_kink[:2] @ x, x) / (x @ x)
    found = {
        "v 0": (hidden, nothing),
        "w_1 0": (first_0, output),
        "on a kink": (on_kink, output),
        "all 0": (0 * hidden, nothing),
    }
    if isinstance(flow.rule, FeedbackAlignment):
        found["wrong signs"] = (hidden, -output.abs() * flow.rule.feedback_matrices(weights)[0].sign())
    return found


AT_REST = [("gd", 0.0, 5), ("gd", 0.3, 13), ("gd", 0.3, 15), ("sign-fa", 0.3, 28), ("sign-fa", 0.3, 47)]


@pytest.mark.parametrize(("rule", "slope", "seed"), AT_REST)
def test_a_flow_at_rest_up_to_rounding_stays_in_its_mode(rule: str, slope: float, seed: int) -> None:
    """Squared loss, fitted to below 1e-13 with three neurons on a kink: in every mode the rest of y - f is rounding.

    Its sign, and that of all speeds, would contradict one mode after another. Along the flow the rest at most decays.
    """
    inputs, hidden = normal(3, 3, seed=seed), normal(4, 3, seed=100 + seed)
    x, labels = inputs[0], torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    hidden[:3] -= torch.outer(hidden[:3] @ x, x) / (x @ x)
    z = inputs @ hidden.T
    output = torch.linalg.pinv(torch.where(z > 0, z, slope * z)) @ labels
    weights = Weights(hidden, output)
    flow = Flow(Dataset(inputs, labels), fitting(rule, DeepWeights(weights.layers)), "squared", slope)
    assert (flow.outputs(weights).squeeze(-1) - labels).abs().max() < 1e-13
    solution = solve(flow, weights, 1.0)
    front = cast(EventPath, solution.path).front
    assert torch.equal(front.rounds, front.steps), "no round in which the series contradict the mode"
    for end, start in zip(solution.evaluate(1.0).layers, weights.layers, strict=True):
        # velocities are at most 1e-13 times weights and inputs, below 100 both
        assert (end.reshape(start.shape) - start).abs().max() < 1e-9
