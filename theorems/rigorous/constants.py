"""Constants of Proposition 5.7 and hypotheses on gaps, exactly, under the names of `theorems.constants`."""

from __future__ import annotations

from fractions import Fraction

from theorems.rigorous.claims import EnclosedRun, Hypothesis, exactly
from theorems.rigorous.instance import Instance


def mu_separable(instance: Instance) -> Fraction:
    """gamma^2 S0 kappa."""
    return instance.slope**2 * instance.total_gap * instance.kappa


def mu_boundary(instance: Instance) -> Fraction:
    """gamma^2 S0 R^2 / n."""
    return instance.slope**2 * instance.total_gap * instance.squared_radius / instance.samples


def mu_nearly_orthogonal(instance: Instance) -> Fraction:
    """S0 R^2 (gamma^2 - rho (n-1)/n) / n."""
    n = instance.samples
    factor = instance.slope**2 - instance.rho * Fraction(n - 1, n)
    return instance.total_gap * instance.squared_radius * factor / n


def mu_svm(instance: Instance) -> Fraction:
    """gamma^2 S0 (SVM margin)^2, valid on all separable data; beyond the paper."""
    return instance.slope**2 * instance.total_gap * instance.squared_svm_margin


def gaps_not_negative(run: EnclosedRun) -> Hypothesis:
    """The hypothesis c_j >= 0 for all j."""
    return exactly("c_j >= 0", min(run.instance.gaps))


def total_gap_positive(run: EnclosedRun) -> Hypothesis:
    """The hypothesis S0 = sum_j c_j > 0."""
    return exactly("S0 = sum c_j > 0", run.instance.total_gap, strict=True)
