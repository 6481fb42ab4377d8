"""Losses of the margin u = y f in ball arithmetic: values, Taylor coefficients of g = -l'(u), and majorants.

A norm here is |a|_rho = sum_k |a_k| rho^k of a power series a. It is submultiplicative.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from typing import Any

from flint import arb

Terms = Generator[arb, arb, None]
"""Is sent the Taylor coefficients k = 0, 1, .. of u(t), and yields those of g(t), after a first `next`."""


@dataclass(frozen=True)
class MarginLoss:
    """l(u) and g = -l'(u), of numbers or series; the Terms of g; and a majorant.

    `majorant(u_0, distance)` is at least |g|_rho wherever |u - u_0|_rho <= distance; None if it knows none.
    """

    name: str
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    terms: Callable[[], Terms]
    majorant: Callable[[arb, arb], arb | None]


def _exponential_terms() -> Terms:
    """g' = -u' g, so k g_k = -sum_{l=1..k} l u_l g_{k-l}."""
    u = yield arb(0)
    weighted, g = [arb(0)], [(-u).exp()]
    for k in count(1):
        u = yield g[-1]
        weighted.append(-k * u)
        g.append(_last_term(weighted, g) / k)


def _logistic_terms() -> Terms:
    """g' = -u' h with h = g - g^2."""
    u = yield arb(0)
    weighted, g, h = [arb(0)], [1 / (1 + u.exp())], []
    for k in count(1):
        u = yield g[-1]
        weighted.append(-k * u)
        h.append(g[-1] - _last_term([arb(0), *g], g))
        g.append(_last_term(weighted, h) / k)


def _squared_terms() -> Terms:
    """G = 1 - u."""
    u = yield arb(0)
    u = yield 1 - u
    while True:
        u = yield -u


def _last_term(weighted: list[arb], factor: list[arb]) -> arb:
    """sum_{l=1..k} weighted_l factor_{k-l}."""
    total = arb(0)
    for left, right in zip(weighted[1:], reversed(factor), strict=True):
        total += left * right
    return total


def _logistic_majorant(u: arb, distance: arb) -> arb | None:
    """From 1 + e^u = (1 + e^{u_0}) + e^{u_0} (e^{u - u_0} - 1) and |e^{u - u_0} - 1|_rho <= e^distance - 1.

    Likewise with g = e^{-u} / (1 + e^{-u}); the smaller of the two where both are known.
    """
    growth = distance.exp()
    bounds = []
    for factor, power in [(arb(1), u.exp()), ((distance - u).exp(), (-u).exp())]:
        room = 1 + power * (2 - growth)
        if room > 0:
            bounds.append(factor / room)
    return min(bounds, key=lambda bound: bound.mid(), default=None)


LOSSES = {
    loss.name: loss
    for loss in (
        MarginLoss(
            "exponential",
            value=lambda u: (-u).exp(),
            slope=lambda u: (-u).exp(),
            terms=_exponential_terms,
            majorant=lambda u, distance: (distance - u).exp(),
        ),
        MarginLoss(
            "logistic",
            value=lambda u: (1 + (-u).exp()).log(),
            slope=lambda u: 1 / (1 + u.exp()),
            terms=_logistic_terms,
            majorant=_logistic_majorant,
        ),
        MarginLoss(
            "squared",  # (f - y)^2 / 2 = (u - 1)^2 / 2, as y^2 = 1
            value=lambda u: (u - 1) * (u - 1) / 2,
            slope=lambda u: 1 - u,
            terms=_squared_terms,
            majorant=lambda u, distance: abs(1 - u) + distance,
        ),
    )
}


def margin_loss(name: str) -> MarginLoss:
    """Return the loss of that name.

    Raises:
        ValueError: if there is none.

    >>> margin_loss("squared").slope(3)
    -2
    """
    if name not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)} to be enclosed, got {name!r}")
    return LOSSES[name]
