"""Check the statements, on cases of their own or on your data set: verdicts with error bounds.

Exit status 0 exactly when every theorem case holds and every control is violated; with `--rigorous`, when every theorem
case is proved and every control is refuted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, RenderableType

from flowsim.commands.start import add_label
from flowsim.files import make_folder, require_distinct, require_writable
from flowsim.problems import INITS, Init, Source, made_up, read_source
from flowsim.shell import add_version, complain
from flowsim.tables import is_table
from flowsim.validation import device_of, require_count, require_positive, require_seed
from theorems import own_data, report, search
from theorems.cases import MODULES, OF_FLOWS, PROVED
from theorems.check import Check
from theorems.ensembles import Scope
from theorems.outcome import Outcome, carried_out, check_cases, check_data, search_targets

SEEDS, SEEDS_FULL = 3, 6
"""Trajectories per ensemble."""


RULES = "fa", "sign-fa", "gd"
"""Those that own data are run under."""

TAKEN = {"rigorous": PROVED, "search": search.SEARCHED, "data": OF_FLOWS}
"""Statements that options take; of two options that are given the first says which."""

FEW_NAMED = 3
"""Checks that are named where several are undecided for one reason."""

WIDTH = 100
"""Columns where the output is no terminal."""


ABOUT = """\
FILE has the data:
  .npz            inputs (n, d), labels (n) in {{-1, +1}},
                  and maybe the weights hidden (m, d), output (m), and for fa feedback (m); slope (default 0.3),
                  t_final (default 10)
  .csv, .parquet  a header, a column of labels of two values, all other columns the inputs

