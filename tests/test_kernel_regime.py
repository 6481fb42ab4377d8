"""Kernel regime: the constants by hand, the angle between gradient and feedback direction, and wide limits."""

import math

import numpy as np
import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, Solution, Weights, solve
from flowsim.initialization import adafa, gaussian
from flowsim.observables import descent_factors
from theorems import ensembles, kernel_regime
from theorems.cases import decide
from theorems.check import Case, Statement, hypotheses_of
from theorems.ensembles import Scope

CASES = {case.label: case for case in kernel_regime.cases(Scope(1, "cpu"))}


def terms(solution: Solution, rate: float, paired: bool) -> tuple[float, float, float, float]:
    """|X| |b| |r| / rate, D, the right side of the condition, and the sine, in numpy."""
    flow, start = solution.flow, solution.start
    X, y = flow.dataset.inputs[0].numpy(), flow.dataset.labels[0].numpy()
    W, v = start.hidden[0].numpy(), start.output[0].numpy()
    b = flow.rule.feedback_matrices(start)[0].numpy().reshape(-1)
    z = X @ W.T
    H = np.where(z > 0, z, 0.3 * z)
    values, norm, r = np.linalg.svd(H)[1], np.linalg.norm(X, 2), np.linalg.norm(H @ v - y)
    hidden = norm * np.linalg.norm(b) * r / rate
    output = (values[0] + norm * hidden) * r / rate
    taken = output**2 / 4 if paired else (np.linalg.norm(v) + output) * np.linalg.norm(b)
    left = values[-1] - norm * hidden
    return float(hidden), float(output), float(left**2 - norm**2 * taken), float(norm * output / left)


@pytest.mark.parametrize("paired", [True, False])
def test_lambda_is_the_largest_solution(paired: bool) -> None:
    solution = ensembles.kernel_run(256, paired, 1, "cpu")
    known = kernel_regime.bounds(solution)
    rate = known.rate.item()
    hidden, output, right, sine = terms(solution, rate, paired)
    assert rate <= right == pytest.approx(rate, rel=2e-9), "it satisfies its inequality, and nearly no larger one does"
    assert (known.hidden.item(), known.output.item()) == pytest.approx((hidden, output), rel=1e-10)
    assert known.sine.item() == pytest.approx(sine, rel=1e-10)
    for factor in (1.001, 1.01, 1.1, 2.0):
        assert terms(solution, factor * rate, paired)[2] < factor * rate


