"""The grid of a sweep: what is varied, and how it is divided into cells and chunks."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowsim import data
from flowsim.data import Dataset
from flowsim.tables import read_dataset


class Data(NamedTuple):
    """What makes a data set, but for its seed: a generator and its arguments, or a file that is at a path."""

    name: str
    samples: int
    dimension: int
    kappa: float | None = None
    rho: float | None = None
    path: str | None = None
    digest: str | None = None

    def dataset(self, seed: int, label: str | None) -> Dataset:
        """The data set of a seed.

        Raises:
            ValueError: if there is no such data, or the file is not what it was.
        """
        if self.path is not None:
            dataset, digest = read_data(self.path, label)
            if digest != self.digest:
                raise ValueError(f"{self.name} must stay what it is while the sweep lasts, but it was written to")
            return dataset
        constants = [value for value in (self.kappa, self.rho) if value is not None]
        return getattr(data, self.name)(self.samples, self.dimension, *constants, seed)


class Cell(NamedTuple):
    """What all trajectories of an ensemble have in common, beside the grid's settings."""

    data: Data
    width: tuple[int, ...]
    rule: str
    loss: str
    slope: float


class Member(NamedTuple):
    """A trajectory of a cell; its number is that in the whole grid."""

    number: int
    scale: float
    gap: float | None
    seed: int


@dataclass(frozen=True)
class Grid:
    """A grid that is checked, see `flowsim.sweeps`; `flowsim.sweeps.keys` makes it.

    Its trajectories are numbered: cell by cell, and in each by scale, gap and seed. A chunk is of trajectories of one
    cell that follow each other.
    """

    data: tuple[Data, ...]
    label: str | None
    width: tuple[tuple[int, ...], ...]
    rule: tuple[str, ...]
    loss: tuple[str, ...]
    slope: tuple[float, ...]
    scale: tuple[float, ...]
    gap: tuple[float | None, ...]
    seeds: tuple[int, ...] | range
    t_final: float
    times: tuple[float, ...] | None
    observables: tuple[str, ...]
    alpha: float
    chunk: int

    @property
    def _shape(self) -> tuple[int, ...]:
        return len(self.data), len(self.width), len(self.rule), len(self.loss), len(self.slope)

    @property
    def members(self) -> int:
        """Trajectories of a cell."""
        return len(self.scale) * len(self.gap) * len(self.seeds)

    @property
    def _chunks_per_cell(self) -> int:
        return math.ceil(self.members / self.chunk)

    @property
    def trajectories(self) -> int:
        """Trajectories in all."""
        return math.prod(self._shape) * self.members

    @property
    def chunks(self) -> int:
        """Chunks in all."""
        return math.prod(self._shape) * self._chunks_per_cell

    @property
    def rows(self) -> int:
        """Rows of a trajectory."""
        return 1 if self.times is None else len(self.times)

    def part(self, number: int) -> tuple[Cell, list[Member]]:
        """The cell of a chunk, and its members."""
        place, slice_ = divmod(number, self._chunks_per_cell)
        first = slice_ * self.chunk
        inside = range(first, min(first + self.chunk, self.members))
        return self._cell(place), [self._member(place, index) for index in inside]

    def trajectory(self, number: int) -> tuple[Cell, Member]:
        """The cell of a trajectory, and what it is there."""
        place, index = divmod(number, self.members)
        return self._cell(place), self._member(place, index)

    def _cell(self, number: int) -> Cell:
        each, width, rule, loss, slope = np.unravel_index(number, self._shape)
        return Cell(self.data[each], self.width[width], self.rule[rule], self.loss[loss], self.slope[slope])

    def _member(self, cell: int, index: int) -> Member:
        scale, gap, seed = np.unravel_index(index, (len(self.scale), len(self.gap), len(self.seeds)))
        return Member(cell * self.members + index, self.scale[scale], self.gap[gap], self.seeds[seed])

    def settings(self) -> dict[str, Any]:
        """The grid as JSON has it, wherever its files are."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["data"] = [{**each._asdict(), "path": None} for each in self.data]
        found["seeds"] = len(self.seeds) if isinstance(self.seeds, range) else self.seeds
        return json.loads(json.dumps(found))


def read_data(path: str, label: str | None) -> tuple[Dataset, str]:
    """The data set in a file, and a digest of the file."""
    status = os.stat(path) if os.path.exists(path) else None
    return _read_once(path, label, status and (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=32)
def _read_once(path: str, label: str | None, written: tuple[int, int] | None) -> tuple[Dataset, str]:
    dataset = read_dataset(path, label)
    return dataset, hashlib.sha256(Path(path).read_bytes()).hexdigest()
