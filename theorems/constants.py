"""The gaps c_j at the start, and the constants mu that Proposition 5.7 makes of them (section 7)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from flowsim.observables import conserved
from theorems.check import Hypothesis


def gaps_not_negative(solution: Solution) -> Hypothesis:
    """The hypothesis c_j >= 0 for all j, up to the rounding of |w_j|^2 / 2 as a sum of d squares."""
    start = solution.evaluate(0.0)
    norms = 0.5 * start.layers[0].square().sum(-1).amax(-1)
    rounding = 2 * start.layers[0].shape[-1] * torch.finfo(norms.dtype).eps * norms
    return Hypothesis("c_j >= 0", conserved(solution.flow, start)[0].amin(-1), rounding=rounding)


def total_gap(solution: Solution) -> Float[Tensor, "*batch"]:
    """S0 = sum_j c_j at the start."""
    return conserved(solution.flow, solution.evaluate(0.0))[0].sum(-1)


def mu_separable(solution: Solution) -> Float[Tensor, "*batch"]:
    """gamma^2 S0 kappa."""
    return solution.flow.slope**2 * total_gap(solution) * solution.flow.dataset.kappa


def mu_boundary(solution: Solution) -> Float[Tensor, "*batch"]:
    """gamma^2 S0 R^2 / n."""
    dataset = solution.flow.dataset
    return solution.flow.slope**2 * total_gap(solution) * dataset.squared_radius / dataset.samples


def mu_nearly_orthogonal(solution: Solution) -> Float[Tensor, "*batch"]:
    """S0 R^2 (gamma^2 - rho (n-1)/n) / n."""
    dataset, n = solution.flow.dataset, solution.flow.dataset.samples
    factor = solution.flow.slope**2 - dataset.rho * (n - 1) / n
    return total_gap(solution) * dataset.squared_radius * factor / n


def mu_svm(solution: Solution) -> Float[Tensor, "*batch"]:
    """gamma^2 S0 (SVM margin)^2, valid on all separable data; beyond the paper."""
    return solution.flow.slope**2 * total_gap(solution) * solution.flow.dataset.svm_margin.square()
