"""Results: a table with one row for each run and recorded epoch, as a file of text with all digits.

Its first columns say which run it is (rule, width, repeat, ...) and which epoch; the others are what was measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flowsim.files import whole


class Statistic(NamedTuple):
    """Mean and standard error."""

    mean: NDArray
    error: NDArray


def over_repeats(values: NDArray) -> Statistic:
    """Mean and standard error over the last dimension (NaN for a single repeat).

    >>> over_repeats(np.array([1.0, 3.0]))
    Statistic(mean=np.float64(2.0), error=np.float64(1.0))
    """
    repeats = values.shape[-1]
    error = values.std(-1, ddof=1) / repeats**0.5 if repeats > 1 else np.full(values.shape[:-1], np.nan)[()]
    return Statistic(values.mean(-1), error)


def table_of(values: NDArray, axes: Mapping[str, Sequence], quantities: Sequence[str]) -> pd.DataFrame:
    """A table of an array with one dimension for each of the axes, and a last one for the quantities.

    >>> table_of(np.array([[[0.5]], [[0.25]]]), {"rule": ["GD", "FA"], "epoch": [0]}, ["loss"])
      rule  epoch  loss
    0   GD      0  0.50
    1   FA      0  0.25
    """
    index = pd.MultiIndex.from_product(list(axes.values()), names=list(axes))
    return pd.DataFrame(values.reshape(len(index), -1), index, list(quantities)).reset_index()


def array_of(table: pd.DataFrame, quantity: str, *axes: str) -> NDArray:
    """A quantity as an array with one dimension for each of the axes, in the table's order; NaN where there is no row.

    Raises:
        ValueError: if two rows are in the same place: there are more axes.

    >>> table = table_of(np.array([[[0.5]], [[0.25]]]), {"rule": ["GD", "FA"], "epoch": [0]}, ["loss"])
    >>> array_of(table, "loss", "epoch", "rule")
    array([[0.5 , 0.25]])
    """
    at = [levels(table, axis) for axis in axes]
    places = [np.argmax(column(table, axis)[:, np.newaxis] == level, 1) for axis, level in zip(axes, at, strict=True)]
    values = np.full(tuple(map(len, at)), np.nan)
    flat = np.ravel_multi_index(places, values.shape)
    if len(np.unique(flat)) < len(table):
        raise ValueError(f"axes must tell all rows apart, got {', '.join(axes)}")
    values.flat[flat] = column(table, quantity)
    return values


def levels(table: pd.DataFrame, axis: str) -> NDArray:
    """The different entries of a column, in the table's order."""
    return np.asarray(pd.unique(column(table, axis)))


def rows(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows with these entries.

    >>> table = table_of(np.array([[[0.5]], [[0.25]]]), {"rule": ["GD", "FA"], "epoch": [0]}, ["loss"])
    >>> rows(table, rule="FA", epoch=0)
      rule  epoch  loss
    1   FA      0  0.25
    """
    chosen = np.ones(len(table), bool)
    for name, entry in where.items():
        chosen &= column(table, name) == entry
    return table.loc[chosen]


def column(table: pd.DataFrame, name: str) -> NDArray:
    """A column as an array."""
    return np.asarray(table[name])


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as comma-separated values, numbers with all their digits; whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    with whole(path) as partial:
        table.to_csv(partial, index=False, na_rep="nan", lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """The table in a file, to the last bit."""
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame({name: _entries(text[name].tolist()) for name in text})


def _entries(texts: list[str]) -> list[int] | list[float] | list[str]:
    """Numbers, if they all are, as Python reads them: exactly."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return [kind(text) for text in texts]
    return texts
