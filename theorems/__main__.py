"""Run the checks: `python -m theorems [NAME ...]`, see `--help`.

Exit status 0 exactly when every theorem case holds and every control is violated; with `--rigorous`, when every theorem
case is proved and every control is refuted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console, RenderableType

from flowsim.__main__ import device_of
from flowsim.files import make_folder, require_distinct, require_writable
from flowsim.shell import add_version, complain, leave
from flowsim.validation import require_count, require_positive
from theorems import own_data, report, search
from theorems.cases import MODULES, OF_FLOWS, OF_THE_PAPER
from theorems.ensembles import Scope
from theorems.outcome import Outcome, carried_out, check_cases, check_data, search_targets

SEEDS, SEEDS_FULL = 3, 6
"""Trajectories per ensemble."""


RULES = "fa", "sign-fa", "gd"
"""Those that own data are run under."""

WIDTH = 100
"""Columns where the output is no terminal."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m theorems", description="Check the statements of the paper.")
    add_version(main)
    main.add_argument("names", nargs="*", metavar="NAME", help=f"statements, of {', '.join(MODULES)} (default: all)")
    main.add_argument(
        "--seeds", type=int, metavar="N", help=f"trajectories per ensemble (default {SEEDS}; {SEEDS_FULL} with --full)"
    )
    main.add_argument(
        "--rigorous",
        action="store_true",
        help="prove the statements on small networks of two layers, in ball arithmetic (needs python-flint)",
    )
    main.add_argument("--full", action="store_true", help="more widths, samples and slopes: minutes, not seconds")
    main.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    main.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    main.add_argument("--html", metavar="FILE", help="write the verdicts as one HTML page")
    main.add_argument(
        "--certificate",
        metavar="FILE.json",
        help="with --rigorous --data: write for each rule what flowsim.enclosure.checker needs to verify it again",
    )
    main.add_argument("--data", metavar="FILE.npz", help="check the statements on a problem of your own")
    main.add_argument(
        "--loss",
        choices=["exponential", "logistic", "squared"],
        default="exponential",
        help="of the problem of your own (default exponential)",
    )
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


def validated(options: argparse.Namespace) -> tuple[list[str], Scope]:
    """The names of the statements, and how much to run.

    Raises:
        ValueError: naming the option that is wrong.
    """
    unknown = [name for name in options.names if name not in MODULES]
    if unknown:
        raise ValueError(f"NAME must be one of {', '.join(MODULES)}, got {unknown[0]!r}")
    for option, takes, what in [
        ("rigorous", OF_THE_PAPER, "statements of the paper"),
        ("data", OF_FLOWS, "statements on flows"),
        ("search", OF_FLOWS, "statements on flows"),
    ]:
        others = [name for name in options.names if name not in takes]
        if getattr(options, option) not in (None, False) and others:
            raise ValueError(f"--{option} is for {what}: {', '.join(takes)}, got {others[0]!r}")
    if options.seeds is not None:
        require_count("--seeds", options.seeds)
    if options.loss != "exponential" and not options.data:
        raise ValueError(f"--loss is for --data: every case has its own, got {options.loss!r}")
    if options.search is not None:
        require_positive("--search", options.search)
        if options.data:
            raise ValueError(f"--search does not go with --data, got {options.data!r}")
    require_provable(options)
    outputs: dict[str, str | Path | None] = {"--json": options.json, "--html": options.html}
    if options.certificate:
        for path in certificate_paths(options.certificate, RULES).values():
            outputs[f"--certificate, {path.name}:"] = path
    if options.search is not None:
        folder = make_folder("--output", options.output)
        for target in search.TARGETS:
            outputs[f"--output, {target.file}:"] = folder / target.file
    for option, path in outputs.items():
        require_writable(option, path)
    require_distinct(outputs, {"--data": options.data})
    default = SEEDS_FULL if options.full else SEEDS
    seeds = options.seeds or (1 if options.rigorous else default)
    own = options.data or options.search is not None
    every = OF_THE_PAPER if options.rigorous else OF_FLOWS if own else MODULES
    names = options.names or list(every)
    return names, Scope(seeds, device_of(options.device), options.full, options.rigorous)


def require_provable(options: argparse.Namespace) -> None:
    """Check what goes with `--rigorous`, and that it can run.

    Raises:
        ValueError: naming the option that is wrong.
    """
    if options.certificate and not (options.rigorous and options.data):
        raise ValueError("--certificate goes with --rigorous and --data: it is of the run of one problem")
    if not options.rigorous:
        return
    if options.search is not None:
        raise ValueError("--search does not go with --rigorous: prove what it finds by --data FILE --rigorous")
    if importlib.util.find_spec("flint") is None:
        raise ValueError('--rigorous needs python-flint: pip install "flowsim[rigorous]"')
    if options.full or options.device != "cpu":
        raise ValueError("--rigorous goes with neither --full nor --device")


