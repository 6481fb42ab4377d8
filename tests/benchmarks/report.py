"""What was measured, as JSON, as tables in markdown, as a figure, and as the table in docs/solvers.md."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy import CONVERGENCE, EXACT_RTOL, Convergence, Exact
from limits import Arithmetic, Memory
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import GOALS, OURS, Point, Row
from problems import (
    BASE,
    DEEP,
    HARD,
    SETTINGS,
    SINGLE,
    SLIDING,
    SLOPE,
    arbitrary_labels,
    deep,
    digits,
    separable,
)

from figures.style import BLUE, GREEN, ORANGE, PURPLE, STYLE, YELLOW, grid
from flowsim.files import whole

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/solvers.md"
BEGIN, END = "<!-- benchmarks: written by tests/benchmarks -->\n", "<!-- end of benchmarks -->\n"
LOOSE, TIGHT = GOALS

# --- targets ---

TIMES_AS_FAST = {TIGHT: 10.0, LOOSE: 3.0}
"""Times as fast as the fastest peer, alone, by the error."""

TIMES_AS_FAST_TOGETHER = 20.0
OF_ARITHMETIC = 3.0
OF_TWO_THREADS = 1.7
SECONDS = {
    **{name: 0.3 for name, setting in HARD.items() if setting.kind == SLIDING},
    "3 layers (8, 7)": 0.05, "4 layers (8, 7, 6)": 0.2, "3 layers (50, 50)": 10.0,
}  # fmt: skip
"""At most so many seconds a trajectory."""

EXACT_ERROR = 1e-10
"""On exact solutions, of size 1, with less than 100 steps at 1e-12."""


@dataclass
class Results:
    """All that is measured. `share`: of the time, in which the process had a core."""

    machine: str
    extent: str
    rows: list[Row] = field(default_factory=list)
    arithmetic: list[Arithmetic] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    exact: list[Exact] = field(default_factory=list)
    convergence: list[Convergence] = field(default_factory=list)
    compilation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    share: float = 0.0

    def ours(self, name: str, count: int = 1, threads: int = 1, goal: float = TIGHT) -> Point | None:
        """flowsim's cheapest runs of an ensemble that reach an error."""
        for row in self.rows:
            if (row.problem, row.ensemble, row.method, row.threads) == (name, count, OURS, threads):
                return row.best(goal)
        return None

    def fastest(self, name: str, count: int = 1, goal: float = TIGHT) -> tuple[float, str]:
        """The least time per trajectory of any peer, together or one after another, and which."""
        found = [
            (best.seconds, f"{row.method}, {row.ensemble} together" if row.ensemble > 1 else row.method)
            for row in self.rows
            if row.method != OURS and row.problem == name and row.ensemble in (1, count) and (best := row.best(goal))
        ]
        return min(found, default=(math.inf, "none ends"))

    def ratio(self, name: str, count: int = 1, threads: int = 1, goal: float = TIGHT) -> float | None:
        """How many times as fast as the fastest peer flowsim is; None where none ends."""
        ours, (seconds, _) = self.ours(name, count, threads, goal), self.fastest(name, count, goal)
        return seconds / ours.seconds if ours and math.isfinite(seconds) else None

    @property
    def ensembles(self) -> list[int]:
        """Sizes of the ensembles of the base problem."""
        return sorted({row.ensemble for row in self.rows if row.problem == BASE and row.ensemble > 1})


def read(path: Path) -> Results:
    """What `write` wrote."""
    content = json.loads(path.read_text())
    rows = [Row(**{**row, "points": tuple(Point(**point) for point in row["points"])}) for row in content.pop("rows")]
    kinds: dict[str, Any] = {"arithmetic": Arithmetic, "memory": Memory, "exact": Exact, "convergence": Convergence}
    others = {name: [kind(**item) for item in content.pop(name)] for name, kind in kinds.items()}
    return Results(rows=rows, **others, **content)


def write(results: Results, folder: Path = HERE, page: Path = PAGE) -> None:
    """results.json, results.md, work_precision.png, and the table in docs/solvers.md."""
    with whole(folder / "results.json") as partial:
        partial.write_text(json.dumps(asdict(results), indent=1) + "\n")
    with whole(folder / "results.md") as partial:
        partial.write_text(tell(results))
    with rc_context(STYLE), whole(folder / "work_precision.png") as partial:
        draw(results).savefig(partial, format="png")
    text = put_into(page.read_text(), tell_readers(results))
    with whole(page) as partial:
        partial.write_text(text)


