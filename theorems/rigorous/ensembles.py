"""Small instances in rational numbers: entries are multiples of 1/64, so that hypotheses hold, or fail, exactly.

Every function returns one instance; those with a seed draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Literal

from theorems.rigorous.instance import Instance, Rule, Vector, inner

SLOPE, GAP, SCALE, UNIT = Fraction(3, 10), Fraction(1, 20), Fraction(1, 2), 64

Kind = Literal["separable", "boundary", "nearly orthogonal"]
TightKind = Literal["identical", "orthogonal", "simplex"]


def margin_instance(
    kind: Kind,
    rule: Rule,
    seed: int,
    *,
    samples: int = 4,
    width: int = 4,
    slope: Fraction = SLOPE,
    gap: Fraction = GAP,
    t_final: int = 30,
    loss: str = "exponential",
) -> Instance:
    """Data of the kinds of Proposition 5.7, and gaps c_j = gap exactly under FA and sign-FA."""
    random = Random(seed)
    labels = tuple(random.choice((-1, 1)) for _ in range(samples))
    signed = _signed_inputs(kind, samples, random, slope)
    hidden = _gaussian(random, width, samples + 1, Fraction(1, 3))
    signs = [Fraction(random.choice((-1, 1))) for _ in range(width)]
    instance = Instance(
        inputs=tuple(_scaled(Fraction(y), x) for y, x in zip(labels, signed, strict=True)),
        labels=labels,
        hidden=hidden,
        output=tuple(signs),
        slope=slope,
        t_final=Fraction(t_final),
        loss=loss,
        feedback=tuple(signs) if rule == "FA" else None,
        scale=SCALE if rule == "sign-FA" else None,
    )
    return with_gaps(instance, [gap] * width)


def with_gaps(instance: Instance, gaps: Sequence[Fraction]) -> Instance:
    """The instance with output weights that have the gaps given, under FA; the same with their signs under sign-FA."""
    factors = instance.feedback or [(instance.scale or 1) * (1 if v > 0 else -1) for v in instance.output]
    rows = zip(instance.hidden, factors, gaps, strict=True)
    return replace(instance, output=tuple((gap + inner(w, w) / 2) / b for w, b, gap in rows))


def _signed_inputs(kind: Kind, samples: int, random: Random, slope: Fraction) -> tuple[Vector, ...]:
    """y_i x_i, of samples + 1 entries.

    "boundary": orthogonal but for the first two, so that M_ik is 0 and positive. "nearly orthogonal": about half of
    the rho that is allowed.
    """
    d = samples + 1
    if kind == "separable":
        return tuple(tuple(Fraction(random.randint(8, UNIT), UNIT) for _ in range(d)) for _ in range(samples))
    rows = [[Fraction(0)] * d for _ in range(samples)]
    for i, row in enumerate(rows):
        row[i] = Fraction(random.randint(UNIT, 2 * UNIT), UNIT)
    if kind == "boundary":
        rows[0][1] = Fraction(1, 4)
    else:
        off = slope**2 / (2 * (samples - 1))  # below the square of what each has in a last direction
        size = Fraction(int(UNIT * float(off) ** 0.5), UNIT)
        for row in rows:
            row[-1] = random.choice((-1, 1)) * size
    return tuple(map(tuple, rows))


def gaussian_instance(
    rule: Rule | Literal["adaFA"],
    seed: int,
    *,
    samples: int = 5,
    dimension: int = 3,
    width: int = 3,
    t_final: int = 10,
    loss: str = "logistic",
    bias: bool = False,
) -> Instance:
    """Gaussian inputs, weights and feedback, arbitrary labels: runs that slide. With a bias the last input is 1."""
    random = Random(seed)
    inputs = _gaussian(random, samples, dimension, Fraction(1))
    hidden, (output, feedback) = _gaussian(random, width, dimension, Fraction(1, 2)), _gaussian(random, 2, width)
    return Instance(
        inputs=tuple((*row[:-1], Fraction(1)) for row in inputs) if bias else inputs,
        labels=tuple((-1) ** i for i in range(samples)),
        hidden=hidden,
        output=output,
        slope=SLOPE,
        t_final=Fraction(t_final),
        loss=loss,
        feedback={"FA": feedback, "adaFA": output}.get(rule),
        scale=SCALE if rule == "sign-FA" else None,
    )


def _gaussian(random: Random, rows: int, columns: int, scale: Fraction = Fraction(1)) -> tuple[Vector, ...]:
    return tuple(
        tuple(scale * Fraction(round(UNIT * random.gauss(0, 1)) or 1, UNIT) for _ in range(columns))
        for _ in range(rows)
    )


def linear_instance(t_final: int = 3) -> Instance:
    """A linear network from zero hidden weights, FA, squared loss."""
    wide = margin_instance("boundary", "FA", 0, slope=Fraction(1), loss="squared", t_final=t_final)
    zeros = tuple((Fraction(0),) * len(wide.inputs[0]) for _ in wide.output)
    return replace(wide, hidden=zeros, output=_scaled(Fraction(1, 2), wide.feedback or ()))


TIGHT: dict[TightKind, tuple[tuple[int | Fraction, ...], ...]] = {
    "identical": ((1,),) * 4,
    "orthogonal": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
    "simplex": ((1, 0), (Fraction(-3, 5), Fraction(4, 5))),
}
"""Inputs of length 1 on which the constants of Proposition 5.7 are attained: kappa = 1, orthogonal, rho = 6/5."""


def tight_instance(
    inputs: TightKind,
    *,
    near: Fraction = Fraction(1, 1000),
    slope: Fraction = SLOPE,
    gap: Fraction = GAP,
    loss: str = "exponential",
    rule: Rule = "FA",
) -> Instance:
    """One on which the constant of Proposition 5.7 is attained up to about near^2 / gap (theorems/README.md, 7).

    All labels are +1 and w_j = -near sum_i x_i, for a time `near`, so that all neurons stay inactive.
    """
    rows = tuple(tuple(map(Fraction, row)) for row in TIGHT[inputs])
    width = 6
    direction = [sum(column, Fraction(0)) for column in zip(*rows, strict=True)]
    ones = (Fraction(1),) * width
    instance = Instance(
        inputs=rows,
        labels=(1,) * len(rows),
        hidden=(_scaled(-near, direction),) * width,
        output=ones,
        slope=slope,
        t_final=near,
        loss=loss,
        feedback=ones if rule == "FA" else None,
        scale=SCALE if rule == "sign-FA" else None,
    )
    return with_gaps(instance, [gap] * width)


def one_wrong_sign() -> Instance:
    """S0 = sum_j c_j > 0, but c_1 < 0: neuron 1, alone active, moves against the data, and outweighs the others."""
    tight = tight_instance("identical")
    (w, *others) = tight.hidden
    turned = replace(tight, hidden=(_scaled(Fraction(-1), w), *others))
    return with_gaps(turned, [-2 * GAP, *[GAP] * len(others)])


def contradictory(rule: Rule) -> Instance:
    """An input repeated under the opposite label: 1/L is at most n/2, and mu t comes to be more."""
    data = margin_instance("boundary", rule, 1, samples=3, slope=Fraction(1), gap=Fraction(1, 2), t_final=10)
    first, _, last = data.inputs
    return replace(data, inputs=(first, first, last), labels=(data.labels[0], -data.labels[0], data.labels[2]))


def opposed(rule: Rule) -> Instance:
    """Nearly parallel inputs with both labels: rho is above gamma^2 n / (n-1), and the SVM margin small."""
    data = margin_instance("boundary", rule, 0, samples=2, slope=Fraction(1, 2), t_final=1)
    one, off = Fraction(1), Fraction(1, 16)
    small = tuple(_scaled(Fraction(1, 100), w) for w in data.hidden)
    data = replace(data, inputs=((one, off, 0 * one), (one, -off, 0 * one)), labels=(1, -1), hidden=small)
    return with_gaps(data, [GAP] * data.width)


def wrong_signs(seed: int) -> Instance:
    """FA with b_j v_j(0) < 0 for all j, for a short time."""
    return margin_instance("separable", "FA", seed, gap=Fraction(-1, 2), t_final=1)


def shrinking() -> Instance:
    """FA with b_j v_j(0) > 0 but c_j < 0: hidden weights start against the data, come near 0, and v_j changes sign."""
    data = margin_instance("boundary", "FA", 0, samples=3, t_final=10)
    unit = tuple(tuple(Fraction(y * (i == c)) for c in range(4)) for i, y in enumerate(data.labels))
    shares = (Fraction(-28, 100), Fraction(-30, 100), Fraction(-33, 100), Fraction(0))  # kinks are met one by one
    hidden = tuple(_scaled(b * Fraction(100 + j, 100), shares) for j, b in enumerate(data.feedback or ()))
    return with_gaps(replace(data, inputs=unit, hidden=hidden), [-GAP] * data.width)


def _scaled(factor: Fraction, row: Sequence[Fraction]) -> Vector:
    return tuple(factor * entry for entry in row)