def commanded(options: argparse.Namespace, names: Sequence[str], scope: Scope, err: Console) -> Outcome:
    """What comes out of what the options say.

    Raises:
        ValueError: if the data cannot be read.
    """
    if options.rigorous:
        return proved(options, names, scope)
    if options.data:
        runs = own_data.runs(options.data, scope.device, options.loss, progress=True)
        return carried_out(partial(check_data, own_data, runs, names), f"data {options.data}")
    if options.search is not None:
        arguments = (options.search, names, scope.device, Path(options.output), err)
        return carried_out(partial(search_targets, *arguments), f"search of {options.search:g} minutes")
    return carried_out(partial(check_cases, names, scope), f"seeds 0 to {scope.seeds - 1}")


def proved(options: argparse.Namespace, names: Sequence[str], scope: Scope) -> Outcome:
    """What comes out with `--rigorous`; errors as in `commanded`."""
    from theorems.rigorous import own_data as rigorous  # noqa: PLC0415, optional
    from theorems.rigorous.certificates import write_certificates  # noqa: PLC0415, optional
    from theorems.rigorous.report import versions  # noqa: PLC0415, optional

    if options.data:
        runs = rigorous.runs(*own_data.problems(options.data, scope.device, options.loss))
        outcome = carried_out(partial(check_data, rigorous, runs, names), f"data {options.data}")
        if options.certificate:
            write_certificates(certificate_paths(options.certificate, runs), runs, outcome.failed)
    else:
        outcome = carried_out(partial(check_cases, names, scope), f"seeds 0 to {scope.seeds - 1}")
    outcome.more["rigorous"] = versions()
    return outcome


def certificate_paths(path: str, rules: Iterable[str]) -> dict[str, Path]:
    """Where the certificate of each rule's run is written.

    >>> [str(path) for path in certificate_paths("runs/one.json", ["fa", "gd"]).values()]
    ['runs/one.fa.json', 'runs/one.gd.json']
    """
    file = Path(path)
    return {rule: file.with_name(f"{file.stem}.{rule}{file.suffix}") for rule in rules}


def tables_of(outcome: Outcome) -> list[RenderableType]:
    """The tables that the terminal shows."""
    if outcome.found is not None:
        return [search.table(outcome.found)]
    if "rigorous" in outcome.more:
        from theorems.rigorous import report as rigorous  # noqa: PLC0415, optional

        written = rigorous.describe_state, rigorous.describe_constant
        own = [report.data_table(outcome.checks, outcome.more, *written)] if "data" in outcome.more else []
        return [rigorous.table(outcome.checks), *own]
    if "data" in outcome.more:
        return [report.table(outcome.checks), report.data_table(outcome.checks, outcome.more)]
    return [report.table(outcome.checks), report.findings_table(outcome.more)]


def printed(outcome: Outcome, seconds: float) -> None:
    """Print tables, and what is not as expected."""
    out = Console()
    if not out.is_terminal:
        out = Console(width=WIDTH)
    tables = tables_of(outcome)
    unexpected, count = outcome.unexpected, len(outcome.checks)
    with out.capture() as captured:
        out.print(*tables, sep="\n")
        for item in unexpected:
            nearer = (
                "its interval contains 0"
                if "rigorous" in outcome.more
                else "its margin is nearer to 0 than its error bound"
            )
            near = nearer if item.verdict == "undecided" else ""
            why = item.details.get("reason", near)
            out.print(f"unexpected: {item.name}, {item.case}: {item.verdict} {why}", markup=False)
        time_taken = f"interrupted after {seconds:.0f} s" if outcome.interrupted else f"{seconds:.0f} s"
        out.print(f"{count - len(unexpected)} of {count} checks as expected, {time_taken}")
    print(captured.get(), end="", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    It is 0 if all came out as it should, 1 if not; 2 for bad input, or an output that cannot be written; 130 after
    Ctrl-C. All outputs have what was decided until then.
    """
    options = parser().parse_args(arguments)
    started = time.perf_counter()
    try:
        names, scope = validated(options)
        outcome = commanded(options, names, scope, Console(stderr=True))
    except ValueError as error:
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
        printed(outcome, seconds)
    failed.report()
    return outcome.status


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        # the tensors are small, and threads that wait for each other on a busy machine take four times as long
        torch.set_num_threads(1)
    leave("theorems", main, "interrupted")
