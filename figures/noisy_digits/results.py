"""What came out: by quantity, as a tidy table, the table of the paper's appendix B.1, and its claims beside it."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from figures.noisy_digits.protocol import CLASSES, RULES, Protocol
from figures.noisy_digits.training import QUANTITIES, Records
from flowsim.files import whole

DERIVED = ("deviation", "deviation_by_correction")
"""Of the quantity of appendix B.1 from 1, and what steps add to it by the formula of theorems/README.md, section 4."""

ROUNDING = 1e-10
"""A cosine falls if it does so by more."""


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

        The mean is dominated by records near which |W|^2 passes the value it started at: the quantity has a pole there.
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
    with whole(path) as partial:
        partial.write_text(text.getvalue())


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


Verdict = Literal["agrees", "undecided", "disagrees"]


class Claim(NamedTuple):
    """A claim of the paper's section 6.1, what was measured, and whether the one supports the other."""

    claim: str
    measured: str
    verdict: Verdict


def claims(results: Results) -> list[Claim]:
    """The paper's qualitative claims, measured."""
    return [_narrow(results), _fixed(results), _correction(results), *_alignment(results), _over_parameterised(results)]


def _always(holds: Tensor) -> Verdict:
    """Of what has no error: it is seen in every run and record, or it is not."""
    return "agrees" if bool(holds.all()) else "disagrees"


def _beyond_error(difference: Float[Tensor, "repeats some"]) -> Verdict:
    """Whether all differences are positive by more than their standard error, or one is negative by more than that."""
    mean, error = over_repeats(difference)
    if bool((mean > error).all()):
        return "agrees"
    return "disagrees" if bool((mean < -error).any()) else "undecided"


def _each_rule(numbers: Float[Tensor, " rules"], digits: int) -> str:
    return ", ".join(f"{rule} {number:.{digits}f}" for rule, number in zip(RULES, numbers.tolist(), strict=True))


def _narrow(results: Results) -> Claim:
    median, widths = results.median_deviation, results.protocol.widths
    ratios = median[..., 0].mean(-1) / median[..., -1].mean(-1)
    return Claim(
        "conservation deviates more for small widths",
        f"median deviation at m = {widths[0]} over that at m = {widths[-1]}: {_each_rule(ratios, 1)}",
        _beyond_error((median[..., 0] - median[..., -1]).T),
    )


def _fixed(results: Results) -> Claim:
    median = results.median_deviation.mean(-1)
    others = [number for number, rule in enumerate(RULES) if rule != "FA"]
    return Claim(
        "conservation deviates most for FA",
        f"median, mean over widths, in 10⁻³: {_each_rule(1e3 * median.mean(-1), 2)}",
        _beyond_error((median[RULES.index("FA")] - median[others]).T),
    )


def _correction(results: Results) -> Claim:
    rest = (results["deviation"] - results["deviation_by_correction"])[1:].abs().max()
    share = f"all of it is the exact correction of discrete steps, but for {rest:.0e}"
    return Claim("deviations are consistent with the conservation law", share, _always(rest < 1e-9))


def _alignment(results: Results) -> list[Claim]:
    fa, ada, sign = (results.of("alignment", rule) for rule in ("FA", "adaFA", "sign-FA"))
    gain = fa[-1] - fa[0]
    bound = (torch.tensor(results.protocol.widths, dtype=torch.float64) * CLASSES).rsqrt()
    below_peak = sign.cummax(0).values - sign
    falls = below_peak.amax(0) > ROUNDING
    return [
        Claim(
            "alignment of FA improves",
            f"by {gain.min():.2f} to {gain.max():.2f}, from {fa[0].mean():.2f} on average",
            _always(gain > 0),
        ),
        Claim(
            "adaFA keeps higher alignment than FA",
            f"at the end {ada[-1].mean():.2f} against {fa[-1].mean():.2f}; "
            f"the smallest difference at any time is {(ada - fa).min():.2f}",
            _always(ada > fa),
        ),
        Claim(
            "sign-FA is non-monotone",
            f"falls at some time in {falls.double().mean():.0%} of the runs, to {below_peak.max():.3f} below its peak",
            "agrees" if bool(falls.any()) else "disagrees",
        ),
        Claim(
            "sign-FA is above 1/√N",
            f"at least {(sign / bound).min():.1f} times as large",
            _always(sign > bound),
        ),
    ]


def _over_parameterised(results: Results) -> Claim:
    """The widest networks have no larger test loss than the narrowest, up to a standard error."""
    loss, widths = results["test_loss"][-1], results.protocol.widths
    ends = zip(RULES, loss[..., 0].mean(-1), loss[..., -1].mean(-1), strict=True)
    numbers = ", ".join(f"{rule} {narrow:.2f} → {wide:.2f}" for rule, narrow, wide in ends)
    rise, error = over_repeats((loss[..., -1] - loss[..., 0]).T)
    return Claim(
        "over-parameterisation does not hurt",
        f"test loss from m = {widths[0]} to {widths[-1]}: {numbers}",
        _always(rise <= error),
    )


def claims_table(found: list[Claim]) -> Table:
    """The claims beside what was measured."""
    table = Table(title="Claims of the paper's section 6.1; differences count beyond one standard error")
    for name in ("the paper", "measured", ""):
        table.add_column(name)
    for claim in found:
        table.add_row(claim.claim, claim.measured, claim.verdict)
    return table
