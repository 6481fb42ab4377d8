"""Check the statements, on cases of their own or on your data set: verdicts with error bounds.

Exit status 0 exactly when every theorem case holds and every control is violated; with `--rigorous`, when every theorem
case is proved and every control is refuted. If there is none of either, as where no statement applies to data, it is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, RenderableType

from flowsim.problems import made_up, read_source
from flowsim.shell import complain
from theorems import own_data, report, search, tables
from theorems.cases import MODULES
from theorems.check import Check
from theorems.ensembles import Scope
from theorems.options import TIGHTEST, certificate_paths, choose_init, parser, validate
from theorems.outcome import Outcome, check_cases, check_data, collect, search_targets

FEW_NAMED = 3
"""Checks that are named where several are undecided for one reason."""

WIDTH = 100
"""Columns where the output is no terminal."""

PROVABLE = 12
"""Rows of data; proofs on more of them may take hours."""


def run(options: argparse.Namespace, names: Sequence[str], scope: Scope, err: Console) -> Outcome:
    """What comes out of what the options say.

    Raises:
        ValueError: if the data cannot be read.
    """
    if options.data:
        return run_on_data(options, names, scope)
    if options.rigorous:
        return prove_cases(names, scope)
    if options.search is not None:
        arguments = (options.search, names, scope.device, Path(options.output or TIGHTEST), err)
        return collect(partial(search_targets, *arguments), f"search of {options.search:g} minutes")
    return collect(partial(check_cases, names, scope), describe_seeds(scope))


def describe_seeds(scope: Scope) -> str:
    """What the report says of where the runs come from.

    >>> describe_seeds(Scope(1, "cpu")), describe_seeds(Scope(3, "cpu"))
    ('seed 0', 'seeds 0 to 2')
    """
    return "seed 0" if scope.seeds == 1 else f"seeds 0 to {scope.seeds - 1}"


def run_on_data(options: argparse.Namespace, names: Sequence[str], scope: Scope) -> Outcome:
    """What comes out for a file; errors as in `run`."""
    source = read_source(options.data, options.label, scope.device, standardize=options.standardize)
    init = choose_init(options, source)
    said = [line for line in (source.said, "" if init is None else made_up(init, "fa")) if line]
    where = "; ".join([f"data {options.data}", *said])
    if not options.rigorous:
        runs = own_data.runs(source, options.loss, init, progress=True)
        outcome = collect(partial(check_data, own_data, runs, names), where)
    else:
        rows = source.dataset.samples
        if rows > PROVABLE:
            print(f"flowsim: proofs on {rows} rows may take hours: they are for about {PROVABLE}", file=sys.stderr)
        outcome = prove_on_data(options, names, own_data.problems(source, options.loss, init), where)
    if said:
        outcome.more["said"] = said
    return outcome


def prove_cases(names: Sequence[str], scope: Scope) -> Outcome:
    """What comes out with `--rigorous`."""
    from theorems.rigorous.report import versions  # noqa: PLC0415, optional

    outcome = collect(partial(check_cases, names, scope), describe_seeds(scope))
    outcome.more["rigorous"] = versions()
    return outcome


def prove_on_data(
    options: argparse.Namespace, names: Sequence[str], problems: tuple[dict[str, Any], float], where: str
) -> Outcome:
    """What comes out with `--rigorous` for problems by rule and their t_final."""
    from theorems.rigorous import own_data as rigorous  # noqa: PLC0415, optional
    from theorems.rigorous.certificates import write_certificates  # noqa: PLC0415, optional
    from theorems.rigorous.report import versions  # noqa: PLC0415, optional

    runs = rigorous.runs(*problems)
    outcome = collect(partial(check_data, rigorous, runs, names), where)
    if options.certificate:
        write_certificates(certificate_paths(options.certificate, runs), runs, outcome.failed)
    outcome.more["rigorous"] = versions()
    return outcome


def tables_of(outcome: Outcome) -> list[RenderableType]:
    """The tables that the terminal shows."""
    if outcome.found is not None:
        return [search.table(outcome.found)]
    more = outcome.more
    if "rigorous" in more:
        from theorems.rigorous import report as rigorous  # noqa: PLC0415, optional

        return _framed([rigorous.table(outcome.checks)], more, rigorous.describe_state, rigorous.describe_constant)
    findings = [tables.findings_table(more)] if more.get("findings") else []
    return _framed([tables.table(outcome.checks), *findings], more)


def _framed(verdicts: list[RenderableType], more: Mapping[str, Any], *written: Any) -> list[RenderableType]:
    """Verdicts, on data of the user's between what the data are and what does not apply to them."""
    if "data" not in more:
        return verdicts
    return [
        *tables.data_tables(more, *written),
        *verdicts,
        *tables.inapplicable_tables(more["inapplicable"], *written[:1]),
    ]


