"""No plateau: under FA and sign-FA the loss halves in a time that no small initial weights prolong (section 14.4).

With G = int L, l_j = gamma margin |b_j| G - |w_j(0)|, S_low(G) = S0 + sum_j max(0, l_j)^2 / 2, Sigma = int_0^G S_low:

    FA, sign-FA   S(t) >= S_low(G) >= S_low(t L(t)),   1 - L(t)/L(0) >= gamma^2 margin^2 Sigma(t L(t))
    GD            |theta(t)|^2 <= |theta(0)|^2 exp(2 R G),  so that its time grows like log(1 / |theta(0)|)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize.elementwise import find_root
from torch import Tensor

from flowsim import (
    Dataset,
    FeedbackAlignment,
    Flow,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
    Solution,
    Weights,
    data,
)
from flowsim.initialization import adafa, gaussian, random_signs, with_gaps
from flowsim.rules import is_one_of
from theorems import ensembles
from theorems.check import Case, Statement, control
from theorems.constants import (
    Constant,
    Start,
    each,
    feedback_not_zero,
    gaps_not_negative,
    gaps_positive,
    largest_norm,
    scaled,
    separable,
    slope_times_margin,
    start_of,
    svm_margin,
    total_gap,
    total_gap_positive,
)
from theorems.ensembles import KAPPA, SLOPE, SMALL, WIDTH, RuleName, Scope, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, slope_positive, two_layers
from theorems.measurement import Claim, Compared, ratio
from theorems.observation import Observation
from theorems.proposition_5_7 import total_product
from theorems.thresholds import EARLY

HALF = 0.5
"""The loss whose time is bounded."""


class Lower(NamedTuple):
    """S_low and its integral, as functions of G; one entry per trajectory, or per piece.

    Args:
        speed: gamma margin |b_j|, at which |w_j| grows at least.
        norms: |w_j(0)|.
        total: S0.
        factor: gamma^2 margin^2.
    """

    speed: Float[Tensor, "*some m"]
    norms: Float[Tensor, "*some m"]
    total: Float[Tensor, "*some"]
    factor: Float[Tensor, "*some"]

    def product(self, clock: Float[Tensor, "*some"]) -> Float[Tensor, "*some"]:
        """S_low(G), which S is not below."""
        return self.total + 0.5 * self._grown(clock).square().sum(-1)

    def mean_product(self, clock: Float[Tensor, "*some"]) -> Float[Tensor, "*some"]:
        """Sigma(G) / G, the mean of S_low over [0, G]; at G = 0 its limit."""
        cubes = (self._grown(clock).pow(3) / (6 * self.speed)).sum(-1)
        return self.total + torch.where(clock > 0, cubes / clock, 0.0)

    def _grown(self, clock: Float[Tensor, "*some"]) -> Float[Tensor, "*some m"]:
        """max(0, l_j)."""
        return (clock.unsqueeze(-1) * self.speed - self.norms).clamp(min=0)


LowerOf = Callable[[Solution], Lower]


def lower(
    solution: Solution,
    *,
    pull: Constant = slope_times_margin,
    feedback: Callable[[Start], Float[Tensor, "ensemble m"]] = lambda start: start.feedback.abs(),
) -> Lower:
    """S_low of a run, with its own gamma margin and |b_j| if no others are presumed."""
    start, least = start_of(solution), pull(solution)
    return Lower(least.unsqueeze(-1) * feedback(start), start.norm, total_gap(solution), least.square())


def halving_claims(lower_of: LowerOf) -> list[Claim]:
    """S is not below S_low, nor 1/L - 1/L(0) below what follows for it; G(t) is at least t L(t)."""

    def product(seen: Observation) -> Compared:
        return ratio(total_product(seen), _of(lower_of, seen).product(seen.times * seen.risk))

    def descent(seen: Observation) -> Compared:
        """(1/L(t) - 1/L(0)) / t, as the mean of <grad, fa> / L^2: the difference is rounding for long."""
        known = _of(lower_of, seen)
        mean = torch.where(seen.times > 0, seen.integral / seen.times, seen.dominance(2))
        return ratio(mean, known.factor * known.mean_product(seen.times * seen.risk))

    return [
        Claim("S(t) > S_low(t L(t))", "inequality", product),
        Claim("1 - L(t)/L(0) > gamma^2 margin^2 Sigma(t L(t))", "inequality", descent),
    ]


def _of(lower_of: LowerOf, seen: Observation) -> Lower:
    """S_low of each piece's trajectory."""
    return Lower(*(seen.of(part) for part in lower_of(seen.solution)))


