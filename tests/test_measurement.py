"""Margins over the whole interval: nothing missed between events, errors that bound, verdicts from both."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from flowsim import Dataset, FeedbackAlignment, Flow, GradientDescent, SignFeedbackAlignment, Solution, Weights, solve
from flowsim.initialization import gaussian, with_gaps
from flowsim.observables import dominance_ratio
from flowsim.solution import Pieces
from theorems import ensembles, proposition_5_7
from theorems.check import Hypothesis, Role, Verdict, holds, place, verdict
from theorems.ensembles import Shape
from theorems.integrals import add_integral, integrals_before
from theorems.measurement import Claim, Compared, Margin, NoMarginError, alone, infimum, measure
from theorems.observation import Observation, observe
from theorems.pieces import chosen
from theorems.polynomial import INTEGRALS
from theorems.proposition_5_7 import ANY_SEPARABLE
from theorems.theorem_5_1 import dominance_ratio_of
from theorems.thresholds import EQUALITY_ERROR

SHAPE = Shape(5, 6, 0.3)


def separable(seeds: int = 1) -> Solution:
    return ensembles.margin_run("separable", "fa", SHAPE, seeds, "cpu")


def in_time(function: Callable[[torch.Tensor], torch.Tensor], kind: Any = "inequality") -> Claim:
    """A claim about a function of time alone."""
    return Claim("made up", kind, lambda seen: alone(function(seen.times).unsqueeze(-1)))


def dominance_of_two(seen: Observation) -> Compared:
    return dominance_ratio_of(seen, 2)


# The whole interval


@pytest.mark.parametrize("centre", [3.3456, 0.01, 29.5])
@pytest.mark.parametrize("width", [1.0, 0.1, 1e-2])
def test_a_violation_between_the_nodes_is_found(centre: float, width: float) -> None:
    """A narrow bell below a floor that is flat elsewhere: its depth, and where it is, although no node is near.

    The bell is as wide as its piece, or down to a hundredth of it: five times narrower than nodes are apart.
    """
    solution = separable()
    pieces = solution.pieces
    index = torch.searchsorted(pieces.start, torch.tensor(centre).double()) - 1
    width *= (pieces.end - pieces.start)[index].item()
    claim = in_time(lambda times: 1 - 1.00001 / (1 + ((times - centre) / width) ** 2))
    (found,) = measure([claim], solution)
    assert found.violated.all()
    assert found.margin.item() == pytest.approx(-1e-5, abs=2e-7)
    assert found.time.item() == pytest.approx(centre, abs=1e-2 * width)
    assert found.error.item() < 1e-6


@pytest.mark.parametrize("degree", [7, 12, 14])
def test_a_minimum_of_a_wave_between_nodes_is_found(degree: int) -> None:
    """A Legendre polynomial over one piece, 3 elsewhere: its part of low degree is a constant that shows nothing."""
    solution = separable()
    piece = int((solution.pieces.end - solution.pieces.start).argmax())
    start, end = solution.pieces.start[piece], solution.pieces.end[piece]

    def wave(times: torch.Tensor) -> torch.Tensor:
        place = 2 * (times - start) / (end - start) - 1
        inside = (place >= -1) & (place <= 1)
        return torch.where(inside, 2 + torch.special.legendre_polynomial_p(place.clamp(-1, 1), degree), 3.0)

    (found,) = measure([in_time(wave)], solution)
    lowest = wave(torch.linspace(start.item(), end.item(), 100_001, dtype=torch.float64)).min().item()
    assert found.margin.item() == pytest.approx(lowest, abs=3e-6)
    assert found.surely.item() <= lowest


def test_minima_are_those_of_an_optimiser_of_scipy() -> None:
    """The dominance ratio at 101 places of every piece, both ends among them; Brent's method where it is smallest."""
    solution = ensembles.margin_run("separable", "sign-fa", Shape(8, 20, 0.1), 1, "cpu")
    (found,) = measure([Claim("D", "inequality", dominance_of_two)], solution)
    pieces = chosen(solution.pieces, solution.pieces.end - solution.pieces.start >= 1e-9)
    places = torch.linspace(0, 1, 101, dtype=torch.float64)
    least, where = observe(solution, pieces, places).dominance(2).min(0)
    smallest = least.min().item()
    for piece in least.argsort()[:5].tolist():

        def ratio(share: float, piece: int = piece) -> float:
            one = chosen(pieces, slice(piece, piece + 1))
            return observe(solution, one, torch.tensor([share], dtype=torch.float64)).dominance(2).item()

        bounds = places[where[piece] - 1 if where[piece] else 0].item(), places[min(where[piece] + 1, 100)].item()
        inner: Any = minimize_scalar(ratio, bounds=bounds, method="bounded", options={"xatol": 1e-9})
        smallest = min(smallest, inner.fun)
    assert found.margin.item() == pytest.approx(smallest, rel=1e-6)
    assert found.surely.item() <= smallest


