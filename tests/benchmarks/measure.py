"""Time per trajectory at equal achieved error, of flowsim and of its peers."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from problems import T_FINAL

from figures.peers import PEERS, TOGETHER, Problem, Run, packed, problem
from flowsim import Dataset, FeedbackAlignment, Flow, Weights, solve
from flowsim.reduction import reduce

TARGET = 1e-9
"""The largest error of any weight at the end that counts."""

RTOLS = tuple(10.0**-digits for digits in range(7, 14))
LIMIT = 60.0
"""Seconds for one run."""

ALONE = 3
"""Trajectories that a peer which takes one at a time is timed on: the others take as long."""

OURS = "flowsim, event-driven"


@dataclass(frozen=True)
class Row:
    """A method on an ensemble of a problem. Without an end in time or the error asked for, `note` says so."""

    problem: str
    ensemble: int
    method: str
    rtol: float | None
    error: float | None
    seconds: float | None
    evaluations: float | None
    compilation: float
    note: str = ""


def row(name: str, method: str, flow: Flow, weights: Weights, reference: Weights) -> Row:
    """The cheapest run of a method with an error below the target: the first from loose tolerances on."""
    count = weights.hidden.shape[0]
    alone = [separate(flow, weights, index) for index in range(count)]
    problems = [problem(*each, T_FINAL) for each in alone]
    ends = [_packed(each[0], separate(flow, reference, index)[1]) for index, each in enumerate(alone)]
    timed = ALONE if method in PEERS else count
    for rtol in RTOLS:
        try:
            runs = _runs(method, flow, weights, problems[:timed], rtol)
        except TimeoutError as stop:
            return Row(name, count, method, rtol, None, None, None, 0.0, str(stop))
        error = max(float(np.abs(run.end - end).max()) for run, end in zip(runs, ends, strict=False))
        if error <= TARGET:
            seconds = statistics.fmean(run.seconds for run in runs)
            evaluations = statistics.fmean(run.evaluations for run in runs)
            return Row(name, count, method, rtol, error, seconds, evaluations, runs[0].compilation)
    return Row(name, count, method, None, None, None, None, 0.0, f"error above {TARGET:g} at rtol {RTOLS[-1]:g}")


def _runs(method: str, flow: Flow, weights: Weights, problems: Sequence[Problem], rtol: float) -> list[Run]:
    if method in TOGETHER:
        return TOGETHER[method](problems, rtol, LIMIT)
    if method in PEERS:
        return [PEERS[method](each, rtol, LIMIT) for each in problems]
    started = time.perf_counter()
    solution = solve(flow, weights, T_FINAL, rtol=rtol, atol=1e-2 * rtol)
    seconds = (time.perf_counter() - started) / len(problems)
    end, terms = solution.evaluate(T_FINAL), solution.statistics["terms"].tolist()
    packs = (_packed(*separate(flow, end, index)) for index in range(len(problems)))
    return [Run(pack, seconds, count) for pack, count in zip(packs, terms, strict=True)]


def separate(flow: Flow, weights: Weights, index: int) -> tuple[Flow, Weights]:
    """One trajectory of an ensemble under FA."""
    dataset, rule = flow.dataset, flow.rule
    assert isinstance(rule, FeedbackAlignment) and isinstance(rule.feedback, torch.Tensor)
    alone = Dataset(dataset.inputs[index], dataset.labels[index])
    return Flow(alone, FeedbackAlignment(rule.feedback[index]), flow.loss, flow.slope), weights.map(
        lambda tensor: tensor[index]
    )


def _packed(flow: Flow, weights: Weights) -> NDArray:
    return packed(reduce(flow, weights).weights)


def references(flow: Flow, weights: Weights) -> Weights:
    """The weights at the end, at a tolerance of 1e-13."""
    return solve(flow, weights, T_FINAL, rtol=1e-13, atol=1e-15).evaluate(T_FINAL)


def write(rows: Sequence[Row], folder: Path, machine: Callable[[], str]) -> None:
    """results.json and results.md."""
    folder.mkdir(exist_ok=True)
    content = {"machine": machine(), "target": TARGET, "t_final": T_FINAL, "rows": [asdict(each) for each in rows]}
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [
        f"Seconds per trajectory at an error of {TARGET:g} or better, compilation apart; {machine()}.",
        "",
        "| problem | ensemble | method | rtol | error | s per trajectory | evaluations | times ours | compilation, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ours = {(each.problem, each.ensemble): each.seconds for each in rows if each.method == OURS}
    for each in rows:
        place = f"| {each.problem} | {each.ensemble} | {each.method}"
        mine = ours.get((each.problem, each.ensemble))
        if each.seconds is None or each.error is None or each.evaluations is None or mine is None:
            lines.append(f"{place} | {each.rtol or ''} | | {each.note} | | | |")
            continue
        times = f"{each.seconds:.3g} | {each.evaluations:.0f} | {each.seconds / mine:.2g} | {each.compilation:.1f}"
        lines.append(f"{place} | {each.rtol:.0e} | {each.error:.0e} | {times} |")
    (folder / "results.md").write_text("\n".join(lines) + "\n")
