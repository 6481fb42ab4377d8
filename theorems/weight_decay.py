"""Weight decay lambda > 0, beyond the paper: what becomes of the conserved quantities (section 14.5).

    FA, sign-FA   c(t) = e^(-lambda t) c(0) + lambda int_0^t e^(-lambda (t-s)) |w(s)|^2 / 2 ds > e^(-lambda t) c(0)
    GD            c(t) = e^(-2 lambda t) c(0)

at every hidden neuron, with c = Psi - |w|^2 / 2 of Theorem 5.2.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import (
    FeedbackAlignment,
    Flow,
    GradientDescent,
    SignFeedbackAlignment,
    Solution,
    Weights,
    data,
)
from flowsim.activation import Tanh
from flowsim.initialization import gaussian, random_signs, with_gaps
from flowsim.integrators import LOOSER
from flowsim.rules import Rule
from theorems import ensembles
from theorems.check import Case, Statement
from theorems.ensembles import SMALL, Scope, any_run, any_runs, dataset_of, solved
from theorems.hypothesis import Hypothesis, fact, is_rule
from theorems.measurement import Claim, Compared
from theorems.observation import Observation
from theorems.theorem_5_2 import gaps, norms
from theorems.thresholds import EARLY
from theorems.validity import homogeneous

DECAY = 0.1


def since(seen: Observation) -> Float[Tensor, "nodes pieces 1"]:
    """Lambda t."""
    return seen.flow.decay * seen.times.unsqueeze(-1)


def gained(seen: Observation, rate: float = 1.0) -> Compared:
    """c(t) - e^(-rate lambda t) c(0) of all hidden neurons, and |Psi| + |w|^2 / 2 at 0 or t, the larger."""
    (now, size_now), (first, size_first) = (gaps(seen.flow, at) for at in (seen.weights, seen.start))
    return Compared(now - (-rate * since(seen)).exp() * first, torch.maximum(size_now, size_first))


def with_memory(seen: Observation) -> Compared:
    """The same less lambda int_0^t e^(-lambda (t-s)) |w(s)|^2 / 2 ds."""
    excess, size = gained(seen)
    return Compared(excess - seen.flow.decay * (-since(seen)).exp() * seen.integral, size)


def mean_norm(seen: Observation, rate: float = 1.0) -> Compared:
    """(c(t) - e^(-rate lambda t) c(0)) / (1 - e^(-lambda t)), and the sum of |Psi| + |w|^2 / 2.

    For rate = 1 a mean of |w|^2 / 2 over [0, t]. Where c(t) - c(0) is rounding, the limit t -> 0 stands for it.
    """
    excess, size = gained(seen, rate)
    limit = norms(seen.weights) + (rate - 1) * gaps(seen.flow, seen.start)[0]
    mean = torch.where(since(seen) <= EARLY, limit, excess / -torch.expm1(-since(seen)))
    return Compared(mean, size.sum(-1, keepdim=True).expand_as(mean))


def _setting(stated: bool, rules: tuple[type[Rule], ...], solution: Solution) -> list[Hypothesis]:
    return [
        is_rule(solution, *rules),
        homogeneous(solution),
        Hypothesis("lambda > 0", torch.tensor(solution.flow.decay, dtype=torch.float64), strict=True),
        fact("the rates and the integral as stated", stated),
    ]


def _statement(title: str, rules: tuple[type[Rule], ...], claims: list[Claim]) -> Statement:
    return Statement(
        name="weight_decay",
        title=f"Weight decay, {title}",
        formula=r"\mathrm{FA}, \mathrm{sign\text{-}FA}: \ "
        r"c(t) = e^{-\lambda t} c(0) + \lambda \int_0^t e^{-\lambda(t-s)} \tfrac12|w(s)|^2 ds, \qquad "
        r"\Psi(t) \ge e^{-\lambda t} c(0) + \tfrac12|w(t)|^2, \qquad \mathrm{GD}: \ c(t) = e^{-2 \lambda t} c(0)",
        hypotheses=partial(_setting, True, rules),
        claims=claims,
        rate=lambda seen: since(seen).exp() * norms(seen.weights),
        beyond=True,
        decay=True,
    )


FORGOTTEN = Claim("Psi(t) > e^(-lambda t) c(0) + |w(t)|^2 / 2", "inequality", mean_norm)
STATEMENT = _statement(
    "FA and sign-FA forget gaps and remember norms",
    (FeedbackAlignment, SignFeedbackAlignment),
    [
        Claim("c(t) = e^(-lambda t) c(0) + lambda int e^(-lambda (t-s)) |w|^2 / 2", "equality", with_memory),
        FORGOTTEN,
    ],
)
DESCENT = _statement(
    "GD forgets gaps twice as fast",
    (GradientDescent,),
    [Claim("c(t) = e^(-2 lambda t) c(0)", "equality", partial(gained, rate=2.0))],
)


def _misstated(statement: Statement, claim: Claim) -> Statement:
    """With another formula than the statement's."""
    rules = (GradientDescent,) if statement is DESCENT else (FeedbackAlignment, SignFeedbackAlignment)
    return replace(statement, hypotheses=partial(_setting, False, rules), claims=[claim])


