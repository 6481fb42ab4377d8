"""Draw the figures, and run the experiments."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import matplotlib
from rich.console import Console

import theorems.own_data
from figures import (
    activations,
    alignment,
    calibration,
    conservation,
    conserved_manifold,
    convergence,
    dominance,
    implicit_bias,
    no_plateau,
    overview,
    own_data,
    signs,
    work_precision,
)
from figures.experiments.images import DATASETS
from figures.style import STYLE, save
from flowsim import plot
from flowsim.commands.start import add_init, add_label, init_of
from flowsim.files import make_folder, require_writable
from flowsim.messages import meant
from flowsim.problems import Init, Source, read_source
from flowsim.progress import reporting
from flowsim.shell import INTERRUPTED, Attempts, CommandLine, add_version, complain
from flowsim.threads import one_thread

MODULES: dict[str, ModuleType] = {
    "conserved_manifold": conserved_manifold,
    "conservation": conservation,
    "alignment": alignment,
    "signs": signs,
    "dominance": dominance,
    "convergence": convergence,
    "no_plateau": no_plateau,
    "activations": activations,
    "work_precision": work_precision,
    "calibration": calibration,
    "implicit_bias": implicit_bias,
    "overview": overview,
}

GALLERY = "figures/gallery"

EXPERIMENTS = {
    "noisy_digits": "the paper's two-layer experiment",
    "deep_networks": "its LeNet and ResNet-18",
}
"""Packages with a module `experiment`, which is loaded by those who run it: they need more than figures do."""

WIDTH = 120
"""Columns where the output is no terminal."""


STOPPED = "interrupted; figures drawn so far are kept, and the experiment goes on from here when run again"


def parser(prog: str = "flowsim draw") -> argparse.ArgumentParser:
    """The command line."""
    main = CommandLine(
        prog=prog, description="Draw figures, as PNG and PDF.", epilog=f"example: {prog} signs alignment --output drawn"
    )
    add_version(main)
    main.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"figures, of {', '.join(MODULES)} (default: all of these), or one of {', '.join(EXPERIMENTS)}",
    )  # fmt: skip
    main.add_argument("--output", default=GALLERY, metavar="DIR", help=f"where to (default {GALLERY})")
    main.add_argument("--serif", action="store_true", help="letters of LaTeX's Computer Modern; no LaTeX is needed")
    main.add_argument(
        "--data", metavar="FILE",
        help=f"draw runs on data of your own: {', '.join(own_data.PLOTS)}",
    )  # fmt: skip
    add_label(main)
    add_init(main)
    about = "; ".join(f"{name}: {what}" for name, what in EXPERIMENTS.items())
    of = main.add_argument_group("experiments", f"{about}; they go on where they were interrupted")
    of.add_argument("--dataset", choices=DATASETS, help="default digits for noisy_digits, mnist-5000 for deep_networks")
    of.add_argument("--data-dir", metavar="DIR", help="where the files of a data set that is in no package are")
    of.add_argument("--network", choices=("lenet", "resnet"), help="of deep_networks; default lenet")
    of.add_argument("--download", action="store_true", help="fetch mnist from openml.org instead")
    of.add_argument("--paper", action="store_true", help="the paper's sizes, which take days, or a GPU")
    of.add_argument("--device", help="cpu (default) or cuda")
    return main


OPTIONS = ("dataset", "data_dir", "network", "download", "paper", "device")
"""Those of experiments."""


def validate(options: argparse.Namespace) -> tuple[list[str], str | None, Path]:
    """The names of the figures, the experiment, and the folder.

    Raises:
        ValueError: naming the option that is wrong.
    """
    names = [*MODULES, *EXPERIMENTS]
    unknown = [name for name in options.names if name not in names]
    if unknown:
        raise ValueError(f"NAME must be one of {', '.join(names)}, got {unknown[0]!r}{meant(unknown[0], names)}")
    experiments = [name for name in EXPERIMENTS if name in options.names]
    if len(experiments) > 1:
        raise ValueError(f"NAME must have one experiment at most, got {' and '.join(experiments)}: run them in turn")
    if not experiments:
        for option in OPTIONS:
            value = getattr(options, option)
            if value:
                goes = f"goes with {' or '.join(EXPERIMENTS)}"
                raise ValueError(f"--{option.replace('_', '-')} {goes}, {_got(value)} without it")
    if options.data and experiments:
        raise ValueError(f"--data does not go with {experiments[0]}, got {options.data!r}: it has --dataset")
    for option in ("label", "standardize"):
        value = getattr(options, option)
        if value and not options.data:
            raise ValueError(f"--{option} goes with --data, {_got(value)} without it")
    folder = make_folder("--output", options.output)
    chosen = [name for name in options.names or MODULES if name not in EXPERIMENTS]
    if options.data:
        chosen = own_data.require_drawable(options.names)
    for name in chosen:
        for kind in ("png", "pdf"):
            require_writable("--output", folder / f"{name}.{kind}")
    return chosen, experiments[0] if experiments else None, folder


def _got(value: str | bool) -> str:
    """What was given without something: the value, unless the option has none."""
    return "got" if value is True else f"got {value!r}"


def prepare(name: str, options: argparse.Namespace, folder: Path, err: Console) -> Callable[[Attempts], object]:
    """How to run an experiment as the options say, all that it needs being read.

    Raises:
        ValueError: naming the option, the file or the package that is wrong.
    """
    try:
        experiment = importlib.import_module(f"figures.{name}.experiment")
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs {error.name}: pip install '.[digits]'") from None
    out = Console()
    return experiment.prepare(options, folder, out if out.is_terminal else Console(width=WIDTH), err)


class OwnProblem(NamedTuple):
    """One to draw in the place of a figure's own: what the file has, and how weights are made up."""

    source: Source
    init: Init | None


