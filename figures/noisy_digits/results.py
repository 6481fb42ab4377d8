"""What came out: by quantity, as a tidy table, the table of the paper's appendix B.1, and its claims beside it."""

from __future__ import annotations

import csv
import io
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from figures.noisy_digits.protocol import CLASSES, RULES, Protocol
from figures.noisy_digits.training import QUANTITIES, Records

DERIVED = ("deviation", "deviation_by_correction")
"""Of the quantity of appendix B.1 from 1, and what steps add to it by the formula of theorems/README.md, section 4."""

LEVEL = 10
"""Alignment is said to fall where it does so by more than one part in 10^LEVEL between records."""


@dataclass(frozen=True, eq=False)
class Results:
    """The records of a protocol."""

    protocol: Protocol
    records: Records

    def __getitem__(self, quantity: str) -> Float[Tensor, "records rules repeats widths"]:
        """A quantity by its name, recorded or derived (NaN at epoch 0)."""
        if quantity in DERIVED:
            gain = "conserved_gain" if quantity == "deviation" else "correction"
            return self[gain] / self["half_norm_gain"]
        return self.records[:, QUANTITIES.index(quantity)]

    def of(self, quantity: str, rule: str) -> Float[Tensor, "records repeats widths"]:
        """A quantity of the runs of a rule."""
        return self[quantity][:, RULES.index(rule)]

    @property
    def mean_deviation(self) -> Float[Tensor, "rules repeats widths"]:
        """The mean over training of |quantity of B.1 - 1|, the paper's measure."""
        return self["deviation"][1:].abs().mean(0)

    @property
    def median_deviation(self) -> Float[Tensor, "rules repeats widths"]:
        """The median over training.

        The mean is dominated by records near which |W|^2 passes the value it started at: the quantity is 0/0 there.
        """
        return self["deviation"][1:].abs().median(0).values


class Statistic(NamedTuple):
    """Mean and standard error over repeats (NaN for a single one)."""

    mean: Tensor
    error: Tensor


def over_repeats(values: Float[Tensor, "*before repeats widths"]) -> Statistic:
    """Mean and standard error over the last dimension but one.

    >>> over_repeats(torch.tensor([[1.0], [3.0]]))
    Statistic(mean=tensor([2.]), error=tensor([1.]))
    """
    return Statistic(values.mean(-2), values.std(-2) / values.shape[-2] ** 0.5)


def write_csv(results: Results, path: Path) -> None:
    """One row for each run and record, numbers with all their digits; whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (*QUANTITIES, *DERIVED)
    writer.writerow(["rule", "width", "repeat", "epoch", *names])
    columns = torch.stack([results[name] for name in names], -1)
    protocol = results.protocol
    for (r, rule), (w, width), repeat in itertools.product(
        enumerate(RULES), enumerate(protocol.widths), range(protocol.repeats)
    ):
        for epoch, row in zip(protocol.recorded, columns[:, r, repeat, w].tolist(), strict=True):
            writer.writerow([rule, width, repeat, epoch, *map(repr, row)])
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def conservation_table(results: Results) -> Table:
    """The table of appendix B.1: mean absolute deviation from 1, mean and standard error over repeats."""
    table = Table(title="Appendix B.1: mean |quantity - 1| over training, in 10⁻³")
    for name in ("width", *RULES):
        table.add_column(name, justify="right")
    mean, error = over_repeats(results.mean_deviation)
    for place, width in enumerate(results.protocol.widths):
        cells = [
            f"{1e3 * m:.2f} ± {1e3 * e:.2f}"
            for m, e in zip(mean[:, place].tolist(), error[:, place].tolist(), strict=True)
        ]
        table.add_row(str(width), *cells)
    return table


class Claim(NamedTuple):
    """A claim of the paper's section 6.1, what was measured, and whether the one supports the other."""

    claim: str
    measured: str
    agrees: bool


def claims(results: Results) -> list[Claim]:
    """The paper's qualitative claims, measured."""
    return [_narrow(results), _fixed(results), _correction(results), *_alignment(results), _over_parameterised(results)]


def _narrow(results: Results) -> Claim:
    mean = results.median_deviation.mean(-2)
    first, last = mean[:, 0], mean[:, -1]
    ratios = ", ".join(f"{rule} {ratio:.1f}" for rule, ratio in zip(RULES, (first / last).tolist(), strict=True))
    widths = results.protocol.widths
    return Claim(
        "conservation deviates more for small widths",
        f"median deviation at m = {widths[0]} over that at m = {widths[-1]}: {ratios}",
        bool((first > last).all()),
    )


def _fixed(results: Results) -> Claim:
    mean = results.median_deviation.mean((-2, -1))
    largest = RULES[int(mean.argmax())]
    numbers = ", ".join(f"{rule} {1e3 * value:.2f}" for rule, value in zip(RULES, mean.tolist(), strict=True))
    return Claim("conservation deviates most for FA", f"median, in 10⁻³: {numbers}", largest == "FA")


def _correction(results: Results) -> Claim:
    rest = (results["deviation"] - results["deviation_by_correction"])[1:].abs().max()
    share = f"all of it is the exact correction of discrete steps, but for {rest:.0e}"
    return Claim("deviations are consistent with the conservation law", share, bool(rest < 1e-9))


def _alignment(results: Results) -> list[Claim]:
    fa, ada, sign = (results.of("alignment", rule) for rule in ("FA", "adaFA", "sign-FA"))
    gain = (fa[-1] - fa[0]).mean(0)
    widths = torch.tensor(results.protocol.widths, dtype=torch.float64)
    bound = (widths * CLASSES).rsqrt()
    fall = (sign[:-1] - sign[1:]).amax(0)
    fallen = (sign.cummax(0).values - sign).max()
    falling = (fall > 10.0**-LEVEL).double().mean().item()
    return [
        Claim(
            "alignment of FA improves",
            f"by {gain.min():.2f} to {gain.max():.2f}, from {fa[0].mean():.2f} on average",
            bool((gain > 0).all()),
        ),
        Claim(
            "adaFA keeps higher alignment than FA",
            f"at the end {ada[-1].mean():.2f} against {fa[-1].mean():.2f}; "
            f"the smallest difference at any time is {(ada - fa).min():.2f}",
            bool((ada > fa).all()),
        ),
        Claim(
            "sign-FA is non-monotone",
            f"falls at some time in {falling:.0%} of the runs, to {fallen:.3f} below its peak",
            falling > 0,
        ),
        Claim(
            "sign-FA is above 1/√N",
            f"at least {(sign / bound).min():.1f} times as large",
            bool((sign > bound).all()),
        ),
    ]


def _over_parameterised(results: Results) -> Claim:
    """The widest networks have no larger test loss than the narrowest."""
    mean, error = over_repeats(results["test_loss"][-1])
    worse = mean[:, -1] - mean[:, 0]
    numbers = ", ".join(f"{rule} {a:.2f} → {b:.2f}" for rule, a, b in zip(RULES, mean[:, 0], mean[:, -1], strict=True))
    widths = results.protocol.widths
    return Claim(
        "over-parameterisation does not hurt",
        f"test loss from m = {widths[0]} to {widths[-1]}: {numbers}",
        bool((worse < torch.hypot(error[:, 0], error[:, -1])).all()),
    )


def claims_table(found: list[Claim]) -> Table:
    """The claims beside what was measured."""
    table = Table(title="Claims of the paper's section 6.1")
    for name in ("the paper", "measured", ""):
        table.add_column(name)
    for claim in found:
        table.add_row(claim.claim, claim.measured, "agrees" if claim.agrees else "DISAGREES")
    return table