def test_the_smallest_value_of_many_parts_and_trajectories_is_each_found() -> None:
    solution = separable(3)
    centres = torch.tensor([1.0, 7.0, 20.0]).double()

    def parts(seen: Observation) -> Compared:
        bowl = (seen.times - seen.of(centres)) ** 2
        return alone(torch.stack([bowl + 2, bowl + seen.of(centres), 100 - seen.times], -1))

    (found,) = measure([Claim("parts", "inequality", parts)], solution)
    torch.testing.assert_close(found.margin, torch.tensor([1.0, 2.0, 2.0]).double(), rtol=0, atol=2e-6)
    assert found.part.tolist() == [1, 0, 0]
    torch.testing.assert_close(found.time, centres, rtol=0, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 4), st.floats(0, 6)), min_size=1, max_size=4),
    st.floats(0, 30),
)
def test_the_infimum_of_any_smooth_function_is_bounded_from_below(
    waves: list[tuple[float, float, float]], shift: float
) -> None:
    def function(times: torch.Tensor) -> torch.Tensor:
        terms = [a * torch.sin(w * times + p) for a, w, p in waves]
        return torch.stack([*terms, 0.01 * (times - shift) ** 2]).sum(0)

    solution = separable()
    (found,) = measure([in_time(function)], solution)
    grid = function(torch.linspace(0, solution.t_final, 20001, dtype=torch.float64)).min()
    assert found.surely.item() <= grid
    assert found.margin.item() <= grid + 1e-5  # the grid is 0.0015 wide


def test_a_jump_at_an_event_counts_with_both_sides() -> None:
    """Each side of every kink is observed as a limit: D jumps down there by a share that the sides show."""
    solution = separable()
    kink = solution.events.time[3]
    middle = (solution.pieces.start + solution.pieces.end) / 2
    index = torch.searchsorted(middle, kink)

    def jump(seen: Observation) -> Compared:
        before = ((seen.pieces.start + seen.pieces.end) / 2 < kink).double()
        return alone((1 + (1 - 2 * before) * 0.5 + (seen.times - kink) * (1 - 2 * before)).unsqueeze(-1))

    (found,) = measure([Claim("jump", "inequality", jump)], solution)
    assert index > 0
    assert found.margin.item() == pytest.approx(0.5, abs=1e-12)
    assert found.time.item() == pytest.approx(kink.item(), rel=1e-12)
    assert place(solution, 0, found.time.item()).startswith("crossing of neuron")


def test_a_check_says_where_its_smallest_margin_sits() -> None:
    solution = separable()
    for where, function in {
        "start": lambda times: 1 + times,
        "end": lambda times: 100 - times,
        "between events": lambda times: (times - 12.345) ** 2,
    }.items():
        (found,) = measure([in_time(function)], solution)
        assert place(solution, 0, found.time.item()) == where


# Observations


def every(solution: Solution) -> Observation:
    return observe(solution, solution.pieces)


def sliding_run(rule: str) -> Solution:
    return ensembles.any_run(rule, 2, "cpu", loss="exponential")  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["fa", "sign-fa", "gd"])
