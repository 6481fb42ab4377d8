"""What was measured, as tables in Markdown: all of them, and the summary for docs/solvers.md."""

import math
from collections.abc import Iterable, Iterator

from accuracy import CONVERGENCE, EXACT_RTOL
from limits import Arithmetic
from measure import GOALS, OURS, Point, Row
from problems import BASE, DEEP, HARD, SETTINGS, SINGLE, SLIDING, SLOPE, arbitrary_labels, deep, digits, separable
from results import NONE, TIGHT, Results, fit_growth, list_growth
from targets import list_targets


def tell(results: Results) -> str:
    """All tables."""
    parts = [*_tell_what(results), *_tell_speed(results), *_tell_cost(results), *_tell_accuracy(results)]
    parts += [
        "## Compilation",
        "The core of flowsim: {compiled:.0f} s where nothing is stored, {loaded:.2f} s to load what is.".format(
            **{"compiled": math.nan, "loaded": math.nan, **results.compilation}
        ),
        "## All runs",
        tabulate(
            "| problem | together | method | threads | rtol | error | s | runs | evaluations | compilation, s |",
            _all(results),
        ),
        "## Targets",
        "What was aimed at, beside what this run came to: one that misses more of it tells of speed or accuracy lost, "
        "or of a slower machine.",
        tabulate("| what | target | measured | met |", (target.line for target in list_targets(results))),
    ]
    return "\n\n".join(parts) + "\n"


def _tell_what(results: Results) -> list[str]:
    """What was measured, and on what."""
    return [
        f"Measured on {results.machine}, with one thread where nothing else is said; a {results.extent} run of "
        f"{results.seconds / 60:.0f} minutes, and {results.share * results.seconds / 60:.0f} CPU minutes. Seconds per "
        "trajectory, the median of 5 runs or of as many as fit into 20 s, for the cheapest tolerance (of powers of 10) "
        "with an error at the end as stated or better; compilation apart.",
        f"FA, exponential loss, slope {SLOPE:g}:",
        "\n".join(_describe()),
    ]


def _tell_speed(results: Results) -> list[str]:
    """Beside the peers: alone, together, and on what is hard."""
    return [
        "## One trajectory",
        tabulate(
            "| problem | error | events | flowsim, s | fastest peer, s | which | times as fast |", _single(results)
        ),
        f"![Seconds per trajectory against the largest error](work_precision.png)\n\nThe separable problem {BASE}, "
        "alone and together, and a deep network. The cheapest point of each curve that reaches an error (dotted) is a "
        "median, the others are one run each.",
        "## Ensembles",
        f"The problem {BASE}, at an error of {TIGHT:g}.",
        tabulate(
            "| together | flowsim, s | two threads, s | fastest peer, s | which | times as fast | two threads |",
            _ensembles(results),
        ),
        "## Sliding and deep",
        f"At an error of {TIGHT:g}. Where a peer was stopped before it reached that, the least error that it did "
        "reach, at a looser tolerance, stands behind it.",
        tabulate("| problem | events | flowsim alone, s | 16 together, s | peers |", _hard(results)),
    ]


def _tell_cost(results: Results) -> list[str]:
    """Beside the arithmetic, with the size of the problem, and in memory."""
    return [
        "## Arithmetic",
        "The operations of the Taylor series (`limits.count_operations`) at the rate of BLAS on products of the same "
        "shapes, in the same run.",
        tabulate(
            "| problem | operations | rate, 1/s | limit, s | time, s | ratio |", map(_arithmetic, results.arithmetic)
        ),
        "## Growth of the cost with the problem",
        _growth(results),
        "## Memory",
        "Bytes per step: 8 (3 + weights) + kinks + weights above the first layer, in the span of the inputs.",
        tabulate(
            "| problem | steps | by the formula | held | traced |",
            (f"| {m.problem} | {m.steps} | {m.counted} | {m.held:.0f} | {m.traced:.0f} |" for m in results.memory),
        ),
    ]


def _tell_accuracy(results: Results) -> list[str]:
    return [
        "## Accuracy",
        f"Largest errors on exact solutions at rtol {EXACT_RTOL:g}:",
        tabulate("| solution | error |", (f"| {exact.solution} | {exact.error:.1e} |" for exact in results.exact)),
        "Largest errors of any weight over the whole run, against a run at 1e-13:",
        _convergence(results),
        "That run against the nearest of any peer's, at the end:",
        tabulate("| problem | peer | its rtol | difference |", _references(results)),
    ]


def _describe() -> Iterator[str]:
    """What the problems are."""
    kinds = {
        f"n = .., m = .., such as {BASE}": separable,
        "arbitrary labels (n = 40, d = 20, m = 50)": arbitrary_labels,
        "digits (n = 60, m = 30)": digits,
        "3 or 4 layers, with the widths of the hidden ones (n = 10, d = 6; widths 50 and 50: n = d = 20)": deep,
    }
    for name, function in kinds.items():
        yield f"- {name}: {(function.__doc__ or '').partition(chr(10))[0]}"


def tabulate(header: str, lines: Iterable[str]) -> str:
    """A table in Markdown: its header, and lines like it.

    >>> print(tabulate("| n | s |", ["| 20 | 0.03 |"]))
    | n | s |
    |---|---|
    | 20 | 0.03 |
    """
    return "\n".join([header, "|" + "---|" * (header.count("|") - 1), *lines])


