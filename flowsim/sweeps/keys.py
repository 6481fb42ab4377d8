"""The keys of a grid: what may stand in its file, or in a dict, and the grid that they describe."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any, TypeVar

from flowsim.losses import LOSSES
from flowsim.messages import meant
from flowsim.problems import RULES
from flowsim.sweeps.columns import OBSERVABLES
from flowsim.sweeps.grid import Data, Grid, read_data
from flowsim.times import FIRST, log_times
from flowsim.validation import (
    SEED_COUNT,
    require_count,
    require_not_negative,
    require_positive,
    require_seed,
    require_within,
    shown,
)

Value = TypeVar("Value")

CONSTANTS = {"orthogonally_separable": "kappa", "nearly_orthogonal": "rho", "gaussian": None}
"""The generators of `flowsim.data`, and what else they need."""

EXAMPLE = """\
# A value, or a list of values, of each: all combinations are solved.
data = ["orthogonally_separable", "gaussian"]  # or "nearly_orthogonal" with rho, or files: "iris.csv"
samples = 10
dimension = 20
kappa = 0.1
width = [10, [10, 10]]  # [10, 10] in the list is a network of two hidden layers
rule = ["gd", "fa", "adafa", "sign-fa"]
loss = "exponential"
slope = 0.3
scale = [0.5, 1.0]  # of the initial weights
seeds = 8  # 0 to 7; or a list of them

t_final = 100.0
times = 20  # 0, and others spaced logarithmically; or a list; without it there is one row at the end
observables = ["loss", "accuracy", "alignment", "conserved_deviation"]
"""
"""A grid that runs."""


KEYS = (
    "data", "label", "samples", "dimension", "kappa", "rho", "width", "rule", "loss", "slope", "scale", "gap", "seeds",
    "t_final", "times", "observables", "alpha", "chunk",
)  # fmt: skip


AnyGrid = Grid | Mapping[str, Any] | str | os.PathLike[str]
"""A grid, its keys and values, or the TOML file that has them."""


def as_grid(grid: AnyGrid) -> Grid:
    """Return a grid, from whatever describes it.

    Raises:
        ValueError: as `read_grid` and `grid_of`.
    """
    if isinstance(grid, Grid):
        return grid
    return read_grid(grid) if isinstance(grid, (str, os.PathLike)) else grid_of(grid)


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """Return the grid that a TOML file describes; files of data are looked for from its folder.

    Raises:
        ValueError: if it cannot be read, or is no grid, naming the key.

    >>> read_grid("missing.toml")
    Traceback (most recent call last):
        ...
    ValueError: missing.toml cannot be read: No such file or directory
    """
    try:
        with open(path, "rb") as file:
            keys = tomllib.load(file)
    except OSError as error:
        raise ValueError(f"{os.fspath(path)} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)} is no TOML file: {error}") from None
    try:
        return grid_of(keys, Path(path).parent)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def grid_of(keys: Mapping[str, Any], folder: str | os.PathLike[str] = ".") -> Grid:
    """Return the grid that keys and values describe, see `flowsim.sweeps`.

    Raises:
        ValueError: naming the key and the value that is wrong, and the cure.

    >>> grid = grid_of({"samples": 4, "dimension": 3, "kappa": 0.1, "width": [5, 6], "seeds": 100, "t_final": 1.0})
    >>> grid.trajectories, grid.chunks
    (200, 4)
    >>> grid_of({"samples": 4, "dimension": 3, "kappa": 0.1, "width": 0, "t_final": 1.0})
    Traceback (most recent call last):
        ...
    ValueError: width must be an integer of at least 1, got 0
    """
    if not isinstance(keys, Mapping):
        raise ValueError(f"grid must be a dict of keys and their values, got {shown(keys)}")
    for key in keys:
        if key not in KEYS:
            raise ValueError(f"{key} must be one of {', '.join(KEYS)}{meant(str(key), KEYS)}")
    found = _Keys(keys)
    t_final = require_positive("t_final", found.required("t_final"))
    label = keys.get("label")
    grid = Grid(
        data=_data(found, label, Path(folder)),
        label=label,
        width=found.values("width", None, _widths),
        rule=found.values("rule", "fa", lambda name, value: _one_of(name, value, RULES)),
        loss=found.values("loss", "exponential", lambda name, value: _one_of(name, value, LOSSES)),
        slope=found.values("slope", 0.3, lambda name, value: require_within(name, value, 0.0, 1.0)),
        scale=found.values("scale", 1.0, require_positive),
        gap=found.values("gap", None, _real) if "gap" in keys else (None,),
        seeds=_seeds(keys.get("seeds", 1)),
        t_final=t_final,
        times=_times(keys.get("times"), t_final),
        observables=found.values("observables", ["loss"], lambda name, value: _one_of(name, value, OBSERVABLES)),
        alpha=require_positive("alpha", keys.get("alpha", 1.0)),
        chunk=require_count("chunk", keys.get("chunk", 64)),
    )
    _require_fit(grid)
    return grid


class _Keys:
    """Keys of a grid, and how they are taken."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self.keys = keys

    def required(self, key: str) -> Any:
        if key not in self.keys:
            raise ValueError(f"{key} must be given: the grid has {', '.join(self.keys) or 'no keys'}")
        return self.keys[key]

    def values(self, key: str, default: Any, checked: Callable[[str, Any], Value]) -> tuple[Value, ...]:
        """The values of a key, which must differ from each other."""
        given: Any = self.required(key) if default is None else self.keys.get(key, default)
        several: list[Any] = list(given) if isinstance(given, (list, tuple, range)) else [given]
        if not several:
            raise ValueError(f"{key} must be a value or a list of them, got none")
        found = tuple(checked(key, value) for value in several)
        twice = [value for index, value in enumerate(found) if value in found[:index]]
        if twice:
            cure = ": the layers of one network are a list in the list, as [[10, 10]]" if key == "width" else ""
            raise ValueError(f"{key} must hold each value once, got {shown(twice[0])} twice{cure}")
        return found


