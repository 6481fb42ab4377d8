"""Data sets from files: .npz, .csv, .parquet."""

from __future__ import annotations

import csv
import io
import math
import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.data import Dataset
from flowsim.extras import needed
from flowsim.files import opened
from flowsim.messages import first_line
from flowsim.npz import read_npz
from flowsim.validation import require_count, shown

LABEL = "label"
"""The column of labels where no other is named."""

MISSING = ("", "na", "n/a", "nan", "null")
"""What stands for a value that is missing, in either case."""

MOST_SHOWN, MOST_LETTERS = 10, 60
"""Names and values that an error or a line lists, and letters of each."""


class Table(NamedTuple):
    """The cells of a file with a header: text, or what a parquet file has."""

    path: str
    names: list[str]
    rows: Sequence[Sequence[Any]]
    places: list[str]
    """Where each row is, for errors."""


class Labelled(NamedTuple):
    """A data set, and which labels of its file became which.

    `values` are the labels of the file in the order of -1 and +1, or of the classes 0 .. k-1; empty where it has those.
    """

    dataset: Dataset
    column: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        """One line; empty where nothing became anything else.

        >>> str(Labelled(Dataset([[1.0], [2.0]], [-1, 1]), "species", ("setosa", "virginica")))
        'species: setosa is -1, virginica is +1'
        """
        if not self.values:
            return ""
        signs = self.dataset.classes is None
        became = ("-1", "+1") if signs else [f"class {number}" for number in range(len(self.values))]
        return f"{self.column}: {_listed([f'{v} is {b}' for v, b in zip(self.values, became, strict=True)])}"


def read_dataset(path: str | os.PathLike[str], label: str | None = None) -> Dataset:
    """Return the data set in a file, as `read_labelled` does, without saying which label became which.

    Raises:
        ValueError: as there.
        ImportError: as there.

    >>> read_dataset("missing.csv")
    Traceback (most recent call last):
        ...
    ValueError: missing.csv cannot be read: No such file or directory
    """
    return read_labelled(path, label).dataset


def read_labelled(path: str | os.PathLike[str], label: str | None = None) -> Labelled:
    """Return the data set in a file, and which of its labels became which.

    - .npz: the keys `inputs` (n, d) and `labels` (n) in {-1, +1}; with the key `classes` = k the labels are 0 .. k-1.
    - .csv: commas between the columns, a header, UTF-8. One column holds the labels, all others the inputs.
    - .parquet: likewise.

    Labels -1 and +1 are taken as they are, and of any other two values (numbers or text) the smaller one, or the first
    in the alphabet, becomes -1. With more than two values, whole numbers or text, they are the classes 0 .. k-1 in that
    order.

    Args:
        path: the file.
        label: the column of the labels, "label" if it is not given; for tables only.

    Raises:
        ValueError: if the file cannot be read, lacks the labels, or holds what is no number, naming column and row.
        ImportError: for .parquet, if pandas or pyarrow is not installed.
    """
    path = os.fspath(path)
    if not is_table(path):
        return of_arrays(read_arrays(path, label))
    table = READERS[Path(path).suffix.lower()](path)
    label = LABEL if label is None else label
    _require_sound(table, label)
    return _of_table(table, label)


def is_table(path: str) -> bool:
    """Whether a file is a table, by its ending.

    >>> is_table("iris.CSV"), is_table("iris.npz")
    (True, False)
    """
    return Path(path).suffix.lower() in READERS


def read_arrays(path: str, label: str | None = None, argument: str = "label") -> dict[str, NDArray]:
    """Return the arrays of an .npz file with a data set, which need not end in .npz.

    `argument` is what the user has given the label by.

    Raises:
        ValueError: if it is no such file, or a column is named.
    """
    if label is not None:
        raise ValueError(
            f"{argument} is for .csv and .parquet, got {label!r} for {path}: its labels are the key 'labels'"
        )
    if Path(path).suffix.lower() != ".npz" and os.path.isfile(path) and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} must end in .npz, {' or '.join(READERS)}, and be such a file")
    return read_npz(path, ("inputs", "labels"))


def of_arrays(arrays: Mapping[str, NDArray]) -> Labelled:
    """The data set in the arrays of an .npz file; errors as in `read_labelled`."""
    for key, dimensions in (("inputs", 2), ("labels", 1)):
        if arrays[key].ndim != dimensions:
            shape = "(n, d)" if key == "inputs" else "(n)"
            raise ValueError(f"{key} must have shape {shape}, got {arrays[key].shape}")
    classes = require_count("classes", arrays.get("classes", np.zeros((), int)), least=0)
    return Labelled(Dataset(arrays["inputs"], arrays["labels"], classes or None), "labels", ())


# --- tables ---


def _read_csv(path: str) -> Table:
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            lines = [(row, f"line {reader.line_num}") for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a .csv file in UTF-8 that can be read: {error}") from None
    if not lines:
        raise ValueError(f"{path} is empty: it must have a header, and a row for each sample")
    (names, _), *rows = lines
    for row, place in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path} must have {len(names)} columns everywhere as in its header, got {len(row)} in {place}"
            )
    return Table(path, [name.strip() for name in names], [row for row, _ in rows], [place for _, place in rows])


