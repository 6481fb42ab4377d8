"""Time s = log(1 + t): the same solution as in t, and the exact one where t and 1/L are beyond all numbers."""

import math
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from flint import arb
from sample_problems import gaussian_data, separable, sliding
from torch import Tensor

import flowsim
from flowsim import (
    Dataset,
    DeepWeights,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    IntegrationError,
    SignFeedbackAlignment,
    Solution,
    Weights,
    losses,
    solve,
)
from flowsim.enclosure.comparison import compare
from flowsim.initialization import deep_gaussian
from flowsim.losses import Loss
from flowsim.reduction import reduce
from flowsim.rules import Rule
from flowsim.weights import NetworkWeights
from theorems import lemma_5_4
from theorems.check import check
from theorems.observation import observe

T_FINAL = 20.0
TIGHT: dict[str, Any] = {"rtol": 1e-13, "atol": 1e-15}


def deep(rule: Rule, loss: str | Loss = "exponential", decay: float = 0.0) -> tuple[Flow, DeepWeights]:
    """Three layers, Gaussian data and labels at random."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    labels = torch.randn(8, generator=generator).sign()
    return Flow(Dataset(inputs, labels), rule, loss, decay=decay), deep_gaussian((4, 5, 4, 1), 1)


def deep_feedback() -> FeedbackAlignment:
    return FeedbackAlignment(deep_gaussian((4, 5, 4, 1), 2).layers[1:])


def with_loss(given: tuple[Flow, Weights], loss: str | Loss, decay: float = 0.0) -> tuple[Flow, Weights]:
    flow, weights = given
    scale = 0.3 if isinstance(loss, Loss) else 1.0  # margins above -1
    return Flow(flow.dataset, flow.rule, loss, decay=decay), weights.map(lambda tensor: scale * tensor)


PROBLEMS = {
    "separable": lambda: separable(2),
    "gaussian": lambda: gaussian_data("fa", 1, samples=20, dimension=6, width=8),
    "sign-fa": lambda: gaussian_data("sign-fa", 1, samples=20, dimension=6, width=8),
    "gd": lambda: gaussian_data("gd", 1, samples=20, dimension=6, width=8),
    "decay": lambda: with_loss(gaussian_data("fa", 1, samples=20, dimension=6, width=8), "exponential", 0.1),
    "decay off the span": lambda: with_loss(separable(1), "logistic", 0.2),
    "logistic": lambda: with_loss(gaussian_data("fa", 1, samples=20, dimension=6, width=8), "logistic"),
    "polynomial": lambda: with_loss(
        gaussian_data("fa", 1, samples=20, dimension=6, width=8), losses.polynomial(1.5), 0.05
    ),
    "deep fa": lambda: deep(deep_feedback()),
    "deep gd": lambda: deep(GradientDescent(), decay=0.1),
    "deep sign-fa": lambda: deep(SignFeedbackAlignment()),
}


@pytest.fixture(params=PROBLEMS)
def both(request: pytest.FixtureRequest) -> tuple[Solution, Solution]:
    return solved_twice(request.param)


@cache
def solved_twice(name: str) -> tuple[Solution, Solution]:
    """A problem solved in t and in s."""
    flow, weights = PROBLEMS[name]()
    solutions = solve(flow, weights, T_FINAL, **TIGHT), solve(flow, weights, math.log1p(T_FINAL), time="log", **TIGHT)
    slides = {"gaussian", "sign-fa", "decay", "deep fa", "deep gd"}
    assert name not in slides or solutions[0].statistics["slides"].sum() > 0
    return solutions


def largest(weights: NetworkWeights, others: NetworkWeights) -> float:
    """The largest difference, relative to the largest weight of the layer where that is above 1."""
    pairs = zip(weights.layers, others.layers, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs)


def test_weights_velocities_patterns_and_events_are_those_at_the_same_time(both: tuple[Solution, Solution]) -> None:
    plain, logarithmic = both
    s = torch.linspace(0, 1, 9, dtype=torch.float64) * logarithmic.t_final
    t = torch.expm1(s).clamp(max=T_FINAL)
    assert largest(logarithmic.evaluate(s), plain.evaluate(t)) < 1e-11
    expected = plain.velocity(t[1:-1])
    shape = (-1, *[1] * (expected.layers[0].ndim - 1))
    scaled = expected.with_layers([layer * (1 + t[1:-1]).reshape(shape) for layer in expected.layers])
    assert largest(logarithmic.velocity(s[1:-1]), scaled) < 1e-10
    assert all(map(torch.equal, logarithmic.pattern(s[1:-1]), plain.pattern(t[1:-1])))
    there, here = plain.events, logarithmic.events
    assert len(here) == len(there) > 3
    for name in ("trajectory", "layer", "sample", "neuron", "before", "after"):
        assert torch.equal(getattr(here, name), getattr(there, name))
    torch.testing.assert_close(here.time, there.time.log1p(), rtol=0, atol=1e-10)


def test_the_error_is_estimated_in_logarithmic_time(both: tuple[Solution, Solution]) -> None:
    truth, _ = both
    looser = solve(truth.flow, truth.weights, math.log1p(T_FINAL), time="log", rtol=1e-8, atol=1e-10)
    s = torch.linspace(0, 1, 9, dtype=torch.float64) * looser.t_final
    wanted = truth.evaluate(torch.expm1(s).clamp(max=T_FINAL))
    assert looser.companion.settings.time == "log"
    for found, exact, error in zip(looser.evaluate(s).layers, wanted.layers, looser.error(s).layers, strict=True):
        assert ((found - exact).abs() <= error).all()
        assert error.max() < 1e-3 * exact.abs().max().clamp(min=1)


def test_the_velocity_is_the_derivative_of_the_weights_by_s() -> None:
    flow, weights = with_loss(separable(1), "logistic", 0.2)
    solution, s, h = solve(flow, weights, 3.0, time="log", **TIGHT), 2.5, 1e-5
    ahead, behind = solution.evaluate(s + h).layers, solution.evaluate(s - h).layers
    for velocity, one, other in zip(solution.velocity(s).layers, ahead, behind, strict=True):
        torch.testing.assert_close(velocity, (one - other) / (2 * h), rtol=1e-6, atol=1e-8)


# Exact solutions: one neuron on one sample, dt = exp(v(z) z) dz / R^2 with v(z) = v_0 + (z^2 - z_0^2) / (2 R^2)

R, Z0 = 1.3, 0.7
ONE = Dataset([[R]], [1])


def one_neuron(loss: str | Loss = "exponential", v0: float = 0.2, z0: float = Z0) -> tuple[Flow, Weights]:
    hidden, output = torch.tensor([[z0 / R]], dtype=torch.float64), torch.tensor([v0], dtype=torch.float64)
    return Flow(ONE, FeedbackAlignment([1.0]), loss), Weights(hidden, output)


def log_time(z: float, v0: float = 0.2, z0: float = Z0) -> float:
    """log(1 + t) where the pre-activation is z, by a quadrature of numbers of any size."""

    def slowness(x: Any) -> Any:
        return mpmath.exp((v0 + (x * x - z0**2) / (2 * R**2)) * x) / R**2

    with mpmath.workdps(30):
        last = mpmath.mpf(z)
        rate = 1.5 * last**2 / R**2  # of the exponent there: all but e^-90 of the integral is within 90 / rate
        parts = [last - share * (last - z0) for share in mpmath.linspace(1, 0, 9)]
        near = [last - length / rate for length in (90, 30, 10, 3, 1, 0) if length / rate < last - z0]
        time: Any = mpmath.quad(slowness, sorted({*parts, *near}))
        return float(mpmath.log(1 + time))


@pytest.mark.parametrize("s", [math.log1p(1e30), 709.0, 2000.0])
def test_one_neuron_on_one_sample_is_where_the_quadrature_says(s: float) -> None:
    """At s = 2000, t = 1e868 and L = 1e-871 are beyond all numbers of float64."""
    flow, weights = one_neuron()
    solution = solve(flow, weights, s, time="log", **TIGHT)
    end = solution.evaluate(s)
    z, v = R * end.hidden.item(), end.output.item()
    assert v == pytest.approx(0.2 + (z**2 - Z0**2) / (2 * R**2), rel=1e-13)
    assert log_time(z) == pytest.approx(s, abs=2e-10)
    log_risk = flow.log_risk(end).item()
    assert log_risk == pytest.approx(-v * z, rel=1e-14)
    # section 8: 1/L ~ 3/2 t (2 R^2 log t)^(2/3), up to a factor that tends to 1 like 1 / log t
    asymptotic = -(s + math.log(1.5) + 2 / 3 * math.log(2 * R**2 * s))
    assert abs(log_risk - asymptotic) < 12 / s
    assert (solution.error(s).output >= (solve(flow, weights, s, time="log").evaluate(s).output - v).abs() / 1e3).all()
    if s == 2000:
        assert flow.risk(end) == 0


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
def test_no_step_jumps_over_the_time_at_which_large_margins_begin_to_grow(loss: str) -> None:
    """At margins of 600 nothing moves until s = 600: velocities are e^-600 at first, and no term shows them growing.

    There the logistic loss is the exponential one, up to e^-600.
    """
    flow, weights = one_neuron(loss, v0=600 / Z0)
    solution = solve(flow, weights, 640.0, time="log", **TIGHT)
    end = solution.evaluate(640.0)
    z = R * end.hidden.item()
    assert z > Z0 + 0.02
    assert log_time(z, v0=600 / Z0) == pytest.approx(640.0, abs=1e-9)


def test_the_logistic_loss_has_the_end_of_the_exponential_one() -> None:
    """g = e^-u / (1 + e^-u): margins above 40 feel no difference, and weights at s = 1500 hardly one."""
    ends = []
    for loss in ("logistic", "exponential"):
        flow, weights = one_neuron(loss, v0=40 / Z0)
        ends.append(solve(flow, weights, 1500.0, time="log", **TIGHT).evaluate(1500.0))
    assert largest(*ends) < 1e-12


def test_the_polynomial_loss_grows_like_a_power_of_t() -> None:
    """dz/dt = R^2 p (1 + v z)^(-p-1) with v z ~ z^3 / (2 R^2): z^(3p+4) ~ (3p+4) p (2 R^2)^(p+1) R^2 t."""
    p, s = 2.0, 800.0
    flow, weights = one_neuron(losses.polynomial(p))
    end = solve(flow, weights, s, time="log", **TIGHT).evaluate(s)
    power = 3 * p + 4
    wanted = (s + math.log(power * p * R**2) + (p + 1) * math.log(2 * R**2)) / power
    assert math.log(R * end.hidden.item()) == pytest.approx(wanted, abs=1e-9)
    assert flow.log_risk(end).item() == pytest.approx(
        -p * math.log(end.output.item() * R * end.hidden.item()), rel=1e-9
    )


# The logarithm of the risk


@pytest.mark.parametrize("shift", [-5.0, 0.0, 30.0, 1e4])
@pytest.mark.parametrize("name", ["exponential", "logistic", "polynomial", "squared", "cross-entropy"])
def test_the_logarithm_of_the_risk_is_that_of_the_risk(name: str, shift: float) -> None:
    """Against mpmath, also where the risk underflows."""
    if name == "polynomial" and shift < 0:
        pytest.skip("infinite there")
    loss = losses.polynomial(1.5) if name == "polynomial" else name
    classes = 3 if name == "cross-entropy" else None
    inputs = torch.eye(3, dtype=torch.float64)
    dataset = Dataset(inputs, [0, 1, 2] if classes else [1, 1, 1], classes)
    margins = torch.tensor([0.5, 0.1, 2.0], dtype=torch.float64) + shift
    output = torch.diag(margins) if classes else margins.unsqueeze(0)
    flow, weights = Flow(dataset, GradientDescent(), loss, slope=1.0), DeepWeights((inputs, output))
    with mpmath.workdps(30):
        values = {
            "exponential": lambda u: mpmath.exp(-u), "logistic": lambda u: mpmath.log1p(mpmath.exp(-u)),
            "polynomial": lambda u: (1 + u) ** mpmath.mpf(-1.5), "squared": lambda u: (u - 1) ** 2 / 2,
            "cross-entropy": lambda u: mpmath.log1p(2 * mpmath.exp(-u)),
        }  # fmt: skip
        wanted = mpmath.log(sum(values[name](mpmath.mpf(u)) for u in margins.tolist()) / 3)
    assert flow.log_risk(weights).item() == pytest.approx(float(wanted), rel=1e-12, abs=1e-12)


def test_a_wrong_logarithm_of_a_loss_is_found() -> None:
    def steep(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.exp(-2 * outputs * targets).squeeze(-1)

    wrong = Loss("steep", steep, targets="signs", log_value=lambda outputs, targets: (-outputs * targets).squeeze(-1))
    with pytest.raises(ValueError, match="log_value must be the logarithm of value"):
        Flow(ONE, GradientDescent(), wrong)
    right = Loss(
        "steep", steep, targets="signs", log_value=lambda outputs, targets: (-2 * outputs * targets).squeeze(-1)
    )
    flow = Flow(ONE, GradientDescent(), right)
    far = Weights(torch.tensor([[1e3]]), torch.tensor([1.0]))
    assert flow.risk(far) == 0
    assert flow.log_risk(far).item() == pytest.approx(-2 * R * 1e3)


# What a solution in s can do, and what not


def test_it_says_so_and_is_extended_saved_selected_and_pickled(tmp_path: Path) -> None:
    flow, weights = separable(2)
    whole, half = solve(flow, weights, 6.0, time="log"), solve(flow, weights, 3.0, time="log")
    assert whole.settings.time == "log"
    assert "s_final=6," in repr(whole)
    half.save(tmp_path / "run.npz")
    s = torch.linspace(0, 3, 7, dtype=torch.float64)
    for other in (flowsim.load(tmp_path / "run.npz"), pickle.loads(pickle.dumps(half)), half.extend(6.0)):
        assert other.settings.time == "log"
        assert torch.equal(other.evaluate(s).hidden, half.evaluate(s).hidden)
    longer = flowsim.load(tmp_path / "run.npz").extend(6.0)
    assert torch.equal(longer.evaluate(6.0).hidden, half.extend(6.0).evaluate(6.0).hidden)
    assert largest(longer.evaluate(6.0), whole.evaluate(6.0)) < 1e-8
    assert torch.equal(whole[1].evaluate(s).output, whole.evaluate(s).output[:, 1])
    assert (whole.pieces.end <= 6.0).all()


def test_a_run_that_stops_says_at_which_s() -> None:
    flow, weights = separable(1)
    with pytest.raises(IntegrationError, match="stopped at s = "):
        solve(flow, weights, 6.0, time="log", max_steps=3)
    assert "stopped at s = " in repr(solve(flow, weights, 6.0, time="log", max_steps=3, throw=False).status)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": "s"}, "time must be one of t, log, got 's'"),
        ({"time": None}, "time must be one of t, log, got None"),
        ({"time": "log", "method": "dopri5"}, "time 'log' goes with method 'event', got method='dopri5'; use time='t'"),
    ],
)
def test_times_that_there_are_not_are_refused(changes: dict[str, Any], message: str) -> None:
    flow, weights = sliding()
    with pytest.raises(ValueError, match=message):
        solve(flow, weights, 1.0, **changes)


def test_flows_that_have_no_logarithmic_time_are_refused() -> None:
    _, weights = one_neuron()
    with pytest.raises(ValueError, match=r"time 'log' is for losses of the margin .*, got 'squared'; use time='t'"):
        solve(Flow(ONE, FeedbackAlignment([1.0]), "squared"), weights, 1.0, time="log")
    own = replace(losses.exponential, name="own")
    with pytest.raises(
        ValueError, match=r"time 'log' is for the rules and losses of flowsim on the CPU, .*'own' on cpu"
    ):
        solve(Flow(ONE, FeedbackAlignment([1.0]), own), weights, 1.0, time="log")


def test_checks_refuse_it() -> None:
    flow, weights = separable(1)
    solution = solve(flow, weights, 2.0, time="log")
    with pytest.raises(ValueError, match="solution must be in the time t to be checked"):
        check(lemma_5_4.STATEMENT, "in s", "theorem", [solution])
    with pytest.raises(ValueError, match="solution must be in the time t to be checked"):
        observe(solution, solution.pieces)
    with pytest.raises(ValueError, match="solution must be in the time t to be compared"):
        compare(lambda time: pytest.fail("not asked"), arb(2), 64, solution)


def test_a_file_that_has_s_and_a_method_in_t_is_refused(tmp_path: Path) -> None:
    flow, weights = separable(1)
    solve(flow, weights, 1.0, method="dopri5", rtol=1e-6).save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        arrays = {**file, "time": np.array("log")}
    np.savez(tmp_path / "run.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method must be event where time is log, got 'dopri5'"):
        flowsim.load(tmp_path / "run.npz")


def test_what_decay_leaves_across_the_data_is_0_at_times_whose_exponential_overflows() -> None:
    """d > n, at s = 800: e^s times e^(-decay t) was infinity times 0."""
    flow, weights = one_neuron()
    wide = Flow(Dataset([[1.0, 0.0, 0.0]], [1]), flow.rule, flow.loss, flow.slope, decay=0.1)
    start = Weights(torch.tensor([[0.5, 1.0, -1.0]]), weights.output)
    solution = solve(wide, start, 5.0, time="log")
    assert solution.velocity(5.0).hidden.isfinite().all()
    lifted = reduce(*wide.map_matrices(start, lambda matrix: matrix.unsqueeze(0)))
    zero = lifted.weights.with_layers([torch.zeros_like(layer) for layer in lifted.weights.layers])
    moved = lifted.lift_velocity(zero, torch.tensor([800.0], dtype=torch.float64), torch.tensor([0]), logarithmic=True)
    assert torch.equal(moved.hidden, torch.zeros_like(moved.hidden))
