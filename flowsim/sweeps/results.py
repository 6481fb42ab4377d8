"""The folder of a sweep: a parquet file for each chunk, and what the grid was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from flowsim import __version__
from flowsim.files import make_folder, whole
from flowsim.sweeps.grid import Grid
from flowsim.validation import shown

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "_sweep.json"
"""Its name begins such that readers of parquet folders pass it over."""


class Results(NamedTuple):
    """A folder that has, or will have, the rows of a grid."""

    folder: Path
    grid: Grid

    def path(self, number: int) -> Path:
        """The file of a chunk."""
        return self.folder / f"part-{number:09d}.parquet"

    def missing(self) -> list[int]:
        """The numbers of the chunks that are not there, or whose file is damaged, as after a power cut."""
        there = {path.name for path in self.folder.glob("part-*.parquet")}
        return [
            number
            for number in range(self.grid.chunks)
            if self.path(number).name not in there or not self._is_sound(number)
        ]

    def _is_sound(self, number: int) -> bool:
        """Whether the file of a chunk can be read, and has as many rows as it must, from its first trajectory on."""
        _, members = self.grid.part(number)
        try:
            with parquet.ParquetFile(self.path(number)) as file:
                first = (
                    file.metadata.row_group(0).column(file.schema_arrow.get_field_index("trajectory")).statistics.min
                )
                return file.metadata.num_rows == len(members) * self.grid.rows and first == members[0].number
        except (OSError, pa.ArrowException, AttributeError, IndexError):
            return False

    def write(self, number: int, content: bytes) -> None:
        """Write the file of a chunk, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        with whole(self.path(number)) as partial:
            partial.write_bytes(content)

    def read(self, failed: Mapping[int, bytes]) -> pd.DataFrame:
        """All rows that are there, and those of chunks that failed, in the order of the trajectories."""
        several: dict[int, Any] = {number: pa.BufferReader(content) for number, content in failed.items()}
        several |= {number: self.path(number) for number in range(self.grid.chunks) if number not in failed}
        return pa.concat_tables(parquet.read_table(several[number]) for number in sorted(several)).to_pandas()


def open_results(folder: str | os.PathLike[str], grid: Grid) -> Results:
    """Return the folder of a grid, made if there is none; with what is there a sweep goes on.

    Raises:
        ValueError: if it cannot be written to, or has the rows of another grid, of files of data that were written to
            since, or of another version of flowsim.
    """
    results = Results(make_folder("output", Path(folder)), grid)
    manifest, ours = results.folder / MANIFEST, {"flowsim": __version__, **grid.settings()}
    cure = f"give another folder than {os.fspath(folder)}"
    if not manifest.exists():
        if any(results.folder.glob("*.parquet")):
            raise ValueError(f"output must be a folder of this grid, got parquet files without {MANIFEST}: {cure}")
        with whole(manifest) as partial:
            partial.write_text(json.dumps(ours, indent=1) + "\n")
        return results
    try:
        theirs = json.loads(manifest.read_text())
        file = _changed_file(theirs, ours)
        other = next((key for key in ours if theirs.get(key) != ours[key]), None)
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        message = f"output must be a folder of this grid, got a {MANIFEST} that cannot be read: {cure}"
        raise ValueError(message) from None
    if file is not None:
        raise ValueError(
            f"data {file} must stay what it was when the sweep into {os.fspath(folder)} began, but it was written to: "
            f"put it back, or {cure}"
        )
    if other is not None:
        raise ValueError(
            f"output must be a folder of this grid, got one whose {other} is {shown(theirs.get(other))}, "
            f"not {shown(ours[other])}: {cure}"
        )
    return results


def _changed_file(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """The first file of data that both grids have, by name, and that is not what it was."""
    before = {each["name"]: each["digest"] for each in theirs["data"]}
    return next(
        (each["name"] for each in ours["data"] if before.get(each["name"], each["digest"]) != each["digest"]), None
    )
