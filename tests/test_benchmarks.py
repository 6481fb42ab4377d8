"""The benchmarks' own arithmetic, searches and tables, on problems so small that times mean nothing."""

import doctest
import gc
import itertools
import json
import math
import resource
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import accuracy
import gpu
import limits
import measure
import problems
import psutil
import pytest
import report
import run
import scale
import targets
import telling
import torch
from measure import GOALS, OURS, RTOLS, Point, Row
from problems import BASE, HARD, SETTINGS, SINGLE
from results import NONE, Results, fit_growth

from flowsim import Flow, Weights, solve

PEER, T_FINAL = "scipy RK45", 5.0
LOOSE, TIGHT = GOALS


def errors_like(factor: float, power: float = 1.0) -> partial[Point]:
    """Runs whose errors are factor * rtol^power, and that take longer the tighter the tolerance."""
    return partial(lambda rtol: Point(rtol, factor * rtol**power, 1 - math.log10(rtol), 0.0))


@pytest.mark.parametrize("first", [RTOLS[0], RTOLS[5], RTOLS[-1]])
@pytest.mark.parametrize(("factor", "power"), [(1e-3, 1.0), (3.0, 1.0), (2e3, 1.0), (10.0, 0.7), (1.0, 1.6)])
def test_the_search_finds_the_loosest_tolerance_that_reaches_the_goal(
    factor: float, power: float, first: float
) -> None:
    at, tried = errors_like(factor, power), {}
    for goal in GOALS:
        wanted = next((rtol for rtol in RTOLS if at(rtol).error <= goal), None)
        assert measure.search(at, goal, tried, first) == (wanted is not None)
        found = [rtol for rtol in RTOLS if rtol in tried and tried[rtol].error <= goal]
        assert next(iter(found), None) == wanted


def test_the_search_leaves_tolerances_out_and_tries_none_looser_where_runs_are_long() -> None:
    tried: dict[float, Point] = {}
    assert measure.search(errors_like(1.0), TIGHT, tried, RTOLS[0])
    assert len(tried) <= 3
    long, tried = lambda rtol: replace(errors_like(1e-3)(rtol), seconds=measure.LONG + 1), {}
    assert measure.search(long, TIGHT, tried, 1e-8)
    assert set(tried) == {1e-8}, "1e-6 would do, too"


def test_a_row_counts_its_cheapest_runs_that_reach_the_goal() -> None:
    points = [Point(1e-6, 1e-7, 3.0, 0), Point(1e-8, 1e-9, 2.0, 0), Point(1e-9, 1e-10, 4.0, 0)]
    row = Row("", 1, OURS, 1, tuple(points))
    assert (row.best(LOOSE), row.best(TIGHT), row.best(1e-12)) == (points[1], points[1], None)


