"""Kernel regime: what the weights at the start say of the whole run under FA with squared loss (section 14.10).

With H = (phi(z_ij)) at the start, sigma its smallest singular value, r = f - y at the start, |X| the spectral norm, and
lambda the largest solution of lambda <= (sigma - |X|^2 |b| |r| / lambda)^2 - |X|^2 N(lambda):

    any b        <grad, fa> >= (2 lambda / n) L,   L(t) <= L(0) exp(-2 lambda t / n)
    b = v(0)     sin of the angle between grad and fa <= |X| D / (sigma - |X|^2 |b| |r| / lambda)

D bounds |v(t) - v(0)|, and N what neurons with b_j v_j < 0 take away: (|v(0)| + D) |b|, or D^2 / 4 if b = v(0).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights
from flowsim.initialization import gaussian
from theorems import ensembles
from theorems.check import Case, Statement, control
from theorems.constants import each
from theorems.ensembles import SLOPE, Scope, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, two_layers
from theorems.measurement import Claim, Compared, ratio
from theorems.observation import Observation
from theorems.theorem_5_1 import mean_ratio

ROUNDS = 500
"""Of the iteration for lambda, which converges from above; slowly where there is hardly a solution."""

SURELY = 1 - 1e-9
"""The share of what the iteration comes to that is tried: lambda is what satisfies its inequality."""


class Bounds(NamedTuple):
    """What is known at the start, one number per trajectory; lambda is 0 where there is none.

    Args:
        rate: lambda.
        hidden: of |W(t) - W(0)|.
        output: of |v(t) - v(0)|.
        sine: of the angle between grad and fa, if b = v(0).
    """

    rate: Float[Tensor, " ensemble"]
    hidden: Float[Tensor, " ensemble"]
    output: Float[Tensor, " ensemble"]
    sine: Float[Tensor, " ensemble"]


BoundsOf = Callable[[Solution], Bounds]


@lru_cache(maxsize=16)
def bounds(solution: Solution) -> Bounds:
    """The largest lambda, and what follows from it."""
    flow, start = solution.flow, solution.start
    outputs, (z,) = flow.forward(start)
    singular = torch.linalg.svdvals(flow.activation(z)[0])
    largest, sigma = each(solution, singular[..., 0]), each(solution, _smallest(singular, z.shape))
    residual = each(solution, (outputs - flow.dataset.targets).flatten(-2).norm(dim=-1))
    inputs = each(solution, torch.linalg.matrix_norm(flow.dataset.inputs, 2))
    feedback = each(solution, flow.rule.feedback_matrices(start)[0].flatten(-2).norm(dim=-1))
    size = each(solution, start.layers[1].flatten(-2).norm(dim=-1))
    paired = is_paired(solution)

    def moved(rate: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of |W(t) - W(0)| and |v(t) - v(0)|."""
        hidden = inputs * feedback * residual / rate
        return hidden, (largest + inputs * hidden) * residual / rate

    def allowed(rate: Tensor) -> Tensor:
        hidden, output = moved(rate)
        taken = output.square() / 4 if paired else (size + output) * feedback
        return ((sigma - inputs * hidden).clamp(min=0).square() - inputs.square() * taken).clamp(min=0)

    rate = sigma.square()
    for _ in range(ROUNDS):
        rate = allowed(rate)
    rate = SURELY * rate
    rate = torch.where(rate <= allowed(rate), rate, 0.0)
    hidden, output = moved(rate)
    return Bounds(rate, hidden, output, inputs * output / (sigma - inputs * hidden))


def _smallest(singular: Float[Tensor, "*batch k"], shape: torch.Size) -> Float[Tensor, "*batch"]:
    """The smallest singular value of n rows, 0 if there are fewer columns."""
    return singular[..., -1] if shape[-2] <= shape[-1] else torch.zeros_like(singular[..., -1])


def is_paired(solution: Solution) -> bool:
    """Whether b = v(0): adaFA."""
    start = solution.start
    return bool((solution.flow.rule.feedback_matrices(start)[0] == start.layers[1]).all())


def descent_claims(bounds_of: BoundsOf) -> list[Claim]:
    """Dominance with alpha = 1, what Theorem 5.1 makes of it, and how little the weights move."""

    def mu(solution: Solution) -> Tensor:
        return 2 * bounds_of(solution).rate / solution.flow.dataset.samples

    def dominance(seen: Observation) -> Compared:
        return ratio(seen.factors.product, seen.of(mu(seen.solution)) * seen.risk)

    def decrease(seen: Observation) -> Compared:
        return ratio(mean_ratio(seen, 1), seen.of(mu(seen.solution)))

    def moved(layer: int, seen: Observation) -> Compared:
        limit = seen.of(bounds_of(seen.solution)[1 + layer]).square()
        change = (seen.weights.layers[layer] - seen.start.layers[layer]).square().sum((-2, -1))
        limit = limit.expand_as(change)
        return Compared((limit - change).unsqueeze(-1), limit.unsqueeze(-1))

    return [
        Claim("<grad, fa> > (2 lambda / n) L", "inequality", dominance, mu),
        Claim("L(t) < L(0) exp(-2 lambda t / n)", "inequality", decrease, mu),
        Claim("|W(t) - W(0)| < |X| |b| |r(0)| / lambda", "inequality", partial(moved, 0)),
        Claim("|v(t) - v(0)| < D", "inequality", partial(moved, 1)),
    ]


