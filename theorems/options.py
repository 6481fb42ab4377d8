"""The command line of `flowsim check`: what it takes, and whether its options go together."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from collections.abc import Iterable
from pathlib import Path

from flowsim.commands.start import add_label
from flowsim.files import make_folder, require_distinct, require_writable
from flowsim.messages import meant
from flowsim.problems import INITS, Init, Source
from flowsim.shell import CommandLine, add_version
from flowsim.tables import is_table
from flowsim.validation import device_of, require_count, require_positive, require_seed
from theorems import own_data
from theorems.cases import MODULES, OF_FLOWS, PROVED
from theorems.ensembles import Scope
from theorems.targets import SEARCHED, TARGETS

SEEDS, SEEDS_FULL = 1, 6
"""Trajectories per ensemble."""

TIGHTEST = "tightest"
"""Folder that a search keeps what it finds in."""

RULES = "fa", "sign-fa", "gd"
"""Those that own data are run under."""

TAKEN = {"rigorous": PROVED, "search": SEARCHED, "data": OF_FLOWS}
"""Statements that options take; of two options that are given the first says which."""

FOR_DATA = ("label", "standardize", "init", "width", "seed")
"""Options that go with a file."""

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
    main = CommandLine(
        prog=prog,
        description="Check the statements of the paper, and those beyond it.",
        epilog=ABOUT.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(main)
    _add_cases(main)
    _add_outputs(main)
    _add_data(main)
    _add_search(main)
    return main


def _add_cases(main: argparse.ArgumentParser) -> None:
    """Which statements, on how many cases, measured or proved."""
    main.add_argument(
        "names", nargs="*", metavar="NAME | FILE",
        help=f"statements, of {', '.join(MODULES)} (default: all); and a file, as after --data",
    )  # fmt: skip
    main.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"trajectories per ensemble (default {SEEDS}; {SEEDS_FULL} with --full)",
    )
    main.add_argument(
        "--rigorous",
        action="store_true",
        help="prove the statements on small networks of two layers, in ball arithmetic (needs python-flint)",
    )
    main.add_argument("--full", action="store_true", help="more widths, samples and slopes: minutes, not seconds")
    main.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def _add_outputs(main: argparse.ArgumentParser) -> None:
    main.add_argument("--json", metavar="FILE", help="write the verdicts as JSON")
    main.add_argument("--html", metavar="FILE", help="write the verdicts as one HTML page")
    main.add_argument(
        "--certificate",
        metavar="FILE.json",
        help="with --rigorous --data: write for each rule what flowsim.enclosure.checker needs to verify it again",
    )


def _add_data(main: argparse.ArgumentParser) -> None:
    """A problem of one's own, and how its weights are made up."""
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


def _add_search(main: argparse.ArgumentParser) -> None:
    main.add_argument(
        "--search",
        type=float,
        metavar="MINUTES",
        help="look for counterexamples: minimise the margins of the statements",
    )
    main.add_argument("--output", metavar="DIR", help=f"where --search keeps what it finds (default {TIGHTEST}/)")


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
                f"NAME must be one of {', '.join(MODULES)}, or a .npz, .csv or .parquet file, "
                f"got {name!r}{meant(name, MODULES)}"
            )
    files = [*others, *([options.data] if options.data else [])]
    if len(files) > 1:
        raise ValueError(f"FILE must be one file, got {' and '.join(files)}: check them in turn")
    if others:
        options.names.remove(others[0])
        options.data = others[0]


def validate(options: argparse.Namespace) -> tuple[list[str], Scope]:
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
    _require_cases(options)
    _require_outputs(options)
    seeds = options.seeds or (SEEDS_FULL if options.full else SEEDS)
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


def _require_cases(options: argparse.Namespace) -> None:
    """Check that how much to run is said of cases, and where a search keeps what it finds of a search.

    Raises:
        ValueError: naming the option.
    """
    for option, other in itertools.product(("seeds", "full"), ("data", "search")):
        if given(options, option) and given(options, other):
            raise ValueError(f"--{option} is for the cases of flowsim check, got it with --{other}: leave one out")
    if options.search is None and options.output is not None:
        raise ValueError(f"--output goes with --search, got {options.output!r} without it: use --json or --html")


def _require_outputs(options: argparse.Namespace) -> None:
    """Check that all that is written can be, into files of their own, and not into the data.

    Raises:
        ValueError: naming the option.
    """
    outputs: dict[str, str | Path | None] = {"--json": options.json, "--html": options.html}
    if options.certificate:
        for path in certificate_paths(options.certificate, RULES).values():
            outputs[f"--certificate, {path.name}:"] = path
    if options.search is not None:
        folder = make_folder("--output", options.output or TIGHTEST)
        for target in TARGETS:
            outputs[f"--output, {target.file}:"] = folder / target.file
    for option, path in outputs.items():
        require_writable(option, path)
    require_distinct(outputs, {"--data": options.data})


def choose_init(options: argparse.Namespace, source: Source) -> Init | None:
    """How weights are made up for a file that has none; None for one that has.

    Raises:
        ValueError: naming the option that is wrong.
    """
    if source.weights:
        for option in ("init", "width", "seed"):
            if given(options, option):
                raise ValueError(
                    f"--{option} makes up weights, but {source.path} has the keys hidden and output: leave one out"
                )
        return None
    narrow = own_data.NARROW if options.rigorous else own_data.WIDTH
    width = narrow if options.width is None else require_count("--width", options.width)
    seed = 0 if options.seed is None else require_seed(options.seed, "--seed")
    return (
        Init("gaussian", (width,), seed) if options.init == "gaussian" else own_data.start(source.dataset, width, seed)
    )


def certificate_paths(path: str, rules: Iterable[str]) -> dict[str, Path]:
    """Where the certificate of each rule's run is written.

    >>> [str(path) for path in certificate_paths("runs/one.json", ["fa", "gd"]).values()]
    ['runs/one.fa.json', 'runs/one.gd.json']
    """
    file = Path(path)
    return {rule: file.with_name(f"{file.stem}.{rule}{file.suffix}") for rule in rules}
