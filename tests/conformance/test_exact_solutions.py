"""Solutions known in closed form up to a quadrature (theorems/README.md, section 8), and the error estimate on them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sample_problems import sliding
from scipy.integrate import quad
from scipy.optimize import root_scalar

from conformance.kernels import solve
from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Solution, Weights, losses
from flowsim.observables import conserved
from flowsim.solving import INTEGRATORS

# Error per step is controlled at rtol = 1e-12. The event-driven integrator takes below 100 steps: at most 1e-10, with
# weights of size 1. torchdiffeq takes fewer than 1000.
BOUNDS = {"event": 1e-10, "dopri5": 1e-9, "dopri8": 1e-9}
BOUND = BOUNDS["event"]


def solve_tightly(flow: Flow, weights: Weights, t_final: float, method: str = "event") -> Solution[Weights]:
    return solve(flow, weights, t_final, method=method, rtol=1e-12, atol=1e-14)


def integral(function: Callable[[float], float], a: float, b: float) -> float:
    return quad(function, a, b, epsabs=1e-14, epsrel=1e-13)[0]


def one_neuron() -> tuple[Flow, Weights]:
    """Solution 1: |x|^2 = 5, z(0) = 1, v(0) = 0.3."""
    flow = Flow(Dataset([[1.0, 2.0]], [1]), FeedbackAlignment([1.0]))
    return flow, Weights(torch.tensor([[0.6, 0.2]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))


def time_of_one_neuron(z: float) -> float:
    return integral(lambda s: np.exp((0.3 + (s**2 - 1) / 10) * s), 1.0, z) / 5


@pytest.mark.parametrize("method", BOUNDS)
def test_one_active_neuron_on_one_sample_reaches_z_at_the_time_of_the_quadrature(method: str) -> None:
    flow, weights = one_neuron()
    solution = solve_tightly(flow, weights, 100.0, method=method)
    times = torch.tensor([0.01, 0.3, 2.0, 17.0, 100.0], dtype=torch.float64)
    at = solution.evaluate(times)
    z = (at.hidden @ flow.dataset.inputs.mT)[:, 0, 0]
    for time, value in zip(times.tolist(), z.tolist(), strict=True):
        # dz/dt = 5 exp(-v z) < 5, so that an error dz in z shows as dz / (dz/dt) in time
        speed = 5 * np.exp(-(0.3 + (value**2 - 1) / 10) * value)
        assert abs(time_of_one_neuron(value) - time) * speed < BOUNDS[method]
    torch.testing.assert_close(at.output[:, 0], 0.3 + (z**2 - 1) / 10, rtol=0, atol=BOUNDS[method])


FLAT = 10.0
"""z at the start of a flat stretch."""


def flat_stretch(loss: str, start: float) -> tuple[Flow, Weights]:
    """One sample and one neuron with z = FLAT and u = y f = start, where -l' = 1 / (1 + e^u) is as good as 1.

    With two classes, V = (v, -v) / 2 and B = (1, -1) / 2, the difference of the outputs is u.
    """
    hidden, output = torch.tensor([[FLAT]], dtype=torch.float64), torch.tensor([start / FLAT], dtype=torch.float64)
    if loss == "logistic":
        return Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]), loss), Weights(hidden, output)
    halves = torch.tensor([[0.5], [-0.5]], dtype=torch.float64)
    return Flow(Dataset([[1.0]], [0], 2), FeedbackAlignment(halves), loss), Weights(hidden, output * halves)


@pytest.mark.parametrize("start", [-25.0, -100.0])
@pytest.mark.parametrize("loss", ["logistic", "cross-entropy"])
def test_no_step_jumps_over_the_end_of_a_flat_stretch_of_the_loss(loss: str, start: float) -> None:
    """Solution 1 with -l' = 1 / (1 + e^u), until u has come near 0; with two classes dv/dt = 2 z dz/dt."""
    doubled, v0 = 2 if loss == "logistic" else 1, start / FLAT
    flow, weights = flat_stretch(loss, start)

    def slowness(z: float) -> float:
        return 1 + np.exp((v0 + (z**2 - FLAT**2) / doubled) * z)

    steep = np.sqrt(FLAT**2 - doubled * v0)  # where u = 0
    values = [steep - 0.1, steep, steep + 0.05]
    times = [integral(slowness, FLAT, z) for z in values]
    solution = solve_tightly(flow, weights, times[-1])
    truth = torch.tensor(values, dtype=torch.float64)
    # the speed is at most 1; below 300 steps with an error of 1e-12 * 16
    torch.testing.assert_close(solution.evaluate(times).hidden[:, 0, 0], truth, rtol=0, atol=5e-9)
    looser = solve(flow, weights, times[-1])
    true_error = (looser.evaluate(times).hidden[:, 0, 0] - truth).abs()
    assert (true_error < looser.error(times).hidden[:, 0, 0]).all()