def problem_of(options: argparse.Namespace) -> OwnProblem | None:
    """The problem of `--data`, if it is given.

    Raises:
        ValueError: if it cannot be read, or an option goes with it alone, or does not fit.
        ImportError: if a package is missing that reads such files.
    """
    init = init_of(options)
    if options.data is None:
        if init is not None:
            raise ValueError(f"--init goes with --data, got {options.init!r} without it")
        return None
    source = read_source(options.data, options.label, standardize=options.standardize)
    theorems.own_data.problems(source, init=init)  # what does not fit is said before anything is drawn
    return OwnProblem(source, init)


def draw(name: str, folder: Path, problem: OwnProblem | None, serif: bool) -> str:
    """Draw one figure, and write it; return a line about it."""
    started, module = time.perf_counter(), MODULES[name]
    with plot.style(serif), matplotlib.rc_context(STYLE):
        if problem is None:
            paths = save(module.draw(module.measure()), folder, name, module, module.SEEDS)
        else:
            figure = own_data.draw(name, own_data.measure(*problem))
            seeds = [] if problem.init is None else [problem.init.seed]
            paths = save(figure, folder, name, own_data, seeds, f"{name} --data {problem.source.path}")
    return f"{paths[0]} and {paths[1].suffix}, {time.perf_counter() - started:.0f} s"


def main(arguments: Sequence[str] | None = None, prog: str = "flowsim draw") -> int:
    """Run the command line; return the exit status.

    It is 0; 1 if a flow could not be solved; 2 for bad input, or an output that cannot be written; 130 after Ctrl-C. A
    figure that fails costs no other.
    """
    try:
        return run(parser(prog).parse_intermixed_args(arguments))
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """Run the experiment and draw the figures that the options say; return the exit status."""
    err, failed = Console(stderr=True), Attempts()
    try:
        names, experiment, folder = validate(options)
        problem = problem_of(options)
        run_experiment = None if experiment is None else prepare(experiment, options, folder, err)
    except (ValueError, ImportError) as error:
        complain(str(error))
        return 2
    if run_experiment is not None:
        with plot.style(options.serif), failed.at(str(experiment)):
            run_experiment(failed)
    with one_thread(), reporting(err.file) as tell:
        for number, name in enumerate(names):
            tell(number / len(names), f"drawing {name}")
            with failed.at(str(folder / name)):
                print(draw(name, folder, problem, options.serif), flush=True)
    failed.report()
    return failed.status