@cache
def small_run(seeds: int, device: str) -> Solution[Weights]:
    """FA, c_j = -1/2 and small hidden weights, for a short time: what norms add to e^(-lambda t) c(0) is small."""
    dataset = data.stack([dataset_of("separable", SMALL, seed) for seed in range(seeds)])
    hidden = torch.stack([gaussian(SMALL.width, ensembles.DIMENSION, seed, scale=0.03).hidden for seed in range(seeds)])
    rule = FeedbackAlignment(torch.stack([random_signs(SMALL.width, seed) for seed in range(seeds)]))
    flow = Flow(dataset, rule, slope=SMALL.slope, decay=DECAY)
    return solved(flow, with_gaps(hidden, rule, -0.5), 0.01, device)


@cache
def other_decay_run(seeds: int, device: str) -> Solution:
    """FA with lambda = DECAY, which the solution's flow says to be 1 % larger."""

    def at(looser: float) -> Solution:
        known = any_run("fa", seeds, device, decay=DECAY)
        run = solved(known.flow, known.start, known.t_final, device, looser=looser)
        flow = replace(run.flow, decay=1.01 * DECAY)
        return replace(run, flow=flow, solve_looser=lambda: at(LOOSER * looser))

    return at(1.0)


def cases(scope: Scope) -> list[Case]:
    """Rules, losses, depths, slow and fast decay, a tight instance; the controls break rule, activation, rates."""
    seeds, device = scope.seeds, scope.device

    def runs(rule: ensembles.RuleName, decay: float = DECAY, **options: Any) -> Any:
        return any_runs(scope, rule, decay=decay, **options)

    def few(rule: ensembles.RuleName, **options: Any) -> Any:
        return [partial(any_run, rule, seeds, device, decay=DECAY, **options)]

    deep = {"hidden_layers": 2, "loss": "cross-entropy", "outputs": 3}
    equality = replace(STATEMENT, claims=STATEMENT.claims[:1])
    small = [partial(small_run, seeds, device)]
    faster = Claim("c(t) > e^(-1.01 lambda t) c(0)", "inequality", partial(mean_norm, rate=1.01))
    return [
        Case(STATEMENT, "FA, logistic", "theorem", runs("fa")),
        Case(STATEMENT, "FA, lambda = 1", "theorem", runs("fa", 1.0)),
        Case(STATEMENT, "sign-FA, 3 outputs, squared", "theorem", runs("sign-fa", loss="squared", outputs=3)),
        Case(STATEMENT, "FA, 3 layers, cross-entropy", "theorem", runs("fa", **deep)),
        Case(STATEMENT, "FA, c_j < 0, tight", "theorem", small),
        Case(DESCENT, "GD, exponential", "theorem", runs("gd", loss="exponential")),
        Case(_misstated(STATEMENT, faster), "FA, c_j < 0, 1.01 lambda", "control", small),
        Case(STATEMENT, "FA, the run decays 1 % less", "control", [partial(other_decay_run, seeds, device)]),
        Case(equality, "FA, tanh", "control", few("fa", activation=Tanh())),
        Case(equality, "GD in the place of FA", "control", few("gd", loss="exponential")),
        Case(
            _misstated(STATEMENT, Claim("c(t) = e^(-lambda t) c(0)", "equality", gained)),
            "FA, integral left out",
            "control",
            few("fa"),
        ),
        Case(
            _misstated(DESCENT, Claim("c(t) = e^(-1.98 lambda t) c(0)", "equality", partial(gained, rate=1.98))),
            "GD, 1 % slower",
            "control",
            few("gd", loss="exponential"),
        ),
    ]
