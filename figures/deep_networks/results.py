"""What came out: the table of all runs, the paper's tables 1 and 2, its sentences, and what the law predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from figures.deep_networks.protocol import Setting
from figures.deep_networks.training import Records
from figures.experiments.claims import Claim, Verdict, always, beyond_error
from figures.experiments.table import array_of, column, levels, over_repeats

RUN = ["rule", "classes", "repeat"]
"""The columns that say which run it is."""

OWN = ("FA", "adaFA", "sign-FA")
"""The rules whose alignment is not 1 by definition."""

ROUNDING = 1e-4
"""What float32 may leave of the law, whose numbers are of size 1 to 100, after thousands of steps."""


def tabulate(found: Sequence[tuple[Setting, Records]]) -> pd.DataFrame:
    """The table of all runs: one that diverges ends at the epoch in which it does so."""
    parts = []
    for setting, records in found:
        which = {"rule": setting.rule, "classes": setting.classes, "repeat": setting.repeat}
        values = pd.DataFrame(records.values, columns=records.quantities).astype({"updates": int, "diverged": int})
        parts.append(pd.concat([pd.DataFrame({**which, "epoch": range(len(values))}), values], axis=1))
    return pd.concat(parts, ignore_index=True).copy()  # in one block: there are many columns


def layers_of(table: pd.DataFrame) -> list[str]:
    """The names of the layers with feedback, in order."""
    return [name.removeprefix("cosine ") for name in table.columns if name.startswith("cosine ")]


def predicted_cosine(table: pd.DataFrame, layer: str) -> NDArray:
    """The alignment of a layer as it follows from the norms one layer before; NaN where others read that, too.

    The conserved quantities add up to Psi - gain, with Psi = <W, B> under FA, adaFA and sign-FA, and half of it under
    gradient descent. So Psi is what it was at first, and the gain, and the correction of discrete steps.
    """
    factor = np.where(column(table, "rule") == "GD", 2.0, 1.0)
    first = table.groupby(RUN, sort=False)[f"product {layer}"].transform("first").to_numpy()
    product = first + factor * (column(table, f"gain {layer}") + column(table, f"correction {layer}"))
    return product / (column(table, f"weight_norm {layer}") * column(table, f"feedback_norm {layer}"))


# --- at equal epochs, and at equal updates ---

At = Callable[[pd.DataFrame, str], NDArray]
"""A quantity of all runs at some time, `rules x classes x repeats`; NaN of those that diverged before."""


def at_end(table: pd.DataFrame, quantity: str) -> NDArray:
    """After the last epoch."""
    return array_of(table, quantity, "rule", "classes", "repeat", "epoch")[..., -1]


def at_equal_updates(table: pd.DataFrame, quantity: str) -> NDArray:
    """After as many updates as the runs with the fewest classes end with, or the last epoch before that."""
    updates = array_of(table, "updates", "rule", "classes", "repeat", "epoch")
    fewest = np.nanmin(np.nanmax(updates[..., -1], (0, 2)))
    reached = (updates <= fewest).sum(-1, keepdims=True) - 1
    values = np.take_along_axis(array_of(table, quantity, "rule", "classes", "repeat", "epoch"), reached, -1)[..., 0]
    diverged = np.isnan(np.take_along_axis(updates, reached, -1)[..., 0]) | (reached[..., 0] < 0)
    return np.where(diverged, np.nan, values)


TIMES: dict[str, At] = {"equal epochs": at_end, "equal updates": at_equal_updates}


def accuracy_table(table: pd.DataFrame, title: str) -> Table:
    """Test accuracy after the last epoch in percent, mean and standard error over the repeats that did not diverge."""
    shown, accuracy = Table(title=title), at_end(table, "test_accuracy")
    shown.add_column("method")
    for classes in levels(table, "classes"):
        shown.add_column(f"{classes} classes", justify="right")
    for rule, of_rule in zip(levels(table, "rule"), accuracy, strict=True):
        shown.add_row(str(rule), *map(_accuracy, of_rule))
    return shown


def _accuracy(repeats: NDArray) -> str:
    left = repeats[~np.isnan(repeats)]
    lost = f" ({len(repeats) - len(left)} diverged)" if len(left) < len(repeats) else ""
    if not len(left):
        return "all diverged"
    mean, error = over_repeats(100 * left)
    return f"{mean:.1f} ± {error:.1f}{lost}" if len(left) > 1 else f"{mean:.1f}{lost}"


# --- the paper's sentences ---


def decided(differences: NDArray) -> Verdict:
    """As `beyond_error`, over the repeats in which no run diverged.

    >>> decided(np.array([[2.0, np.nan, 3.0]])), decided(np.array([[2.0, np.nan, np.nan]]))
    ('agrees', 'undecided')
    """
    lost = np.isnan(differences).any(tuple(range(differences.ndim - 1)))
    return beyond_error(differences[..., ~lost]) if (~lost).sum() > 1 else "undecided"


def claims(table: pd.DataFrame) -> list[Claim]:
    """The sentences of the paper's section 6.2 and appendix B.2; those about k at equal epochs and at equal updates."""
    found = []
    for when, at in TIMES.items():
        found += [each._replace(claim=f"{each.claim}, at {when}") for each in _about_classes(table, at)]
    return [*found, *_about_layers(table), _law(table)]