def _data(found: _Keys, label: Any, folder: Path) -> tuple[Data, ...]:
    """What makes data sets: each generator with all of its arguments, each file once."""
    several: list[Data] = []
    used = set()
    for name in found.values("data", "orthogonally_separable", _text):
        if name not in CONSTANTS:
            several.append(_file(name, label, folder))
            continue
        axes: dict[str, tuple[Any, ...]] = {
            "samples": found.values("samples", None, require_count),
            "dimension": found.values("dimension", None, require_count),
        }
        if constant := CONSTANTS[name]:
            check = require_positive if constant == "kappa" else require_not_negative
            axes[constant] = found.values(constant, None, check)
        used |= axes.keys()
        several += [Data(name, **dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    for key in ("samples", "dimension", "kappa", "rho"):
        if key in found.keys and key not in used:
            raise ValueError(
                f"{key} must go with data that needs it, got {', '.join(sorted({d.name for d in several}))}"
            )
    if label is not None and all(each.path is None for each in several):
        raise ValueError(f"label must go with a file of data, got {several[0].name}")
    return tuple(several)


def _file(name: str, label: Any, folder: Path) -> Data:
    if Path(name).suffix == "":
        known = ", ".join(CONSTANTS)
        raise ValueError(
            f"data must be one of {known}, or a file .npz, .csv or .parquet, got {name!r}{meant(name, CONSTANTS)}"
        )
    path = str((folder / name).absolute())
    dataset, digest = read_data(path, label)
    return Data(name, dataset.samples, dataset.dimension, path=path, digest=digest)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a name, got {shown(value)}")
    return value


def _one_of(name: str, value: Any, known: Sequence[str] | Mapping[str, Any]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {shown(value)}{meant(str(value), known)}")
    return value


def _widths(name: str, value: Any) -> tuple[int, ...]:
    several: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    if not several:
        raise ValueError(f"{name} must hold the width of a hidden layer, got {shown(value)}")
    return tuple(require_count(name, width) for width in several)


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return float(value)


def _seeds(value: Any) -> tuple[int, ...] | range:
    """So many, or these."""
    if isinstance(value, (list, tuple, range)):
        seeds = tuple(require_seed(seed) for seed in value)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be a number of them, or a list in which each is once, got {shown(value)}")
        return seeds
    return range(require_count("seeds", value, most=SEED_COUNT))


def _times(value: Any, t_final: float) -> tuple[float, ...] | None:
    """Times at which rows are: 0 and others spaced logarithmically, or these."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        count = require_count("times", value, least=2)
        return tuple(log_times(FIRST * t_final, t_final, count).tolist())
    times = [require_within("times", time, 0.0, t_final) for time in value]
    if not times or any(later <= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"times must be a number of them, or a list that rises, got {shown(value)}")
    return tuple(times)


def _require_fit(grid: Grid) -> None:
    """Check what the keys say together."""
    deep = [width for width in grid.width if len(width) > 1]
    classes = [each.name for each in grid.data if each.path and read_data(each.path, grid.label)[0].classes]
    if grid.gap != (None,):
        for key, wrong in (("width", deep), ("data", classes), ("rule", [r for r in grid.rule if r == "adafa"])):
            if wrong:
                raise ValueError(
                    f"gap must go with one hidden layer, labels of two values and other rules than adafa, got {key} "
                    f"{shown(wrong[0])}: leave gap out"
                )
    for loss in grid.loss:
        needs = LOSSES[loss].targets
        wrong = classes if needs == "signs" else [each.name for each in grid.data if each.name not in classes]
        if needs != "any" and wrong:
            labels = "two values" if needs == "signs" else "classes"
            raise ValueError(f"loss {loss} must go with labels of {labels}, got the data {wrong[0]}: take another loss")