def test_the_prescribed_velocity_is_that_of_the_solver_in_crossing_and_in_sliding_pieces(rule: str) -> None:
    """By the formula K_SS p_S = -K_SR p_R, against the derivative of the series; and p between its ends."""
    solution = sliding_run(rule)
    pieces = solution.pieces
    long = pieces.end - pieces.start > 1e-6
    some = Pieces(*(column[long] for column in pieces))
    seen = observe(solution, some)
    inner = slice(1, -1)
    moves = solution.velocity(seen.times[inner], some.trajectory.expand_as(seen.times[inner]))
    size = max(layer.abs().max().item() for layer in moves.layers)
    for moved, says in zip(moves.layers, seen.velocity.layers, strict=True):
        # the derivative of a series that is cut off where its terms are 1e-13, after some 10 terms
        assert (moved - says[inner]).abs().max() < 1e-9 * size
    assert seen.slopes is not None
    (pattern,) = solution.pattern((some.start + some.end) / 2, some.trajectory)
    slides = (pattern == 0).expand_as(seen.slopes[0])
    assert slides.any(), "neurons slide in this run"
    sigma = seen.slopes[0][inner][slides[inner]]
    assert (sigma >= solution.flow.slope - 1e-6).all()
    assert (sigma <= 1 + 1e-6).all()


def test_slopes_are_exactly_gamma_and_one() -> None:
    seen = every(separable())
    assert seen.slopes is not None
    assert set(seen.slopes[0].unique().tolist()) == {0.3, 1.0}


def test_the_sides_of_a_piece_are_those_of_its_pre_activations() -> None:
    """Sign of z at the inner nodes, from the weights alone, against the mode of the solver."""
    seen = every(separable())
    assert seen.slopes is not None
    z = seen.flow.pre_activations(seen.weights)[0]
    size = seen.flow.dataset.inputs.norm(dim=-1).unsqueeze(-1) * seen.weights.layers[0].norm(dim=-1).unsqueeze(-2)
    tells = z.abs() > 1e-12 * size
    assert ((seen.slopes[0] == 1) == (z > 0))[tells].all()
    assert tells.double().mean() > 0.95


def test_the_sign_of_the_feedback_is_that_of_the_piece_also_where_a_weight_is_zero() -> None:
    dataset = Dataset([[[1.0]]], [[1]])
    solution = solve(Flow(dataset, SignFeedbackAlignment(), slope=0.5), Weights([[[2.0]]], [[-0.1]]), 1.0)  # type: ignore[arg-type]
    seen = every(solution)
    flip = solution.events.time[solution.events.sample < 0]
    for piece, (start, end) in enumerate(zip(seen.pieces.start, seen.pieces.end, strict=True)):
        expected = -1.0 if (start + end) / 2 < flip else 1.0
        assert seen.feedback[0][piece].item() == expected


# Errors and verdicts


def test_errors_are_the_difference_to_the_companion_accumulated_over_time() -> None:
    """A made-up observable that is off by 1e-3 along the companion at t = 5 only: later margins are as uncertain."""
    solution = separable()
    companion = solution.companion

    def values(seen: Observation) -> torch.Tensor:
        off = (seen.solution is companion) * 1e-3 * ((seen.times - 5).abs() < 0.5).double()
        return (2 - seen.times / 30 + off).unsqueeze(-1)

    (found,) = measure([Claim("late", "inequality", lambda seen: alone(values(seen)))], solution)
    assert found.time.item() == 30
    assert found.error.item() == pytest.approx(1e-3, rel=1e-3)
    early_claim = Claim("early", "inequality", lambda seen: alone(values(seen) + seen.times.unsqueeze(-1)))
    (early,) = measure([early_claim], solution)
    assert early.time.item() == 0
    assert early.error.item() < 1e-6


