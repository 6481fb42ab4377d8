"""What was measured, as JSON, as tables in markdown, and as a figure."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from measure import LIMIT, OURS, TARGET, Row
from problems import T_FINAL

from figures.style import BLUE, GREEN, ORANGE, PURPLE, STYLE, YELLOW, grid
from flowsim.files import whole

TARGETS = {1: 1, 16: 5, 64: 10, 256: 10}
"""How many times faster than the fastest peer an ensemble is to be, per trajectory, on the crossing problems."""

SLOWEST = 10.0
"""Seconds that a trajectory of a sliding problem may take."""


def write(rows: Sequence[Row], growth: Sequence[Row], crossing: Sequence[str], folder: Path, machine: str) -> None:
    """results.json, results.md and work_precision.png."""
    content = {
        "machine": machine,
        "target": TARGET,
        "t_final": T_FINAL,
        "rows": [asdict(row) for row in rows],
        "growth": [asdict(row) for row in growth],
    }
    parts = [
        f"Measured on {machine}. Seconds per trajectory, t = {T_FINAL:g}, for the loosest tolerance (in powers of 10) "
        f"with an error of {TARGET:g} or better; compilation apart; what did not end in {LIMIT:g} s was stopped.",
        "## Against the fastest peer",
        _summary(rows, crossing),
        f"![Seconds per trajectory against the largest error, {crossing[0]} data](work_precision.png)",
        "## Growth of the cost with the problem",
        _growth(growth),
        "## All methods",
        _table(rows),
    ]
    with whole(folder / "results.json") as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    with whole(folder / "results.md") as partial:
        partial.write_text("\n\n".join(parts) + "\n")
    if rows:
        with rc_context(STYLE), whole(folder / "work_precision.png") as partial:
            _work_precision(rows, crossing).savefig(partial, format="png")


def _lines(header: str, lines: Sequence[str]) -> str:
    return "\n".join([header, "|" + "---|" * (header.count("|") - 1), *lines])


def _summary(rows: Sequence[Row], crossing: Sequence[str]) -> str:
    """flowsim in each ensemble against the least time per trajectory of any peer there, or of one taken singly."""
    lines = []
    for ours in rows:
        if ours.method != OURS or ours.best is None:
            continue
        peers = [
            (row.best.seconds, f"{row.method}, {row.ensemble} together" if row.ensemble > 1 else row.method)
            for row in rows
            if row.method != OURS and row.problem == ours.problem and row.best and row.ensemble in (1, ours.ensemble)
        ]
        seconds, name = min(peers, default=(math.inf, "none ends"))
        if ours.problem in crossing:
            wanted, ratio = f"{TARGETS[ours.ensemble]}", seconds / ours.best.seconds
            reached = f"{ratio:.1f} | {wanted} | {'yes' if ratio >= TARGETS[ours.ensemble] else 'no'}"
        else:
            reached = f"| at most {SLOWEST:g} s | {'yes' if ours.best.seconds <= SLOWEST else 'no'}"
        peer = f"{seconds:.3g}" if peers else ""
        lines.append(f"| {ours.problem} | {ours.ensemble} | {ours.best.seconds:.3g} | {peer} | {name} | {reached} |")
    return _lines(
        "| problem | ensemble | flowsim, s | fastest peer, s | which | times as fast | target | reached |", lines
    )


def _growth(growth: Sequence[Row]) -> str:
    """flowsim's time over events times n r m, which is not to grow; and the peer's."""
    others = {row.problem: row for row in growth if row.method != OURS}
    lines = []
    for row in growth:
        if row.method != OURS or row.best is None or row.events is None:
            continue
        unit = row.best.seconds / (row.events * row.size)
        other = others.get(row.problem)
        peer = "" if other is None else f"{other.best.seconds:.3g}" if other.best else other.note
        lines.append(f"| {row.problem} | {row.events:.0f} | {row.best.seconds:.3g} | {1e9 * unit:.3g} | {peer} |")
    name = next((row.method for row in growth if row.method != OURS), "peer")
    return _lines(f"| problem | events | flowsim, s | ns per event and n r m | {name}, s |", lines)


def _table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        place = f"| {row.problem} | {row.ensemble} | {row.method}"
        if row.best is None:
            lines.append(f"{place} | | | {row.note} | | |")
            continue
        best = row.best
        lines.append(
            f"{place} | {best.rtol:.0e} | {best.error:.0e} | {best.seconds:.3g} | {best.evaluations:.0f} "
            f"| {best.compilation:.1f} |"
        )
    return _lines(
        "| problem | ensemble | method | rtol | error | s per trajectory | evaluations | compilation, s |", lines
    )


COLOURS = {"flowsim,": BLUE, "torchdiffeq": ORANGE, "scipy": GREEN, "diffrax": PURPLE, "torchode": YELLOW}


def _work_precision(rows: Sequence[Row], crossing: Sequence[str]) -> Figure:
    """A panel for each ensemble of the first crossing problem: seconds per trajectory against the error."""
    shown = [row for row in rows if row.problem == crossing[0] and row.points]
    ensembles = sorted({row.ensemble for row in shown})
    figure = Figure((2.3 * len(ensembles), 3.6), layout="constrained")
    axes = figure.subplots(1, len(ensembles), squeeze=False, sharex=True, sharey=True)[0]
    names = list(dict.fromkeys(row.method for row in shown))
    seen: dict[str, int] = {}
    style = {}
    for name in names:
        library = name.split(" ")[0]
        style[name] = COLOURS[library], "os^Dv"[seen.setdefault(library, 0)]
        seen[library] += 1
    for panel, ensemble in zip(axes, ensembles, strict=True):
        for row in shown:
            if row.ensemble == ensemble:
                colour, mark = style[row.method]
                errors, seconds = zip(*((point.error, point.seconds) for point in row.points), strict=True)
                panel.loglog(errors, seconds, color=colour, marker=mark, markersize=3.5, label=row.method)
        panel.axvline(TARGET, color="black", linewidth=0.6, linestyle=":")
        panel.set_title("one alone" if ensemble == 1 else f"{ensemble} together")
        panel.set_xlabel("largest error at the end")
        grid(panel, "both")
    axes[0].invert_xaxis()
    axes[0].set_ylabel("seconds per trajectory")
    labelled = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=4)
    return figure