def test_where_the_iteration_crawls_past_a_solution_that_does_not_exist_there_is_no_lambda() -> None:
    """One sample, |X| = sigma = 1, b = v(0), so that |r(0)| = 1 - b: a lambda exists for b near 1."""

    def rate(b: float) -> float:
        flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([b]), "squared", 1.0)
        start = Weights(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
        return kernel_regime.bounds(solve(flow, start, 1e-3)).rate.item()

    low, high = 0.5, 0.999
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if rate(middle) > 0 else (middle, high)
    residual, rates = 1 - high, np.linspace(1e-3, 1, 200_001)
    hidden = high * residual / rates
    right = np.clip(1 - hidden, 0, None) ** 2 - ((1 + hidden) * residual / rates) ** 2 / 4
    assert 0 <= (right - rates).max() < 1e-3, "nearly the least b that has a lambda"
    assert rate(high) > 0.1


def test_narrow_networks_have_no_lambda_and_neither_have_fewer_neurons_than_samples() -> None:
    for width in (3, 16):
        weights = gaussian(width, 6, 0)
        flow = Flow(ensembles.dataset_of("boundary", ensembles.SMALL, 0), adafa(weights), "squared")
        assert kernel_regime.bounds(solve(flow, weights, 1e-3)).rate.item() == 0


@pytest.mark.parametrize("low", [0.2, 0.9])
def test_kantorovich_bounds_the_cosine_where_signs_agree_and_is_attained(low: float) -> None:
    """cos >= 2 sqrt(a b) / (a + b), with a and b the extremes of 1 and v_j / b_j."""
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(5, 3, generator=generator, dtype=torch.float64), [1, -1, 1, 1, -1])
    b = torch.randn(20, generator=generator, dtype=torch.float64)
    ratio = low + (2 - low) * torch.rand(20, generator=generator, dtype=torch.float64)
    weights = Weights(torch.randn(20, 3, generator=generator, dtype=torch.float64), ratio * b)
    flow = Flow(data, FeedbackAlignment(b), "squared", 0.3)
    a, top = min(1.0, ratio.min().item()), max(1.0, ratio.max().item())
    assert descent_factors(flow, weights).cosine.item() >= 2 * math.sqrt(a * top) / (a + top)
    # one sample, one neuron of ratio a: equality where |fa_W|^2 = |grad_v|^2 / a
    z, x = 2.0, torch.ones(1, 1, dtype=torch.float64)
    single, feedback = Weights(z * x, z * math.sqrt(low) * x[0]), FeedbackAlignment(z / math.sqrt(low) * x[0])
    found = descent_factors(Flow(Dataset(x, [1]), feedback, "squared", 0.3), single).cosine.item()
    assert found == pytest.approx(2 * math.sqrt(low) / (1 + low), rel=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_the_cosine_of_a_wide_network_at_the_start_tends_to_its_limit(correlation: float) -> None:
    """Entries of v, b, w_j of variance 1, orthonormal inputs: (A + c P) / (A + P)."""
    width, gamma = 200_000, 0.3
    generator = torch.Generator().manual_seed(1)
    W, v, other = (torch.randn(width, size, generator=generator, dtype=torch.float64) for size in (4, 1, 1))
    b = correlation * v + math.sqrt(1 - correlation**2) * other
    flow = Flow(Dataset(torch.eye(4), [1, -1, 1, 1]), FeedbackAlignment(b.flatten()), "squared", gamma)
    weights = Weights(W, v.flatten())
    q = (flow.dataset.targets - flow.outputs(weights)).flatten()
    same, mean = (1 + gamma**2) / 2, (1 - gamma) / math.sqrt(2 * math.pi)
    A = (same - mean**2) * q.square().sum() + mean**2 * q.sum() ** 2
    P = same * q.square().sum()
    found = descent_factors(flow, weights).cosine
    assert found.item() == pytest.approx(((A + correlation * P) / (A + P)).item(), abs=0.01)


ONE = Dataset([[1.0, 0.0]], [1])
WIDE = gaussian(512, 2, 0)
SMALL = Weights(WIDE.hidden, 0.1 * WIDE.output)
OTHER = FeedbackAlignment(0.1 * gaussian(512, 2, 1).output)


@pytest.mark.parametrize(
    ("statement", "flow", "expected"),
    [
        (kernel_regime.STATEMENT, Flow(ONE, adafa(SMALL), "squared"), set()),
        (kernel_regime.STATEMENT, Flow(ONE, OTHER, "squared"), set()),
        (kernel_regime.STATEMENT, Flow(ONE, adafa(SMALL), "logistic"), {"squared loss"}),
        (kernel_regime.STATEMENT, Flow(ONE, GradientDescent(), "squared"), {"rule is FeedbackAlignment"}),
        (kernel_regime.STATEMENT, Flow(ONE, FeedbackAlignment(1e6 * SMALL.output), "squared"), {"lambda > 0"}),
        (kernel_regime.ANGLE, Flow(ONE, adafa(SMALL), "squared"), set()),
        (kernel_regime.ANGLE, Flow(ONE, OTHER, "squared"), {"b = v(0)"}),
    ],
)
def test_hypotheses_notice_their_breach(statement: Statement, flow: Flow, expected: set[str]) -> None:
    solution = solve(flow, SMALL, 1e-6, rtol=1e-12)
    assert {item.name for item in hypotheses_of(statement, solution) if not item.holds} == expected


@pytest.mark.parametrize("field", ["rate", "output"])
def test_a_constant_1_percent_off_is_caught(field: str) -> None:
    case, factor = CASES["adaFA, one sample, tight"], {"rate": 1.01, "output": 0.99}[field]

    def wrong(solution: Solution) -> kernel_regime.Bounds:
        known = kernel_regime.bounds(solution)
        return known._replace(**{field: factor * getattr(known, field)})

    assert decide(case).verdict == "holds"
    assert decide(Case(kernel_regime.statement(wrong), case.label, "theorem", case.runs)).verdict == "violated"