@pytest.mark.parametrize("loss", ["logistic", "cross-entropy"])
def test_outputs_change_by_the_stride_of_the_loss_at_most_in_a_step(loss: str) -> None:
    flow, weights = flat_stretch(loss, -25.0)
    solution = solve(flow, weights, 0.5)
    outputs = flow.outputs(solution.evaluate(solution.pieces.start))
    stride = losses.named(flow.loss).stride
    assert stride is not None
    allowed = torch.as_tensor(stride(outputs, flow.dataset.targets)).expand_as(outputs)
    changes = outputs.diff(dim=0).abs() / allowed[:-1]
    assert 0.1 < changes.max() <= 1


def test_weights_below_the_absolute_tolerance_grow_as_they_should() -> None:
    """GD, x = y = 1, v = w: dw/dt = exp(-w^2) w, so t = int exp(s^2) / s ds, from far below atol = 1e-12."""
    size = 1e-20
    flow = Flow(Dataset([[1.0]], [1]), GradientDescent())
    weights = Weights(torch.tensor([[size]], dtype=torch.float64), torch.tensor([size], dtype=torch.float64))
    values = [1e-6, 0.1, 1.0, 2.0]
    times = [integral(lambda log: np.exp(np.exp(2 * log)), np.log(size), np.log(w)) for w in values]
    solution = solve(flow, weights, times[-1])
    truth = torch.tensor(values, dtype=torch.float64)
    true_error = (solution.evaluate(times).hidden[:, 0, 0] - truth).abs()
    # while w is small, the terms are those of e^x, order 9: x^8 / 8! <= 1e-5 x gives steps x = 0.88, and x^10 / 10! =
    # 8e-8 is left out in each; 46 powers of e from 1e-20 to 1 make 52 steps: 4e-6
    assert (true_error < 4e-6 * truth).all()
    assert (true_error < solution.error(times).hidden[:, 0, 0]).all()


R, GAMMA, N, M, V0 = 2.0, 0.3, 3, 4, 0.2


def crossing(z0: float) -> tuple[Flow, Weights]:
    """Solution 5: n orthogonal inputs of norm R, labels +1, m equal neurons, all z_ij(0) = z0 < 0."""
    inputs = R * torch.eye(N, dtype=torch.float64)
    flow = Flow(Dataset(inputs, torch.ones(N)), FeedbackAlignment(torch.ones(M)), slope=GAMMA)
    return flow, Weights(torch.full((M, N), z0 / R, dtype=torch.float64), torch.full((M,), V0, dtype=torch.float64))


def time_of_crossing_run(z: float, z0: float) -> float:
    def slowness(s: float) -> float:
        slope = 1.0 if s > 0 else GAMMA
        v = V0 + N * (s**2 - z0**2) / (2 * R**2)
        return np.exp(M * v * slope * s) / slope

    return N / R**2 * (integral(slowness, z0, min(z, 0.0)) + integral(slowness, 0.0, max(z, 0.0)))


@pytest.mark.parametrize("method", ["event", "dopri5"])
def test_equal_neurons_on_orthogonal_inputs_cross_the_kink_at_the_time_of_the_quadrature(method: str) -> None:
    z0 = -0.5
    flow, weights = crossing(z0)
    solution = solve_tightly(flow, weights, 20.0, method)
    expected = time_of_crossing_run(0.0, z0)
    assert len(solution.events) == N * M
    # dopri5: all kinks are met in one step, so long that the jump of the velocity times it is the tolerance
    torch.testing.assert_close(
        solution.events.time, torch.full((N * M,), expected, dtype=torch.float64), rtol=0, atol=BOUNDS[method]
    )
    at = solution.evaluate([0.5 * expected, 2 * expected, 20.0])
    z = (at.hidden @ flow.dataset.inputs.mT)[:, 0, 0]
    for time, value in zip([0.5 * expected, 2 * expected, 20.0], z.tolist(), strict=True):
        assert abs(time_of_crossing_run(value, z0) - time) < BOUNDS[method] * np.exp(M * value * (V0 + value**2))