def test_where_exactly_an_event_is_does_not_count_as_error() -> None:
    """Two neurons cross 1e-10 apart, and the loose companion at other times: D jumps, but both are in the same mode."""
    rule = FeedbackAlignment([[1.0, 1.0]])
    hidden = torch.tensor([[[-0.5], [-0.5 * (1 + 1e-10)]]], dtype=torch.float64)
    flow = Flow(Dataset([[[1.0]]], [[1]]), rule)
    solution = solve(flow, with_gaps(hidden, rule, 0.5), 3.0, rtol=1e-9, atol=1e-11)
    assert solution.events.time.diff().item() < 1e-9
    assert (solution.companion.events.time - solution.events.time).abs().max() > 1e-10
    claim = Claim("D", "inequality", lambda seen: alone(10 - seen.dominance(2).unsqueeze(-1)))
    (found,) = measure([claim], solution)
    assert found.error.item() < 1e-6


def test_the_error_of_an_equality_is_that_of_the_whole_run_and_its_margin_the_largest_deviation() -> None:
    solution = separable()
    companion = solution.companion

    def values(seen: Observation) -> Compared:
        off = (seen.solution is companion) * 1e-3 * (seen.times > 20).double()
        return alone(torch.stack([-1e-5 * seen.times + off, 1e-6 * seen.times], -1))

    (found,) = measure([Claim("equal", "equality", values)], solution)
    assert found.margin.item() == pytest.approx(-3e-4, rel=1e-12)
    assert found.part.item() == 0
    assert found.error.item() == pytest.approx(1e-3, rel=1e-9)
    assert not found.violated.any()


def test_integrals_are_accumulated_along_each_trajectory() -> None:
    solution = separable(2)
    claim = Claim("int", "equality", lambda seen: alone((seen.integral - seen.times**3 / 3).unsqueeze(-1)))
    (found,) = measure([claim], solution, lambda seen: seen.times**2)
    assert found.margin.abs().max() < 1e-11  # of numbers up to 9000


def test_integrals_are_right_in_halved_pieces_too() -> None:
    """The smallest value of t - 3 + 1/(1 + int_0^t 2 s ds), found by halving, where the integral is t^2."""

    def values(seen: Observation) -> Compared:
        return alone(((seen.times - 3) ** 2 + 1 / (1 + seen.integral)).unsqueeze(-1))

    (found,) = measure([Claim("int", "inequality", values)], separable(), lambda seen: 2 * seen.times)
    exact: Any = minimize_scalar(lambda t: (t - 3) ** 2 + 1 / (1 + t * t), bounds=(2, 4), method="bounded")
    assert found.margin.item() == pytest.approx(exact.fun, rel=2e-6)


def test_a_rate_may_have_parts_each_with_an_integral_of_its_own() -> None:
    """The same margins as of one after the other, where integrals are those of halved pieces too."""
    powers = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)

    def values(seen: Observation) -> Compared:
        return alone((seen.times.unsqueeze(-1) - 3) ** 2 + 1 / (1 + seen.integral))

    def rate(seen: Observation, powers: torch.Tensor) -> torch.Tensor:
        return seen.times.unsqueeze(-1) ** powers

    claim = Claim("int", "inequality", values)
    (found,) = measure([claim], separable(2), lambda seen: rate(seen, powers))
    each = [measure([claim], separable(2), lambda seen, power=power: rate(seen, power))[0] for power in powers]
    torch.testing.assert_close(found.margin, torch.stack([one.margin for one in each]).amin(0), rtol=1e-12, atol=0)
    assert (found.part == 2).all()


def test_the_infimum_of_an_observable_is_not_above_it() -> None:
    solution = separable(2)
    low = infimum(dominance_of_two, solution)
    times = torch.linspace(0, 30, 500, dtype=torch.float64)
    assert (dominance_ratio(solution.flow, solution.evaluate(times), 2) >= low).all()


def test_a_claim_without_a_finite_margin_is_an_error_not_a_pass() -> None:
    claim = Claim("nan", "inequality", lambda seen: alone(torch.full((*seen.times.shape, 1), torch.nan).double()))
    with pytest.raises(NoMarginError, match="'nan' has no finite margin"):
        measure([claim], separable())


