"""A problem in rational numbers, and the constants of the statements on it, exactly: nothing here is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Literal

from flint import fmpq, fmpq_mat

from flowsim.enclosure.enclosure import Enclosure
from flowsim.enclosure.exact import exact_problem
from flowsim.enclosure.run import enclose_problem

Vector = tuple[Fraction, ...]
Rule = Literal["FA", "sign-FA", "GD"]


@dataclass(frozen=True)
class Instance:
    """A two-layer network, its data and its rule: FA with `feedback`, sign-FA with `scale`, else GD."""

    inputs: tuple[Vector, ...]
    labels: tuple[int, ...]
    hidden: tuple[Vector, ...]
    output: Vector
    slope: Fraction
    t_final: Fraction
    loss: str = "exponential"
    feedback: Vector | None = None
    scale: Fraction | None = None

    @property
    def rule(self) -> Rule:
        """The name of the rule."""
        return "FA" if self.feedback is not None else "sign-FA" if self.scale is not None else "GD"

    @property
    def samples(self) -> int:
        """The number n of samples."""
        return len(self.labels)

    @property
    def width(self) -> int:
        """The number m of neurons."""
        return len(self.output)

    @cached_property
    def gram(self) -> tuple[Vector, ...]:
        """K = X X^T."""
        return tuple(tuple(inner(left, right) for right in self.inputs) for left in self.inputs)

    @cached_property
    def signed_gram(self) -> tuple[Vector, ...]:
        """M_ik = y_i y_k x_i . x_k."""
        y = self.labels
        return tuple(tuple(y[i] * y[k] * entry for k, entry in enumerate(row)) for i, row in enumerate(self.gram))

    @property
    def kappa(self) -> Fraction:
        """The smallest M_ik: the data are kappa-orthogonally separable (Definition 5.5) if it is positive."""
        return min(min(row) for row in self.signed_gram)

    @property
    def squared_radius(self) -> Fraction:
        """R^2 = min_i |x_i|^2."""
        return min(self.gram[i][i] for i in range(self.samples))

    @property
    def rho(self) -> Fraction:
        """The smallest rho with |x_i . x_k| <= rho R^2 / n for i != k (Definition 5.6), if R > 0."""
        largest = max((abs(self.gram[i][k]) for i, k in combinations(range(self.samples), 2)), default=Fraction(0))
        return self.samples * largest / self.squared_radius

    @cached_property
    def squared_svm_margin(self) -> Fraction:
        """The square of the hard-margin SVM margin: the smallest p^T M p over the simplex, a rational number."""
        return least_norm(self.signed_gram)

    @cached_property
    def gaps(self) -> Vector:
        """The conserved c_j of the neurons, Psi(v_j) - |w_j|^2 / 2 (Theorem 5.2)."""
        return tuple(psi - inner(w, w) / 2 for psi, w in zip(self.potentials, self.hidden, strict=True))

    @property
    def potentials(self) -> Vector:
        """Psi(v_j): b_j v_j, s |v_j|, or v_j^2 / 2."""
        if self.feedback is not None:
            return tuple(b * v for b, v in zip(self.feedback, self.output, strict=True))
        if self.scale is not None:
            return tuple(self.scale * abs(v) for v in self.output)
        return tuple(v * v / 2 for v in self.output)

    @property
    def total_gap(self) -> Fraction:
        """S0 = sum_j c_j."""
        return sum(self.gaps, Fraction(0))


def inner(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    """The inner product."""
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def least_norm(matrix: Sequence[Sequence[Fraction]]) -> Fraction:
    """The smallest p^T M p over the simplex, for a positive semidefinite M.

    It is attained at a p whose support is affinely independent, and there M p is constant on the support and nowhere
    smaller. Supports are tried from the smallest on; n is small.

    >>> least_norm([[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]])
    Fraction(1, 2)
    """
    rows = [[fmpq(entry.numerator, entry.denominator) for entry in row] for row in matrix]
    supports = (some for size in range(1, len(rows) + 1) for some in combinations(range(len(rows)), size))
    for some in supports:
        size = len(some)
        border = [[*(rows[i][k] for k in some), fmpq(-1)] for i in some] + [[fmpq(1)] * size + [fmpq(0)]]
        left = fmpq_mat(size + 1, size + 1, [entry for row in border for entry in row])
        if left.det() == 0:  # affinely dependent
            continue
        solved = left.inv() * fmpq_mat(size + 1, 1, [fmpq(0)] * size + [fmpq(1)])
        shares, least = [solved[i, 0] for i in range(size)], solved[size, 0]
        if min(shares) < 0:
            continue
        if all(sum((row[k] * p for k, p in zip(some, shares, strict=True)), fmpq(0)) >= least for row in rows):
            return Fraction(int(least.p), int(least.q))
    raise AssertionError("a quadratic form has a smallest value on a simplex")


@lru_cache(maxsize=16)
def enclosed(instance: Instance, bits: int) -> Enclosure:
    """The run of an instance, enclosed once."""
    problem = exact_problem(
        instance.inputs,
        instance.labels,
        instance.hidden,
        instance.output,
        feedback=instance.feedback,
        scale=instance.scale,
        slope=instance.slope,
        loss=instance.loss,
    )
    return enclose_problem(problem, instance.t_final, bits=bits)
