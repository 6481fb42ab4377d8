"""cos(v, b) in cleared form, without roots and quotients: what Proposition 5.3 and Lemma 5.4 claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowsim.enclosure.points import Point
from theorems.rigorous.claims import EnclosedRun, Hypothesis, Nonnegative, above_zero


def products(point: Point[Any]) -> tuple[Any, Any, Any]:
    """v.b, |v|^2 and |b|^2."""
    b, v, counts = point.feedback_merged, point.output_merged, point.counts
    zero = 0 * point.time
    vb, vv, bb = (
        sum((c * x * y for c, x, y in zip(counts, left, right, strict=True)), zero)
        for left, right in [(v, b), (v, v), (b, b)]
    )
    return vb, vv, bb


def cosine_at_least(bound: str, square: Callable[[Any], Any]) -> list[Nonnegative]:
    """The claims that make cos(v, b) >= bound: v.b >= 0 and (v.b)^2 >= |v|^2 times the square of |b| bound."""

    def excess(point: Point[Any]) -> Any:
        vb, vv, bb = products(point)
        return vb * vb - vv * square(bb)

    return [
        Nonnegative("v.b >= 0", [lambda point: products(point)[0]]),
        Nonnegative(f"cos(v, b)^2 >= ({bound})^2, cleared", [excess]),
    ]


def output_not_zero(run: EnclosedRun) -> Hypothesis:
    """The hypothesis that v, which has no direction at 0, is never 0."""
    return above_zero("v != 0", run.infimum(lambda point: products(point)[1]))