def margins(kind: Any, rows: list[tuple[float, float]]) -> tuple[Claim, Margin]:
    """A claim with made-up margins and errors, one per trajectory."""
    margin, error = torch.tensor(rows, dtype=torch.float64).T
    zeros = torch.zeros(len(rows))
    beyond = error.clamp(min=EQUALITY_ERROR) if kind == "equality" else error
    return in_time(torch.ones_like, kind), Margin(margin, margin - error, zeros, zeros.long(), margin < -beyond)


@pytest.mark.parametrize(
    ("kind", "rows", "role", "expected"),
    [
        ("inequality", [(0.2, 0.1)], "theorem", "holds"),
        ("inequality", [(0.05, 0.1)], "theorem", "undecided"),
        ("inequality", [(-0.05, 0.1)], "theorem", "undecided"),
        ("inequality", [(-0.2, 0.1)], "theorem", "violated"),
        ("inequality", [(1.0, 0.1), (-1.0, 0.1)], "theorem", "violated"),
        ("inequality", [(1.0, 0.1), (-1.0, 0.1)], "control", "undecided"),
        ("inequality", [(-1.0, 0.1), (-1.0, 0.1)], "control", "violated"),
        ("inequality", [(1.0, 0.1), (1.0, 0.1)], "control", "holds"),
        ("equality", [(-1e-11, 1e-10)], "theorem", "holds"),
        ("equality", [(-2e-9, 1e-10)], "theorem", "violated"),
        ("equality", [(-1e-9, 1e-10)], "theorem", "undecided"),
        ("equality", [(-2e-10, 1e-10)], "theorem", "undecided"),
        ("equality", [(-1e-9, 1e-8)], "theorem", "undecided"),
        ("equality", [(-1e-2, 1e-8)], "control", "violated"),
    ],
)
def test_verdict_compares_margins_with_errors(
    kind: Any, rows: list[tuple[float, float]], role: Role, expected: Verdict
) -> None:
    claim, margin = margins(kind, rows)
    assert verdict([claim], [[margin]], role) == expected
    assert bool(holds(claim, margin).all()) == (expected == "holds")


def test_one_violated_claim_violates_a_theorem_and_one_ensemble_is_enough() -> None:
    (claim, good), (_, bad) = margins("inequality", [(1.0, 0.1)]), margins("inequality", [(-1.0, 0.1)])
    assert verdict([claim, claim], [[good, bad]], "theorem") == "violated"
    assert verdict([claim], [[good], [bad]], "theorem") == "violated"
    assert verdict([claim], [[good], [bad]], "control") == "undecided"


def test_a_rounding_allowance_does_not_weaken_a_strict_hypothesis() -> None:
    assert Hypothesis("x >= 0", torch.tensor(-1e-16), rounding=1e-15).holds
    assert not Hypothesis("x > 0", torch.tensor(0.0), strict=True, rounding=1e-15).holds
    assert not Hypothesis("x > 0", torch.tensor(1e-16), strict=True, rounding=1e-15).holds


def test_error_bounds_cover_the_true_error_of_a_margin_with_a_loose_solve() -> None:
    """At tolerances 1e-4 .. 1e-8, against the margin of a solve at 1e-13: within the bound, and that within 1000 times.

    The dominance claims of Proposition 5.7, on seeds of separable data.
    """
    tight = separable(4)
    statement = proposition_5_7.SEPARABLE
    reference = measure(statement.claims, tight, statement.rate)
    for rtol in (1e-4, 1e-6, 1e-8):
        loose = solve(tight.flow, tight.evaluate(0.0), tight.t_final, rtol=rtol, atol=1e-2 * rtol)
        for found, exact in zip(measure(statement.claims, loose, statement.rate), reference, strict=True):
            assert ((found.margin - exact.margin).abs() <= found.error + exact.error).all()
            assert (found.error < 1e3 * rtol * (1 + exact.margin.abs())).all()