def unexpected_lines(checks: Sequence[Check], rigorous: bool) -> Iterator[str]:
    """What is not as expected, and why; where one reason is that of several checks, as of a run that stopped, once."""
    near = "its interval contains 0" if rigorous else "its margin is nearer to 0 than its error bound"
    together: dict[str, list[Check]] = {}
    for check in checks:
        default = near if check.verdict == "undecided" else ""
        together.setdefault(f"{check.verdict}: {check.details.get('reason', default)}".rstrip(": "), []).append(check)
    for outcome, those in together.items():
        names = "; ".join(f"{check.name}, {check.case}" for check in those[:FEW_NAMED])
        more = f"; and {len(those) - FEW_NAMED} more" if len(those) > FEW_NAMED else ""
        yield f"unexpected: {names}{more}: {outcome}"


def print_outcome(outcome: Outcome, seconds: float) -> None:
    """Print tables, and what is not as expected."""
    out = Console()
    if not out.is_terminal:
        out = Console(width=WIDTH)
    tables = tables_of(outcome)
    unexpected, count = outcome.unexpected, len(outcome.checks)
    with out.capture() as captured:
        out.print(*tables, sep="\n")
        for line in outcome.more.get("said", []):
            out.print(line, markup=False)
        for line in unexpected_lines(unexpected, "rigorous" in outcome.more):
            out.print(line, markup=False)
        time_taken = f"interrupted after {seconds:.0f} s" if outcome.interrupted else f"{seconds:.0f} s"
        said = f"{count - len(unexpected)} of {count} checks as expected" if count else "nothing is checked"
        out.print(f"{said}, {time_taken}")
    print(captured.get(), end="", flush=True)


def main(arguments: Sequence[str] | None = None, prog: str = "flowsim check") -> int:
    """Run the command line; return the exit status.

    It is 0 if all came out as it should, 1 if not; 2 for bad input, or an output that cannot be written; 130 after
    Ctrl-C. All outputs have what was decided until then.
    """
    options = parser(prog).parse_intermixed_args(arguments)
    if "OMP_NUM_THREADS" not in os.environ:
        # the tensors are small, and threads that wait for each other on a busy machine take four times as long
        torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        names, scope = validate(options)
        outcome = run(options, names, scope, Console(stderr=True))
    except (ValueError, ImportError) as error:
        complain(str(error))
        return 2
    seconds = time.perf_counter() - started
    summary = report.summary(
        outcome.checks,
        scope.device,
        seconds,
        complete=not outcome.interrupted,
        dtype="ball arithmetic" if options.rigorous else "float64",
        **outcome.more,
    )
    failed = outcome.failed
    if options.json:
        with failed.at(f"--json {options.json}"):
            report.write_json(options.json, summary)
    if options.html:
        with failed.at(f"--html {options.html}"):
            statements = [case.statement for name in names for case in MODULES[name].cases(scope)]
            report.write_html(options.html, summary, statements, outcome.source)
    with failed.at("standard output"):
        print_outcome(outcome, seconds)
    failed.report()
    return outcome.status