def _hypotheses(stated: bool, solution: Solution) -> list[Hypothesis]:
    setting = two_layers(solution, FeedbackAlignment, SignFeedbackAlignment)
    if not all_hold(setting):
        return setting
    return [
        *setting,
        has_loss(solution, "exponential"),
        slope_positive(solution),
        fact("constants as stated", stated),
        feedback_not_zero(solution),
        separable(solution),
        gaps_not_negative(solution) if is_one_of(solution.flow.rule, FeedbackAlignment) else gaps_positive(solution),
        total_gap_positive(solution),
    ]


def statement(lower_of: LowerOf = lower, *, stated: bool = True) -> Statement:
    """How fast the loss decreases under FA and sign-FA, with these constants."""
    return Statement(
        name="no_plateau",
        title="No plateau, the loss halves in a time that small weights do not prolong",
        formula=r"1 - \frac{L(t)}{L(0)} \ge \gamma^2 m_\ast^2 \int_0^{tL(t)} S_{\mathrm{low}}, \qquad "
        r"S_{\mathrm{low}}(G) = S_0 + \tfrac12 \sum_j \max(0, \gamma m_\ast |b_j| G - |w_j(0)|)^2",
        hypotheses=partial(_hypotheses, stated),
        claims=halving_claims(lower_of),
        rate=_ratio,
        constants=lambda solution: {
            "time to L = 1/2, at most": half_time_at_most(lower_of(solution), initial_loss(solution)),
            "time to L = 1/2": half_time(solution),
        },
        beyond=True,
    )


def _ratio(seen: Observation) -> Float[Tensor, "nodes pieces"]:
    """<grad, fa> / L^2, the rate of 1/L."""
    return seen.dominance(2)


def initial_loss(solution: Solution) -> Float[Tensor, " ensemble"]:
    """L(0)."""
    return each(solution, solution.flow.risk(solution.start))