def test_on_orthogonal_inputs_samples_decouple_inside_each_neuron() -> None:
    """Solution 4: (Phi(z_ij(t)) - Phi(z_ij(0))) / b_j is the same for all neurons j; Phi' = 1 / phi'."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    inputs = torch.linalg.qr(torch.randn(6, 4, generator=generator, dtype=torch.float64))[0].mT * scales.unsqueeze(-1)
    feedback = torch.tensor([1.0, -0.5, 2.0, -1.5, 0.7], dtype=torch.float64)
    flow = Flow(Dataset(inputs, [1, -1, -1, 1]), FeedbackAlignment(feedback), slope=GAMMA)
    hidden = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    weights = Weights(hidden, feedback)
    solution = solve_tightly(flow, weights, 20.0)
    z = flow.pre_activations(solution.evaluate(torch.linspace(0, 20, 50)))[0]
    primitive = torch.where(z > 0, z, z / GAMMA)
    progress = (primitive - primitive[0]) / feedback
    assert len(solution.events) > 0
    torch.testing.assert_close(progress, progress[..., :1].expand_as(progress), rtol=0, atol=BOUND)
    pairs = torch.stack([solution.events.sample, solution.events.neuron], -1)
    assert len(pairs.unique(dim=0)) == len(pairs), "every (sample, neuron) crosses at most once"


def test_linear_network_conserves_the_matrix_and_finds_the_minimum_norm_interpolant() -> None:
    """Solution 3: B^T W_2 + W_2^T B - W_1 W_1^T is constant; a = W^T v tends to X^T (X X^T)^-1 y."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    labels = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    feedback = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    flow = Flow(Dataset(inputs, labels), FeedbackAlignment(feedback), "squared", slope=1.0)
    solution = solve_tightly(flow, Weights(torch.zeros(4, 6).double(), feedback), 60.0)
    at = solution.evaluate([0.0, 0.5, 60.0])
    outer = feedback.unsqueeze(-1) * at.output.unsqueeze(-2)
    matrix = outer + outer.mT - at.hidden @ at.hidden.mT
    torch.testing.assert_close(matrix, matrix[:1].expand_as(matrix), rtol=0, atol=BOUND)
    # the residual falls like exp(-mu t / 2) with mu = (2/n) (b.v(0)) lambda_min(K): its logarithm at t = 60
    smallest = torch.linalg.eigvalsh(inputs @ inputs.mT)[0].item()
    assert 60.0 * feedback.square().sum().item() * smallest / 3 > np.log(1 / BOUND)
    interpolant = inputs.mT @ torch.linalg.solve(inputs @ inputs.mT, labels)
    torch.testing.assert_close(at.hidden[-1].mT @ at.output[-1], interpolant, rtol=0, atol=BOUND)


K11, K12, K22 = 1.0, 0.6, 1.8
K_ALONG = K22 - K12**2 / K11
Z2, V2 = 0.3, 0.1


def v_sliding(z: float) -> float:
    return V2 + (z**2 - Z2**2) / (2 * K_ALONG)


def time_of_sliding(z: float) -> float:
    return 2 / K_ALONG * integral(lambda s: np.exp(v_sliding(s) * s), Z2, z)


def test_a_sliding_neuron_follows_the_kink_and_leaves_it_at_the_time_of_the_quadrature() -> None:
    """Solution 2: it leaves to the inactive side where v z_2 = log 2."""
    solution = solve_tightly(*sliding(), 5.0)
    last = root_scalar(lambda z: v_sliding(z) * z - np.log(2), bracket=(Z2, 5), xtol=1e-15).root
    assert solution.events.kind == ["sliding exit"]
    assert solution.events.after.tolist() == [-1]
    assert abs(solution.events.time.item() - time_of_sliding(last)) < BOUND
    for z in (0.4, 0.6, 0.9, last):
        at = solution.evaluate(time_of_sliding(z))
        assert abs(at.hidden[0, 0]) < 1e-15, "on the kink"
        assert abs(0.6 * at.hidden[0, 0] + 1.2 * at.hidden[0, 1] - z) < BOUND
        assert abs(at.output[0] - v_sliding(z)) < BOUND
    assert solution.evaluate(time_of_sliding(last) + 0.1).hidden[0, 0] < 0


