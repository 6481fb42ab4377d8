"""The rows of a sweep: one per trajectory and time, or one per trajectory at its end.

    trajectory                    the number of the trajectory in the grid
    data, samples, dimension      the generator or the file, n and d
    kappa, rho                    of the generator, empty where it has none
    width                         of the hidden layers, as "10" or "10x10"
    rule, loss_function, slope    of the flow
    scale, gap, seed              of the initial weights, the gap empty where none is prescribed; seed: of the data, too
    time                          at which it is observed
    the observables               see `flowsim.sweeps.columns`; empty where there is no such layer, or no weights
    reached                       the time up to which the trajectory came, empty if it has no start
    status, reason                "ended"; "stopped" before t_final, and why; "refused", as there are no such data or
                                  weights, and why; "failed" where its process died or there is a mistake in flowsim

A trajectory that did not come so far has its rows all the same.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from flowsim.integrators.event.crawl import CrawlingWarning
from flowsim.messages import first_line
from flowsim.problems import Problem
from flowsim.solution import Solution
from flowsim.solving import solve
from flowsim.sweeps.columns import Snapshot, column_names, observe
from flowsim.sweeps.grid import Cell, Grid, Member
from flowsim.sweeps.trajectories import ensemble, made

BEFORE = {
    "trajectory": pa.int64(), "data": pa.string(), "samples": pa.int64(), "dimension": pa.int64(),
    "kappa": pa.float64(), "rho": pa.float64(), "width": pa.string(), "rule": pa.string(), "loss_function": pa.string(),
    "slope": pa.float64(), "scale": pa.float64(), "gap": pa.float64(), "seed": pa.uint64(), "time": pa.float64(),
}  # fmt: skip
AFTER = {"reached": pa.float64(), "status": pa.string(), "reason": pa.string()}
"""The columns before and behind those of the observables, and their types."""


class Part(NamedTuple):
    """The rows of a chunk as a parquet file, and how its trajectories ended: how often, and why first if they did not.

    `content` is bytes, as it travels between processes.
    """

    content: bytes
    status: dict[str, int]
    reasons: dict[str, str]


class State(NamedTuple):
    """How a trajectory ended."""

    status: str
    reached: float | None = None
    reason: str | None = None


def schema(grid: Grid) -> pa.Schema:
    """The columns of a sweep and their types, the same for all chunks."""
    layers = max(len(width) for width in grid.width)
    names = [column for name in grid.observables for column in column_names(name, layers)]
    return pa.schema({**BEFORE, **dict.fromkeys(names, pa.float64()), **AFTER})


def solved_part(grid: Grid, number: int) -> Part:
    """Solve and observe the trajectories of a chunk.

    Raises:
        Exception: for a mistake of flowsim's own.
    """
    cell, members = grid.part(number)
    problems: dict[int, Problem] = {}
    states: list[State] = []
    for place, member in enumerate(members):
        try:
            problems[place] = made(cell, member, grid.label)
            states.append(State("ended"))
        except ValueError as error:
            states.append(State("refused", None, first_line(error)))
    times, values = _blank(grid, len(members))
    if problems:
        solution = _solved(ensemble(list(problems.values())), grid.t_final)
        for index, place in enumerate(problems):
            states[place] = _state(solution, index)
            if grid.times is None:
                times[place] = states[place].reached
        _observe(grid, solution, list(problems), times, values)
    return _part(grid, cell, members, states, times, values)


def failed_part(grid: Grid, number: int, reason: str) -> Part:
    """The rows of a chunk of which nothing else is known."""
    cell, members = grid.part(number)
    states = [State("failed", None, reason)] * len(members)
    return _part(grid, cell, members, states, *_blank(grid, len(members)))


def _blank(grid: Grid, members: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times, and the columns of observables that nothing is known of yet, `members x rows` each."""
    names = [name for name in schema(grid).names if name not in {**BEFORE, **AFTER}]
    times = np.tile(np.asarray(grid.times or (grid.t_final,)), (members, 1))
    return times, {name: np.full(times.shape, np.nan) for name in names}


def _solved(problem: Problem, t_final: float) -> Solution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrawlingWarning)  # the rows say where that stopped them
        return solve(*problem, t_final, throw=False)


def _state(solution: Solution, index: int) -> State:
    reached, reason = solution.status.time[index].item(), solution.status.reason[index]
    return State("ended" if reason is None else "stopped", reached, reason)


def _observe(
    grid: Grid, solution: Solution, places: Sequence[int], times: np.ndarray, values: dict[str, np.ndarray]
) -> None:
    """Fill in the values of trajectories that have got so far, one time after the other: it keeps memory small."""
    reached = solution.status.time.numpy()
    for column in range(times.shape[1]):
        at = times[places, column]
        some = torch.from_numpy(np.flatnonzero(at <= reached))
        if len(some):
            here = torch.from_numpy(at)[some]
            weights = solution.evaluate(here, some), solution.start.map(lambda tensor, some=some: tensor[some])
            snapshot = Snapshot(solution.flow_of(some), *weights, grid.alpha)
            rows = np.asarray(places)[some.numpy()]
            for name in grid.observables:
                for key, value in observe(name, snapshot).items():
                    values[key][rows, column] = value.numpy()


def _part(
    grid: Grid, cell: Cell, members: Sequence[Member], states: Sequence[State], times: np.ndarray,
    values: dict[str, np.ndarray],
) -> Part:  # fmt: skip
    """The rows as a parquet file."""
    count = grid.rows
    columns: dict[str, Any] = {
        "data": cell.data.name, "samples": cell.data.samples, "dimension": cell.data.dimension,
        "kappa": cell.data.kappa, "rho": cell.data.rho, "width": "x".join(map(str, cell.width)),
        "rule": cell.rule, "loss_function": cell.loss, "slope": cell.slope,
    }  # fmt: skip
    columns = {name: [value] * (count * len(members)) for name, value in columns.items()}
    for name, each in [
        ("trajectory", [member.number for member in members]),
        ("scale", [member.scale for member in members]),
        ("gap", [member.gap for member in members]),
        ("seed", [member.seed for member in members]),
        ("reached", [state.reached for state in states]),
        ("status", [state.status for state in states]),
        ("reason", [state.reason for state in states]),
    ]:
        columns[name] = [value for value in each for _ in range(count)]
    columns["time"] = times.ravel()
    columns |= {name: value.ravel() for name, value in values.items()}
    content = io.BytesIO()
    parquet.write_table(pa.table(columns, schema(grid)), content)
    status = Counter(state.status for state in states)
    reasons = {state.status: state.reason for state in reversed(states) if state.reason is not None}
    return Part(content.getvalue(), dict(status), reasons)
