"""Draw the figures, and run the experiments."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import matplotlib
from rich.console import Console

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
    signs,
    work_precision,
)
from figures.experiments.images import DATASETS
from figures.style import STYLE, save
from flowsim.files import make_folder, require_writable
from flowsim.progress import reporting
from flowsim.shell import INTERRUPTED, Attempts, add_version, complain
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
    main = argparse.ArgumentParser(
        prog=prog, description="Draw figures, as PNG and PDF.", epilog=f"example: {prog} signs alignment --output drawn"
    )
    add_version(main)
    main.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"figures, of {', '.join(MODULES)} (default: all of these), or one of {', '.join(EXPERIMENTS)}",
    )  # fmt: skip
    main.add_argument("--output", default=GALLERY, metavar="DIR", help=f"where to (default {GALLERY})")
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


def validated(options: argparse.Namespace) -> tuple[list[str], str | None, Path]:
    """The names of the figures, the experiment, and the folder.

    Raises:
        ValueError: naming the option that is wrong.
    """
    names = [*MODULES, *EXPERIMENTS]
    unknown = [name for name in options.names if name not in names]
    if unknown:
        raise ValueError(f"NAME must be one of {', '.join(names)}, got {unknown[0]!r}")
    experiments = [name for name in EXPERIMENTS if name in options.names]
    if len(experiments) > 1:
        raise ValueError(f"NAME must have one experiment at most, got {' and '.join(experiments)}: run them in turn")
    if not experiments:
        for option in OPTIONS:
            value = getattr(options, option)
            if value:
                goes = f"goes with {' or '.join(EXPERIMENTS)}"
                raise ValueError(f"--{option.replace('_', '-')} {goes}, got {value!r} without it")
    folder = make_folder("--output", options.output)
    chosen = [name for name in options.names or MODULES if name not in EXPERIMENTS]
    for name in chosen:
        for kind in ("png", "pdf"):
            require_writable("--output", folder / f"{name}.{kind}")
    return chosen, experiments[0] if experiments else None, folder


def prepare(name: str, options: argparse.Namespace, folder: Path, err: Console) -> Callable[[Attempts], object]:
    """How to run an experiment as the options say, all that it needs being read.

    Raises:
        ValueError: naming the option, the file or the package that is wrong.
    """
    try:
        experiment = importlib.import_module(f"figures.{name}.experiment")
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs {error.name}: pip install 'flowsim[digits]'") from None
    out = Console()
    return experiment.prepare(options, folder, out if out.is_terminal else Console(width=WIDTH), err)


def draw(name: str, folder: Path) -> str:
    """Draw one figure, and write it; return a line about it."""
    started, module = time.perf_counter(), MODULES[name]
    with matplotlib.rc_context(STYLE):
        png, pdf = save(module.draw(module.measure()), folder, name, module, module.SEEDS)
    return f"{png} and {pdf.suffix}, {time.perf_counter() - started:.0f} s"


def main(arguments: Sequence[str] | None = None, prog: str = "flowsim draw") -> int:
    """Run the command line; return the exit status.

    It is 0; 1 if a flow could not be solved; 2 for bad input, or an output that cannot be written; 130 after Ctrl-C. A
    figure that fails costs no other.
    """
    try:
        return drawn(parser(prog).parse_args(arguments))
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return INTERRUPTED


def drawn(options: argparse.Namespace) -> int:
    """Draw what the options say; return the exit status."""
    err, failed = Console(stderr=True), Attempts()
    try:
        names, experiment, folder = validated(options)
        run_experiment = None if experiment is None else prepare(experiment, options, folder, err)
    except ValueError as error:
        complain(str(error))
        return 2
    if run_experiment is not None:
        with failed.at(str(experiment)):
            run_experiment(failed)
    with one_thread(), reporting(err.file) as tell:
        for number, name in enumerate(names):
            tell(number / len(names), f"drawing {name}")
            with failed.at(str(folder / name)):
                print(draw(name, folder), flush=True)
    failed.report()
    return failed.status