def cosine(solution: Solution) -> Float[Tensor, " ensemble"]:
    """sqrt(1 - sine^2)."""
    return (1 - bounds(solution).sine.square()).sqrt()


def angle_claim(name: str, least: Callable[[Solution], Float[Tensor, " ensemble"]]) -> Claim:
    """cos(grad, fa) above a constant."""

    def squared(seen: Observation) -> Compared:
        product, squares = seen.factors.product, (seen.factors.gradient_norm * seen.factors.update_norm).square()
        return ratio(product * product.abs(), seen.of(least(seen.solution)).square() * squares)

    return Claim(name, "inequality", squared, least, squares=True)


def _hypotheses(stated: bool, solution: Solution) -> list[Hypothesis]:
    setting = two_layers(solution, FeedbackAlignment)
    if not all_hold(setting):
        return setting
    return [
        *setting,
        has_loss(solution, "squared"),
        fact("constants as stated", stated),
        Hypothesis("lambda > 0", bounds(solution).rate, strict=True),
    ]


def _angle_hypotheses(solution: Solution) -> list[Hypothesis]:
    found = _hypotheses(True, solution)
    if not all_hold(found):
        return found
    small = Hypothesis("sine < 1", 1 - bounds(solution).sine, strict=True)
    return [*found, small, fact("b = v(0)", is_paired(solution))]


def statement(bounds_of: BoundsOf = bounds, *, stated: bool = True) -> Statement:
    """Dominance with alpha = 1, from the weights at the start, with these bounds."""
    return Statement(
        name="kernel_regime",
        title="Kernel regime, FA converges with a rate known at the start whatever the feedback",
        formula=r"\lambda \le \Big(\sigma - \frac{|X|^2|b||r(0)|}{\lambda}\Big)^2 - |X|^2 N(\lambda) "
        r"\quad\Rightarrow\quad L(t) \le L(0) e^{-2\lambda t/n}",
        hypotheses=partial(_hypotheses, stated),
        claims=descent_claims(bounds_of),
        constants=lambda solution: {"lambda": bounds_of(solution).rate},
        beyond=True,
    )


STATEMENT = statement()
ANGLE = Statement(
    name="kernel_regime",
    title="Kernel regime, adaFA stays close to the gradient",
    formula=r"\sin\angle(\mathrm{grad}, \mathrm{fa}) \le \frac{|X| D}{\sigma - |X|^2|b||r(0)|/\lambda}",
    hypotheses=_angle_hypotheses,
    claims=[angle_claim("cos(grad, fa) > sqrt(1 - sine^2)", cosine)],
    constants=lambda solution: {"sine": bounds(solution).sine},
    beyond=True,
)


@cache
def one_sample_run(device: str, *, feedback: float = 1.0, t_final: float = 0.02) -> Solution[Weights]:
    """One sample, 1024 neurons, small output weights, b = feedback v(0): for 1, lambda is attained up to 0.007 %."""
    weights = gaussian(1024, 2, 0)
    start = Weights(weights.hidden.unsqueeze(0), 0.1 * weights.output.unsqueeze(0))
    rule = FeedbackAlignment(feedback * start.output)
    return solved(Flow(Dataset(torch.tensor([[[1.0, 0.0]]]), [[1]]), rule, "squared", SLOPE), start, t_final, device)


def cases(scope: Scope) -> list[Case]:
    """Both kinds of feedback, a tight instance, and controls for every hypothesis and constant."""
    seeds, device = scope.seeds, scope.device

    def runs(paired: bool) -> list[Callable[[], Solution]]:
        return [partial(ensembles.kernel_run, width, paired, seeds, device) for width in WIDTHS]

    tight = partial(one_sample_run, device)
    long = partial(ensembles.kernel_run, 256, True, seeds, device, times=2.0, loss="exponential")
    return [
        Case(STATEMENT, "adaFA, m = 256 and 512", "theorem", runs(True)),
        Case(STATEMENT, "FA, independent B, m = 256 and 512", "theorem", runs(False)),
        Case(STATEMENT, "adaFA, one sample, tight", "theorem", [tight]),
        Case(ANGLE, "angle of adaFA, m = 256 and 512", "theorem", runs(True)),
        control("one sample, 1.01 lambda", statement(_too_large, stated=False), tight),
        control("feedback large and against v", statement(_presumed), partial(tight, feedback=-1e5, t_final=1e-4)),
        control("exponential loss", STATEMENT, long),
        control("angle, independent B", ANGLE, runs(False)[1]),
    ]


WIDTHS = (256, 512)


def _too_large(solution: Solution) -> Bounds:
    """With lambda 1 % larger."""
    known = bounds(solution)
    return known._replace(rate=1.01 * known.rate)


def _presumed(solution: Solution) -> Bounds:
    """What the run has with b = v(0)."""
    return bounds(one_sample_run(solution.start.layers[0].device.type))