# --- tables ---


def tell(results: Results) -> str:
    """All tables."""
    parts = [
        f"Measured on {results.machine}, with one thread where nothing else is said, {results.extent} run of "
        f"{results.seconds / 60:.0f} minutes, in {results.share:.0%} of which the process had a core. Seconds per "
        "trajectory, the median of 5 runs or of as many as fit into 20 s, for the cheapest tolerance (of powers of 10) "
        "with an error at the end as stated or better; compilation apart.",
        f"FA, exponential loss, slope {SLOPE:g}:",
        "\n".join(_describe()),
        "## Targets",
        tabulate("| what | target | measured | met |", (target.line for target in list_targets(results))),
        "## One trajectory",
        tabulate(
            "| problem | error | events | flowsim, s | fastest peer, s | which | times as fast |", _single(results)
        ),
        f"![Seconds per trajectory against the largest error](work_precision.png)\n\nThe separable problem {BASE}, "
        "alone and together, and a deep network.",
        "## Ensembles",
        f"The problem {BASE}, at an error of {TIGHT:g}.",
        tabulate(
            "| together | flowsim, s | two threads, s | fastest peer, s | which | times as fast | two threads |",
            _ensembles(results),
        ),
        "## Sliding and deep",
        f"At an error of {TIGHT:g}. What a peer reached before it was stopped stands beside it.",
        tabulate("| problem | events | flowsim alone, s | 16 together, s | peers |", _hard(results)),
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
        "## Accuracy",
        f"Largest errors on exact solutions at rtol {EXACT_RTOL:g}:",
        tabulate("| solution | error |", (f"| {exact.solution} | {exact.error:.1e} |" for exact in results.exact)),
        "Largest errors of any weight over the whole run, against a run at 1e-13:",
        _convergence(results),
        "That run against the nearest of any peer's, at the end:",
        tabulate("| problem | peer | its rtol | difference |", _references(results)),
        "## Compilation",
        "The core of flowsim: {compiled:.0f} s where nothing is stored, {loaded:.2f} s to load what is.".format(
            **{"compiled": math.nan, "loaded": math.nan, **results.compilation}
        ),
        "## All runs",
        tabulate(
            "| problem | together | method | threads | rtol | error | s | runs | evaluations | compilation, s |",
            _all(results),
        ),
    ]
    return "\n\n".join(parts) + "\n"


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


