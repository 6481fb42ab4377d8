"""Any start: the bounds against other computations, and what they say of signs, cosine and risk."""

from functools import partial

import numpy as np
import pytest
import torch

from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights, solve
from theorems import any_start
from theorems.any_start import APART, FORWARD, RISING, SINKING, STATEMENT, Claims, pair_run, wrong_run
from theorems.check import check
from theorems.ensembles import Shape
from theorems.measurement import measure

SHAPE = Shape(4, 5, 0.9)


@pytest.fixture(scope="module")
def run() -> Solution[Weights]:
    return wrong_run(SHAPE, 2, "cpu")


def risk_integral(solution: Solution, trajectory: int, end: float) -> float:
    """G by Gauss's formula over the logarithm of time, of the risk along the run, from kink to kink.

    In panels of 1/20 at most it is as exact as an adaptive quadrature, which asks for one time after another.
    """
    events = solution.events
    kinks = torch.log1p(events.time[(events.trajectory == trajectory) & (events.time < end)])
    edges = torch.cat([kinks, torch.arange(0, np.log1p(end), 0.05).double(), torch.tensor([np.log1p(end)])]).sort()[0]
    nodes, weights = (torch.from_numpy(column) for column in np.polynomial.legendre.leggauss(8))
    half = edges.diff().unsqueeze(-1) / 2
    s = (edges[:-1].unsqueeze(-1) + half * (1 + nodes)).flatten()
    whose = torch.full_like(s, trajectory, dtype=torch.long)
    rates = solution.flow_of(whose).risk(solution.evaluate(s.expm1().clamp(max=end), whose)) * s.exp()
    return float(rates @ (half * weights).flatten())


@pytest.mark.parametrize("end", [0.5, 20.0, 1000.0])
def test_displacements_lie_between_gamma_margin_and_radius_times_an_independent_integral(
    run: Solution[Weights], end: float
) -> None:
    flow, G = run.flow, risk_integral(run, 0, end)
    moved = (run.evaluate(end).hidden[0] - run.start.hidden[0]).norm(dim=-1)
    feedback = flow.rule.feedback_matrices(run.start)[0][0, 0].abs()
    margin, largest = flow.dataset.svm_margin[0], flow.dataset.inputs[0].norm(dim=-1).max()
    assert (moved >= flow.slope * margin * feedback * G * (1 - 1e-6)).all()
    assert (moved <= largest * feedback * G * (1 + 1e-6)).all()


def test_all_signs_are_wrong_at_the_start_and_right_from_the_settling_time_on(run: Solution[Weights]) -> None:
    products = lambda at: run.evaluate(at).output * run.flow.rule.feedback_matrices(run.start)[0].squeeze(-2)  # noqa: E731
    assert (products(0.0) < 0).all()
    settled = any_start.settled(run)
    assert settled.isfinite().all()
    for trajectory, time in enumerate(settled.tolist()):
        later = torch.logspace(np.log10(time), 8, 50, dtype=torch.float64).clamp(max=run.t_final)
        at = run.evaluate(later, torch.full_like(later, trajectory, dtype=torch.long))
        feedback = run.flow.rule.feedback_matrices(run.start)[0][trajectory, 0]
        assert (at.layers[1].squeeze(-2) * feedback > 0).all()


def test_the_settling_time_is_that_of_the_integral(run: Solution[Weights]) -> None:
    time = any_start.settled(run)[0].item()
    reached = any_start.settling_integral(run)[0].item()
    assert risk_integral(run, 0, time) >= reached
    start = run.start
    feedback = run.flow.rule.feedback_matrices(start)[0][0, 0].double()
    gaps = feedback * start.output[0] - start.hidden[0].square().sum(-1) / 2
    needed = start.hidden[0].norm(dim=-1) + (-2 * gaps).clamp(min=0).sqrt()
    lower = run.flow.slope * run.flow.dataset.svm_margin[0]
    assert reached == pytest.approx((needed / feedback.abs() / lower).max().item(), rel=1e-12)


def test_the_cosine_ends_above_its_limit_and_started_below_0(run: Solution[Weights]) -> None:
    feedback = run.flow.rule.feedback_matrices(run.start)[0].squeeze(-2)
    cosine = lambda at: torch.cosine_similarity(run.evaluate(at).output, feedback, dim=-1)  # noqa: E731
    assert (cosine(0.0) < 0).all()
    assert (cosine(run.t_final) > STATEMENT.constants(run)["2r/(1+r^2)"]).all()


