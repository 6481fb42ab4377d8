"""A function of local time: a polynomial in balls and a proved bound of the rest of its power series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from flint import arb, arb_poly


@dataclass(frozen=True)
class Disc:
    """Where the power series of a step converge: terms from `order` on are known by norms with weight `rho` only."""

    order: int
    rho: arb

    def remainder(self, tail: arb, reach: arb, derivative: int = 0) -> arb:
        """A bound of |sum_{l >= N} C(l, k) a_l t^(l-k)| for |t| <= reach if sum_{l >= N} |a_l| rho^l <= tail.

        C(l, k) x^(l-k) falls with l >= N where x = reach / rho <= (N + 1 - k) / (N + 1), so that it is at most
        tail rho^-k C(N, k) x^(N-k).
        """
        share = (reach / self.rho).upper()
        if not share * (self.order + 1) <= self.order + 1 - derivative:
            raise ArithmeticError(f"a series must not be asked beyond its disc, got {share} of its radius")
        return (tail * comb(self.order, derivative) * share ** (self.order - derivative) / self.rho**derivative).upper()

    def remainders(self, reach: arb, count: int) -> arb_poly:
        """The remainders of the first derivatives, as balls around 0, for a tail of 1."""
        return arb_poly([around_zero(self.remainder(arb(1), reach, k)) for k in range(count)])

    def deflated(self, times: int) -> Disc:
        """That of a series divided by a power of t."""
        return Disc(self.order - times, self.rho)


@dataclass(frozen=True)
class Curve:
    """sum_{k < N} a_k t^k, balls a_k, plus a remainder sum_{k >= N} a_k t^k with sum_{k >= N} |a_k| rho^k <= tail."""

    polynomial: arb_poly
    tail: arb
    disc: Disc

    def value(self, time: arb) -> arb:
        """The values at all times in a ball, in mean value form, so that balls grow by the speed alone."""
        middle = time.mid()
        value = self.polynomial(middle) + around_zero(self.disc.remainder(self.tail, abs(time).upper()))
        if time.is_exact():
            return value
        return value + self.polynomial.derivative()(time) * (time - middle)

    def coefficients(self, middle: arb, radius: arb, count: int) -> list[arb]:
        """Enclose the first Taylor coefficients about every time of [middle - radius, middle + radius]."""
        return coefficients_of([self], middle, [radius], count)[0][0]

    def shifted(self, middle: arb) -> arb_poly:
        """The polynomial in the time since the middle."""
        return self.polynomial if middle.is_zero() else self.polynomial(arb_poly([middle, 1]))

    def deflated(self, times: int) -> Curve:
        """The curve divided by t^times; it is known to have a zero of that order at 0."""
        if times == 0:
            return self
        return Curve(
            arb_poly(self.polynomial.coeffs()[times:]),
            (self.tail / self.disc.rho**times).upper(),
            self.disc.deflated(times),
        )


def around_zero(radius: arb) -> arb:
    """The ball [-radius, radius].

    >>> around_zero(arb(2)).contains(arb(-2))
    True
    """
    return arb(0, radius.upper())


def coefficients_of(curves: Sequence[Curve], middle: arb, radii: Sequence[arb], count: int) -> list[list[list[arb]]]:
    """`Curve.coefficients` of curves on the same disc, for each of several radii: what takes the time is done once.

    A shift by a ball around 0 leaves what a coefficient is at the middle, and adds how far it comes from there.
    """
    shifted, found = [curve.shifted(middle) for curve in curves], []
    for radius in radii:
        rests = curves[0].disc.remainders((abs(middle) + radius).upper(), count)
        spread = arb_poly([around_zero(radius), 1])
        wide = shifted if radius.is_zero() else [one(spread) for one in shifted]
        rows = (one + curve.tail * rests for one, curve in zip(wide, curves, strict=True))
        found.append([[row[k] for k in range(count)] for row in rows])
    return found


def combine(factors: Sequence[arb], curves: Sequence[Curve]) -> Curve:
    """sum_i factor_i curve_i, of curves on the same disc."""
    polynomial, tail = arb_poly([]), arb(0)
    for factor, curve in zip(factors, curves, strict=True):
        polynomial += factor * curve.polynomial
        tail += abs(factor).upper() * curve.tail
    return Curve(polynomial, tail.upper(), curves[0].disc)
