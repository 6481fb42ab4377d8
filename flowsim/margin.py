"""The hard-margin SVM margin through the origin, verified (theorems/README.md, section 7).

It is the distance of 0 from the convex hull of the rows s_i = y_i x_i, the smallest |sum_i p_i s_i| over the simplex.
Three ways, of which the first is enough nearly always:

 1. Floating point finds p by nonnegative least squares, and refines it. With w = sum_i p_i s_i the margin lies between
    the primal value min_i s_i . w / |w| and the dual value |w|, both bounded with their rounding.
 2. Where 0 is inside a simplex of rows, that p > 0 is proved by a bound of its error.
 3. Elsewhere (thin margins, rows of very different lengths, 0 on the boundary of the hull) Wolfe's algorithm finds the
    point of least norm in exact arithmetic, on the integers that floating-point numbers are up to a common factor.
"""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

TOLERANCE = 1e-12
"""Largest distance of primal and dual value, relative to the dual one, for a margin found in floating point."""

WORK = 5e10
"""Bits that exact arithmetic may touch: about a minute."""

Extended = np.longdouble
"""For sums: it has more digits than float64 on x86. Bounds use its own rounding, whatever that is."""


class _Bounds(NamedTuple):
    lower: float
    upper: float


def hard_margin(rows: NDArray[np.float64]) -> float:
    """max_w min_i s_i . w / |w| for the rows s_i, rounded down; 0 if no w has s_i . w > 0 for all i.

    If it could not be verified, a UserWarning says between which bounds it lies, and the lower one is returned.

    Raises:
        ValueError: if the margin over- or underflows.

    >>> hard_margin(np.array([[1e-9, 2.0], [1e-9, -1.0]]))
    1e-09
    """
    if not rows.any(-1).all():
        return 0.0
    rows = rows[:, rows.any(0)]
    shift = int(np.frexp(np.abs(rows).max())[1])
    scaled = np.ldexp(rows, -shift)
    bounds = _Bounds(0.0, math.inf)
    weights = _least_squares(scaled)
    if np.array_equal(np.ldexp(scaled, shift), rows):  # no small entry was lost
        bounds = _bounds(scaled, _refined(scaled, weights))
        if bounds.upper - bounds.lower <= TOLERANCE * bounds.upper:
            return _rounded_down(Fraction(bounds.lower) * Fraction(2) ** shift)
        if _surround_zero(scaled[weights > 0]):
            return 0.0
    integers, exponent = _as_integers(rows)
    point = _point_of_least_norm(integers, weights)
    if point is None:
        low, high = (bound * 2.0**shift for bound in bounds)
        warnings.warn(
            f"svm_margin could not be verified: it lies between {low:.17g}, which is returned, and {high:.17g}",
            stacklevel=3,
        )
        return low
    square, denominator = point
    return _rounded_down(_square_root(square, denominator) * Fraction(2) ** exponent) if square else 0.0


