"""What came out: the table of all runs, that of the paper's appendix B.1, and the paper's claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from figures.experiments.claims import Claim, always, beyond_error
from figures.experiments.table import array_of, column, levels, over_repeats, table_of
from figures.noisy_digits.protocol import CLASSES, RULES, Protocol
from figures.noisy_digits.training import QUANTITIES, Records

DERIVED = ("deviation", "deviation_by_correction")
"""Of the quantity of appendix B.1 from 1, and what steps add to it by the formula of theorems/README.md, section 4."""

ROUNDING = 1e-10
"""A cosine falls if it does so by more."""


def tabulate(protocol: Protocol, records: Records) -> pd.DataFrame:
    """The table of all runs, the derived quantities included: they are NaN at epoch 0."""
    axes = {
        "rule": RULES, "width": protocol.widths, "repeat": range(protocol.repeats), "epoch": protocol.recorded,
    }  # fmt: skip
    return with_derived(table_of(records.permute(2, 4, 3, 0, 1).numpy(), axes, QUANTITIES))


def with_derived(table: pd.DataFrame) -> pd.DataFrame:
    """A table with what follows from its other columns."""
    gains = zip(DERIVED, ("conserved_gain", "correction"), strict=True)
    return table.assign(**{name: table[gain] / table["half_norm_gain"] for name, gain in gains})


def by_rule(table: pd.DataFrame, quantity: str) -> Mapping[str, NDArray]:
    """A quantity of the runs of each rule, `records x widths x repeats`."""
    return dict(zip(levels(table, "rule"), array_of(table, quantity, "rule", "epoch", "width", "repeat"), strict=True))


def median(values: NDArray) -> NDArray:
    """The median over training, from the first step on; of an even number of records the lower one in the middle.

    The mean of a deviation is dominated by records near which |W|^2 passes the value it started at: the quantity has a
    pole there.
    """
    return np.quantile(values[1:], 0.5, axis=0, method="lower")


def conservation_table(table: pd.DataFrame) -> Table:
    """The table of appendix B.1: mean absolute deviation from 1, mean and standard error over repeats."""
    shown = Table(title="Appendix B.1: mean |quantity - 1| over training, in 10⁻³")
    for name in ("width", *RULES):
        shown.add_column(name, justify="right")
    each = {rule: over_repeats(1e3 * abs(of[1:]).mean(0)) for rule, of in by_rule(table, "deviation").items()}
    for place, width in enumerate(levels(table, "width")):
        cells = [f"{each[rule].mean[place]:.2f} ± {each[rule].error[place]:.2f}" for rule in RULES]
        shown.add_row(str(width), *cells)
    return shown


def claims(table: pd.DataFrame) -> list[Claim]:
    """The qualitative claims of the paper's section 6.1, measured."""
    return [_narrow(table), _fixed(table), _correction(table), *_alignment(table), _over_parameterised(table)]


def _median_deviations(table: pd.DataFrame) -> Mapping[str, NDArray]:
    """Of each rule, `widths x repeats`."""
    return {rule: median(abs(deviation)) for rule, deviation in by_rule(table, "deviation").items()}


def _said(numbers: Mapping[str, float], digits: int) -> str:
    return ", ".join(f"{rule} {number:.{digits}f}" for rule, number in numbers.items())


def _narrow(table: pd.DataFrame) -> Claim:
    of, widths = _median_deviations(table), levels(table, "width")
    ratios = {rule: median[0].mean() / median[-1].mean() for rule, median in of.items()}
    return Claim(
        "conservation deviates more for small widths",
        f"median deviation at m = {widths[0]} over that at m = {widths[-1]}: {_said(ratios, 1)}",
        beyond_error(np.stack([median[0] - median[-1] for median in of.values()])),
    )


def _fixed(table: pd.DataFrame) -> Claim:
    of = {rule: median.mean(0) for rule, median in _median_deviations(table).items()}
    means = {rule: 1e3 * median.mean() for rule, median in of.items()}
    return Claim(
        "conservation deviates most for FA",
        f"median, mean over widths, in 10⁻³: {_said(means, 2)}",
        beyond_error(np.stack([of["FA"] - median for rule, median in of.items() if rule != "FA"])),
    )


def _correction(table: pd.DataFrame) -> Claim:
    rest = np.nanmax(abs(column(table, "deviation") - column(table, "deviation_by_correction")))
    share = f"all of it is the exact correction of discrete steps, but for {rest:.0e}"
    return Claim("deviations are consistent with the conservation law", share, always(rest < 1e-9))


def _alignment(table: pd.DataFrame) -> list[Claim]:
    of = by_rule(table, "alignment")
    fa, ada, sign = (of[rule] for rule in ("FA", "adaFA", "sign-FA"))
    gain = fa[-1] - fa[0]
    bound = (levels(table, "width")[:, np.newaxis] * CLASSES) ** -0.5
    below_peak = np.maximum.accumulate(sign) - sign
    falls = below_peak.max(0) > ROUNDING
    return [
        Claim(
            "alignment of FA improves",
            f"by {gain.min():.2f} to {gain.max():.2f}, from {fa[0].mean():.2f} on average",
            always(gain > 0),
        ),
        Claim(
            "adaFA keeps higher alignment than FA",
            f"at the end {ada[-1].mean():.2f} against {fa[-1].mean():.2f}; "
            f"the smallest difference at any time is {(ada - fa).min():.2f}",
            always(ada > fa),
        ),
        Claim(
            "sign-FA is non-monotone",
            f"falls at some time in {falls.mean():.0%} of the runs, to {below_peak.max():.3f} below its peak",
            "agrees" if falls.any() else "disagrees",
        ),
        Claim(
            "sign-FA is above 1/√N",
            f"at least {(sign / bound).min():.1f} times as large",
            always(sign > bound),
        ),
    ]


def _over_parameterised(table: pd.DataFrame) -> Claim:
    """The widest networks have no larger test loss than the narrowest, up to a standard error."""
    widths, last = levels(table, "width"), {rule: of[-1] for rule, of in by_rule(table, "test_loss").items()}
    numbers = ", ".join(f"{rule} {loss[0].mean():.2f} → {loss[-1].mean():.2f}" for rule, loss in last.items())
    rise, error = over_repeats(np.stack([loss[-1] - loss[0] for loss in last.values()]))
    return Claim(
        "over-parameterisation does not hurt",
        f"test loss from m = {widths[0]} to {widths[-1]}: {numbers}",
        always(rise <= error),
    )
