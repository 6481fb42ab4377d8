"""The event-driven integrator against a second algorithm, the smooth network, and what it promises."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_problems import RULES, gaussian_data, separable, sliding
from scipy.integrate import solve_ivp
from scipy.special import expit

import flowsim
from conformance import filippov_reference as reference
from conformance.kernels import solve
from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    IntegrationError,
    SignFeedbackAlignment,
    Solution,
    Weights,
    data,
    losses,
)
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.integrators import LOOSER, Settings
from flowsim.integrators.event import INTEGRATOR
from flowsim.integrators.event.kernel import order_for
from flowsim.integrators.event.path import EventPath
from flowsim.integrators.event.records import COLUMNS
from flowsim.observables import conserved
from flowsim.rules import is_one_of

Problem = tuple[Flow, Weights]

# Another algorithm


# rule, loss, slope, n, d, m, T, seed: chosen for slides (all), sign changes (the last three), and ReLU
REFERENCE_PROBLEMS = [
    ("fa", "exponential", 0.1, 10, 4, 5, 4.0, 1),
    ("fa", "squared", 0.0, 9, 5, 4, 5.0, 0),
    ("gd", "exponential", 0.0, 10, 4, 5, 5.0, 0),
    ("gd", "squared", 0.2, 10, 5, 5, 3.0, 1),
    ("sign-fa", "exponential", 0.1, 10, 4, 5, 4.0, 5),
    ("sign-fa", "squared", 0.0, 6, 3, 4, 4.0, 1),
    ("sign-fa", "logistic", 0.2, 8, 4, 5, 5.0, 5),
]


def arrays(n: int, d: int, m: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    inputs, labels = random.standard_normal((n, d)), random.choice([-1.0, 1.0], n)
    return [
        inputs,
        labels,
        random.standard_normal((m, d)) / np.sqrt(d),
        random.standard_normal(m),
        random.standard_normal(m),
    ]


def as_problem(rule: str, loss: str, slope: float, parts: list[np.ndarray]) -> Problem:
    inputs, labels, hidden, output, feedback = (torch.as_tensor(part) for part in parts)
    rules = {"fa": FeedbackAlignment(feedback), "gd": GradientDescent(), "sign-fa": SignFeedbackAlignment()}
    return Flow(Dataset(inputs, labels), rules[rule], loss, slope), Weights(hidden, output)


@cache
def runge_kutta_between_events(
    rule: str, loss: str, slope: float, n: int, d: int, m: int, t_final: float, seed: int
) -> tuple[np.ndarray, np.ndarray, list]:
    """Once for all kernels; events that are missed between the points looked at would be missed in the comparison."""
    inputs, labels, hidden, output, feedback = arrays(n, d, m, seed)
    coarse = {"max_step": t_final / 100, "points": 10}
    return reference.solve(inputs, labels, hidden, output, rule, feedback, slope, loss, t_final, **coarse)


@pytest.mark.parametrize(("rule", "loss", "slope", "n", "d", "m", "t_final", "seed"), REFERENCE_PROBLEMS)
def test_states_and_events_are_those_of_runge_kutta_steps_between_events(
    rule: str, loss: str, slope: float, n: int, d: int, m: int, t_final: float, seed: int
) -> None:
    """Both are solved to about 1e-13; the tolerance allows for growth of errors by 1000."""
    parts = arrays(n, d, m, seed)
    W, v, found = runge_kutta_between_events(rule, loss, slope, n, d, m, t_final, seed)
    solution = solve(*as_problem(rule, loss, slope, parts), t_final, rtol=1e-13, atol=1e-15)
    at = solution.evaluate(t_final)
    torch.testing.assert_close(at.hidden, torch.as_tensor(W), rtol=0, atol=1e-10)
    torch.testing.assert_close(at.output, torch.as_tensor(v), rtol=0, atol=1e-10)
    names = {"crossing": "crossing", "entry": "sliding entry", "exit": "sliding exit", "sign": "sign change"}
    wanted = Counter(
        (names[kind], -1 if sample is None else int(sample), int(neuron)) for _, kind, sample, neuron in found
    )
    events = solution.events
    assert Counter(zip(events.kind, events.sample.tolist(), events.neuron.tolist(), strict=True)) == wanted
    times = torch.tensor(sorted(time for time, *_ in found), dtype=torch.float64)
    torch.testing.assert_close(events.time.sort().values, times, rtol=0, atol=1e-10)
    assert "sliding entry" in {kind for kind, *_ in wanted}


@cache
def smooth_network(
    problem: Callable[[], tuple[Problem, np.ndarray]], t_final: float, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    """FA with phi'(z) = gamma + (1 - gamma) / (1 + exp(-beta z)) and exponential loss, by LSODA, for all kernels."""
    (flow, weights), feedback = problem()
    inputs, labels, gamma = flow.dataset.inputs.numpy(), flow.dataset.labels.numpy(), flow.slope
    m, d = weights.hidden.shape

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        v, W = state[:m], state[m:].reshape(m, d)
        z = inputs @ W.T
        phi = gamma * z + (1 - gamma) * np.logaddexp(0, beta * z) / beta
        slope = gamma + (1 - gamma) * expit(beta * z)
        q = labels * np.exp(-labels * (phi @ v)) / len(labels)
        return np.concatenate([phi.T @ q, ((slope * np.outer(q, feedback)).T @ inputs).ravel()])

    start = np.concatenate([weights.output.numpy(), weights.hidden.numpy().ravel()])
    end = solve_ivp(velocity, (0, t_final), start, method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
    return end[m:].reshape(m, d), end[:m]


def repeated_under_both_labels() -> tuple[Problem, np.ndarray]:
    parts = arrays(6, 2, 3, 20)
    parts[0][1], parts[1][1] = -1.5 * parts[0][0], -parts[1][0]
    parts[0][2], parts[1][2] = parts[0][0], -parts[1][0]
    return as_problem("fa", "exponential", 0.3, parts), parts[4]


def through_the_origin() -> tuple[Problem, np.ndarray]:
    """A neuron that slides on d - 1 = 3 kinks moves along a line into w = 0, where all kinks meet (near t = 2.48)."""
    parts = arrays(10, 4, 5, 101)
    return as_problem("fa", "exponential", 0.5, parts), parts[4]


def dying_relu() -> tuple[Problem, np.ndarray]:
    parts = arrays(5, 3, 2, 1)
    parts[1][:], parts[4][:] = -1.0, 1.0
    return as_problem("fa", "exponential", 0.0, parts), parts[4]


@pytest.mark.parametrize("problem", [repeated_under_both_labels, through_the_origin, dying_relu])
def test_smooth_networks_tend_to_the_solution_like_1_over_beta(problem: Callable) -> None:
    """The smooth network knows nothing of modes: an independent check of which one is chosen."""
    t_final = 3.0
    (flow, weights), _ = problem()
    at = solve(flow, weights, t_final, rtol=1e-11, atol=1e-13).evaluate(t_final)
    distances = []
    for beta in (1e3, 1e4, 1e5):
        hidden, output = smooth_network(problem, t_final, beta)
        distances.append(max(abs(hidden - at.hidden.numpy()).max(), abs(output - at.output.numpy()).max()))
    # log(beta) / beta, which falls 8 times per decade, where a neuron leaves a kink tangentially
    assert distances[0] > 5 * distances[1] > 25 * distances[2]
    assert distances[2] < 1e-3


def without_slides(rule: str) -> Problem:
    flow, weights = separable(1, samples=6, width=5)
    other = {"gd": GradientDescent(), "sign-fa": SignFeedbackAlignment()}.get(rule, flow.rule)
    return Flow(flow.dataset, other), weights


@cache
def by_torchdiffeq(rule: str) -> Solution[Weights]:
    """Once for all kernels."""
    return flowsim.solve(*without_slides(rule), 0.5, method="dopri5", rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", ["gd", "fa", "sign-fa"])
def test_torchdiffeq_agrees_where_no_neuron_slides(rule: str) -> None:
    """To its error: below 50 kinks, each crossed with an error of 1e-12 of the weights, which grows by < 100."""
    ours, theirs = solve(*without_slides(rule), 0.5, rtol=1e-12, atol=1e-14), by_torchdiffeq(rule)
    assert len(ours.events) == len(theirs.events) > 3
    here, there = ours.evaluate([0.1, 0.5]), theirs.evaluate([0.1, 0.5])
    torch.testing.assert_close(here.hidden, there.hidden, rtol=0, atol=5e-9)
    torch.testing.assert_close(here.output, there.output, rtol=0, atol=5e-9)
    torch.testing.assert_close(ours.events.time, theirs.events.time, rtol=0, atol=5e-9)
    assert torch.equal(ours.events.after, theirs.events.after)


def test_a_steep_sample_far_from_its_singularity_stops_no_step_short_of_it() -> None:
    """Polynomial loss with p = 20: where 1 + u halves, -l' grows 2^21 times, invisible in the terms at u = 6000.

    Against LSODA with rtol 1e-11; both samples stay active, u = -1e4 v w and v w.
    """
    power, far = 20.0, 1e4
    flow = Flow(Dataset([[1.0], [far]], [1, -1]), FeedbackAlignment([1.0]), losses.polynomial(power))
    weights = Weights(torch.tensor([[1.0]]).double(), torch.tensor([-0.6], dtype=torch.float64))
    t_final = 0.003
    solution = solve(flow, weights, t_final)

    def velocity(_: float, state: np.ndarray) -> list[float]:
        w, v = state
        near, steep = (power * (1 + u) ** (-power - 1) / 2 for u in (v * w, -far * v * w))
        return [near - far * steep, (near - far * steep) * w]

    end = solve_ivp(velocity, (0, t_final), [1.0, -0.6], method="LSODA", rtol=1e-11, atol=1e-13).y[:, -1]
    at = solution.evaluate(t_final)
    assert at.hidden.item() == pytest.approx(end[0], abs=1e-8)
    assert at.output.item() == pytest.approx(end[1], abs=1e-8)


# Theorem 5.2, tolerances, work


@pytest.mark.parametrize("rule", RULES)
def test_eq_2_holds_to_1e_11_through_dozens_of_slides_on_arbitrary_labels(rule: str) -> None:
    flow, weights = gaussian_data(rule, 24, 20, 8, 12)
    solution = solve(flow, weights, 5.0, rtol=1e-12, atol=1e-14)
    assert solution.statistics["slides"].sum() > 36
    (gaps,) = conserved(flow, solution.evaluate(torch.linspace(0, 5, 50)))
    events = solution.events
    (at_events,) = conserved(solution.flow_of(events.trajectory), solution.evaluate(events.time, events.trajectory))
    # the law holds in every mode and for every sum of Taylor terms; what is left is their truncation at 1e-12
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=0, atol=1e-11)
    torch.testing.assert_close(at_events, gaps[0][events.trajectory], rtol=0, atol=1e-11)


@pytest.mark.parametrize("problem", [gaussian_data("fa", 2, 12, 5, 8), gaussian_data("gd", 2, 12, 5, 8), separable(2)])
def test_the_state_converges_as_the_tolerance_tightens(problem: Problem) -> None:
    times = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    best = solve(*problem, 4.0, rtol=1e-14, atol=1e-16).evaluate(times)
    errors = []
    for rtol in (1e-6, 1e-8, 1e-10, 1e-12):
        at = solve(*problem, 4.0, rtol=rtol, atol=rtol / 100).evaluate(times)
        errors.append((at.hidden - best.hidden).abs().max().item())
        # the error per step is the tolerance; there are below 1000 steps, and weights are below 10
        assert errors[-1] < 1e3 * 10 * rtol
    # each factor of 100 in the tolerance gains at least 20, until rounding is reached
    assert all(later < earlier / 20 or later < 1e-12 for earlier, later in itertools.pairwise(errors))


@cache
def exact_separable(kernel: str) -> Solution[Weights]:
    return solve(*separable(4), 100.0, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("rtol", [1e-3, 3e-4, 1e-5, 1e-7, 1e-9])
def test_the_error_estimate_covers_the_error_where_steps_end_at_events(kernel: str, rtol: float) -> None:
    """Solution and companion take the same steps there: series of one order would agree, and both be wrong."""
    times = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    solution, best = solve(*separable(4), 100.0, rtol=rtol, atol=rtol / 100), exact_separable(kernel).evaluate(times)
    for found, exact, estimate in zip(
        solution.evaluate(times).layers, best.layers, solution.error(times).layers, strict=True
    ):
        assert ((found - exact).abs() <= estimate).all()
        largest = (found - exact).abs().amax((0, -2, -1) if found.ndim == 4 else (0, -1))
        assert (estimate.amax((0, -2, -1) if found.ndim == 4 else (0, -1)) < 1000 * largest).all()


def test_the_companion_has_one_order_less_at_every_tolerance() -> None:
    for rtol in 10 ** np.linspace(-14, -3, 100):
        assert order_for(LOOSER * rtol, companion=True) == order_for(rtol) - 1
        if rtol < 1e-6:  # so that solves of their own, at tolerances of the same ratio, may stand for it
            assert order_for(LOOSER * rtol) == order_for(rtol) - 1
    for rtol in 10 ** np.linspace(-14, -3, 12):
        solution = solve(*separable(1), 1e-3, rtol=rtol, atol=rtol / 100)
        orders = [cast(EventPath, each.path).order for each in (solution, solution.companion)]
        assert orders == [order_for(rtol), order_for(rtol) - 1]


def nearly_orthogonal() -> Problem:
    rule = FeedbackAlignment(random_signs(30, 0))
    dataset = data.nearly_orthogonal(10, 1000, 0.045, seed=0)
    return Flow(dataset, rule), with_gaps(gaussian(30, 1000, 0).hidden, rule, 0.05)


EVENTFUL = [
    pytest.param(lambda: separable(1, 12, 20, 30), 100.0, id="orthogonally separable"),
    pytest.param(nearly_orthogonal, 100.0, id="nearly orthogonal"),
    pytest.param(lambda: gaussian_data("fa", 1, 40, 20, 50), 5.0, id="Gaussian"),
]


@pytest.mark.parametrize(("problem", "t_final"), EVENTFUL)
def test_there_are_at_most_12_steps_for_10_events_and_100_more(problem: Callable[[], Problem], t_final: float) -> None:
    solution = solve(*problem(), t_final)
    events = len(solution.events)
    assert events > 150
    assert solution.statistics["steps"].sum() <= 1.2 * events + 100
    assert solution.statistics["terms"].sum() < 15 * (1.2 * events + 100)


def stored_bytes(solution: Solution) -> int:
    path = solution.path
    assert isinstance(path, EventPath)
    stored = [getattr(record, name) for record in path.records for name in COLUMNS]
    return sum(tensor.numel() * tensor.element_size() for tensor in stored)


def test_a_stored_step_takes_its_weights_sides_and_signs_and_no_more_in_an_ensemble() -> None:
    n, d, m = 6, 8, 5
    for seeds in (1, 3):
        solution = solve(*separable(seeds, n, d, m), 10.0)
        numbers = 3 + m * n + m  # trajectory, time, time from which it answers, weights in the span of the inputs
        assert stored_bytes(solution) == (8 * numbers + n * m + m) * solution.statistics["steps"].sum()


# Any problem


MEMBERS = 8
INPUTS = ["generic", "repeated", "opposite", "dependent", "zero"]
STARTS = ["generic", "on a kink", "hidden 0", "output 0", "both 0", "whole"]


@st.composite
def any_problem(draw: st.DrawFn) -> tuple[Problem, tuple[int, Problem]]:
    """An ensemble of data, labels and starts at random, degenerate ones on purpose; and one of its members alone."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(MEMBERS, *shape, generator=random, dtype=torch.float64)

    def whole(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, (MEMBERS, *shape), generator=random).double()

    n, d, m = (draw(st.sampled_from(sizes)) for sizes in ((1, 2, 3, 6), (1, 2, 3, 4), (1, 2, 4)))
    classes = draw(st.sampled_from([None, None, 2, 3]))
    inputs = draw(st.sampled_from([normal, whole]))(n, d)
    if classes is None:
        labels = 1.0 - 2.0 * torch.randint(0, 2, (MEMBERS, n), generator=random)
        loss, shape = draw(st.sampled_from(["exponential", "logistic", "squared"])), (m,)
    else:
        labels = torch.randint(0, classes, (MEMBERS, n), generator=random)
        loss, shape = draw(st.sampled_from(["squared", "cross-entropy"])), (classes, m)
    hidden, output = 0.5 * normal(m, d), 0.5 * normal(*shape)
    whole_hidden, whole_output = whole(m, d), whole(*shape)
    kinds = draw(st.sampled_from([["generic"], INPUTS, INPUTS, INPUTS]))
    for member in range(MEMBERS):
        make_special(inputs[member], draw(st.sampled_from(kinds)))
        start = draw(st.sampled_from(STARTS))
        if start == "on a kink":
            normal_of_first = inputs[member, :1] / inputs[member, :1].norm().clamp(min=1e-300)
            hidden[member] -= (hidden[member] @ normal_of_first.mT) @ normal_of_first
        elif start == "whole":
            hidden[member], output[member] = whole_hidden[member], whole_output[member]
        hidden[member] *= start not in ("hidden 0", "both 0")
        output[member] *= start not in ("output 0", "both 0")
    rules = [
        GradientDescent(), SignFeedbackAlignment(0.7), FeedbackAlignment(normal(*shape)), FeedbackAlignment(output),
    ]  # fmt: skip
    flow = Flow(
        Dataset(inputs, labels, classes), draw(st.sampled_from(rules)), loss,
        draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])),
    )  # fmt: skip
    weights, one = Weights(hidden, output), draw(st.integers(0, MEMBERS - 1))
    return (flow, weights), (one, flow.map_matrices(weights, lambda matrix: matrix[one]))


def make_special(inputs: torch.Tensor, kind: str) -> None:
    if kind == "repeated":
        inputs[-1] = inputs[0]
    elif kind == "opposite":
        inputs[-1] = -2 * inputs[0]
    elif kind == "dependent" and len(inputs) > 2:
        inputs[2] = inputs[0] + 0.5 * inputs[1]
    elif kind == "zero":
        inputs[0] = 0


def test_every_run_ends_conserves_decreases_and_does_not_depend_on_its_ensemble(kernel: str) -> None:
    """More of them by the compiled kernel, which takes 10 times less."""
    many = settings(
        max_examples=40 if kernel == "compiled" else 12,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    many(given(any_problem())(require_conservation_descent_and_independence))()


def require_conservation_descent_and_independence(problems: tuple[Problem, tuple[int, Problem]]) -> None:
    (flow, weights), (one, single) = problems
    t_final = 3.0
    solution = solve(flow, weights, t_final, rtol=1e-11, atol=1e-13, max_steps=2000)
    times = torch.linspace(0, t_final, 40, dtype=torch.float64)
    at = solution.evaluate(times)
    (gaps,) = conserved(flow, at)
    # of each member, the largest weights along its run
    size = 1 + at.layers[0].abs().amax((0, -2, -1)) ** 2 + at.layers[1].abs().amax((0, -2, -1))
    assert ((gaps - gaps[0]).abs().amax((0, -1)) < 1e-9 * size).all(), "Eq. (2)"
    if is_one_of(flow.rule, GradientDescent):
        assert flow.risk(at).diff(dim=0).max() < 1e-9, "the risk falls under GD"
    alone = solve(*single, t_final, rtol=1e-11, atol=1e-13).evaluate(times)
    here = at.map(lambda tensor: tensor[:, one])
    error = 1e-7 * size[one]  # an error of 1e-16 may grow by 1e9 before this fails
    torch.testing.assert_close(here.hidden, alone.layers[0], rtol=0, atol=error.item())
    torch.testing.assert_close(here.layers[1].squeeze(-2), alone.layers[1].squeeze(-2), rtol=0, atol=error.item())


# Kinks at the start, and choices


def test_a_start_on_a_repelling_kink_leaves_it_to_the_active_side_and_one_on_an_attracting_kink_slides_or_crosses() -> (
    None
):
    """One sample, b = 1: dw/dt = q x. With y = 1 the kink repels, with y = -1 it attracts and holds w."""
    hidden, output = [[0.0, 1.0]], [0.5]
    repelled = solve(Flow(Dataset([[1.0, 0.0]], [1]), FeedbackAlignment([1.0])), Weights(hidden, output), 1.0)  # type: ignore
    assert repelled.evaluate(0.5).hidden[0, 0] > 0.1
    assert repelled.pattern([0.0, 0.5])[0].tolist() == [[[1]], [[1]]]
    crossing = solve(Flow(Dataset([[1.0, 0.0]], [-1]), FeedbackAlignment([1.0])), Weights(hidden, output), 1.0)  # type: ignore
    assert crossing.evaluate(0.5).hidden[0, 0] < -0.1, "alone, nothing pushes it back"
    assert len(repelled.events) == len(crossing.events) == 0


def test_under_gd_a_neuron_leaves_the_kink_it_slid_on_when_its_output_weight_passes_zero() -> None:
    """Trap: where v passes 0 all drives change sign; the kink that attracted repels. It leaves to the active side."""
    dataset = Dataset([[1.0, 0.0, 0.0], [0.6, 1.2, 0.0], [0.0, 0.0, 2.0]], [-1, 1, -1])
    weights = Weights(torch.tensor([[0.0, 0.05, 1.0]]).double(), torch.tensor([0.1]).double())
    solution = solve(Flow(dataset, GradientDescent()), weights, 1.0, rtol=1e-12, atol=1e-14)
    assert solution.pattern(0.0)[0][:, 0].tolist() == [0, 1, 1]
    assert solution.events.kind[0] == "sliding exit"
    assert solution.events.after[0] == 1
    passes = solution.events.time[0].item()
    before, at, after = solution.evaluate([0.9 * passes, passes, 1.1 * passes]).output[:, 0].tolist()
    assert before > 0 > after
    assert abs(at) < 1e-15
    assert solution.evaluate(1.1 * passes).hidden[0, 0] > 0
    (gaps,) = conserved(solution.flow, solution.evaluate(torch.linspace(0, 1, 30)))
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=0, atol=1e-11)


@pytest.mark.parametrize("v", [0.1, 0.13, 0.2])
def test_under_gd_with_two_classes_a_neuron_leaves_its_kink_where_its_two_output_weights_are_equal(v: float) -> None:
    """Cross-entropy of two outputs on x is the logistic loss of one on sqrt(2) x, with v = (V_1 - V_2) / sqrt(2)."""
    inputs = torch.tensor([[1.0, 0.0, 0.0], [0.6, 1.2, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    hidden, half = torch.tensor([[0.0, 0.05, 1.0]], dtype=torch.float64), 0.5**0.5
    output = torch.tensor([v], dtype=torch.float64)
    scalar = Flow(Dataset(2**0.5 * inputs, [-1, 1, -1]), GradientDescent(), "logistic")
    classes = Flow(Dataset(inputs, [1, 0, 1], 2), GradientDescent(), "cross-entropy")
    one = solve(scalar, Weights(hidden, output), 2.0, rtol=1e-12, atol=1e-14)
    two = solve(classes, Weights(hidden, torch.stack([half * output, -half * output])), 2.0, rtol=1e-12, atol=1e-14)
    assert one.events.kind[0] == two.events.kind[0] == "sliding exit"
    assert one.events.after.tolist() == two.events.after.tolist()
    torch.testing.assert_close(one.events.time, two.events.time, rtol=0, atol=1e-10)
    times = torch.linspace(0, 2, 20)
    here, there = one.evaluate(times), two.evaluate(times)
    torch.testing.assert_close(here.hidden, there.hidden, rtol=0, atol=1e-10)
    torch.testing.assert_close(here.output, half * (there.output[:, 0] - there.output[:, 1]), rtol=0, atol=1e-10)
    assert here.output[0] > 0 > here.output[-1]


def test_a_dip_below_the_kink_within_one_step_is_found() -> None:
    """Trap: z = 4e-6 at the start, below 0 and back within what would be one step: two events."""
    flow, weights = sliding()
    # sample 2 lifts z_1, sample 1 pushes it down at first: z_1'(0) < 0 < z_1'' for this v
    weights = Weights(torch.tensor([[4e-6, 0.25]]).double(), torch.tensor([0.1]).double())
    quick = solve(flow, weights, 1.0)
    z = quick.evaluate(torch.linspace(0, 1e-3, 1000).double()).hidden[:, 0, 0]
    assert (z >= -1e-17).all()
    assert quick.events.kind[0] == "sliding entry"


def test_slopes_of_one_have_no_events_and_slope_zero_neurons_rest_when_dead() -> None:
    flow = Flow(Dataset([[1.0], [-2.0]], [1, 1]), GradientDescent(), "squared", 1.0)
    linear = solve(flow, Weights(torch.tensor([[0.5]]), torch.tensor([-1.0])), 5.0)
    assert len(linear.events) == 0
    (flow, weights), _ = dying_relu()
    solution = solve(flow, weights, 200.0)
    assert (solution.pattern(200.0)[0] <= 0).all(), "labels -1, feedback +1: every sample pushes every neuron down"
    assert all(speed.abs().max() == 0 for speed in solution.velocity(200.0).layers)


# What the solution hands back


@cache
def mixed(kernel: str) -> Solution[Weights]:
    """By the kernel whose turn it is."""
    return solve(*gaussian_data("sign-fa", 2, 12, 5, 8), 20.0, rtol=1e-11, atol=1e-13)


def test_events_are_where_the_pattern_changes_and_sides_are_those_of_the_weights(kernel: str) -> None:
    solution = mixed(kernel)
    events, flow = solution.events, solution.flow
    assert set(events.kind) == {"crossing", "sliding entry", "sliding exit", "sign change"}
    at = range(len(events)), events.trajectory, events.sample.clamp(min=0), events.neuron
    kinks = events.sample >= 0
    shift = 1e-9 * events.time
    before, after = (solution.pattern(events.time + side * shift)[0][at] for side in (-1, 1))
    assert torch.equal(before[kinks], events.before[kinks])
    assert torch.equal(after[kinks], events.after[kinks])
    z = flow.pre_activations(solution.evaluate(events.time))[0][at]
    assert z[kinks].abs().max() < 1e-12
    v = solution.evaluate(events.time).output[range(len(events)), events.trajectory, events.neuron]
    assert v[~kinks].abs().max() < 1e-12
    for index in range(2):
        assert (events.time[events.trajectory == index].diff() >= 0).all()
    times = torch.linspace(0, 20, 333, dtype=torch.float64)
    (pattern,), (z,) = solution.pattern(times), flow.pre_activations(solution.evaluate(times))
    assert torch.equal(pattern[pattern != 0], z.sign().to(torch.int8)[pattern != 0])
    assert z[pattern == 0].abs().max() < 1e-13
    assert (pattern == 0).any()


def test_statistics_count_the_events_of_each_trajectory(kernel: str) -> None:
    solution = mixed(kernel)
    for index in range(2):
        kinds = Counter(
            kind for kind, owner in zip(solution.events.kind, solution.events.trajectory, strict=True) if owner == index
        )
        assert solution.statistics["crossings"][index] == kinds["crossing"]
        assert solution.statistics["slides"][index] == kinds["sliding entry"]
        assert solution.statistics["terms"][index] >= 8 * solution.statistics["steps"][index]


def test_velocity_is_the_derivative_of_the_dense_output_and_that_of_the_flow_off_the_kinks(kernel: str) -> None:
    solution = mixed(kernel)
    times = torch.linspace(0.1, 19, 50, dtype=torch.float64)
    velocity = solution.velocity(times)
    h = 1e-5
    later, earlier = solution.evaluate(times + h), solution.evaluate(times - h)
    # central differences: h^2 times a third derivative below 100, where no kink is within h
    near = ((solution.events.time - times.unsqueeze(-1)).abs() < 2 * h).any(-1)
    difference = (later.hidden - earlier.hidden) / (2 * h)
    torch.testing.assert_close(velocity.hidden[~near], difference[~near], rtol=0, atol=1e-8)
    slides = (solution.pattern(times)[0] == 0).any(-2)
    says = solution.flow.velocity(solution.evaluate(times))
    # the dense output solves the equation up to the tolerance over the step
    torch.testing.assert_close(velocity.hidden[~slides], says.hidden[~slides], rtol=0, atol=1e-8)
    torch.testing.assert_close(velocity.output, says.output, rtol=0, atol=1e-8)
    # while sliding: along the kinks, and no longer than any other choice of phi'
    normals = solution.flow.dataset.inputs.unsqueeze(0).expand(len(times), -1, -1, -1)
    along = (normals @ velocity.hidden.mT)[solution.pattern(times)[0] == 0]
    assert along.abs().max() < 1e-12
    assert (velocity.hidden.norm(dim=-1)[slides] <= says.hidden.norm(dim=-1)[slides]).all()


def test_dense_output_is_continuous_across_steps(kernel: str) -> None:
    solution = mixed(kernel)
    assert isinstance(solution.path, EventPath)
    times = solution.path.steps.time
    before, after = (solution.evaluate((times * (1 + side)).clamp(0, 20)) for side in (-1e-13, 1e-13))
    # the velocity is below 10, and 2e-13 * 20 * 10 = 4e-11; the truncation error is below it
    torch.testing.assert_close(before.hidden, after.hidden, rtol=0, atol=1e-10)
    torch.testing.assert_close(before.output, after.output, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_at_no_times_there_is_nothing_such_as_at_the_events_of_a_run_without_any(method: str) -> None:
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    solution = solve(flow, Weights(torch.tensor([[1.0]]), torch.tensor([0.5])), 1.0, method=method)
    assert len(solution.events) == 0
    assert solution.evaluate(solution.events.time).hidden.shape == (0, 1, 1)
    assert solution.velocity([]).output.shape == (0, 1)
    assert solution.pattern([])[0].shape == (0, 1, 1)
    assert solution.error([]).hidden.shape == (0, 1, 1)


def test_an_ensemble_of_no_trajectories_is_refused() -> None:
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    with pytest.raises(ValueError, match=r"at least one trajectory, got batch shape \(0,\)"):
        solve(flow, Weights(torch.zeros(0, 1, 1), torch.zeros(0, 1)), 1.0)


def test_what_is_handed_back_can_be_differentiated_and_changed() -> None:
    """Solving goes on in torch's inference mode, whose tensors could not."""
    solution = solve(*gaussian_data("sign-fa", 2, 12, 5, 8), 1.0)
    at = solution.evaluate([0.0, 1.0])
    at.hidden.requires_grad_()
    solution.flow.risk(at).sum().backward()
    assert at.hidden.grad is not None
    for count in solution.statistics.values():
        count.add_(1)
    solution.events.time.mul_(2.0)


# Where it cannot go on


def test_more_steps_than_stated_stop_the_run_with_what_was_reached() -> None:
    flow, weights = gaussian_data("fa", 2, 12, 5, 8)
    with pytest.raises(
        IntegrationError, match=r"trajectory \d stopped at t = .*: max_steps = 40 steps taken"
    ) as caught:
        solve(flow, weights, 100.0, max_steps=40)
    reached = caught.value.solution
    assert reached is not None
    assert reached.status.time[caught.value.index] == caught.value.time > 0
    assert reached.t_final == reached.status.time.max()
    assert reached.statistics["steps"].tolist() == [40, 40]
    for index, end in enumerate(reached.status.time):
        same = solve(flow, weights, end.item()).evaluate(end).hidden[index]
        torch.testing.assert_close(reached.evaluate(end, torch.tensor(index)).hidden, same, rtol=0, atol=1e-12)
        assert reached.error(end, torch.tensor(index)).hidden.max() < 1e-7


def test_a_loss_that_grows_beyond_all_numbers_stops_the_run() -> None:
    """By exact solution 1, y f = v z falls from -300 to -2800 within 1e-132: exp(2800) is no number."""
    flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    with pytest.raises(
        IntegrationError, match=r"fell below rounding: velocities reach .*e\+14\d .* y f = -33"
    ) as caught:
        solve(flow, Weights([[1.0]], [-300.0]), 1.0)  # type: ignore[arg-type]
    assert caught.value.solution is not None
    assert math.isfinite(flow.risk(caught.value.solution.evaluate(caught.value.time)))
    with pytest.raises(IntegrationError, match=r"t = 0: the velocity overflows: .* y f = -800"):
        solve(flow, Weights([[1.0]], [-800.0]), 1.0)  # type: ignore[arg-type]


def late() -> Problem:
    """Nothing moves until t = e^700 or so."""
    return Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0])), Weights(torch.tensor([[10.0]]), torch.tensor([70.0]))


@pytest.mark.parametrize(("problem", "t_final"), [(separable(1), 5.0), (late(), 1e308)])
def test_progress_adds_up_to_one_for_each_trajectory(problem: Problem, t_final: float) -> None:
    flow, weights = problem
    gained: list[float] = []
    flow, weights = flow.map_matrices(weights, lambda matrix: matrix.expand(3, *matrix.shape[-2:]))
    ends = torch.full((3,), t_final, dtype=torch.float64)
    settings = Settings("event", 1e-8, 1e-10, 10_000)
    INTEGRATOR.proceed(INTEGRATOR.begin(flow, weights, settings), ends, settings, gained.append)
    assert sum(gained) == pytest.approx(3.0)
    assert min(gained) >= 0
    assert len(gained) > 3


def test_modes_behind_events_need_no_correction(kernel: str) -> None:
    """A neuron that crosses, or slides, does so without a round in which the series contradict the mode."""
    solution = solve(*gaussian_data("fa", 6), 4.0)
    front = cast(EventPath, solution.path).front
    assert int(solution.statistics["slides"].sum()) > 20
    assert int(front.rounds.sum()) <= int(front.steps.sum()) + 3
