"""Benchmarks against other solvers: `pytest tests/benchmarks`, half an hour; needs the extra `bench`.

Writes results.json and results.md beside this file. What is asserted is that all that is compared is right, and that
flowsim ends; times are reported, not asserted.
"""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from measure import OURS, TARGET, Row, references, row, write
from problems import PROBLEMS

from figures.peers import PEERS, TOGETHER

ENSEMBLES = (1, 16, 64)
CROSSING = ("separable", "nearly orthogonal")
SLIDING = ("arbitrary labels", "digits")

CASES = [
    *((name, 1, method) for name in PROBLEMS for method in (OURS, *PEERS)),
    *((name, count, method) for name in CROSSING for count in ENSEMBLES[1:] for method in (OURS, *TOGETHER)),
    *((name, count, OURS) for name in SLIDING for count in ENSEMBLES[1:]),
]


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, {torch.get_num_threads()} thread(s) of torch {torch.__version__}"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    found: list[Row] = []
    yield found
    write(found, Path(__file__).parent, machine)


@pytest.mark.parametrize(("name", "count", "method"), CASES)
def test_time_per_trajectory_at_equal_error(name: str, count: int, method: str, rows: list[Row]) -> None:
    flow, weights = PROBLEMS[name](count)
    found = row(name, method, flow, weights, references(flow, weights))
    rows.append(found)
    assert found.error is None or found.error <= TARGET
    if method == OURS:
        assert found.seconds is not None, found.note
