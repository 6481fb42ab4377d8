"""Run the checks: `python -m theorems [NAME ...]`, see `--help`.

Exit status 0 exactly when every theorem case holds and every control is violated.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from flowsim import IntegrationError
from flowsim.__main__ import device_of
from flowsim.files import make_folder, require_writable
from flowsim.validation import require_count, require_positive
from theorems import cases, own_data, report, search
from theorems.cases import MODULES, undecided
from theorems.check import Check, DoesNotApplyError, check
from theorems.ensembles import Scope
from theorems.findings import findings
from theorems.measurement import NoMarginError

SEEDS, SEEDS_FULL = 3, 6
"""Trajectories per ensemble."""


WIDTH = 100
"""Columns where the output is no terminal."""


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
        "--search",
        type=float,
        metavar="MINUTES",
        help="look for counterexamples: minimise the margins of the statements",
    )
    main.add_argument(
        "--output", metavar="DIR", default="tightest", help="where --search keeps what it finds (default tightest/)"
    )
    return main


def checks_of_data(path: str, names: Sequence[str], device: str) -> tuple[list[Check], dict[str, Any]]:
    """Check the named statements on the problem in a file; also return its constants and what does not apply."""
    checks, inapplicable, constants = [], [], {}
    statements = [statement for statement in own_data.STATEMENTS if statement.name in names]
    for rule, solve in own_data.runs(path, device, progress=True).items():
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


def validated(options: argparse.Namespace) -> tuple[list[str], Scope]:
    """The names of the statements, and how much to run.

    Raises:
        ValueError: naming the option that is wrong.
    """
    unknown = [name for name in options.names if name not in MODULES]
    if unknown:
        raise ValueError(f"NAME must be one of {', '.join(MODULES)}, got {unknown[0]!r}")
    if options.seeds is not None:
        require_count("--seeds", options.seeds)
    if options.search is not None:
        require_positive("--search", options.search)
        if options.data:
            raise ValueError(f"--search does not go with --data, got {options.data!r}")
    require_writable("--json", options.json)
    require_writable("--html", options.html)
    if options.search is not None:
        make_folder("--output", options.output)
    seeds = options.seeds or (SEEDS_FULL if options.full else SEEDS)
    return options.names or list(MODULES), Scope(seeds, device_of(options.device), options.full)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 if all came out as they should, 1 if not, 2 for bad input."""
    options = parser().parse_args(arguments)
    out, err = Console(), Console(stderr=True)
    if not out.is_terminal:
        out = Console(width=WIDTH)
    started = time.perf_counter()
    try:
        names, scope = validated(options)
        if options.data:
            checks, more = checks_of_data(options.data, names, scope.device)
            shown, source = [report.table(checks), report.data_table(checks, more)], f"data {options.data}"
        elif options.search is not None:
            found = search.search(options.search, names, scope.device, Path(options.output), err)
            checks, more = [item.check for item in found], {"search": [item.summary() for item in found]}
            shown, source = [search.table(found)], f"search of {options.search:g} minutes"
        else:
            checks = cases.checks(names, scope, err)
            more = {"findings": [dataclasses.asdict(item) for item in findings(names, scope.seeds, scope.device)]}
            shown = [report.table(checks), report.findings_table(more)]
            source = f"seeds 0 to {scope.seeds - 1}"
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = time.perf_counter() - started
    out.print(*shown, sep="\n")
    # an instance that a search found may be too near to 0 to be decided; a violated one is a counterexample
    unexpected = [
        item for item in checks if (item.verdict == "violated" if options.search else not item.as_expected)
    ]  # fmt: skip
    for item in unexpected:
        near = "its margin is nearer to 0 than its error bound" if item.verdict == "undecided" else ""
        out.print(f"unexpected: {item.name}, {item.case}: {item.verdict} {item.details.get('reason', near)}")
    out.print(f"{len(checks) - len(unexpected)} of {len(checks)} checks as expected, {seconds:.0f} s")
    summary = report.summary(checks, scope.device, seconds, **more)
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