examples:
  {prog} lemma_5_4
  {prog} mine.csv --label species --html report.html"""


def parser(prog: str = "flowsim check") -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        prog=prog,
        description="Check the statements of the paper.",
        epilog=ABOUT.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(main)
    main.add_argument(
        "names", nargs="*", metavar="NAME | FILE",
        help=f"statements, of {', '.join(MODULES)} (default: all); and a file, as after --data",
    )  # fmt: skip
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
    main.add_argument("--data", metavar="FILE", help="check the statements on data of your own, see below")
    add_label(main)
    main.add_argument(
        "--init",
        choices=INITS,
        help="weights that are made up, for a file without them: gaps (default), all c_j = 0.05, of a scale that suits "
        "the inputs; or gaussian, of variance 1 / fan-in",
    )
    main.add_argument(
        "--width", type=int, metavar="M",
        help=f"neurons that are made up (default {own_data.WIDTH}, {own_data.NARROW} with --rigorous)",
    )  # fmt: skip
    main.add_argument("--seed", type=int, metavar="S", help="of weights that are made up (default 0)")
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


def given(options: argparse.Namespace, option: str) -> bool:
    """Whether an option is given."""
    return getattr(options, option) not in (None, False)


def take_file(options: argparse.Namespace) -> None:
    """Take a file among the names for that of `--data`.

    Raises:
        ValueError: for a name that is neither a statement nor a file, or if there are several files.
    """
    others = [name for name in options.names if name not in MODULES]
    for name in others:
        if not (is_table(name) or name.endswith(".npz") or Path(name).exists()):
            raise ValueError(
                f"NAME must be one of {', '.join(MODULES)}, or a .npz, .csv or .parquet file, got {name!r}"
            )
    files = [*others, *([options.data] if options.data else [])]
    if len(files) > 1:
        raise ValueError(f"FILE must be one file, got {' and '.join(files)}: check them in turn")
    if others:
        options.names.remove(others[0])
        options.data = others[0]


FOR_DATA = ("label", "standardize", "init", "width", "seed")
"""Options that go with a file."""


def validated(options: argparse.Namespace) -> tuple[list[str], Scope]:
    """The names of the statements, and how much to run.

    Raises:
        ValueError: naming the option that is wrong.
    """
    take_file(options)
    for option, taken in TAKEN.items():
        others = [name for name in options.names if name not in taken]
        if given(options, option) and others:
            raise ValueError(f"--{option} takes {', '.join(taken)}, got {others[0]!r}")
    if options.seeds is not None:
        require_count("--seeds", options.seeds)
    require_data(options)
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
    own = [taken for option, taken in TAKEN.items() if given(options, option)]
    names = options.names or list(own[0] if own else MODULES)
    return names, Scope(seeds, device_of(options.device), options.full, options.rigorous)


def require_data(options: argparse.Namespace) -> None:
    """Check that there is a file where an option is for one.

    Raises:
        ValueError: naming the option.
    """
    if options.data:
        return
    if options.loss != "exponential":
        raise ValueError(f"--loss is for --data: every case has its own, got {options.loss!r}")
    for option in FOR_DATA:
        if given(options, option):
            raise ValueError(f"--{option} is for --data, or a file among the names, got {getattr(options, option)!r}")


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
        raise ValueError('--rigorous needs python-flint: pip install ".[rigorous]"')
    if options.full or options.device != "cpu":
        raise ValueError("--rigorous goes with neither --full nor --device")


def init_of(options: argparse.Namespace, source: Source) -> Init | None:
    """How weights are made up for a file that has none; None for one that has.

    Raises:
        ValueError: naming the option that is wrong.
    """
    if source.weights:
        for option in ("init", "width", "seed"):
            if given(options, option):
                raise ValueError(f"--{option} makes up weights, but {source.path} has the keys hidden and output")
        return None
    narrow = own_data.NARROW if options.rigorous else own_data.WIDTH
    width = narrow if options.width is None else require_count("--width", options.width)
    seed = 0 if options.seed is None else require_seed(options.seed)
    return (
        Init("gaussian", (width,), seed) if options.init == "gaussian" else own_data.start(source.dataset, width, seed)
    )


def commanded(options: argparse.Namespace, names: Sequence[str], scope: Scope, err: Console) -> Outcome:
    """What comes out of what the options say.

    Raises:
        ValueError: if the data cannot be read.
    """
    if options.data:
        return of_data(options, names, scope)
    if options.rigorous:
        return proved(names, scope)
    if options.search is not None:
        arguments = (options.search, names, scope.device, Path(options.output), err)
        return carried_out(partial(search_targets, *arguments), f"search of {options.search:g} minutes")
    return carried_out(partial(check_cases, names, scope), f"seeds 0 to {scope.seeds - 1}")


def of_data(options: argparse.Namespace, names: Sequence[str], scope: Scope) -> Outcome:
    """What comes out for a file; errors as in `commanded`."""
    source = read_source(options.data, options.label, scope.device, standardize=options.standardize)
    init = init_of(options, source)
    said = [line for line in (source.said, "" if init is None else made_up(init, "fa")) if line]
    where = "; ".join([f"data {options.data}", *said])
    if not options.rigorous:
        runs = own_data.runs(source, options.loss, init, progress=True)
        outcome = carried_out(partial(check_data, own_data, runs, names), where)
    else:
        outcome = proved_on_data(options, names, own_data.problems(source, options.loss, init), where)
    if said:
        outcome.more["said"] = said
    return outcome


def proved(names: Sequence[str], scope: Scope) -> Outcome:
    """What comes out with `--rigorous`."""
    from theorems.rigorous.report import versions  # noqa: PLC0415, optional

    outcome = carried_out(partial(check_cases, names, scope), f"seeds 0 to {scope.seeds - 1}")
    outcome.more["rigorous"] = versions()
    return outcome


def proved_on_data(
    options: argparse.Namespace, names: Sequence[str], problems: tuple[dict[str, Any], float], where: str
) -> Outcome:
    """What comes out with `--rigorous` for problems by rule and their t_final."""
    from theorems.rigorous import own_data as rigorous  # noqa: PLC0415, optional
    from theorems.rigorous.certificates import write_certificates  # noqa: PLC0415, optional
    from theorems.rigorous.report import versions  # noqa: PLC0415, optional

    runs = rigorous.runs(*problems)
    outcome = carried_out(partial(check_data, rigorous, runs, names), where)
    if options.certificate:
        write_certificates(certificate_paths(options.certificate, runs), runs, outcome.failed)
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
    findings = [report.findings_table(outcome.more)] if outcome.more["findings"] else []
    return [report.table(outcome.checks), *findings]


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


def printed(outcome: Outcome, seconds: float) -> None:
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
        out.print(f"{count - len(unexpected)} of {count} checks as expected, {time_taken}")
    print(captured.get(), end="", flush=True)


def main(arguments: Sequence[str] | None = None, prog: str = "flowsim check") -> int:
    """Run the command line; return the exit status.

    It is 0 if all came out as it should, 1 if not; 2 for bad input, or an output that cannot be written; 130 after
    Ctrl-C. All outputs have what was decided until then.
    """
    options = parser(prog).parse_args(arguments)
    if "OMP_NUM_THREADS" not in os.environ:
        # the tensors are small, and threads that wait for each other on a busy machine take four times as long
        torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        names, scope = validated(options)
        outcome = commanded(options, names, scope, Console(stderr=True))
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
        printed(outcome, seconds)
    failed.report()
    return outcome.status