def test_kantorovichs_form_is_what_bounds_the_cosine() -> None:
    """(A + B) x >= y^2 + A B implies x / y >= 2 sqrt(AB) / (A + B), with equality for values A and B in that share."""
    generator = torch.Generator().manual_seed(0)
    ratios = 0.2 + 2 * torch.rand(1000, 7, generator=generator, dtype=torch.float64)
    weights = torch.rand(1000, 7, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum(-1, keepdim=True)
    low, high = ratios.amin(-1), ratios.amax(-1)
    mean, square = (weights * ratios).sum(-1), (weights * ratios.square()).sum(-1)
    assert ((low + high) * mean >= low * high + square - 1e-12).all()
    assert (mean / square.sqrt() >= 2 * (low * high).sqrt() / (low + high) - 1e-12).all()
    low, high = 0.25, 4.0
    share = high / (low + high)  # of A
    mean, square = share * low + (1 - share) * high, share * low**2 + (1 - share) * high**2
    assert mean / square**0.5 == pytest.approx(2 * (low * high) ** 0.5 / (low + high), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "pair"),
    [("moves_far", APART), ("stays_near", APART), ("cosine", APART), ("descends", RISING), ("lasts", FORWARD)],
)
def test_every_claim_is_nearly_attained_on_a_pair_of_neurons(name: str, pair: any_start.Pair) -> None:
    solution = pair_run(pair, "cpu")
    number = ["moves_far", "stays_near", "products", "cosine", "descends", "lasts"].index(name)
    margin = measure([STATEMENT.claims[number]], solution, STATEMENT.rate)[0]
    assert 0 < margin.surely.item() <= margin.margin.item() < 2e-3


PLANTED = {
    "gamma margin 1 % too large": (Claims(lower=lambda run: 1.01 * any_start.slope_times_margin(run)), APART, 0),
    "gamma margin 1 % too large, in b_j v_j": (
        Claims(lower=lambda run: 1.01 * any_start.slope_times_margin(run)), APART, 2,
    ),
    "gamma margin 1 % too large, in the cosine": (
        Claims(lower=lambda run: 1.01 * any_start.slope_times_margin(run)), APART, 3,
    ),
    "gamma margin 1 % too large, in the descent": (
        Claims(lower=lambda run: 1.01 * any_start.slope_times_margin(run)), RISING, 4,
    ),
    "R 1 % too small": (Claims(upper=lambda run: 0.99 * any_start.largest_norm(run)), APART, 1),
    "R 1 % too small, in the cosine": (Claims(upper=lambda run: 0.99 * any_start.largest_norm(run)), APART, 3),
    "R 1 % too small, in the descent": (Claims(upper=lambda run: 0.99 * any_start.largest_norm(run)), SINKING, 4),
    "R 1 % too small, in U": (Claims(upper=lambda run: 0.99 * any_start.largest_norm(run)), FORWARD, 5),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_constant_that_is_1_percent_off_is_violated_in_each_claim(mistake: str) -> None:
    claims, pair, number = PLANTED[mistake]
    planted = any_start._statement(claims, stated=False).claims[number]
    assert measure([planted], pair_run(pair, "cpu"), STATEMENT.rate)[0].violated.item()


def test_a_gap_with_the_wrong_sign_is_violated(monkeypatch: pytest.MonkeyPatch) -> None:
    sinking, seen_start = pair_run(SINKING, "cpu"), any_start.seen_start
    monkeypatch.setattr(any_start, "seen_start", lambda seen: seen_start(seen)._replace(gap=-seen_start(seen).gap))
    for claim in STATEMENT.claims[2:4]:  # b_j v_j, the cosine
        assert measure([claim], sinking, STATEMENT.rate)[0].violated.item(), claim.name


def test_it_applies_to_starts_with_w_equal_0_and_only_a_bound_that_is_attained_there_is_undecided() -> None:
    dataset = Dataset([[1.0, 0.5], [0.2, 1.0]], [1, 1])
    weights = Weights(torch.zeros(2, 2, dtype=torch.float64), torch.tensor([-0.5, 0.3], dtype=torch.float64))
    flow = Flow(dataset, FeedbackAlignment([1.0, -1.0]), "exponential", 0.5)
    batched = flow.map_matrices(weights, lambda matrix: matrix.unsqueeze(0))
    found = check(STATEMENT, "x", "theorem", [solve(*batched, 5.0, rtol=1e-13, atol=1e-15)])
    assert found.verdict == "undecided"
    margins = {name: entry["margin"] - entry["error_bound"] for name, entry in found.details["claims"].items()}
    attained = [name for name, surely in margins.items() if surely <= 0]
    assert all(found.details["claims"][name]["place"] == "start" for name in attained)
    assert "|w_j(t) - w_j(0)| > gamma margin |b_j| G" not in attained


def test_each_hypothesis_notices_its_breach() -> None:
    def failing(solution: Solution) -> list[str]:
        return [item.name for item in any_start.hypotheses(solution) if not item.holds]

    pair = partial(pair_run, APART, "cpu")
    assert failing(pair()) == []
    assert failing(pair(slope=0.0)) == ["gamma > 0"]
    assert failing(pair(loss="logistic")) == ["exponential loss"]
    assert failing(pair(descent=True)) == ["rule is FeedbackAlignment or SignFeedbackAlignment"]
