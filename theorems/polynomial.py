"""Polynomials through the nodes of a piece of time (theorems/README.md, section 9).

What is observed on a piece is smooth, and is known at its Lobatto nodes. Everything here is a fixed matrix that is
applied to the values there.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NODES = 16
"""Lobatto nodes of a piece. In a step of the integrator outputs change by 3 at most, and polynomials of degree 15
follow e^u there, and its integrals to each node, to rounding; with 10 nodes these are off by 3e-9."""

LOW = 5
"""Degree up to which Bernstein coefficients are taken: they amplify rounding 2^degree times, about."""


def _interpolated(nodes: np.ndarray, at: np.ndarray, order: int) -> np.ndarray:
    """From values at nodes in [-1, 1] to integrals from -1 (order -1), or derivatives, of the polynomial there."""
    legendre = np.polynomial.legendre
    degree = len(nodes) - 1
    coefficients = np.linalg.inv(legendre.legvander(nodes, degree))
    changed = legendre.legint(coefficients, lbnd=-1) if order < 0 else legendre.legder(coefficients, order)
    return legendre.legvander(at, len(changed) - 1) @ changed


def _tables() -> tuple[np.ndarray, ...]:
    legendre = np.polynomial.legendre
    degree = NODES - 1
    inner = np.sort(legendre.Legendre.basis(degree).deriv().roots().real)
    nodes = np.concatenate([[-1.0], inner, [1.0]])
    coefficients = np.linalg.inv(legendre.legvander(nodes, degree))
    integrals = _interpolated(nodes, nodes, -1) / 2
    fewer = np.zeros_like(integrals)
    fewer[:, 1:-1] = _interpolated(inner, nodes, -1) / 2
    integrals[0] = fewer[0] = 0.0  # exactly: on a long piece rounding may be more than all that was integrated before
    places, powers = np.linspace(0, 1, LOW + 1), np.arange(LOW + 1)
    binomials = np.array([math.comb(LOW, k) for k in powers])
    bernstein = binomials * places[:, None] ** powers * (1 - places[:, None]) ** (LOW - powers)
    from_legendre = np.linalg.solve(bernstein, legendre.legvander(2 * places - 1, LOW))
    derivatives = 2 * _interpolated(nodes, nodes, 1)
    return (1 + nodes) / 2, integrals, fewer, derivatives, coefficients, from_legendre


PLACES, INTEGRALS, FEWER, DERIVATIVES, LEGENDRE, BERNSTEIN = (torch.from_numpy(table) for table in _tables())
"""Nodes in [0, 1]. Matrices from values there to integrals from 0 to each node, exact for degree 15; to the same by the
inner nodes alone, exact for degree 13, so that the difference of the two shows the error of the less exact; to
derivatives there; to Legendre coefficients. And from the first Legendre coefficients to Bernstein coefficients."""

INTEGRAL_ROUNDINGS = 64
"""Units of rounding, relative to the length of a piece and the largest value there, by which an integral to a node is
off besides what the rule is: up to 48 by the entries of a row of the table (40 were seen), 8 by the sum of products."""

AMPLIFIED = float((BERNSTEIN @ LEGENDRE[: LOW + 1]).abs().sum(1).max() + LEGENDRE[LOW + 1 :].abs().sum())
"""How many times the rounding of values may come out in their lower bound, at most."""


def lower_bound(values: Float[Tensor, "nodes columns"]) -> Float[Tensor, " columns"]:
    """A bound from below, over the whole piece, of the polynomials through the nodes.

    The smallest Bernstein coefficient of the part of low degree, less the sizes of the other Legendre coefficients, and
    less the rounding of all this. It is sharper the shorter the piece: halving a piece makes what is subtracted for
    degrees above LOW 2^(LOW + 1) times smaller.

    >>> values = (PLACES - 0.3).square().unsqueeze(-1)
    >>> bool(-0.1 < lower_bound(values) < 0)
    True
    """
    lowest = values.amin(0)  # taken off: rounding then is that of the changes within the piece
    change = values - lowest
    coefficients = LEGENDRE.to(values) @ change
    low, rest = coefficients.split([LOW + 1, len(values) - LOW - 1])
    rounding = torch.finfo(values.dtype).eps * (AMPLIFIED * change.amax(0) + lowest.abs())
    return lowest + (BERNSTEIN.to(values) @ low).amin(0) - rest.abs().sum(0) - rounding