def test_gd_and_fa_on_a_tiny_problem_are_measured_alike_alone_and_in_an_ensemble() -> None:
    """Trajectories do not depend on each other: the same margins, up to rounding of matrix products."""
    inputs = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    labels = torch.tensor([1.0, -1, 1, -1]).expand(3, 4)
    weights = [gaussian(4, 3, seed) for seed in range(3)]
    hidden, output = torch.stack([w.hidden for w in weights]), torch.stack([w.output for w in weights])
    claim = Claim("L", "inequality", lambda seen: alone(seen.risk.unsqueeze(-1)))
    for rule in (GradientDescent(), FeedbackAlignment([1.0, -1.0, 1.0, -1.0])):
        together = solve(Flow(Dataset(inputs, labels), rule), Weights(hidden, output), 2.0)
        (all_of_them,) = measure([claim], together)
        for index in range(3):
            chosen = slice(index, index + 1)
            single = solve(
                Flow(Dataset(inputs[chosen], labels[chosen]), rule), Weights(hidden[chosen], output[chosen]), 2.0
            )
            (own,) = measure([claim], single)
            torch.testing.assert_close(own.margin, all_of_them.margin[chosen], rtol=1e-13, atol=0)
            torch.testing.assert_close(own.time, all_of_them.time[chosen], rtol=1e-6, atol=0)


# Dips as narrow as what a claim is divided by