def _read_parquet(path: str) -> Table:
    with needed(f"reading {path}", "tables"):
        import pandas as pd  # noqa: PLC0415
        import pyarrow  # noqa: PLC0415
    with opened(path) as file:
        try:
            frame = pd.read_parquet(file, engine="pyarrow")
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{path} is not a .parquet file that can be read: {first_line(error)[:200]}") from None
    whole = frame.astype(object).where(frame.notna(), None)
    columns = [whole.iloc[:, index].tolist() for index in range(frame.shape[1])]
    rows = list(zip(*columns, strict=True))
    return Table(
        path, [str(name) for name in frame.columns], rows, [f"row {number + 1}" for number in range(len(rows))]
    )


READERS = {".csv": _read_csv, ".parquet": _read_parquet}
"""How tables are read, by the ending of the file."""


def _require_sound(table: Table, label: str) -> None:
    """Check that each column has a name of its own, one of them the label's, and that there are inputs."""
    for index, name in enumerate(table.names):
        if not name:
            cure = "write the file without its index (index=False)" if index == 0 else "name it in the header"
            raise ValueError(f"{table.path} must name its columns, got column {index + 1} without a name: {cure}")
    twice = [name for name, times in Counter(table.names).items() if times > 1]
    if twice:
        raise ValueError(f"{table.path} must have a name for each column, got {twice[0]!r} twice: rename one of them")
    if label not in table.names:
        cure = f"name that of the labels by --label, or label=, one of {_listed(table.names)}"
        if len(table.names) == 1 and any(mark in table.names[0] for mark in ";\t"):
            cure = "its columns must have commas between them"
        elif all(_number(name) is not None for name in table.names):
            cure = "its first line must be a header, with a name for each column"
        raise ValueError(f"{table.path} has no column {label!r}: {cure}")
    if len(table.names) == 1:
        raise ValueError(f"{table.path} must have columns of inputs beside the labels, got {label!r} alone")
    if not table.rows:
        raise ValueError(f"{table.path} must have a row for each sample, got a header alone")


def _of_table(table: Table, label: str) -> Labelled:
    cells = dict(zip(table.names, zip(*table.rows, strict=True), strict=True))
    values = _label_values(table, label, cells.pop(label))
    inputs = np.array([_numbers(table, name, column) for name, column in cells.items()]).T
    distinct = sorted(set(values))
    if set(distinct) <= {-1.0, 1.0}:
        return Labelled(Dataset(inputs, values), label, ())
    if set(distinct) <= {0.0, 1.0}:
        distinct = [0.0, 1.0]
    number = {value: index for index, value in enumerate(distinct)}
    numbers = np.array([float(number[value]) for value in values])
    signs = len(distinct) == 2
    dataset = Dataset(inputs, 2 * numbers - 1) if signs else Dataset(inputs, numbers, classes=len(distinct))
    return Labelled(dataset, label, tuple(value if isinstance(value, str) else f"{value:g}" for value in distinct))


def _label_values(table: Table, label: str, cells: Sequence[Any]) -> list[Any]:
    """The labels, all of them numbers, or all of them text."""
    texts = [str(_present(table, label, row, cell)).strip() for row, cell in enumerate(cells)]
    numbers = [_number(cell) for cell in cells]
    if any(number is None for number in numbers):
        values: list[Any] = texts
    else:
        values = numbers
    distinct = sorted(set(values))
    if len(distinct) == 1 and distinct[0] not in (-1.0, 0.0, 1.0):
        raise ValueError(f"column {label!r} of {table.path} must hold two values or more, got {texts[0]!r} alone")
    broken = [value for value in distinct if isinstance(value, float) and not value.is_integer()]
    if len(distinct) > 2 and broken:
        raise ValueError(
            f"column {label!r} of {table.path} must hold two values, or classes, got {len(distinct)} numbers such as "
            f"{broken[0]:g}: name another column of labels"
        )
    return values


def _numbers(table: Table, name: str, cells: Sequence[Any]) -> list[float]:
    """A column of inputs."""
    numbers = []
    for row, cell in enumerate(cells):
        number = _number(_present(table, name, row, cell))
        if number is None or not math.isfinite(number):
            finite = "numbers" if number is None else "finite numbers"
            raise ValueError(
                f"column {name!r} of {table.path} must hold {finite}, got {shown(cell)} in {table.places[row]}: "
                "encode it, or leave the column out"
            )
        numbers.append(number)
    return numbers


def _present(table: Table, name: str, row: int, cell: Any) -> Any:
    """A cell, which must hold something."""
    if (isinstance(cell, str) and cell.strip().lower() in MISSING) or cell is None:
        raise ValueError(
            f"column {name!r} of {table.path} must have no missing values, got one in {table.places[row]}: "
            "fill it in, or leave the row out"
        )
    return cell


def _number(cell: Any) -> float | None:
    """A cell as a number, None if it is something else."""
    if not isinstance(cell, (str, int, float)):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _listed(items: Sequence[str]) -> str:
    return ", ".join(" ".join(item.split())[:MOST_LETTERS] for item in items[:MOST_SHOWN]) + (
        ", ..." if len(items) > MOST_SHOWN else ""
    )
