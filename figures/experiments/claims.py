"""What a paper says beside what was measured: it agrees, disagrees, or is not decided by so many repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from figures.experiments.table import over_repeats

Verdict = Literal["agrees", "undecided", "disagrees"]


class Claim(NamedTuple):
    """A claim of a paper, what was measured, and whether the one supports the other."""

    claim: str
    measured: str
    verdict: Verdict


def always(holds: NDArray | np.bool) -> Verdict:
    """Of what has no error: it is seen in every run and record, or it is not.

    >>> always(np.array([True, False]))
    'disagrees'
    """
    return "agrees" if bool(np.all(holds)) else "disagrees"


def beyond_error(differences: NDArray) -> Verdict:
    """Whether all differences, with the repeats as their last dimension, are positive by more than a standard error.

    One that is negative by more than that suffices to disagree.

    >>> beyond_error(np.array([[2.0, 3.0], [0.1, -0.2]])), beyond_error(np.array([[2.0, 3.0], [-2.0, -3.0]]))
    ('undecided', 'disagrees')
    """
    mean, error = over_repeats(differences)
    if bool(np.all(mean > error)):
        return "agrees"
    return "disagrees" if bool(np.any(mean < -error)) else "undecided"


def claims_table(title: str, found: Sequence[Claim]) -> Table:
    """The claims beside what was measured."""
    table = Table(title=title)
    for name in ("the paper", "measured", ""):
        table.add_column(name)
    for claim in found:
        table.add_row(*claim)
    return table