def half_time_at_most(known: Lower, initial: Float[Tensor, " ensemble"]) -> Float[Tensor, " ensemble"]:
    """The time tau with gamma^2 margin^2 Sigma(tau / 2) = 1 - 1 / (2 L(0)); 0 where L(0) <= 1/2."""
    wanted = (1 - HALF / initial).clamp(min=0) / known.factor
    low, high = torch.zeros_like(wanted), wanted / (HALF * known.total)  # Sigma(G) >= S0 G
    for _ in range(110):  # from 1e17, where S0 is 1e-16
        middle = (low + high) / 2
        below = HALF * middle * known.mean_product(HALF * middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def half_time(solution: Solution) -> Float[Tensor, " ensemble"]:
    """The time at which L = 1/2, if L does not increase; 0 where it starts below, infinity where it ends above."""

    def excess(time: np.ndarray, whose: np.ndarray) -> np.ndarray:
        """L - 1/2 at times of some trajectories."""
        which = torch.from_numpy(whose)
        weights = solution.evaluate(torch.from_numpy(time), which)
        return (solution.flow_of(which).risk(weights) - HALF).cpu().numpy()

    whose = np.arange(solution.batch_shape.numel())
    start, end = np.zeros(len(whose)), solution.status.time.reshape(-1).cpu().numpy()
    first, last = excess(start, whose), excess(end, whose)
    found: Any = find_root(excess, (start, end), args=(whose,))
    time = np.where(first <= 0, 0.0, np.where(last > 0, np.inf, found.x))
    return torch.from_numpy(time).to(solution.flow.dataset.inputs.device)


# --- GD ---


def squared_weights(layers: Sequence[Tensor]) -> Float[Tensor, "*some"]:
    """|theta|^2."""
    return sum((layer.square().sum((-2, -1)) for layer in layers), torch.zeros(()))


def _descent_hypotheses(stated: bool, solution: Solution) -> list[Hypothesis]:
    setting = two_layers(solution, GradientDescent)
    if not all_hold(setting):
        return setting
    size = each(solution, squared_weights(solution.start.layers))
    return [
        *setting,
        has_loss(solution, "exponential"),
        Hypothesis("theta(0) != 0", size, strict=True),
        fact("constants as stated", stated),
    ]


def descent_statement(largest: Constant = largest_norm, *, stated: bool = True) -> Statement:
    """What is said of GD, with this R."""

    def grows_no_faster(seen: Observation) -> Compared:
        """The rate of log |theta|^2 in G, its mean since the start where that is more than rounding, below 2 R."""
        size, initial = squared_weights(seen.weights.layers), squared_weights(seen.start.layers)
        rate = 2 * sum(
            (w * u).sum((-2, -1)) for w, u in zip(seen.weights.layers, seen.velocity.layers, strict=True)
        ) / (size * seen.risk)  # fmt: skip
        early = (size / initial - 1).abs() <= EARLY
        mean = torch.where(early, rate, (size / initial).log() / seen.integral)
        most = 2 * seen.of(largest(seen.solution)).expand_as(mean)
        return Compared((most - mean).unsqueeze(-1), most.unsqueeze(-1))

    return Statement(
        name="no_plateau",
        title="No plateau, GD grows exponentially at most",
        formula=r"|\theta(t)|^2 \le |\theta(0)|^2 e^{2 R G(t)}, \qquad R = \max_i |x_i|, \qquad "
        r"L(t) \le \tfrac12 \ \Rightarrow\ t \ge \frac{1}{2 R L(0)} \log\frac{2 \log 2}{R |\theta(0)|^2}",
        hypotheses=partial(_descent_hypotheses, stated),
        claims=[Claim("|theta(t)|^2 < |theta(0)|^2 exp(2 R G(t))", "inequality", grows_no_faster)],
        rate=lambda seen: seen.risk,
        constants=lambda solution: {
            "time to L = 1/2, at least": half_time_at_least(solution, largest),
            "time to L = 1/2": half_time(solution),
        },
        beyond=True,
    )


def half_time_at_least(solution: Solution, largest: Constant = largest_norm) -> Float[Tensor, " ensemble"]:
    """log(2 log 2 / (R |theta(0)|^2)) / (2 R L(0)), for GD."""
    R, size = largest(solution), each(solution, squared_weights(solution.start.layers))
    return (2 * math.log(2) / (R * size)).log().clamp(min=0) / (2 * R * initial_loss(solution))


STATEMENT, DESCENT = statement(), descent_statement()


# --- runs ---

SCALES = (1e-1, 1e-2, 1e-4, 1e-8)
T_FEEDBACK, T_DESCENT = 8.0, 60.0


@cache
def scaled_run(rule: RuleName, scale: float, seeds: int, device: str, t_final: float) -> Solution[Weights]:
    """Weights of the size of the scale, |b_j| = 1 under FA and sign-FA, on orthogonally separable data.

    c_j = scale^2 under FA and sign-FA; |v_j| = 2 scale under GD and adaFA, so that c_j > 0.
    """
    dataset = data.stack([ensembles.dataset_of("separable", SMALL, seed) for seed in range(seeds)])
    hidden = scale * torch.stack([gaussian(WIDTH, dataset.dimension, seed).hidden for seed in range(seeds)])
    signs = torch.stack([random_signs(WIDTH, seed) for seed in range(seeds)])
    small = Weights(hidden, 2 * scale * signs)
    rules: dict[RuleName, Rule] = {
        "gd": GradientDescent(),
        "fa": FeedbackAlignment(signs),
        "adafa": adafa(small),
        "sign-fa": SignFeedbackAlignment(1.0),
    }
    learning = rules[rule]
    if rule in ("fa", "sign-fa"):
        small = with_gaps(hidden, learning, scale**2, signs if rule == "sign-fa" else None)
    return solved(Flow(dataset, learning, slope=SLOPE), small, t_final, device)


@cache
def tight_run(
    rule: Literal["fa", "gd"], device: str, *, slope: float, start: float, gap: float, t_final: float,
    feedback: float = 1.0, loss: str = "exponential",
) -> Solution[Weights]:  # fmt: skip
    """Inputs 1 and 0.999 of the real line, labels +1, all w_j = start."""
    dataset = Dataset(torch.tensor([[[1.0], [0.999]]]), torch.ones(1, 2))
    hidden = torch.full((1, WIDTH, 1), start, dtype=torch.float64)
    learning = GradientDescent() if rule == "gd" else FeedbackAlignment(torch.full((1, WIDTH), feedback))
    return solved(Flow(dataset, learning, loss, slope), with_gaps(hidden, learning, gap), t_final, device)


def at_rest(device: str, *, slope: float = SLOPE, loss: str = "exponential") -> Solution[Weights]:
    """Inactive neurons that hardly move: S stays near S0, and the least of all that is bounded is attained to 0.5 %."""
    return tight_run("fa", device, slope=slope, start=-0.01, gap=0.05, t_final=1e-3, loss=loss)


def from_almost_zero(device: str) -> Solution[Weights]:
    """Linear neurons that grow to 1e4 times what they start from before the loss moves: S attains S_low to 0.5 %."""
    return tight_run("fa", device, slope=1.0, start=1e-6, gap=1e-12, t_final=1.0, feedback=0.01)


def balanced(device: str) -> Solution[Weights]:
    """GD with v_j a little more than w_j: |theta| grows as fast as it may."""
    return tight_run("gd", device, slope=SLOPE, start=1e-3, gap=1e-8, t_final=20.0)


def cases(scope: Scope) -> list[Case]:
    """All initial scales; tight instances; controls for every hypothesis, each constant, and GD in FA's place."""
    seeds, device = scope.seeds, scope.device

    def from_all_scales(rule: RuleName) -> list[Callable[[], Solution]]:
        t_final = T_DESCENT if rule == "gd" else T_FEEDBACK
        return [partial(scaled_run, rule, scale, seeds, device, t_final) for scale in SCALES]

    rest, almost_zero, even = (partial(run, device) for run in (at_rest, from_almost_zero, balanced))
    linear = SMALL._replace(slope=1.0)
    contradictory = partial(ensembles.margin_run, "contradictory", "fa", linear, seeds, device, t_final=300.0)
    too_large = statement(partial(lower, pull=scaled(1.01, slope_times_margin)), stated=False)
    return [
        Case(STATEMENT, "FA, scales 1e-1 to 1e-8", "theorem", from_all_scales("fa")),
        Case(STATEMENT, "sign-FA, scales 1e-1 to 1e-8", "theorem", from_all_scales("sign-fa")),
        Case(STATEMENT, "FA, at rest, tight", "theorem", [rest]),
        Case(STATEMENT, "FA, from almost 0, tight", "theorem", [almost_zero]),
        Case(DESCENT, "GD, scales 1e-1 to 1e-8", "theorem", from_all_scales("gd")),
        Case(DESCENT, "GD, balanced, tight", "theorem", [even]),
        control("at rest, 1.01 margin", too_large, rest),
        control("from almost 0, 1.01 margin", too_large, almost_zero),
        control("gamma = 0", statement(_with_slope), partial(at_rest, device, slope=0.0)),
        control("one wrong sign", STATEMENT, partial(ensembles.one_wrong_sign_run, device)),
        control("logistic loss", STATEMENT, partial(at_rest, device, loss="logistic")),
        control("contradictory labels", statement(_with_margin), contradictory),
        control("GD in the place of FA", statement(_with_feedback), from_all_scales("gd")[2]),
        control("GD, 0.99 R", descent_statement(scaled(0.99, largest_norm), stated=False), even),
        control("FA in the place of GD", DESCENT, from_all_scales("fa")[2]),
    ]


def _with_slope(solution: Solution) -> Lower:
    """S_low as with gamma > 0."""
    return lower(solution, pull=scaled(SLOPE, svm_margin))


def _with_margin(solution: Solution) -> Lower:
    """S_low of the data without the input that is repeated: M_ik >= kappa, so the margin's square is at least kappa."""
    return lower(solution, pull=lambda run: torch.full_like(total_gap(run), run.flow.slope * KAPPA**0.5))


def _with_feedback(solution: Solution) -> Lower:
    """S_low as with |b_j| = 1."""
    return lower(solution, feedback=lambda start: torch.ones_like(start.feedback))
