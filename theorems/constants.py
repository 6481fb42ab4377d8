"""Constants of Proposition 5.7 and Lemma 5.4 (sections 6 and 7), one per trajectory of the flattened ensemble.

The gaps c_j at the start, what the proposition makes of them, and what goes beyond the paper.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from flowsim.observables import conserved
from theorems.check import Hypothesis


def each(solution: Solution, values: Float[Tensor, "*batch"]) -> Float[Tensor, " ensemble"]:
    """One value per trajectory, of values that may be shared."""
    return values.expand(solution.batch_shape).reshape(-1)


def gaps_not_negative(solution: Solution) -> Hypothesis:
    """The hypothesis c_j >= 0 for all j, up to the rounding of |w_j|^2 / 2 as a sum of d squares."""
    start = solution.start
    norms = 0.5 * start.layers[0].square().sum(-1).amax(-1)
    rounding = 2 * start.layers[0].shape[-1] * torch.finfo(norms.dtype).eps * norms
    return Hypothesis("c_j >= 0", conserved(solution.flow, start)[0].amin(-1), rounding=rounding)


def total_gap(solution: Solution) -> Float[Tensor, " ensemble"]:
    """S0 = sum_j c_j at the start."""
    return each(solution, conserved(solution.flow, solution.start)[0].sum(-1))


def mu_separable(solution: Solution) -> Float[Tensor, " ensemble"]:
    """gamma^2 S0 kappa."""
    return solution.flow.slope**2 * total_gap(solution) * each(solution, solution.flow.dataset.kappa)


def mu_boundary(solution: Solution) -> Float[Tensor, " ensemble"]:
    """gamma^2 S0 R^2 / n."""
    dataset = solution.flow.dataset
    return solution.flow.slope**2 * total_gap(solution) * each(solution, dataset.squared_radius / dataset.samples)


def mu_nearly_orthogonal(solution: Solution) -> Float[Tensor, " ensemble"]:
    """S0 R^2 (gamma^2 - rho (n-1)/n) / n."""
    dataset, n = solution.flow.dataset, solution.flow.dataset.samples
    factor = solution.flow.slope**2 - dataset.rho * (n - 1) / n
    return total_gap(solution) * each(solution, dataset.squared_radius * factor / n)


def mu_svm(solution: Solution) -> Float[Tensor, " ensemble"]:
    """gamma^2 S0 (SVM margin)^2, valid on all separable data; beyond the paper."""
    return solution.flow.slope**2 * total_gap(solution) * svm_margin(solution).square()


@lru_cache(maxsize=16)
def svm_margin(solution: Solution) -> Float[Tensor, " ensemble"]:
    """The hard-margin SVM margin of the data. Kept, since it is a small optimisation for each trajectory."""
    return each(solution, solution.flow.dataset.svm_margin)
