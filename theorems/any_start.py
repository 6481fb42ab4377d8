"""Alignment and convergence from any start, beyond the paper (section 14.1).

FA with exponential loss on separable data, gamma > 0, b_j != 0, and no condition on signs or gaps. With G = int L:

    gamma margin |b_j| G <= |w_j(t) - w_j(0)| <= R |b_j| G,   and G -> infinity

so every b_j v_j = c_j + |w_j|^2 / 2 becomes positive, liminf cos(v, b) >= 2r / (1 + r^2) with r = gamma margin / R, and
L -> 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    Weights,
    data,
)
from flowsim.initialization import gaussian, with_gaps
from flowsim.rules import is_one_of
from theorems import ensembles
from theorems.check import Case, Statement
from theorems.constants import (
    Constant,
    Start,
    feedback_not_zero,
    gaps_positive,
    largest_norm,
    scaled,
    separable,
    slope_times_margin,
    start_of,
    svm_margin,
)
from theorems.ensembles import DIMENSION, SLOPE, Scope, Shape, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, slope_positive, two_layers
from theorems.integrals import integrals_before
from theorems.measurement import Claim, Compared
from theorems.observation import Observation
from theorems.thresholds import EARLY


def seen_start(seen: Observation) -> Start:
    """One row for each piece."""
    return Start(*map(seen.of, start_of(seen.solution)))


def settling_integral(solution: Solution) -> Float[Tensor, " ensemble"]:
    """The G beyond which all b_j v_j > 0: the largest (|w_j(0)| + sqrt(2 max(0, -c_j))) / (gamma margin |b_j|)."""
    start = start_of(solution)
    needed = (start.norm + (2 * (-start.gap).clamp(min=0)).sqrt()) / start.feedback.abs()
    return needed.amax(-1) / slope_times_margin(solution)


def settled(solution: Solution) -> Float[Tensor, " ensemble"]:
    """The first time at which G is seen to be beyond `settling_integral`; infinite if the run does not get there."""
    pieces, (before, error) = solution.pieces, integrals_before(lambda seen: seen.risk, solution)
    beyond = before - error > settling_integral(solution)[pieces.trajectory]
    first = pieces.start.new_full((solution.batch_shape.numel(),), torch.inf)
    return first.scatter_reduce(0, pieces.trajectory, torch.where(beyond, pieces.start, torch.inf), "amin")


def displacements(seen: Observation) -> tuple[Float[Tensor, "nodes pieces m"], Float[Tensor, "nodes pieces m"]]:
    """|w_j(t) - w_j(0)|^2 and (b_j G)^2, over t^2; where the first is rounding, their limits |dw_j/dt|^2, (b_j L)^2."""
    hidden, first = seen.weights.layers[0], seen.start.layers[0]
    feedback, times = seen_start(seen).feedback, seen.times.unsqueeze(-1)
    moved, speed = (hidden - first).square().sum(-1), seen.velocity.layers[0].square().sum(-1)
    largest = seen.of(largest_norm(seen.solution)).unsqueeze(-1) * feedback.abs() * seen.integral.unsqueeze(-1)
    early = (largest <= EARLY * first.norm(dim=-1)) | (times == 0)
    over, rate = (
        (feedback * factor).square() for factor in (seen.integral.unsqueeze(-1) / times, seen.risk.unsqueeze(-1))
    )
    return torch.where(early, speed, moved / times.square()), torch.where(early, rate, over)


class Claims(NamedTuple):
    """The claims, with gamma margin and R as they are stated."""

    lower: Constant = slope_times_margin
    upper: Constant = largest_norm

    def moves_far(self, seen: Observation) -> Compared:
        """|w_j(t) - w_j(0)| above gamma margin |b_j| G, as squares."""
        moved, over = displacements(seen)
        promised = seen.of(self.lower(seen.solution)).unsqueeze(-1).square() * over
        return Compared(moved - promised, promised)

    def stays_near(self, seen: Observation) -> Compared:
        """(R b_j G)^2 above |w_j(t) - w_j(0)|^2."""
        moved, over = displacements(seen)
        allowed = seen.of(self.upper(seen.solution)).unsqueeze(-1).square() * over
        return Compared(allowed - moved, allowed)

    def products(self, seen: Observation) -> Compared:
        """b_j v_j above c_j + l |l| / 2 with l = gamma margin |b_j| G - |w_j(0)|, which |w_j(t)| is not below."""
        start = seen_start(seen)
        low, high = (
            (seen.of(rate(seen.solution)) * seen.integral).unsqueeze(-1) * start.feedback.abs()
            for rate in (self.lower, self.upper)
        )
        least = start.gap + 0.5 * (low - start.norm) * (low - start.norm).abs()
        product = start.feedback * seen.weights.layers[1].squeeze(-2)
        return Compared(product - least, start.gap.abs() + 0.5 * (high + start.norm).square())

    def cosine(self, seen: Observation) -> Compared:
        """(A + B) v.b - A B |b|^2 - |v|^2 over |b|^2, where A <= v_j / b_j <= B.

        It follows that cos(v, b) >= 2 sqrt(AB) / (A + B) where A > 0.
        """
        start, output = seen_start(seen), seen.weights.layers[1].squeeze(-2)
        square = start.feedback.square()
        norm, gap = (start.norm / start.feedback.abs()).amax(-1), start.gap / square
        low, high = (seen.of(rate(seen.solution)) * seen.integral for rate in (self.lower, self.upper))
        least = gap.amin(-1) + 0.5 * (low - norm) * (low - norm).abs()
        most = gap.amax(-1) + 0.5 * (high + norm).square()
        mean = (output * start.feedback).sum(-1) / square.sum(-1)
        size = gap.abs().amax(-1) + 0.5 * (high + norm).square()
        excess = (least + most) * mean - least * most - output.square().sum(-1) / square.sum(-1)
        return Compared(excess.unsqueeze(-1), size.square().unsqueeze(-1))

    def descends(self, seen: Observation) -> Compared:
        """<grad, fa> + R^2 C L^2 above gamma^2 margin^2 (S + C) L^2, relative to R^2 (S + 2C) L^2, with S = v.b."""
        start = seen_start(seen)
        total = (start.feedback * seen.weights.layers[1].squeeze(-2)).sum(-1)
        low, high = (seen.of(rate(seen.solution)).square() for rate in (self.lower, self.upper))
        promised = low * (total + start.shortfall) - high * start.shortfall
        excess = seen.factors.product - promised * seen.risk.square()
        size = high * (total + 2 * start.shortfall) * seen.risk.square()
        return Compared(excess.unsqueeze(-1), size.unsqueeze(-1))

    def lasts(self, seen: Observation) -> Compared:
        """U(G) = R sum_j (|c_j| + h_j^2 / 2) h_j / |b_j| above log(1/L), relative to 1 + U.

        h_j = R |b_j| G + |w_j(0)|.
        """
        start, largest = seen_start(seen), seen.of(self.upper(seen.solution))
        high = (largest * seen.integral).unsqueeze(-1) * start.feedback.abs() + start.norm
        most = largest * ((start.gap.abs() + 0.5 * high.square()) * high / start.feedback.abs()).sum(-1)
        return Compared((most + seen.risk.log()).unsqueeze(-1), (1 + most).unsqueeze(-1))


def hypotheses(solution: Solution, stated: bool = True) -> list[Hypothesis]:
    """FA, or sign-FA with c_j > 0; two layers, scalar output, exponential loss, gamma > 0, b_j != 0, separable data."""
    setting = two_layers(solution, FeedbackAlignment, SignFeedbackAlignment)
    if not all_hold(setting[1:]):
        return setting
    return [
        *setting,
        *([gaps_positive(solution)] if is_one_of(solution.flow.rule, SignFeedbackAlignment) else []),
        has_loss(solution, "exponential"),
        slope_positive(solution),
        feedback_not_zero(solution),
        separable(solution),
        fact("gamma margin and R as stated", stated),
    ]


def _constants(solution: Solution) -> dict[str, Tensor]:
    share = slope_times_margin(solution) / largest_norm(solution)
    return {
        "r": share,
        "2r/(1+r^2)": 2 * share / (1 + share.square()),
        "G that settles all signs": settling_integral(solution),
        "time that settles all signs": settled(solution),
    }


def _statement(claims: Claims, stated: bool = True) -> Statement:
    return Statement(
        name="any_start",
        title="Any start, alignment and convergence",
        formula=r"\gamma m_\ast |b_j| G \le |w_j(t) - w_j(0)| \le R |b_j| G, \quad G = \int_0^t L \to \infty, \qquad "
        r"\liminf \cos(v, b) \ge \frac{2r}{1 + r^2}, \quad r = \frac{\gamma m_\ast}{R}",
        hypotheses=partial(hypotheses, stated=stated),
        claims=[
            Claim("|w_j(t) - w_j(0)| > gamma margin |b_j| G", "inequality", claims.moves_far, squares=True),
            Claim("|w_j(t) - w_j(0)| < R |b_j| G", "inequality", claims.stays_near),
            Claim("b_j v_j > c_j + l|l|/2, l = gamma margin |b_j| G - |w_j(0)|", "inequality", claims.products),
            Claim("|v|^2 < (A + B) v.b - A B |b|^2", "inequality", claims.cosine),
            Claim("<grad, fa> + R^2 C L^2 > gamma^2 margin^2 (S + C) L^2", "inequality", claims.descends),
            Claim("log(1/L) < U(G)", "inequality", claims.lasts),
        ],
        rate=lambda seen: seen.risk,
        constants=_constants,
        beyond=True,
    )


STATEMENT = _statement(Claims())

LONG = 1e8


@cache
def wrong_run(shape: Shape, seeds: int, device: str, t_final: float = LONG) -> Solution[Weights]:
    """FA on separable data, unequal |b_j|, and every sign wrong: b_j v_j(0) < 0."""
    dataset = data.stack([barely_separable(shape.samples, DIMENSION, seed) for seed in range(seeds)])
    generator = torch.Generator().manual_seed(shape.width)
    feedback, sizes = torch.randn(2, seeds, shape.width, generator=generator, dtype=torch.float64)
    feedback = feedback.sign() * (0.3 * feedback).exp()
    hidden = torch.stack(
        [gaussian(shape.width, DIMENSION, seed, scale=shape.width**-0.5).hidden for seed in range(seeds)]
    )
    rule = FeedbackAlignment(feedback)
    weights = with_gaps(hidden, rule, -0.5 * hidden.square().sum(-1) - 0.1 * sizes.exp())
    return solved(Flow(dataset, rule, "exponential", shape.slope), weights, t_final, device)


@cache
def settled_run(shape: Shape, seeds: int, device: str) -> Solution[Weights]:
    """`wrong_run` from the time on at which all signs are known to be right."""
    before = wrong_run(shape, seeds, device)
    times = settled(before)
    start = before.evaluate(times, torch.arange(seeds, device=times.device))
    return solved(before.flow, start, 1e4, device)


def barely_separable(samples: int, dimension: int, seed: int) -> Dataset:
    """y_i x_i = e_1 / 2 + noise across: separable, with y_i y_k x_i . x_k of both signs."""
    generator = torch.Generator().manual_seed(seed)
    signed = torch.randn(samples, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
    signed[:, 0] = 0.5
    labels = 1.0 - 2.0 * (torch.arange(samples) % 2)
    return Dataset(labels.unsqueeze(-1) * signed, labels)


class Pair(NamedTuple):
    """Two neurons along one direction x: b, the sides of the kink that they start on, c_j, and how long they go on."""

    feedback: tuple[float, float]
    sides: tuple[int, int]
    gap: float
    t_final: float


APART = Pair((1.0, -1.0), (1, -1), 1e-4, 1e3)
"""One active and going on with x, R |b_j| G far; one inactive and going back, gamma margin |b_j| G far."""
FORWARD = Pair((1.0, 1.0), (1, 1), 1e-4, 1e3)
"""log(1/L) is nearly U(G)."""
RISING, SINKING = Pair((1.0, 1.0), (-1, -1), 0.05, 1e-5), Pair((1.0, 1.0), (1, 1), -0.05, 1e-5)
"""The risk falls as slowly as it may where signs are right, and rises as fast where they are wrong."""


@cache
def pair_run(
    pair: Pair, device: str, *, slope: float = SLOPE, loss: str = "exponential", descent: bool = False
) -> Solution[Weights]:
    """Two samples in one direction, of lengths 1 and 1.001: the claims are attained up to 0.1 %. Under GD v(0) = b."""
    direction, lengths = (torch.tensor(row, dtype=torch.float64) for row in ([[[0.6, 0.8]]], [[[1.0], [1.001]]]))
    feedback, sides = (torch.tensor([row], dtype=torch.float64) for row in (pair.feedback, pair.sides))
    hidden = 1e-4 * sides.unsqueeze(-1) * direction
    gaps = pair.gap * torch.tensor([[1.0, 1.01]], dtype=torch.float64)
    rule = GradientDescent() if descent else FeedbackAlignment(feedback)
    weights = Weights(hidden, feedback.clone()) if descent else with_gaps(hidden, rule, gaps)
    dataset = Dataset(lengths * direction, torch.ones(1, 2))
    return solved(Flow(dataset, rule, loss, slope), weights, pair.t_final, device)


def cases(scope: Scope) -> list[Case]:
    """All signs wrong at the start, to t = 1e8, and none; tight instances; controls for every hypothesis."""
    seeds, device = scope.seeds, scope.device
    shapes = [Shape(4, 5, 0.9), Shape(8, 20, 0.5), *([Shape(8, 50, 0.3), Shape(16, 20, 0.1)] if scope.full else [])]

    def control(label: str, claims: Claims, run: Callable[[], Solution], stated: bool = True) -> Case:
        return Case(_statement(claims, stated), label, "control", [run])

    tight = [partial(pair_run, pair, device) for pair in (APART, FORWARD, RISING, SINKING)]
    apart = partial(pair_run, APART, device)
    contradictory = partial(ensembles.margin_run, "contradictory", "fa", ensembles.SMALL, seeds, device)
    return [
        Case(
            STATEMENT, "FA, all signs wrong", "theorem", [partial(wrong_run, shape, seeds, device) for shape in shapes]
        ),
        Case(STATEMENT, "FA, c_j > 0", "theorem", ensembles.margin_runs(scope, "separable", "fa")),
        Case(STATEMENT, "sign-FA, c_j > 0", "theorem", ensembles.margin_runs(scope, "separable", "sign-fa")),
        Case(STATEMENT, "FA, tight", "theorem", tight),
        control("1.01 gamma margin", Claims(lower=scaled(1.01, slope_times_margin)), apart, stated=False),
        control("0.99 R", Claims(upper=scaled(0.99, largest_norm)), apart, stated=False),
        control("gamma = 0", Claims(lower=scaled(SLOPE, svm_margin)), partial(apart, slope=0.0)),
        control("contradictory labels", Claims(lower=scaled(0.1, largest_norm)), contradictory),
        control("logistic loss", Claims(), partial(apart, loss="logistic")),
        control("GD, b = v(0)", Claims(), partial(apart, descent=True)),
    ]
