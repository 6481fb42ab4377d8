"""Grids: chunks have each trajectory once, and a file of data is known by its content."""

import json
from itertools import product
from pathlib import Path

import pytest

from flowsim.sweeps.keys import grid_of, read_grid

GOOD = {"samples": 4, "dimension": 3, "kappa": 0.1, "width": 5, "t_final": 1.0}


def test_chunks_have_each_trajectory_once_in_order_and_each_combination_is_there() -> None:
    keys = {**GOOD, "width": [5, [4, 3]], "rule": ["fa", "gd"], "scale": [0.5, 1.0, 2.0], "seeds": 7, "chunk": 4}
    grid = grid_of(keys)
    found = []
    for number in range(grid.chunks):
        cell, members = grid.part(number)
        assert 1 <= len(members) <= 4
        found += [(cell, member) for member in members]
        assert all(grid.trajectory(member.number) == (cell, member) for member in members)
    assert [member.number for _, member in found] == list(range(grid.trajectories))
    combinations = [(cell.width, cell.rule, member.scale, member.seed) for cell, member in found]
    assert sorted(combinations) == sorted(product([(5,), (4, 3)], ["fa", "gd"], [0.5, 1.0, 2.0], range(7)))


def test_a_billion_trajectories_are_as_quick_to_number_as_one() -> None:
    grid = grid_of({**GOOD, "seeds": 10**9, "chunk": 1000})
    _, members = grid.part(grid.chunks - 1)
    assert (members[-1].number, members[-1].seed) == (10**9 - 1, 10**9 - 1)
    assert len(json.dumps(grid.settings())) < 1000


def test_files_of_data_are_found_from_the_folder_of_the_grid_and_known_by_their_content(tmp_path: Path) -> None:
    table = "x,y,label\n1,0,a\n0,1,b\n"
    (tmp_path / "own.csv").write_text(table)
    path = tmp_path / "grid.toml"
    path.write_text('data = "own.csv"\nwidth = 5\nt_final = 1.0\n')
    grid = read_grid(path)
    (data,) = grid.data
    assert (data.name, data.samples, data.dimension) == ("own.csv", 2, 2)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "own.csv").write_text(table)
    (moved / "grid.toml").write_text(path.read_text())
    assert read_grid(moved / "grid.toml").settings() == grid.settings()
    (tmp_path / "own.csv").write_text(table.replace("1,0", "2,0") + "1,1,b\n")
    assert read_grid(path).settings()["data"][0]["digest"] != grid.settings()["data"][0]["digest"]
    with pytest.raises(ValueError, match=r"^own\.csv must stay what it is while the sweep lasts"):
        data.dataset(0, None)
