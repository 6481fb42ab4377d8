"""First roots of polynomials on the unit interval, none missed (flowsim/README.md, section 10)."""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from flowsim.integrators.event.tolerances import CONVERGED, FINEST, NEWTON


@cache
def _tabulate_binomials(degree: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """C(l, k) as rows l, columns k; and the matrix from monomial to Bernstein coefficients, C(i, k) / C(degree, k)."""
    rows = [[math.comb(row, column) for column in range(degree + 1)] for row in range(degree + 1)]
    pascal = torch.tensor(rows, dtype=torch.float64, device=device)
    return pascal, (pascal / pascal[-1]).T.contiguous()


@cache
def _list_exponents(degree: int, device: torch.device) -> Tensor:
    return torch.arange(degree + 1, dtype=torch.float64, device=device)


def list_powers(base: Float[Tensor, "*batch"], degree: int) -> Float[Tensor, "*batch terms"]:
    """1, x, x^2 .. x^degree.

    >>> list_powers(torch.tensor([2.0], dtype=torch.float64), 3)
    tensor([[1., 2., 4., 8.]], dtype=torch.float64)
    """
    return torch.linalg.vander(base, N=degree + 1)


def _shift(polynomials: Tensor, start: Tensor, width: Tensor) -> Tensor:
    """Coefficients of p(start + width s) in s."""
    degree = polynomials.shape[-1] - 1
    pascal, _ = _tabulate_binomials(degree, polynomials.device)
    exponent = torch.arange(degree + 1, device=start.device)
    gap = (exponent.unsqueeze(-1) - exponent).clamp(min=0)  # l - k
    matrix = pascal * list_powers(start, degree)[:, gap]
    return (polynomials.unsqueeze(-2) @ matrix).squeeze(-2) * list_powers(width, degree)


def find_earliest_roots(
    polynomials: Float[Tensor, "polynomials terms"], group: Int[Tensor, " polynomials"], groups: int, within: float
) -> Float[Tensor, " polynomials"]:
    """The first root in (0, 1] of each polynomial sum_k c_k t^k that is positive right of 0; infinity if there is none.

    Infinite, too, where it may be left out: `within` later than the first of its group, or more. Only the polynomial
    of each group whose root seems to be the first is solved at once; another one is solved only if it is not positive
    any more `within` after that root.

    The Bernstein coefficients on an interval have at least as many sign changes as the polynomial has roots there,
    and as many up to an even number: none means no root, one means one. Intervals with more are halved, from the
    left, so that a dip below 0 within the interval is found however short; two roots closer than FINEST count as a
    touch without a root.

    >>> polynomials = torch.tensor([[1.0, -5.0, 4.0], [1.0, -2.0, 0.0]], dtype=torch.float64)
    >>> find_earliest_roots(polynomials, torch.tensor([0, 0]), 1, 0.1)
    tensor([0.2500,    inf], dtype=torch.float64)
    """
    low, high = _bracket(polynomials)
    roots = torch.full_like(low, torch.inf)
    found = torch.nonzero(torch.isfinite(high)).squeeze(-1)
    if not found.numel():
        return roots
    polynomials, group, low, high = polynomials[found], group[found], low[found], high[found]
    constant, linear, quadratic = polynomials[:, :3].unbind(-1)
    guess = 2 * constant / ((linear.square() - 4 * constant * quadratic).sqrt() - linear)
    guess = torch.where((low < guess) & (guess < high), guess, high)
    first = guess == _find_least(guess, group, groups)
    roots[found[first]] = _refine(polynomials[first], low[first], high[first], guess[first])
    bound = _find_least(roots[found], group, groups) + within
    behind = (high <= bound) | ((polynomials * list_powers(bound, polynomials.shape[-1] - 1)).sum(-1) <= 0)
    behind &= ~first
    if behind.any():
        roots[found[behind]] = _refine(polynomials[behind], low[behind], high[behind], guess[behind])
    return roots


def _find_least(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """The least value of the group of each."""
    return values.new_full((groups,), torch.inf).scatter_reduce(0, group, values, "amin")[group]


def _bracket(polynomials: Tensor) -> tuple[Tensor, Tensor]:
    """An interval with one root, the first, for each polynomial; its right end is infinite if there is none."""
    _, bernstein = _tabulate_binomials(polynomials.shape[-1] - 1, polynomials.device)
    changes = _count_sign_changes(polynomials @ bernstein)
    start, width = torch.zeros_like(polynomials[:, 0]), torch.ones_like(polynomials[:, 0])
    high = torch.where(changes == 1, width, torch.inf)
    todo = torch.nonzero(changes > 1).squeeze(-1)
    width[todo] = 0.5
    while todo.numel():
        controls = _shift(polynomials[todo], start[todo], width[todo]) @ bernstein
        changes = _count_sign_changes(controls)
        a, w = start[todo], width[todo]
        # roots too close to be told apart were passed, and the last of an odd number of them is no touch: it is here
        behind = (a > 0) & (controls[:, 0] <= 0)
        single = (changes == 1) | behind
        high[todo[single]] = torch.where(behind, a, a + w)[single]
        # none: go on to the right, twice as wide; several: halve, unless too narrow to tell them apart
        passed = (changes == 0) | ((changes > 1) & (w <= FINEST))
        a = torch.where(passed, a + w, a)
        w = torch.where(passed, torch.minimum(2 * w, 1 - a), w / 2)
        w = torch.where(single, width[todo], w)
        start[todo], width[todo] = a, w
        todo = todo[~single & (a < 1)]
    return start, high


def _count_sign_changes(controls: Float[Tensor, "polynomials terms"]) -> Tensor:
    """How often the sign changes along each row; zeros count as negative, so that a root at 1 is found."""
    negative = controls <= 0
    return (negative[:, 1:] != negative[:, :-1]).sum(-1)


def _refine(polynomials: Tensor, low: Tensor, high: Tensor, guess: Tensor) -> Tensor:
    """Newton's method inside brackets with p(low) > 0 >= p(high), halved where Newton leaves them or is slow."""
    degree = polynomials.shape[-1] - 1
    slopes = functional.pad(polynomials[:, 1:] * _list_exponents(degree, low.device)[1:], (0, 1))
    both = torch.stack([polynomials, slopes], -2)
    time, step = guess, high - low
    done = torch.zeros_like(low, dtype=torch.bool)
    for _ in range(NEWTON):
        value, slope = (both @ list_powers(time, degree).unsqueeze(-1)).squeeze(-1).unbind(-1)
        positive = value > 0
        low, high = torch.where(positive, time, low), torch.where(positive, high, time)
        newton = time - value / slope
        good = (newton >= low) & (newton <= high) & ((newton - time).abs() <= 0.5 * step)
        following = torch.where(good, newton, 0.5 * (low + high))
        following = torch.where(done, time, following)
        step, time = (following - time).abs(), following
        done |= step <= CONVERGED * time
        if done.all():
            break
    return time
