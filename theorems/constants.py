"""Constants of Proposition 5.7 and Lemma 5.4 (sections 6 and 7), one per trajectory of the flattened ensemble.

The gaps c_j at the start, what the proposition makes of them, and what goes beyond the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Solution
from flowsim.observables import conserved, rounding_of_gaps
from theorems.hypothesis import Hypothesis

Constant = Callable[[Solution], Float[Tensor, " ensemble"]]
"""What a statement takes from the data, the start and the rule, or measures along the run: one per trajectory."""


def scaled(factor: float, constant: Constant) -> Constant:
    """So many times the constant, for those who misstate it."""
    return lambda solution: factor * constant(solution)


def each(solution: Solution, values: Float[Tensor, "*batch"]) -> Float[Tensor, " ensemble"]:
    """One value per trajectory, of values that may be shared."""
    return values.expand(solution.batch_shape).reshape(-1)


def gaps_not_negative(solution: Solution, first: int = 0) -> Hypothesis:
    """The hypothesis c_j >= 0 for all j, up to the rounding of |w_j|^2 / 2 as a sum of d squares.

    In deep networks for all hidden layers, or those from the given one on.
    """
    gaps = torch.cat(conserved(solution.flow, solution.start)[first:], -1)
    rounding = torch.cat([rounding_of_gaps(layer) for layer in solution.start.layers[:-1][first:]], -1)
    return Hypothesis("c_j >= 0", gaps.amin(-1), rounding=rounding.amax(-1))


def gaps_positive(solution: Solution) -> Hypothesis:
    """The hypothesis c_j > 0 for all j: under sign-FA every v_j keeps its sign, and the run is one of FA."""
    return Hypothesis("c_j > 0", start_of(solution).gap.amin(-1), strict=True)


def total_gap_positive(solution: Solution) -> Hypothesis:
    """The hypothesis S0 = sum_j c_j > 0, by more than the rounding of the c_j."""
    rounding = each(solution, rounding_of_gaps(solution.start.layers[0]).sum(-1))
    return Hypothesis("S0 = sum c_j > 0", total_gap(solution), strict=True, rounding=rounding)


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


class Start(NamedTuple):
    """What a start brings: b_j, |w_j(0)| and the gap c_j of each neuron."""

    feedback: Float[Tensor, "rows m"]
    norm: Float[Tensor, "rows m"]
    gap: Float[Tensor, "rows m"]

    @property
    def shortfall(self) -> Float[Tensor, " rows"]:
        """C = sum_j max(0, -c_j): at all times the b_j v_j < 0 add up to no less than -C."""
        return (-self.gap).clamp(min=0).sum(-1)


@lru_cache(maxsize=16)
def start_of(solution: Solution) -> Start:
    """One row for each trajectory."""
    flow, start = solution.flow, solution.start
    norm = start.layers[0].norm(dim=-1)
    columns = flow.rule.feedback_matrices(start)[-1].squeeze(-2), norm, conserved(flow, start)[0]
    return Start(*(column.expand_as(norm).reshape(-1, norm.shape[-1]) for column in columns))


def feedback_not_zero(solution: Solution) -> Hypothesis:
    """The hypothesis b_j != 0 for all j."""
    return Hypothesis("b_j != 0", start_of(solution).feedback.abs().amin(-1), strict=True)


def slope_times_margin(solution: Solution) -> Float[Tensor, " ensemble"]:
    """gamma margin: |w_j(t) - w_j(0)| is at least so many times |b_j| G."""
    return solution.flow.slope * svm_margin(solution)


def largest_norm(solution: Solution) -> Float[Tensor, " ensemble"]:
    """R of section 14, max |x_i|: |w_j(t) - w_j(0)| is at most so many times |b_j| G."""
    return each(solution, solution.flow.dataset.inputs.norm(dim=-1).amax(-1))


def smallest_gram_eigenvalue(solution: Solution) -> Float[Tensor, " ensemble"]:
    """lambda_min(K) of the Gram matrix."""
    return each(solution, torch.linalg.eigvalsh(solution.flow.dataset.gram)[..., 0])


def separable(solution: Solution) -> Hypothesis:
    """The hypothesis that the data are linearly separable."""
    return Hypothesis("SVM margin > 0", svm_margin(solution), strict=True)


@lru_cache(maxsize=16)
def svm_margin(solution: Solution) -> Float[Tensor, " ensemble"]:
    """The hard-margin SVM margin of the data. Kept, since it is a small optimisation for each trajectory."""
    return each(solution, solution.flow.dataset.svm_margin)
