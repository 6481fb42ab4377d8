"""Run the checks: `python -m theorems [NAME ...]`, see `--help`.

Exit status 0 exactly when every theorem case holds and every control is violated.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowsim import IntegrationError
from flowsim.__main__ import device_of
from flowsim.files import require_writable
from flowsim.validation import require_count
from theorems import (
    equation_1,
    lemma_5_4,
    own_data,
    proposition_5_3,
    proposition_5_7,
    report,
    theorem_5_1,
    theorem_5_2,
)
from theorems.check import Case, Check, DoesNotApplyError, Role, Statement, check, run
from theorems.ensembles import FULL, QUICK, Scope
from theorems.measurement import NoMarginError

MODULES = {
    "equation_1": equation_1,
    "theorem_5_1": theorem_5_1,
    "theorem_5_2": theorem_5_2,
    "proposition_5_3": proposition_5_3,
    "lemma_5_4": lemma_5_4,
    "proposition_5_7": proposition_5_7,
}


SEEDS, SEEDS_FULL = 4, 8
"""Trajectories per ensemble."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m theorems", description="Check the statements of the paper.")
    main.add_argument("names", nargs="*", metavar="NAME", help=f"statements, of {', '.join(MODULES)} (default: all)")
    main.add_argument(
        "--seeds", type=int, metavar="N", help=f"trajectories per ensemble (default {SEEDS}; {SEEDS_FULL} with --full)"
    )
    main.add_argument("--full", action="store_true", help="more widths, samples and slopes: minutes, not seconds")
    main.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    main.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    main.add_argument("--html", metavar="FILE", help="write the verdicts as one HTML page")
    main.add_argument("--data", metavar="FILE.npz", help="check the statements on a problem of your own")
    main.add_argument(
        "--search", type=float, metavar="MINUTES", help="look for counterexamples: minimise the margins of the statements"
    )
    main.add_argument(
        "--output", metavar="DIR", default="tightest", help="where --search keeps what it finds (default tightest/)"
    )
    return main


def outcome(case: Case) -> Check:
    """The check of a case; where it cannot be solved or measured it is undecided, with the reason."""
    try:
        return run(case)
    except (IntegrationError, NoMarginError) as stop:
        return undecided(case.statement, case.label, case.role, stop)


def undecided(statement: Statement, label: str, role: Role, stop: Exception) -> Check:
    """The check of a case that could not be solved or measured."""
    return Check(statement.name, label, role, "undecided", None, None, 0, {"reason": str(stop)})


def checks_of_cases(names: Sequence[str], scope: Scope, console: Console) -> list[Check]:
    """Run the cases of the named statements."""
    cases = [case for name in names for case in MODULES[name].cases(scope)]
    return [outcome(case) for case in shown(cases, console)]


def shown(cases: Sequence[Case], console: Console) -> Iterator[Case]:
    """The cases one by one, with a progress bar."""
    columns = TextColumn("{task.description:60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(cases))
        for case in cases:
            bar.update(task, description=f"{case.statement.name}: {case.label}")
            yield case
            bar.advance(task)


def checks_of_data(path: str, names: Sequence[str], device: str) -> tuple[list[Check], dict[str, object]]:
    """Check the named statements on the problem in a file; also return its constants and what does not apply."""
    checks, inapplicable, constants = [], [], {}
    statements = [statement for statement in own_data.STATEMENTS if statement.name in names]
    for rule, solve in own_data.runs(path, device).items():
        labels = [f"{rule}, {statement.title.split(', ', 1)[1]}" for statement in statements]
        try:
            solution = solve()
        except IntegrationError as stop:
            checks += [undecided(*pair, "theorem", stop) for pair in zip(statements, labels, strict=True)]
            continue
        constants = own_data.constants(solution)
        for statement, label in zip(statements, labels, strict=True):
            try:
                checks.append(check(statement, label, "theorem", [solution]))
            except DoesNotApplyError as error:
                hypotheses = own_data.described(error.hypotheses)
                inapplicable.append({"name": statement.name, "case": label, "hypotheses": hypotheses})
            except NoMarginError as stop:
                checks.append(undecided(statement, label, "theorem", stop))
    order = list(MODULES)
    checks.sort(key=lambda item: order.index(item.name))  # stable: by statement, then rule
    inapplicable.sort(key=lambda item: order.index(item["name"]))
    return checks, {"data": constants, "inapplicable": inapplicable}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 if all came out as they should, 1 if not, 2 for bad input."""
    options = parser().parse_args(arguments)
    out, err = Console(), Console(stderr=True)
    started = time.perf_counter()
    more: dict[str, object] = {}
    try:
        unknown = [name for name in options.names if name not in MODULES]
        if unknown:
            raise ValueError(f"NAME must be one of {', '.join(MODULES)}, got {unknown[0]!r}")
        seeds = options.seeds or (SEEDS_FULL if options.full else SEEDS)
        require_count("--seeds", seeds if options.seeds is None else options.seeds)
        require_writable("--json", options.json)
        require_writable("--html", options.html)
        names, device = options.names or list(MODULES), device_of(options.device)
        scope = Scope(seeds, device, FULL if options.full else QUICK)
        if options.data:
            checks, more = checks_of_data(options.data, names, device)
            source = f"data {options.data}"
        else:
            checks = checks_of_cases(names, scope, err)
            source = f"seeds 0 to {seeds - 1}"
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    out.print(report.table(checks))
    if options.data:
        out.print(report.data_table(more))
    unexpected = [item for item in checks if not item.as_expected]
    for item in unexpected:
        out.print(f"unexpected: {item.name}, {item.case}: {item.verdict} {item.details.get('reason', '')}")
    out.print(f"{len(checks) - len(unexpected)} of {len(checks)} checks as expected, {seconds:.0f} s")
    summary = report.summary(checks, device, seconds, **more)
    if options.json:
        report.write_json(options.json, summary)
    if options.html:
        statements = [case.statement for name in names for case in MODULES[name].cases(scope)]
        report.write_html(options.html, summary, statements, source)
    return 1 if unexpected else 0


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        # the tensors are small, and threads that wait for each other on a busy machine take four times as long
        torch.set_num_threads(1)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