def _least_squares(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """p up to scale: the minimiser of |S^T u|^2 + (sum u - 1)^2 over u >= 0."""
    n, d = scaled.shape
    try:
        return nnls(np.vstack([scaled.T, np.ones(n)]), np.append(np.zeros(d), 1.0))[0]
    except RuntimeError:  # it did not converge
        return np.full(n, 1 / n)


def _refined(scaled: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.floating]:
    """The weights after two corrections for the residual of S S^T u = c on their support, if they stay positive."""
    support = weights > 0
    rows, u = scaled[support].astype(Extended), weights[support].astype(Extended)
    triangle = np.linalg.qr(scaled[support].T)[1]
    if triangle.shape[0] < triangle.shape[1] or (np.diag(triangle) == 0).any():
        return weights
    level = (rows @ (u @ rows)).mean()
    for _ in range(2):
        residual = (level - rows @ (u @ rows)).astype(np.float64)
        half = solve_triangular(triangle, residual, trans=1, check_finite=False)
        u = u + solve_triangular(triangle, half, check_finite=False)
    refined = np.zeros(len(weights), dtype=Extended)
    refined[support] = u
    return refined if (u > 0).all() and np.isfinite(u).all() else weights


def _bounds(scaled: NDArray[np.float64], weights: NDArray[np.floating]) -> _Bounds:
    """The primal and the dual value at p = weights / sum, below and above by their rounding."""
    n, d = scaled.shape
    rounding = (n + d + 8) * np.finfo(Extended).eps
    lost = (n + d) * np.finfo(Extended).tiny
    rows = scaled.astype(Extended)
    p = weights / weights.astype(Extended).sum()
    separator = p @ rows
    norm = np.sqrt(np.square(separator).sum())
    length = np.sqrt(np.square(rows).sum(-1))
    products = rows @ separator - rounding * length * norm - lost
    upper = (norm + rounding * (p @ length) + lost) * (1 + rounding)
    lower = products.min() / norm * (1 - rounding) if norm > 0 else 0.0
    return _Bounds(max(float(np.nextafter(float(lower), -math.inf)), 0.0), float(np.nextafter(float(upper), math.inf)))


def _surround_zero(corners: NDArray[np.float64]) -> bool:
    """Whether 0 is provably inside the simplex with the given corners, one more than dimensions.

    Their p solves A p = (0, .., 0, 1) with A = [S^T; 1]. For an approximate p and inverse B, the error of p is at most
    |B| |r| / (1 - |I - B A|) with the residual r, each bounded with its rounding.
    """
    k, d = corners.shape
    if k != d + 1:
        return False
    matrix = np.vstack([corners.T, np.ones(k)])
    right = np.append(np.zeros(d), 1.0)
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return False
    p = inverse @ right
    rounding, lost = (k + 4) * np.finfo(float).eps, k * np.finfo(float).tiny
    size = np.abs(matrix)
    residual = np.abs(right - matrix @ p) + rounding * (size @ np.abs(p) + right) + lost
    off = (np.abs(np.eye(k) - inverse @ matrix) + rounding * (np.abs(inverse) @ size + 1) + lost).sum(-1).max()
    error = (np.abs(inverse) @ residual).max() * (1 + rounding)
    return bool(np.isfinite(error) and off < 0.5 and p.min() > 2 * error)


def _as_integers(rows: NDArray[np.float64]) -> tuple[NDArray[np.object_], int]:
    """Integers that are the rows up to a factor 2^exponent, and the exponent."""
    mantissa, exponent = np.frexp(rows)
    least = int(exponent[rows != 0].min())
    shifted = [
        int(m) << max(int(e) - least, 0)
        for m, e in zip(np.ldexp(mantissa, 53).ravel().tolist(), exponent.ravel().tolist(), strict=True)
    ]
    return np.array(shifted, dtype=object).reshape(rows.shape), least - 53


def _point_of_least_norm(rows: NDArray[np.object_], weights: NDArray[np.float64]) -> tuple[int, int] | None:
    """|q|^2 and the denominator D of the point q / D of least norm in the convex hull of integer rows.

    Wolfe (1976): `corral` is an affinely independent set of rows, `shares` the positive coefficients of a point of its
    hull. The point goes towards the point of least norm of the affine hull, and loses a row where it would leave the
    hull; then a row is added that has a smaller product with it, until there is none. None if it takes too long.
    """
    corral, shares = _started(weights)
    done = 0
    while True:
        gram = _products(rows[corral])
        done += len(corral) ** 4 * int(gram.trace()).bit_length()
        if done > WORK:
            return None
        aim, dependent = _affine_least(gram)
        if dependent is not None:
            del corral[dependent], shares[dependent]
            continue
        shares = _moved(shares, aim)
        keep = [index for index, share in enumerate(shares) if share]
        corral, shares = [corral[index] for index in keep], [shares[index] for index in keep]
        if min(aim) < 0:
            continue
        total = sum(shares)
        point = np.array(shares, dtype=object) @ rows[corral]
        square = int(point @ point)
        slack = total * (rows @ point) - square
        worst = int(np.argmin(slack))
        if square == 0 or slack[worst] >= 0:
            return square, total
        corral.append(worst)
        shares.append(0)


def _started(weights: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """The rows that floating point found, the heaviest first, and what it gave them, in integers."""
    share = np.ldexp(weights / weights.max(), 60) if weights.max() > 0 else np.ones(len(weights))
    order = [int(index) for index in np.argsort(-share, kind="stable") if share[index] >= 1]
    return order, [int(share[index]) for index in order]


def _products(rows: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.array([[int(left @ right) for right in rows] for left in rows], dtype=object)


def _affine_least(gram: NDArray[np.object_]) -> tuple[list[int], int | None]:
    """The coefficients, up to a positive factor, of the point of least norm in the affine hull of some rows.

    They solve (G + 1 1^T) u = 1, by elimination without fractions (Bareiss 1968). Its pivots are the leading minors,
    which are positive until a row depends on the earlier ones (affinely): the number of the first that does, or None.
    """
    k = len(gram)
    matrix = np.hstack([gram + 1, np.ones((k, 1), dtype=object)])
    previous = 1
    for step in range(k):
        pivot = matrix[step, step]
        if pivot == 0:
            return [], step
        below = slice(step + 1, None)
        matrix[below, below] = (
            pivot * matrix[below, below] - np.outer(matrix[below, step], matrix[step, below])
        ) // previous
        previous = pivot
    solution = np.zeros(k, dtype=object)
    for step in reversed(range(k)):
        known = matrix[step, step + 1 : k] @ solution[step + 1 :] if step + 1 < k else 0
        solution[step] = (previous * matrix[step, k] - known) // matrix[step, step]
    return [int(entry) for entry in solution], None


def _moved(shares: list[int], aim: list[int]) -> list[int]:
    """The coefficients as far on the way to `aim` as none of them is negative, without their common factor."""
    if min(aim) >= 0:
        moved = aim
    else:
        here, there = sum(shares), sum(aim)
        pairs = [(share * there, target * here) for share, target in zip(shares, aim, strict=True)]
        reach = min(Fraction(a, a - b) for a, b in pairs if b < 0)
        moved = [a * (reach.denominator - reach.numerator) + b * reach.numerator for a, b in pairs]
    common = math.gcd(*moved)
    return [share // common for share in moved]


def _square_root(square: int, denominator: int) -> Fraction:
    """sqrt(square) / denominator to 60 bits, rounded down."""
    digits = max(0, 64 + denominator.bit_length() - square.bit_length() // 2)
    return Fraction(math.isqrt((square << 2 * digits) // denominator**2), 2**digits)


def _rounded_down(value: Fraction) -> float:
    """The largest floating-point number that is not larger."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        size = value.numerator.bit_length() - value.denominator.bit_length()
        raise ValueError(
            f"inputs must be scaled: their SVM margin is about 2^{size}, which is not a float64; multiply them all by "
            f"2^{-size}"
        )
    return number if Fraction(number) <= value else math.nextafter(number, 0.0)
