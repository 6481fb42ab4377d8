"""Equation (1): dL/dt = -<grad, fa> = -|grad| |fa| cos(grad, fa) (section 2).

The check measures the integral form, L(t) - L(0) = -int_0^t <grad, fa> ds, with Gauss quadrature on every step.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from flowsim.observables import descent_factors
from theorems import problems
from theorems.check import Case, Claim, Statement, follows_its_rule, prescribed
from theorems.controls import DecayFlow

NODES = 10
"""Gauss-Legendre nodes between neighbouring edges, exact for polynomials of degree 19."""


def imbalance(solution: Solution, times: Tensor) -> Float[Tensor, "times *batch 1"]:
    """(L(t) - L(0) + int_0^t <grad, fa> ds) / L(0), with fa = the direction that the rule prescribes.

    The quadrature is split at the given times and at the events, where the integrand jumps. fa is that of `prescribed`.
    """
    flow = solution.flow
    positions, weights = (torch.as_tensor(part).to(times) for part in np.polynomial.legendre.leggauss(NODES))
    edges = torch.cat([times, solution.events.time]).unique()
    lengths = edges.diff()
    nodes = edges[:-1, None] + lengths[:, None] * (positions + 1) / 2
    products = descent_factors(flow, *prescribed(solution, nodes)).product
    pieces = torch.einsum("k,tk...,t->t...", weights, products, lengths / 2)
    integral = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])[torch.searchsorted(edges, times)]
    risk = flow.risk(solution.evaluate(times))
    return ((risk - risk[0] + integral) / risk[0]).unsqueeze(-1)


def factors(solution: Solution, times: Tensor) -> dict[str, Tensor]:
    """Extremes of the factors of Eq. (1) over the run, per trajectory."""
    weights, velocity = prescribed(solution, times)
    observed = descent_factors(solution.flow, weights, velocity)
    return {
        "min cos(grad, fa)": observed.cosine.amin(0),
        "min |grad|": observed.gradient_norm.amin(0),
        "min |fa|": observed.update_norm.amin(0),
    }


STATEMENT = Statement(
    name="equation_1",
    title="Equation (1), the descent identity",
    formula="dL/dt = -<grad, fa> = -|grad| |fa| cos(grad, fa)",
    hypotheses=lambda solution, times: [follows_its_rule(solution)],
    claims=[
        Claim(
            "L(t) - L(0) = -int <grad, fa> ds",
            "equality",
            imbalance,
        )
    ],
    constants=factors,
)


def cases(seeds: int, device: str) -> list[Case]:
    """FA, sign-FA and GD on crossing runs; the control adds weight decay."""

    def separable(rule: problems.MarginRule) -> Solution:
        return problems.margin_run("separable", rule, seeds, device)

    def vector(rule: problems.RuleName, loss: str) -> Solution:
        return problems.any_run(rule, seeds, device, loss=loss, outputs=3)

    def decaying() -> Solution:
        return problems.any_run("fa", seeds, device, flow_type=DecayFlow)

    return [
        Case(STATEMENT, "FA, separable", "theorem", lambda: separable("fa")),
        Case(STATEMENT, "sign-FA, separable", "theorem", lambda: separable("sign-fa")),
        Case(STATEMENT, "GD, 3 layers", "theorem", lambda: problems.any_run("gd", seeds, device, hidden_layers=2)),
        Case(STATEMENT, "FA, 3 outputs, cross-entropy", "theorem", lambda: vector("fa", "cross-entropy")),
        Case(STATEMENT, "sign-FA, 3 outputs, squared", "theorem", lambda: vector("sign-fa", "squared")),
        Case(STATEMENT, "FA with weight decay", "control", decaying),
    ]
