"""The keys of a grid: what is wrong is said in one line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowsim.sweeps.keys import EXAMPLE, grid_of, read_grid

GOOD = {"samples": 4, "dimension": 3, "kappa": 0.1, "width": 5, "t_final": 1.0}


def test_each_generator_is_combined_with_what_it_takes_only() -> None:
    names = ["orthogonally_separable", "nearly_orthogonal", "gaussian"]
    grid = grid_of({**GOOD, "data": names, "kappa": [0.1, 0.2, 0.3], "rho": [0.1, 0.2], "samples": [4, 5]})
    assert [sum(each.name == name for each in grid.data) for name in names] == [6, 4, 2]
    assert {(each.kappa, each.rho) for each in grid.data if each.name == "gaussian"} == {(None, None)}


def test_times_are_as_many_as_asked_for_or_those_given() -> None:
    times = grid_of({**GOOD, "t_final": 0.3, "times": 8}).times
    assert times is not None and len(times) == 8
    assert (times[0], times[-1]) == (0.0, 0.3)
    assert np.allclose(np.diff(np.log(times[1:])), np.log(1e6) / 6)
    assert grid_of({**GOOD, "times": [0, 0.5]}).times == (0.0, 0.5)
    assert grid_of(GOOD).times is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"widht": 5}, "widht must be one of data, label, samples, .*, chunk: did you mean width"),
        ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ({"samples": [4, 4]}, "samples must hold each value once, got 4 twice"),
        (
            {"width": [5, 5]},
            r"width must hold each value once, got \(5,\) twice: the layers of one network are a list in",
        ),
        ({"width": []}, "width must be a value or a list of them, got none"),
        ({"width": [[]]}, r"width must hold the width of a hidden layer, got \[\]"),
        ({"rule": "bp"}, "rule must be one of gd, fa, adafa, sign-fa, got 'bp'"),
        ({"loss": ["squared", "hinge"]}, "loss must be one of .*, got 'hinge'"),
        ({"loss": "cross-entropy"}, "loss cross-entropy must go with labels of classes, got the data ortho.*: take an"),
        ({"slope": 1.5}, r"slope must lie in \[0, 1\], got 1.5"),
        ({"scale": 0}, "scale must be a finite number above 0, got 0"),
        ({"gap": "large"}, "gap must be a finite number, got 'large'"),
        ({"gap": 0.1, "width": [[5, 4]]}, r"gap must go with one hidden layer, .*, got width \(5, 4\): leave gap out"),
        ({"gap": 0.1, "rule": ["gd", "adafa"]}, "gap must go with .* got rule 'adafa': leave gap out"),
        ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ({"seeds": 2**32 + 1}, "seeds must be an integer of at most 4294967296, got 4294967297"),
        ({"seeds": [2**32]}, "seed must be an integer of at most 4294967295, got 4294967296"),
        ({"seeds": [1, 1]}, r"seeds must be a number of them, or a list in which each is once, got \[1, 1\]"),
        ({"t_final": -1}, "t_final must be a finite number above 0, got -1"),
        ({"times": 1}, "times must be an integer of at least 2, got 1"),
        ({"times": [0, 2.0]}, r"times must lie in \[0, 1\], got 2.0"),
        ({"times": [0.5, 0.2]}, "times must be a number of them, or a list that rises"),
        ({"observables": ["lose"]}, "observables must be one of loss, .*, got 'lose'"),
        ({"chunk": 0}, "chunk must be an integer of at least 1, got 0"),
        ({"rho": 0.1}, "rho must go with data that needs it, got orthogonally_separable"),
        ({"data": "nearly_orthogonal"}, "rho must be given: the grid has samples, .*"),
        ({"data": "mnist"}, "data must be one of .*, or a file .npz, .csv or .parquet, got 'mnist'"),
        ({"data": 5}, "data must be a name, got 5"),
        ({"label": "species"}, "label must go with a file of data, got orthogonally_separable"),
    ],
)
def test_a_bad_grid_is_one_line_that_names_the_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        grid_of({**GOOD, **keys})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["samples", "dimension", "kappa", "width", "t_final"])
def test_a_key_that_is_missing_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} must be given"):
        grid_of({name: value for name, value in GOOD.items() if name != key})


def test_files_that_are_no_grids_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    for content, message in [("width = [", "is no TOML file: "), ("width = 0", "t_final must be given")]:
        path.write_text(content)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}:? {message}"):
            read_grid(path)


def test_the_example_is_a_grid(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(EXAMPLE)
    assert read_grid(tmp_path / "grid.toml").trajectories == 2 * 2 * 4 * 2 * 8
