"""Benchmarks against other solvers: `pytest tests/benchmarks`, an hour; needs the extra `bench`.

Writes results.json, results.md and work_precision.png beside this file. What is asserted is that all that is compared
is right, that flowsim ends, and that its cost grows no faster than events times n r m; times are reported.
"""

import os
import platform
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from measure import OURS, Row, row
from problems import PROBLEMS, separable
from report import write

from figures.peers import PEERS, TOGETHER

ENSEMBLES = (1, 16, 64, 256)
CROSSING = ("separable", "nearly orthogonal")
SLIDING = ("arbitrary labels", "digits")
FASTEST = "diffrax Tsit5"

CASES = [
    *((name, 1, method) for name in PROBLEMS for method in (OURS, *PEERS)),
    *((name, count, method) for name in CROSSING for count in ENSEMBLES[1:] for method in (OURS, *TOGETHER)),
    *((name, count, OURS) for name in SLIDING for count in ENSEMBLES[1:3]),
]

WIDTHS = {f"n = 20, m = {width}": partial(separable, 1, 20, width) for width in (10, 25, 50, 100, 200, 400)}
SAMPLES = {f"n = {samples}, m = 50": partial(separable, 1, samples, 50) for samples in (10, 20, 40, 80, 160)}


class Results(NamedTuple):
    """What was measured so far."""

    rows: list[Row]
    growth: list[Row]


def machine() -> str:
    """What times depend on."""
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, torch {torch.__version__} with one thread"


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Results([], [])
    yield found
    write(found.rows, found.growth, CROSSING, Path(__file__).parent, machine())
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "count", "method"), CASES)
def test_time_per_trajectory_at_equal_error(name: str, count: int, method: str, results: Results) -> None:
    smaller = [each for each in results.rows if (each.problem, each.method) == (name, method) and each.best is None]
    if smaller:
        note = f"not tried: {smaller[0].ensemble} together did not end"
        results.rows.append(Row(name, count, method, 0, (), note))
        pytest.skip(note)
    found = row(name, method, *PROBLEMS[name](count))
    results.rows.append(found)
    if method == OURS:
        assert found.best is not None, found.note


@pytest.mark.parametrize("series", [WIDTHS, SAMPLES], ids=["widths", "samples"])
def test_cost_grows_no_faster_than_events_times_n_r_m(series: dict[str, partial], results: Results) -> None:
    found = [row(name, OURS, *make()) for name, make in series.items()]
    results.growth.extend(found)
    units = [each.best.seconds / (each.events * each.size) for each in found if each.best and each.events]
    assert len(units) == len(series)
    assert max(units[1:]) < units[0]


@pytest.mark.parametrize("name", [*WIDTHS, *SAMPLES])
def test_growth_of_the_fastest_peer(name: str, results: Results) -> None:
    if FASTEST not in PEERS:
        pytest.skip(f"{FASTEST} is not installed")
    results.growth.append(row(name, FASTEST, *{**WIDTHS, **SAMPLES}[name]()))