def dip(offset: float, total_gap: float, slope: float) -> Solution:
    """One sample x = (1, 0), two equal neurons that pass it at a distance: S comes down to S0 + offset^2 there.

    `<grad, fa> = gamma^2 S L^2 + |grad_v|^2`, and grad_v = 0 there: the claims with S(t) are attained.
    """
    hidden = torch.tensor([[[-0.7, offset]] * 2], dtype=torch.float64)
    rule = FeedbackAlignment(torch.ones(1, 2))
    flow = Flow(Dataset([[[1.0, 0.0]]], [[1]]), rule, slope=slope)
    return solve(flow, with_gaps(hidden, rule, total_gap / 2), 3.0, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("slope", [1.0, 0.5])
@pytest.mark.parametrize(("offset", "total_gap"), [(1e-6, 1e-12), (1e-5, 1e-11), (1e-4, 1e-9), (1e-3, 1e-7)])
def test_a_bound_that_is_attained_in_a_dip_however_narrow_never_holds(
    offset: float, total_gap: float, slope: float
) -> None:
    solution = dip(offset, total_gap, slope)
    margins = measure(ANY_SEPARABLE.claims, solution, ANY_SEPARABLE.rate)
    for claim, found in zip(ANY_SEPARABLE.claims, margins, strict=True):
        if "S(t)" not in claim.name:
            continue
        # the margin is 0; the bottom is within 1e-7 of it, or within what v ~ S0 is uncertain by
        assert found.surely.item() < 0 <= found.margin.item() + 1e-15
        assert found.margin.item() < 1e-7 + found.error.item()
        assert not found.violated.any()
        z = solution.flow.pre_activations(solution.evaluate(found.time))[0].abs().max()
        assert z < 0.1 * offset, "it is found where the neurons pass the sample"


def test_the_depth_of_a_narrow_dip_of_a_ratio_is_that_of_its_formula() -> None:
    """((t - c)^2 - 0.01 e^2) / (e^2 + (t - c)^2) for e from 1e-1 down to 1e-7: nearly 1, and -0.01 at c."""
    solution = separable()
    centre = 12.3456789
    for width in (1e-1, 1e-3, 1e-5, 1e-7):

        def values(seen: Observation, width: float = width) -> Compared:
            off = ((seen.times - centre) ** 2).unsqueeze(-1)
            return Compared(off - 1e-2 * width**2, width**2 + off)

        (found,) = measure([Claim("dip", "inequality", values)], solution)
        assert found.violated.all()
        assert found.margin.item() == pytest.approx(-1e-2, abs=2e-7)
        assert found.time.item() == pytest.approx(centre, abs=1e-2 * width)


def test_at_the_bottom_of_a_dip_errors_are_relative_to_its_size() -> None:
    """The dip above, 1e-3 wide, off by 1e-7 along the companion: a tenth of what it is divided by at the bottom."""
    solution = separable()
    companion = solution.companion

    def values(seen: Observation) -> Compared:
        off = ((seen.times - 12.3456789) ** 2).unsqueeze(-1)
        return Compared(off - 1e-8 + 1e-7 * (seen.solution is companion), 1e-6 + off)

    (found,) = measure([Claim("dip", "inequality", values)], solution)
    assert found.margin.item() == pytest.approx(-1e-2, abs=1e-4)
    assert found.error.item() > 0.09
    assert not found.violated.any()


def test_the_quadrature_error_of_the_integral_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate with a bell of a quarter of a piece, which 16 nodes do not integrate: a second rule shows by how much."""
    solution = separable()
    piece = int((solution.pieces.end - solution.pieces.start).argmax())
    start, end = solution.pieces.start[piece].item(), solution.pieces.end[piece].item()
    centre, width = 0.4 * start + 0.6 * end, 0.25 * (end - start)

    def rate(seen: Observation) -> torch.Tensor:
        return torch.exp(-(((seen.times - centre) / width) ** 2))

    def exact(times: torch.Tensor) -> torch.Tensor:
        shift = torch.erf((times - centre) / width) - math.erf(-centre / width)
        return 0.5 * math.sqrt(math.pi) * width * shift

    claim = Claim("int", "equality", lambda seen: alone((seen.integral - exact(seen.times)).unsqueeze(-1)))
    (found,) = measure([claim], solution, rate)
    assert -found.margin.item() > 1e-8, "the integral is off"
    assert -found.margin.item() < found.error.item(), "and is known to be"
    monkeypatch.setattr("theorems.integrals.FEWER", INTEGRALS)
    (blind,) = measure([claim], solution, rate)
    assert -blind.margin.item() > 100 * blind.error.item(), "without the second rule it would be a violation"


def test_rounding_of_an_integral_counts_except_at_the_start_of_a_piece() -> None:
    """Of 12 t^11, which both rules integrate exactly, and which is small in the first pieces beside the last."""
    solution = separable()

    def rate(seen: Observation) -> torch.Tensor:
        return 12 * seen.times**11

    whole = observe(solution, solution.pieces)
    before, error = integrals_before(rate, solution)
    add_integral(whole, rate, before, error)
    assert torch.equal(whole.integral[0], before), "the one before, to the last bit"
    assert torch.equal(whole.integral_error[0], error)
    off, size = (whole.integral - whole.times**12).abs(), whole.times**12
    assert (off <= whole.integral_error + 4 * torch.finfo(torch.float64).eps * size).all()


def test_an_error_counts_relative_to_the_smallest_size_of_its_piece() -> None:
    """What is compared is off by 1e-3 all along, and its size grows tenfold on every piece: 1e-3 at the start."""
    solution = separable()
    companion = solution.companion

    def values(seen: Observation) -> Compared:
        start, end = seen.pieces.start, seen.pieces.end
        size = (1 + 9 * (seen.times - start) / (end - start)).unsqueeze(-1)
        return Compared(2 * size + 1e-3 * (seen.solution is companion), size)

    (found,) = measure([Claim("grows", "inequality", values)], solution)
    assert found.margin.item() == pytest.approx(2, rel=1e-9)
    assert found.error.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_claim_of_squares_has_the_margin_of_the_numbers_themselves() -> None:
    """o = t - 10 against 2, as o |o| against 4: the margin is min o / 2 - 1 = -6, where o < 0; and 1.5 for t + 5."""
    solution = separable()
    for shift, expected in ((-10.0, -6.0), (5.0, 1.5)):

        def values(seen: Observation, shift: float = shift) -> Compared:
            number = (seen.times + shift).unsqueeze(-1)
            return Compared(number * number.abs() - 4, torch.full_like(number, 4.0))

        (found,) = measure([Claim("squares", "inequality", values, squares=True)], solution)
        assert found.margin.item() == pytest.approx(expected, rel=1e-9)
        assert found.surely.item() == pytest.approx(expected, rel=1e-5)