def test_operations_are_those_of_the_sums_of_the_series() -> None:
    """By counting in the sums of `flowsim.integrators.event.compiled.series`, term after term."""
    n, widths, order = 5, (4, 7, 3, 2), 6
    hidden, count = len(widths) - 2, 0

    def product(*shape: int) -> int:
        return 2 * math.prod(shape)

    for k in range(order + 1):
        for layer in range(1, hidden + (k < order) + 1):
            count += (1 if layer == 1 else k + 1) * product(n, widths[layer - 1], widths[layer])
    for k in range(order):
        for layer in range(2, hidden + 2):  # the error of a layer sent down
            count += product(n, widths[layer], widths[layer - 1])
        for layer in range(1, hidden + 2):  # a term of its weights
            count += (1 if layer == 1 else k + 1) * product(n, widths[layer - 1], widths[layer])
    assert limits.count_operations(n, widths, order) == count
    assert limits.measure_rate(20, 20, 50) > 1e7
    assert doctest.testmod(limits) == (0, 2)
    assert doctest.testmod(telling) == (0, 1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Problems of the same names and kinds, with next to nothing to do; one peer."""
    small = {
        problems.CROSSING: partial(problems.separable, samples=3, width=3),
        problems.SLIDING: partial(problems.arbitrary_labels, samples=4, dimension=2, width=3),
        problems.DEEP: partial(problems.deep, hidden=(3, 2), samples=3, dimension=2),
    }
    for name, setting in SETTINGS.items():
        monkeypatch.setitem(SETTINGS, name, setting._replace(make=small[setting.kind], t_final=T_FINAL))
    monkeypatch.setattr(run, "FASTEST", PEER)
    monkeypatch.setattr(run, "FASTEST_TOGETHER", "diffrax no such, vmap")
    monkeypatch.setattr(run, "LIMIT", 0.5)
    monkeypatch.setattr(run, "ENSEMBLES", (2,))
    monkeypatch.setattr(run, "ON_TWO_THREADS", (2,))
    monkeypatch.setattr(run, "measure_compilation", lambda: {"compiled": 30.0, "loaded": 1.0})
    monkeypatch.setattr(limits, "LOOPS", 2)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(measure, "REPEATS", 2)
    measure.make.cache_clear()
    measure.ends_of.cache_clear()
    yield
    measure.make.cache_clear()
    measure.ends_of.cache_clear()


@pytest.mark.usefixtures("tiny")
def test_a_run_measures_everything_and_its_tables_can_be_written_again(tmp_path: Path) -> None:
    results = Results("here", "quick")
    run.measure_all(True, results)
    page = tmp_path / "solvers.md"
    page.write_text(f"before\n{report.BEGIN}old\n{report.END}after\n")
    report.write(results, tmp_path, page)
    assert report.read(tmp_path / "results.json") == results
    told = (tmp_path / "results.md").read_text()
    assert told == report.tell(results)
    assert "| nan" not in told
    assert page.read_text() == f"before\n{report.BEGIN}\n{report.tell_readers(results)}\n{report.END}after\n"
    assert (tmp_path / "work_precision.png").stat().st_size > 0

    for name in (*SINGLE, *HARD):
        ours = results.ours(name)
        assert ours is not None and ours.error <= TIGHT and ours.rounds is not None and ours.rounds >= 1
        seconds, which = results.fastest(name)
        if which == PEER:
            assert results.ratio(name) == seconds / ours.seconds
    assert results.ours(BASE, 2, threads=2) is not None
    (missing,) = [row for row in results.rows if row.method.endswith("vmap")]
    assert missing.note == "not installed" and not missing.points
    for found in results.memory:
        assert found.counted == found.held
    for exact in results.exact:
        assert 0 < exact.error < targets.EXACT_ERROR
    for found in results.convergence:
        assert set(found.errors) <= {f"{rtol:.0e}" for rtol in accuracy.CONVERGENCE}
        assert found.errors["1e-12"] < 1e-11


@pytest.mark.usefixtures("tiny")
def test_errors_of_peers_and_of_flowsim_are_those_of_their_ends() -> None:
    """Against a solve of the flow as it was made, not reduced; of different methods, the largest weight apart."""
    name = next(iter(HARD))
    flow, weights = measure.make(name, 2)
    exact, loose = (
        solve(flow, weights, T_FINAL, rtol=rtol, atol=1e-2 * rtol).evaluate(T_FINAL) for rtol in (1e-13, 1e-4)
    )
    error = max((a - b).abs().max().item() for a, b in zip(exact.layers, loose.layers, strict=True))
    ours = measure.run_at(name, 2, OURS, math.inf, 1, 1e-4)
    assert ours.error == pytest.approx(error, abs=1e-13)
    few, many = (measure.run_at(BASE, 1, PEER, 10.0, 1, rtol) for rtol in (1e-3, 1e-9))
    assert many.error < 1e-7 < few.error
    assert few.evaluations < many.evaluations


@pytest.mark.usefixtures("tiny")
def test_a_peer_that_failed_on_fewer_is_not_tried_on_more() -> None:
    rows = [Row(BASE, 16, PEER, 1, (), "no end after 60 s")]
    assert run.do(run.Task(BASE, 64, PEER), rows).note == "not tried: 16 together did not end"
    assert run.do(run.Task(BASE, 1, PEER, 10.0), rows).points, "but on fewer it is"


def test_a_peer_is_stopped_at_its_limit() -> None:
    row = measure.measure("3 layers (8, 7)", 1, PEER, 0.05)
    assert row.best(TIGHT) is None
    assert row.note == "no end after 0.05 s"


def results_of(*rows: Row) -> Results:
    return Results("here", "full", list(rows))


def row(name: str, count: int, method: str, seconds: float, threads: int = 1, events: float | None = None) -> Row:
    return Row(name, count, method, threads, (Point(1e-9, 1e-10, seconds, 0, events=events),))


def test_targets_are_compared_with_what_was_measured() -> None:
    results = results_of(
        row(BASE, 1, OURS, 0.1), row(BASE, 1, "slow", 5.0), row(BASE, 1, "fast", 1.1), row(BASE, 16, OURS, 0.1),
        row(BASE, 16, OURS, 0.05, 2), row(BASE, 16, "together", 1.5), row("digits", 1, OURS, 0.31),
        row("4 layers (8, 7, 6)", 1, OURS, 0.2),
    )  # fmt: skip
    found = {target.what: target for target in targets.list_targets(results)}
    single = found[f"{BASE}: times as fast as the fastest peer, error 1e-09"]
    assert single.measured == pytest.approx(11) and single.met
    together = found["16 together: times as fast as the fastest peer"]
    assert together.measured == pytest.approx(11) and not together.met, "one after another it is faster than together"
    assert found["16 together: two threads over one"].measured == 2
    assert not found["digits: seconds a trajectory"].met
    assert found["4 layers (8, 7, 6): seconds a trajectory"].met
    missing = found["arbitrary labels: seconds a trajectory"]
    assert missing.measured is None and not missing.met and missing.line.endswith("| ≤ 0.3 |  | no |")


def test_the_growth_is_fitted_over_the_sizes() -> None:
    sizes = {f"n = 20, m = {width}": 400 * width for width in (25, 50, 100, 400)}
    rows = [row(name, 1, OURS, 3e-9 * 70 * size**0.9, events=70.0) for name, size in sizes.items()]
    fitted = fit_growth(results_of(*rows))
    assert fitted["m grows"] == pytest.approx(0.9)
    assert list(fitted) == ["m grows"]


def test_the_page_is_changed_between_its_marks_only() -> None:
    text = report.PAGE.read_text()
    changed = report.put_into(text, "| a |\n")
    assert changed.replace("\n| a |\n\n", "") == text[: text.index(report.BEGIN)] + (
        report.BEGIN + report.END + text.split(report.END)[1]
    )
    assert report.put_into(changed, "| a |\n") == changed
    for wrong in (text.replace(report.END, ""), text + report.BEGIN):
        with pytest.raises(ValueError, match="once"):
            report.put_into(wrong, "")


def test_the_readme_has_the_seconds_of_the_last_run() -> None:
    results = report.read(report.HERE / "results.json")
    told = (report.HERE.parents[1] / "README.md").read_text()
    rows = {"469 events": BASE, "neurons slide": "arbitrary labels", "hidden widths 8 and 7": "3 layers (8, 7)"}
    for words, name in rows.items():
        (line,) = [line for line in told.splitlines() if words in line and line.startswith("|")]
        _, _, ours, theirs, _ = (cell.strip() for cell in line.split("|"))
        best, (seconds, which) = results.ours(name), results.fastest(name)
        assert best is not None and float(ours) == pytest.approx(best.seconds, rel=0.05), line
        if math.isfinite(seconds):
            assert theirs == f"{seconds:.2g} ({which})"
        else:
            assert theirs == NONE


def test_the_problems_are_what_they_are_called() -> None:
    for name, (make, t_final, kind) in SETTINGS.items():
        if name in ("n = 160, m = 50", "n = 80, m = 50"):
            continue
        flow, weights = make(2)
        assert flow.slope == problems.SLOPE and t_final == (20.0 if kind == problems.DEEP else 100.0)
        assert weights.batch_shape == (2,)
        widths = [layer.shape[-2] for layer in weights.layers[:-1]]
        if kind == problems.CROSSING:
            assert name == f"n = {flow.dataset.samples}, m = {widths[0]}"
        if kind == problems.DEEP:
            assert name == f"{len(weights.layers)} layers ({', '.join(map(str, widths))})"
        for ours, theirs in itertools.pairwise(measure.separate(flow, weights)):
            assert not torch.equal(ours[1].layers[0], theirs[1].layers[0])
        assert flow.risk(weights).isfinite().all()


SMALL = scale.Axis("n = {}", lambda size: (*problems.separable(1, samples=size, width=3), T_FINAL), (2, 3, 4, 5))


def test_an_axis_is_climbed_until_a_run_does_not_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the system ends by its limit of time, and what ends otherwise; the table says the last size and the next."""
    monkeypatch.setattr(scale, "AXES", {"samples": SMALL, "width": SMALL._replace(problem="m = {}")})
    asked = []

    def run_instead(command: list[str], **_: object) -> SimpleNamespace:
        name, size = command[-2], int(command[-1])
        asked.append((name, size))
        if size < 4:
            return SimpleNamespace(returncode=0, stdout=json.dumps(asdict(scale.Run(size, "", 2.0, 3e9, 5, 7, 4e9))))
        return SimpleNamespace(returncode=-signal.SIGXCPU if name == "samples" else 1, stdout="")

    monkeypatch.setattr(subprocess, "run", run_instead)
    scale.write(["samples", "width"], tmp_path)
    assert asked == [(name, size) for name in ("samples", "width") for size in (2, 3, 4)]
    told = (tmp_path / "scale.md").read_text()
    assert "| samples | n = 3 | 2 | 5 | 7 | 4 | 4 | time |" in told
    assert "| width | m = 3 | 2 | 5 | 7 | 4 | 4 | exit status 1 |" in told
    scale.write(["width"], tmp_path)
    assert (tmp_path / "scale.md").read_text() == told, "the other axis is kept"


def test_a_run_counts_what_its_solution_has_or_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scale.run(SMALL, 4)
    flow, weights, t_final = SMALL.make(4)
    solution = solve(flow, weights, t_final, rtol=scale.RTOL, atol=1e-2 * scale.RTOL)
    assert (found.stopped, found.steps, found.events) == ("", solution.statistics["steps"], len(solution.events))
    assert found.stored == found.steps * limits.count_bytes(solution.path.records[0].layout)  # type: ignore[attr-defined]
    assert found.loss == flow.risk(solution.evaluate(t_final))
    monkeypatch.setattr(scale, "solve", partial(solve, max_steps=2))
    assert "max_steps = 2 steps taken" in scale.run(SMALL, 4).stopped

    def exhaust(_: int) -> tuple[Flow, Weights, float]:
        raise MemoryError("Unable to allocate 3 TiB")

    assert scale.run(SMALL._replace(make=exhaust), 4).stopped == "memory: Unable to allocate 3 TiB"


def test_a_run_may_take_its_time_for_each_thread_and_most_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits_set = {}
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: limits_set.update({which: limit}))
    scale.restrict(2)
    assert limits_set[resource.RLIMIT_CPU] == (240, 245)
    assert 1e8 < limits_set[resource.RLIMIT_DATA][0] < psutil.virtual_memory().total


def test_an_ensemble_on_a_device_is_compared_with_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "separable", partial(problems.separable, samples=3, width=3))
    threads = torch.get_num_threads()
    try:
        results = gpu.measure_all(torch.device("cpu"), (2, 3))
    finally:
        torch.set_num_threads(threads)
    assert [row.ensemble for row in results.rows] == [2, 3]
    assert all(row.difference == 0 and row.on_device > 0 and row.on_host > 0 for row in results.rows)
    other = gpu.Results("a card", 16, (gpu.Row(64, 2.0, 3.0, 1e-9),))
    gpu.write(other, tmp_path)
    assert "a card against 16 cores" in (tmp_path / "gpu.md").read_text()
    assert "| 64 | 2 | 3 | 1.50 | 1e-09 |" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_the_table_is_empty(tmp_path: Path) -> None:
    gpu.write(None, tmp_path)
    told = (tmp_path / "gpu.md").read_text()
    assert "Not measured" in told and told.endswith("|---|---|---|---|---|\n")
    assert not (tmp_path / "gpu.json").exists()