class Target(NamedTuple):
    """What was to be reached, and what was; None where it was not measured."""

    what: str
    wanted: float
    measured: float | None
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it was."""
        return self.measured is not None and (
            self.measured >= self.wanted if self.at_least else self.measured <= self.wanted
        )

    @property
    def line(self) -> str:
        """A row of the table."""
        sign, measured = ("≥" if self.at_least else "≤"), "" if self.measured is None else f"{self.measured:.3g}"
        return f"| {self.what} | {sign} {self.wanted:g} | {measured} | {'yes' if self.met else 'no'} |"


def list_targets(results: Results) -> Iterator[Target]:
    """Targets beside what was measured."""
    for goal, wanted in TIMES_AS_FAST.items():
        for name in SINGLE:
            what = f"{name}: times as fast as the fastest peer, error {goal:g}"
            yield Target(what, wanted, results.ratio(name, goal=goal), True)
    for count in results.ensembles:
        what = f"{count} together: times as fast as the fastest peer"
        yield Target(what, TIMES_AS_FAST_TOGETHER, results.ratio(BASE, count), True)
    for each in results.arithmetic:
        if each.problem == BASE:
            yield Target(f"{BASE}: time over the arithmetic limit", OF_ARITHMETIC, each.ratio, False)
    for count in results.ensembles:
        one, two = results.ours(BASE, count), results.ours(BASE, count, threads=2)
        if one and two:
            yield Target(f"{count} together: two threads over one", OF_TWO_THREADS, one.seconds / two.seconds, True)
    for name, wanted in SECONDS.items():
        ours = results.ours(name)
        yield Target(f"{name}: seconds a trajectory", wanted, ours.seconds if ours else None, False)
    for exact in results.exact:
        yield Target(f"{exact.solution}: error at {EXACT_RTOL:g}", EXACT_ERROR, exact.error, False)
    for name, slope in fit_growth(results).items():
        yield Target(f"cost per event ~ (n r m)^a, {name}: a", 1.0, slope, False)


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


def list_growth(results: Results) -> dict[str, list[tuple[str, float, float, float]]]:
    """By what grows: problem, n r m, events, and seconds."""
    found: dict[str, list[tuple[str, float, float, float]]] = {"m grows": [], "n grows": []}
    for name, setting in SETTINGS.items():
        ours = results.ours(name)
        if name not in HARD and ours and ours.events:
            samples, width = (setting.make.keywords[key] for key in ("samples", "width"))  # type: ignore[attr-defined]
            line = (name, samples**2 * width, ours.events, ours.seconds)
            for growing, same in (("m grows", samples == 20), ("n grows", width == 50)):
                if same:
                    found[growing].append(line)
    return {growing: sorted(lines, key=lambda line: line[1]) for growing, lines in found.items()}


def fit_growth(results: Results) -> dict[str, float]:
    """The powers of n r m that the cost per event grows with."""
    fitted = {}
    for growing, lines in list_growth(results).items():
        if len(lines) > 1:
            sizes, costs = zip(*((size, seconds / events) for _, size, events, seconds in lines), strict=True)
            fitted[growing] = float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
    return fitted


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


# --- the page ---


def tell_readers(results: Results) -> str:
    """The summary on the page."""
    lines = []
    for name in (*SINGLE, *HARD):
        counts = [results.ours(name), *(results.ours(name, count) for count in (16, 64, 256))]
        data = {SLIDING: "", DEEP: "deep, "}.get(SETTINGS[name].kind, "separable, ")
        seconds, which = results.fastest(name)
        peer = f"{_s(seconds)} ({which})" if math.isfinite(seconds) else "none ends"
        ratio = _times(results.ratio(name))
        lines.append(f"| {data}{name} | " + " | ".join(map(_seconds, counts)) + f" | {peer} | {ratio} |")
    return tabulate("| problem | alone | 16 together | 64 | 256 | fastest peer, alone | times as fast |", lines) + "\n"


def put_into(text: str, table: str) -> str:
    """The page with the table between its marks.

    Raises:
        ValueError: if they are not there once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page must have {BEGIN.strip()} and {END.strip()} once")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1]


# --- the figure ---

COLOURS = {OURS: BLUE, "torchdiffeq": ORANGE, "scipy": GREEN, "diffrax": PURPLE, "torchode": YELLOW}
MARKS = "os^Dv"
DRAWN = "3 layers (8, 7)"


def draw(results: Results) -> Figure:
    """Seconds per trajectory against the error: the base problem, alone and together, and a deep one alone."""
    shown = [(BASE, count) for count in (1, *results.ensembles)] + [(DRAWN, 1)]
    figure = Figure((2.3 * len(shown), 3.6), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    styles = _choose_styles([row.method for row in results.rows])
    for panel, (name, count) in zip(axes, shown, strict=True):
        rows = [row for row in results.rows if (row.problem, row.ensemble, row.threads) == (name, count, 1)]
        _draw_rows(panel, rows, styles)
        panel.set_title(name if name == DRAWN else "one alone" if count == 1 else f"{count} together")
    axes[0].set_ylabel("seconds per trajectory")
    labelled = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if labelled:
        figure.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=4)
    return figure


def _choose_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour for each library, a mark for each of its methods."""
    found, seen = {}, dict.fromkeys(COLOURS, 0)
    for method in dict.fromkeys(methods):
        library = method.split(" ")[0]
        found[method] = COLOURS[library], MARKS[seen[library] % len(MARKS)]
        seen[library] += 1
    return found


def _draw_rows(panel: Axes, rows: Sequence[Row], styles: dict[str, tuple[str, str]]) -> None:
    for row in rows:
        points = [point for point in row.points if math.isfinite(point.error) and point.error > 0]
        if points:
            colour, mark = styles[row.method]
            errors, seconds = zip(*((point.error, point.seconds) for point in points), strict=True)
            panel.loglog(errors, seconds, color=colour, marker=mark, markersize=3.5, label=row.method)
    for goal in GOALS:
        panel.axvline(goal, color="black", linewidth=0.6, linestyle=":")
    panel.set_xlabel("largest error at the end")
    panel.invert_xaxis()
    grid(panel, "both")