def test_a_neuron_reaches_the_kink_and_stays_there_at_the_time_of_the_quadrature() -> None:
    """Solution 6: x = 1 and x = -1, both labelled -1, push the weight of one neuron to 0, where it slides for ever."""
    gamma, w0, v0 = 0.3, 0.8, 0.4
    flow = Flow(Dataset([[1.0], [-1.0]], [-1, -1]), FeedbackAlignment([1.0]), slope=gamma)
    weights = Weights(torch.tensor([[w0]], dtype=torch.float64), torch.tensor([v0], dtype=torch.float64))

    def slowness(w: float) -> float:
        v = v0 + (w**2 - w0**2) / 2
        return 2 / (np.exp(v * w) - gamma * np.exp(-gamma * v * w))

    solution = solve_tightly(flow, weights, 5.0)
    arrival = integral(slowness, 0.0, w0)
    assert solution.events.kind == ["sliding entry"] * 2
    torch.testing.assert_close(solution.events.time, torch.full((2,), arrival, dtype=torch.float64), rtol=0, atol=BOUND)
    for w in (0.6, 0.3):
        at = solution.evaluate(integral(slowness, w, w0))
        assert abs(at.hidden.item() - w) < BOUND
        assert abs(at.output.item() - (v0 + (w**2 - w0**2) / 2)) < BOUND
    rest = solution.evaluate([arrival + 1e-9, 5.0])
    assert rest.hidden.abs().max() < 1e-15
    torch.testing.assert_close(rest.output, torch.full((2, 1), v0 - w0**2 / 2, dtype=torch.float64), rtol=0, atol=BOUND)


@pytest.mark.parametrize("rtol", [1e-6, 1e-10, 1e-14])
def test_error_estimate_holds_on_crossing_and_sliding_solutions_and_is_at_most_1000_times_larger(rtol: float) -> None:
    """Largest errors over the run, against the quadratures; at 1e-14 both are rounding errors."""
    flow, weights = crossing(-0.5)
    values = np.linspace(-0.4, 0.9, 14)
    times = [time_of_crossing_run(z, -0.5) for z in values]
    solution = solve(flow, weights, 20.0, rtol=rtol, atol=rtol / 100)
    true_error = (solution.evaluate(times).hidden * R - torch.as_tensor(values).reshape(-1, 1, 1)).abs().max().item()
    estimate = (R * solution.error(times).hidden).max().item()
    assert true_error < estimate < 1000 * max(true_error, 1e-16)
    solution = solve(*sliding(), 5.0, rtol=rtol, atol=rtol / 100)
    values = np.linspace(0.32, 1.15, 14)
    times = [time_of_sliding(z) for z in values]
    truth = torch.tensor([v_sliding(z) for z in values], dtype=torch.float64)
    true_error = (solution.evaluate(times).output[:, 0] - truth).abs().max().item()
    estimate = solution.error(times).output.max().item()
    assert true_error < estimate < 1000 * max(true_error, 1e-16)


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
@pytest.mark.parametrize("method", ["event", "dopri5", "bosh3"])
def test_error_estimate_bounds_the_true_error_and_is_at_most_1000_times_larger(method: str, rtol: float) -> None:
    flow, weights = one_neuron()
    solution = solve(flow, weights, 20.0, method=method, rtol=rtol, atol=rtol / 100)
    times = torch.linspace(1, 20, 20, dtype=torch.float64)
    z = (solution.evaluate(times).hidden @ flow.dataset.inputs.mT)[:, 0, 0]
    truth = [solved_for_z(time) for time in times.tolist()]
    true_error = (z - torch.tensor(truth)).abs().max().item()
    estimate = (solution.error(times).hidden[:, 0] @ flow.dataset.inputs[0].abs()).max().item()
    assert true_error < estimate < 1000 * true_error


def solved_for_z(time: float) -> float:
    """Invert t(z) by Newton's method, which converges quadratically from below since t is convex in z here."""
    z = 1.0
    for _ in range(100):
        step = (time - time_of_one_neuron(z)) * 5 * np.exp(-(0.3 + (z**2 - 1) / 10) * z)
        z += min(step, 0.2)
        if abs(step) < 1e-15 * z:
            break
    return z


@pytest.mark.parametrize("method", INTEGRATORS)
def test_every_method_converges_to_the_exact_solution_through_a_kink(method: str) -> None:
    """At z = 0 the quadrature gives the time; v there is exact too. Errors fall with the tolerance."""
    z0 = -0.1
    flow, weights = crossing(z0)
    time = time_of_crossing_run(0.1, z0)
    errors = []
    for rtol in (1e-3, 1e-5, 1e-7):
        at: Weights = solve(flow, weights, time, method=method, rtol=rtol, atol=rtol / 100).evaluate(time)
        errors.append((at.hidden * R - 0.1).abs().max().item())
    assert errors[2] < 1e-2 * errors[0]
    assert errors[2] < 1e-5


def test_eq_2_holds_on_the_crossing_solution() -> None:
    flow, weights = crossing(-0.5)
    solution = solve_tightly(flow, weights, 20.0)
    (gaps,) = conserved(flow, solution.evaluate(torch.linspace(0, 20, 100)))
    torch.testing.assert_close(gaps, gaps[:1].expand_as(gaps), rtol=0, atol=BOUND)