def _s(seconds: float | None) -> str:
    return "" if seconds is None or not math.isfinite(seconds) else f"{seconds:.3g}"


def _seconds(point: Point | None) -> str:
    return _s(point.seconds if point else None)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}"


def _single(results: Results) -> Iterator[str]:
    for name in SINGLE:
        for goal in GOALS:
            ours, (seconds, which) = results.ours(name, goal=goal), results.fastest(name, goal=goal)
            events = "" if ours is None or ours.events is None else f"{ours.events:.0f}"
            ratio = _times(results.ratio(name, goal=goal))
            yield f"| {name} | {goal:g} | {events} | {_seconds(ours)} | {_s(seconds)} | {which} | {ratio} |"


def _ensembles(results: Results) -> Iterator[str]:
    for count in results.ensembles:
        one, two = results.ours(BASE, count), results.ours(BASE, count, threads=2)
        seconds, which = results.fastest(BASE, count)
        ratios = " | ".join(_times(results.ratio(BASE, count, threads)) for threads in (1, 2))
        yield f"| {count} | {_seconds(one)} | {_seconds(two)} | {_s(seconds)} | {which} | {ratios} |"


def _hard(results: Results) -> Iterator[str]:
    for name in HARD:
        alone, together = results.ours(name), results.ours(name, 16)
        events = "" if alone is None or alone.events is None else f"{alone.events:.0f}"
        peers = "; ".join(_outcome(row) for row in results.rows if row.problem == name and row.method != OURS)
        yield f"| {name} | {events} | {_seconds(alone)} | {_seconds(together)} | {peers} |"


def _outcome(row: Row) -> str:
    """What became of a peer."""
    best = row.best(TIGHT)
    if best:
        return f"{row.method}: {_s(best.seconds)} s"
    reached = min(row.points, key=lambda point: point.error, default=None)
    if reached is None:
        return f"{row.method}: {row.note}"
    return f"{row.method}: {row.note}; error {reached.error:.0e} after {_s(reached.seconds)} s at {reached.rtol:g}"


def _arithmetic(found: Arithmetic) -> str:
    limit = found.operations / found.rate
    return (
        f"| {found.problem} | {found.operations:.2e} | {found.rate:.2e} | {_s(limit)} | {_s(found.seconds)} "
        f"| {found.ratio:.1f} |"
    )  # fmt: skip


def _growth(results: Results) -> str:
    lines = [
        f"| {name} | {events:.0f} | {_s(seconds)} | {1e6 * seconds / events:.3g} "
        f"| {1e9 * seconds / events / size:.3g} |"
        for growing in list_growth(results).values()
        for name, size, events, seconds in growing
    ]
    fits = "; ".join(f"{growing}, (n r m)^{slope:.2f}" for growing, slope in fit_growth(results).items())
    return tabulate("| problem | events | s | µs per event | ns per event and n r m |", lines) + (
        f"\n\nThe cost per event grows, by least squares, as: {fits}."
    )


def _convergence(results: Results) -> str:
    columns = [f"{rtol:.0e}" for rtol in CONVERGENCE]
    lines = [
        f"| {each.problem} | {each.events} | {each.slides} | "
        + " | ".join(f"{each.errors[column]:.0e}" if column in each.errors else "stops" for column in columns) + " |"
        for each in results.convergence
    ]  # fmt: skip
    return tabulate("| problem | events | slides | " + " | ".join(columns) + " |", lines)


def _references(results: Results) -> Iterator[str]:
    for name in (*SINGLE, *HARD):
        found = [
            (point.error, row.method, point.rtol)
            for row in results.rows
            if row.problem == name and row.ensemble == 1 and row.method != OURS
            for point in row.points
        ]
        if found:
            error, method, rtol = min(found)
            yield f"| {name} | {method} | {rtol:.0e} | {error:.0e} |"
        else:
            yield f"| {name} | none ends | | |"


def _all(results: Results) -> Iterator[str]:
    for row in results.rows:
        place = f"| {row.problem} | {row.ensemble} | {row.method} | {row.threads}"
        for point in row.points:
            yield (
                f"{place} | {point.rtol:.0e} | {point.error:.0e} | {point.seconds:.3g} | {point.runs} "
                f"| {point.evaluations:.0f} | {point.compilation:.1f} |"
            )
        if row.note:
            yield f"{place} | | | {row.note} | | | |"


def tell_readers(results: Results) -> str:
    """The summary on the page."""
    lines = []
    for name in (*SINGLE, *HARD):
        counts = [results.ours(name), *(results.ours(name, count) for count in (16, 64, 256))]
        data = {SLIDING: "", DEEP: "deep, "}.get(SETTINGS[name].kind, "separable, ")
        seconds, which = results.fastest(name)
        peer = f"{_s(seconds)} ({which})" if math.isfinite(seconds) else NONE
        ratio = _times(results.ratio(name))
        lines.append(f"| {data}{name} | " + " | ".join(map(_seconds, counts)) + f" | {peer} | {ratio} |")
    return tabulate("| problem | alone | 16 together | 64 | 256 | fastest peer, alone | times as fast |", lines) + "\n"