def _about_classes(table: pd.DataFrame, at: At) -> list[Claim]:
    classes = levels(table, "classes")
    between = f"from k = {classes[0]} to {classes[-1]}"
    return [*_about_accuracy(table, at, between), *_about_alignment(table, at, between)]


def _about_accuracy(table: pd.DataFrame, at: At, between: str) -> list[Claim]:
    rules, classes = levels(table, "rule"), levels(table, "classes")
    accuracy = dict(zip(rules, 100 * at(table, "test_accuracy"), strict=True))
    falls = {rule: of[0] - of[-1] for rule, of in accuracy.items()}
    ahead = accuracy["adaFA"] - accuracy["FA"]
    return [
        Claim(
            "accuracy declines with the number of classes",
            f"in points, {between}: {_each(falls, 1)}",
            decided(np.stack(list(falls.values()))),
        ),
        Claim(
            "sign-FA is more robust than adaFA",
            f"adaFA loses more, {between}, by {_said(falls['adaFA'] - falls['sign-FA'], 1)} points",
            decided(falls["adaFA"] - falls["sign-FA"]),
        ),
        Claim(
            "sign-FA stays competitive with backpropagation, more than adaFA",
            f"behind GD at k = {classes[-1]}: sign-FA {_said((accuracy['GD'] - accuracy['sign-FA'])[-1], 1)}, "
            f"adaFA {_said((accuracy['GD'] - accuracy['adaFA'])[-1], 1)} points",
            decided((accuracy["sign-FA"] - accuracy["adaFA"])[-1]),
        ),
        Claim(
            "the advantage of initialisation, adaFA over FA, diminishes with k",
            f"points ahead: {_said(ahead[0], 1)} at k = {classes[0]}, {_said(ahead[-1], 1)} at {classes[-1]}",
            decided(ahead[0] - ahead[-1]),
        ),
    ]


def _about_alignment(table: pd.DataFrame, at: At, between: str) -> list[Claim]:
    cosines = np.mean([at(table, f"cosine {layer}") for layer in layers_of(table)[1:]], 0)
    aligned = dict(zip(levels(table, "rule"), cosines, strict=True))
    loses = {rule: aligned[rule][0] - aligned[rule][-1] for rule in OWN}
    return [
        Claim(
            "alignment degrades as k grows",
            f"mean cosine of all layers but the first, {between}, falls by {_each(loses, 3)}",
            decided(np.stack(list(loses.values()))),
        ),
        Claim(
            "more so for FA, less for adaFA, least for sign-FA",
            f"FA by {_said(loses['FA'] - loses['adaFA'], 3)} more than adaFA, "
            f"adaFA by {_said(loses['adaFA'] - loses['sign-FA'], 3)} more than sign-FA",
            decided(np.stack([loses["FA"] - loses["adaFA"], loses["adaFA"] - loses["sign-FA"]])),
        ),
    ]


def _about_layers(table: pd.DataFrame) -> list[Claim]:
    """Of every layer but the first, through whose feedback nothing goes back."""
    names, rules = layers_of(table)[1:], list(levels(table, "rule"))
    cosine = np.stack([array_of(table, f"cosine {name}", "rule", "classes", "epoch", "repeat") for name in names])
    cosine = np.where(np.isnan(cosine[..., -1:, :]), np.nan, cosine)  # of runs that diverged, which is no alignment
    fa, ada = cosine[:, rules.index("FA")], cosine[:, rules.index("adaFA")]
    gain = fa[:, :, -1] - fa[:, :, 0]
    least, most = (names[place] for place in np.argsort(np.nanmean(gain, (1, 2)))[[0, -1]])
    nearest = np.nanmin(ada - fa)
    return [
        Claim(
            "alignment of FA improves over epochs, in all layers",
            f"on average by {', '.join(f'{name} {np.nanmean(of):.3f}' for name, of in _some(names, gain))}",
            decided(gain),
        ),
        Claim(
            "particularly in the output layer",
            f"most in {most}, least in {least}",
            decided(gain[-1] - gain[:-1]),
        ),
        Claim(
            "adaFA keeps higher alignment than FA",
            f"in every layer and at every time; the smallest difference is {nearest:.2f}"
            if nearest > 0
            else f"not always: the smallest difference is {nearest:.2f}",
            always(~(ada <= fa)),
        ),
    ]


def _some(names: list[str], gain: NDArray) -> list[tuple[str, NDArray]]:
    pairs = list(zip(names, gain, strict=True))
    return pairs if len(pairs) <= 6 else [pairs[0], pairs[len(pairs) // 2], pairs[-1]]


def _law(table: pd.DataFrame) -> Claim:
    drift, rest = (np.nanmax(column(table, name)) for name in ("drift", "rest"))
    verdict: Verdict = always(rest < ROUNDING)
    return Claim(
        "training is consistent with the conservation law",
        f"drift up to {drift:.2g}; the formula of discrete steps leaves at most {rest:.0e} of it in float32",
        verdict,
    )


def _said(repeats: NDArray, digits: int) -> str:
    left = repeats[~np.isnan(repeats)]
    if not len(left):
        return "nothing (all diverged)"
    mean, error = over_repeats(left)
    return f"{mean:.{digits}f}" if np.isnan(error) else f"{mean:.{digits}f} ± {error:.{digits}f}"


def _each(values: dict[str, NDArray], digits: int) -> str:
    return ", ".join(f"{rule} {_said(of, digits)}" for rule, of in values.items())
