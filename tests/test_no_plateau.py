"""No plateau: the bounds against closed forms and another integrator, and mistakes that the cases must notice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import root_scalar

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Solution, Weights, solve
from flowsim.data import orthogonally_separable
from flowsim.initialization import gaussian, random_signs, with_gaps
from theorems import no_plateau
from theorems.cases import decide
from theorems.check import Case, Statement, hypotheses_of
from theorems.ensembles import Scope
from theorems.integrals import integrals_before
from theorems.no_plateau import Lower

CASES = {case.label: case for case in no_plateau.cases(Scope(1, "cpu"))}


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


KNOWN = Lower(speed=of(0.3, 0.7).unsqueeze(0), norms=of(0.2, 0.9).unsqueeze(0), total=of(0.05), factor=of(0.09))


def least(clock: float) -> float:
    """S_low of KNOWN by hand: neuron 1 from G = 2/3 on, neuron 2 from G = 9/7 on."""
    return 0.05 + 0.5 * max(0, 0.3 * clock - 0.2) ** 2 + 0.5 * max(0, 0.7 * clock - 0.9) ** 2


def summed(clock: float) -> float:
    return quad(least, 0, clock, points=[2 / 3, 9 / 7], epsabs=0, epsrel=1e-12)[0]


def zero(function: Callable[[float], float], end: float) -> float:
    return root_scalar(function, bracket=(0, end), xtol=1e-13).root


@pytest.mark.parametrize("clock", [0.1, 1.0, 2.0, 7.0])
def test_sigma_is_the_integral_of_s_low(clock: float) -> None:
    assert KNOWN.product(of(clock)).item() == pytest.approx(least(clock), rel=1e-13)
    assert clock * KNOWN.mean_product(of(clock)).item() == pytest.approx(summed(clock), rel=1e-11)
    assert KNOWN.mean_product(of(0.0)).item() == 0.05


@pytest.mark.parametrize("initial", [0.6, 1.0, 3.0])
def test_the_bound_of_the_time_is_the_root_that_another_method_finds(initial: float) -> None:
    root = zero(lambda tau: 0.09 * summed(tau / 2) - (1 - 0.5 / initial), 1e3)
    assert no_plateau.half_time_at_most(KNOWN, of(initial)).item() == pytest.approx(root, rel=1e-9)


def test_the_bound_of_the_time_has_the_limit_of_small_weights_and_is_0_below_one_half() -> None:
    gamma, margin, feedback = 0.3, 0.8, of(1.0, -2.0, 0.5)
    speed = gamma * margin * feedback.abs().unsqueeze(0)
    small = Lower(speed, torch.full((1, 3), 1e-9), of(1e-12), of((gamma * margin) ** 2))
    limit = (24 / ((gamma * margin) ** 4 * feedback.square().sum().item())) ** (1 / 3)
    assert no_plateau.half_time_at_most(small, of(1.0)).item() == pytest.approx(limit, rel=1e-7)
    assert no_plateau.half_time_at_most(small, of(0.4)).item() == 0


def test_one_sample_from_zero_hidden_weights_is_solved_in_closed_form() -> None:
    """gamma = 1: |w_j| = R |b_j| G, S = S_low(G), and log(L(0)/L) has three times the cubic term of Sigma."""
    x, b, output = of(0.6, 0.9), of(1.0, -0.5), of(0.02, -0.03)
    flow = Flow(Dataset(x.unsqueeze(0), [1]), FeedbackAlignment(b), slope=1.0)
    solution = solve(flow, Weights(torch.zeros(2, 2), output), 6.0, rtol=1e-12)
    R2, S0, b2 = x.square().sum().item(), (b * output).sum().item(), b.square().sum().item()

    def descended(clock: float) -> float:
        return R2 * S0 * clock + R2**2 * b2 * clock**3 / 2

    half = zero(lambda clock: descended(clock) - np.log(2), 10)
    time = quad(lambda clock: np.exp(descended(clock)), 0, half, epsrel=1e-12)[0]
    assert no_plateau.half_time(solution).item() == pytest.approx(time, rel=1e-9)
    hidden = solution.evaluate(time).hidden
    torch.testing.assert_close(hidden, half * b.unsqueeze(-1) * x, rtol=1e-9, atol=0)
    known = no_plateau.lower(solution)
    assert known.product(of(half)).item() == pytest.approx(S0 + R2 * b2 * half**2 / 2, rel=1e-9)
    linear = R2 * S0 * half
    promised = known.factor.item() * half * known.mean_product(of(half)).item()
    assert (np.log(2) - linear) / (promised - linear) == pytest.approx(3, rel=1e-9)
    assert time < no_plateau.half_time_at_most(known, of(1.0)).item()


def test_each_trajectory_of_an_ensemble_has_a_time_of_its_own() -> None:
    """One sample, v(0) = 0 .. 2: it starts below 1/2, gets there sooner or later, or not by the end of the run."""
    output = of(0.0, 0.5, 0.69, 0.7, 2.0)
    flow = Flow(Dataset(torch.ones(1, 1), [1]), FeedbackAlignment(torch.zeros(5, 1)), slope=1.0)
    solution = solve(flow, Weights(torch.ones(5, 1, 1), output.unsqueeze(-1)), 0.4, rtol=1e-12)
    exact = 2 - output.exp()  # e^f grows by 1 per unit of time, as v' = e^-f
    wanted = torch.where(exact > 0.4, torch.inf, exact.clamp(min=0))
    torch.testing.assert_close(no_plateau.half_time(solution), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["fa", "gd"])
def test_the_measured_time_is_that_of_another_integrator(rule: Any) -> None:
    """scipy on the equations of section 1, written out."""
    solution = no_plateau.scaled_run(rule, 1e-2, 1, "cpu", 80.0 if rule == "gd" else 20.0)
    X, y = (part[0].numpy() for part in (solution.flow.dataset.inputs, solution.flow.dataset.labels))
    W, v = solution.start.hidden[0].numpy(), solution.start.output[0].numpy()
    b = None if rule == "gd" else random_signs(6, 0).numpy()

    def rate(_: float, theta: np.ndarray) -> np.ndarray:
        W, v = theta[:-6].reshape(6, -1), theta[-6:]
        z = X @ W.T
        phi, slopes = np.where(z > 0, z, 0.3 * z), np.where(z > 0, 1, 0.3)
        q = np.exp(-y * (phi @ v)) * y / len(y)
        return np.concatenate([(((v if b is None else b)[:, None]) * ((q[:, None] * slopes).T @ X)).ravel(), phi.T @ q])

    def risk(_: float, theta: np.ndarray) -> float:
        z = X @ theta[:-6].reshape(6, -1).T
        return np.exp(-y * (np.where(z > 0, z, 0.3 * z) @ theta[-6:])).mean() - 0.5

    risk.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(rate, (0, 80), np.concatenate([W.ravel(), v]), "DOP853", rtol=1e-9, atol=1e-12, events=risk)
    assert no_plateau.half_time(solution).item() == pytest.approx(found.t_events[0][0], rel=1e-6)


def test_fa_does_not_slow_down_and_gd_does() -> None:
    """Times to L = 1/2 within the bounds; those of FA tend to a limit, those of GD grow like log(1 / scale)."""
    times: dict[str, list[float]] = {"fa": [], "sign-fa": [], "gd": [], "adafa": []}
    for scale in no_plateau.SCALES:
        for rule in ("fa", "sign-fa"):
            run = no_plateau.scaled_run(rule, scale, 1, "cpu", 20.0)
            bound = no_plateau.half_time_at_most(no_plateau.lower(run), no_plateau.initial_loss(run))
            times[rule].append(no_plateau.half_time(run).item())
            assert times[rule][-1] < bound.item()
        run = no_plateau.scaled_run("gd", scale, 1, "cpu", 80.0)
        times["gd"].append(no_plateau.half_time(run).item())
        assert times["gd"][-1] > no_plateau.half_time_at_least(run).item()
    for rule in ("fa", "sign-fa"):
        assert times[rule][2] == pytest.approx(times[rule][3], rel=1e-3)
    early, late = np.diff(times["gd"])[1:]
    assert late == pytest.approx(2 * early, rel=0.03)  # a factor of 1e4 after one of 1e2


def test_the_time_of_adafa_grows_like_scale_to_minus_two_thirds() -> None:
    runs = [no_plateau.scaled_run("adafa", scale, 1, "cpu", t) for scale, t in [(1e-4, 3e3), (1e-7, 3e5)]]
    first, second = (no_plateau.half_time(run).item() for run in runs)
    assert second / first == pytest.approx(100, rel=0.02)
    for run in runs:
        assert no_plateau.half_time(run) < no_plateau.half_time_at_most(no_plateau.lower(run), of(1.0))


def test_a_loss_that_is_not_reached_has_no_time() -> None:
    assert no_plateau.half_time(no_plateau.at_rest("cpu")).item() == torch.inf


def test_integrals_before_a_piece_keep_what_is_small_beside_its_own() -> None:
    """1/L - 1/L(0) from weights of 1e-8: pieces add from 1e-24 to 1."""
    solution = no_plateau.scaled_run("fa", 1e-8, 1, "cpu", 20.0)
    before = integrals_before(no_plateau._ratio, solution)[0]
    assert before[0] == 0
    assert (before[1:] > 0).all() and (before.diff() > 0).all()
    start = solution.pieces.start[-1]
    gained = 1 / solution.flow.risk(solution.evaluate(start)) - 1 / solution.flow.risk(solution.start)
    assert before[-1].item() == pytest.approx(gained.item(), rel=1e-9)


# --- hypotheses ---

DATA = orthogonally_separable(4, 5, 0.2, 0)
FA, SIGN_FA, GD = FeedbackAlignment(random_signs(4, 0)), SignFeedbackAlignment(), GradientDescent()
HIDDEN = gaussian(4, 5, 0).hidden
OPPOSED = Dataset(torch.ones(2, 5), [1, -1])
ONE_NEGATIVE = of(0.1, 0.1, 0.1, -0.05)
AT_MOST = "rule is FeedbackAlignment or SignFeedbackAlignment"


@pytest.mark.parametrize(
    ("statement", "flow", "gaps", "expected"),
    [
        (no_plateau.STATEMENT, Flow(DATA, FA), 0.1, set()),
        (no_plateau.STATEMENT, Flow(DATA, SIGN_FA), 0.1, set()),
        (no_plateau.STATEMENT, Flow(DATA, FA, slope=0.0), 0.1, {"gamma > 0"}),
        (no_plateau.STATEMENT, Flow(DATA, FA, "logistic"), 0.1, {"exponential loss"}),
        (no_plateau.STATEMENT, Flow(DATA, FA), ONE_NEGATIVE, {"c_j >= 0"}),
        (no_plateau.STATEMENT, Flow(DATA, SIGN_FA), ONE_NEGATIVE, {"c_j > 0"}),
        (no_plateau.STATEMENT, Flow(OPPOSED, FA), 0.1, {"SVM margin > 0"}),
        (no_plateau.STATEMENT, Flow(DATA, GD), 0.1, {AT_MOST}),
        (no_plateau.DESCENT, Flow(DATA, GD), 0.1, set()),
        (no_plateau.DESCENT, Flow(OPPOSED, GD, slope=0.0), 0.1, set()),
        (no_plateau.DESCENT, Flow(DATA, GD, "logistic"), 0.1, {"exponential loss"}),
        (no_plateau.DESCENT, Flow(DATA, FA), 0.1, {"rule is GradientDescent"}),
    ],
)
def test_hypotheses_notice_their_breach(statement: Statement, flow: Flow, gaps: Any, expected: set[str]) -> None:
    solution = solve(flow, with_gaps(HIDDEN, flow.rule, gaps), 1e-3, rtol=1e-12)
    assert {item.name for item in hypotheses_of(statement, solution) if not item.holds} == expected


# --- planted mistakes ---

original = {name: getattr(Lower, name) for name in ("product", "mean_product")}


def product_too_large(self: Lower, clock: torch.Tensor) -> torch.Tensor:
    return self.total + 1.01 * (original["product"](self, clock) - self.total)


def three_times_and_1_percent(self: Lower, clock: torch.Tensor) -> torch.Tensor:
    return self.total + 3.03 * (original["mean_product"](self, clock) - self.total)


def total_too_large(self: Lower, clock: torch.Tensor) -> torch.Tensor:
    return original["mean_product"](self, clock) + 0.01 * self.total


@pytest.mark.parametrize(
    ("name", "planted", "label"),
    [
        ("product", product_too_large, "FA, from almost 0, tight"),
        ("mean_product", three_times_and_1_percent, "FA, from almost 0, tight"),
        ("mean_product", total_too_large, "FA, at rest, tight"),
    ],
)
def test_a_planted_mistake_in_s_low_is_caught(
    name: str, planted: Callable, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decide(CASES[label]).verdict == "holds"
    monkeypatch.setattr(Lower, name, planted)
    assert decide(CASES[label]).verdict == "violated"


def test_an_exponent_of_the_feedback_that_is_wrong_is_caught() -> None:
    """|b_j|^0.999 in the place of |b_j| = 0.01 is 0.5 % more."""

    def wrong(solution: Solution) -> Lower:
        return no_plateau.lower(solution, feedback=lambda start: start.feedback.abs() ** 0.999)

    case = CASES["FA, from almost 0, tight"]
    assert decide(Case(no_plateau.statement(wrong), case.label, "theorem", case.runs)).verdict == "violated"
