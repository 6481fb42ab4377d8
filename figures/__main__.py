"""Draw the figures: `python -m figures [NAME ...] [--output DIR]`, see `--help`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
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
    signs,
    work_precision,
)
from figures.noisy_digits import experiment, images
from figures.noisy_digits.protocol import Protocol, papers, problem
from figures.noisy_digits.training import reached
from figures.style import STYLE, save
from figures.threads import one_thread
from flowsim.__main__ import device_of
from flowsim.files import make_folder, require_writable
from flowsim.progress import reporting
from flowsim.shell import Attempts, add_version, complain, leave

MODULES: dict[str, ModuleType] = {
    "conserved_manifold": conserved_manifold,
    "conservation": conservation,
    "alignment": alignment,
    "signs": signs,
    "dominance": dominance,
    "convergence": convergence,
    "activations": activations,
    "work_precision": work_precision,
    "calibration": calibration,
}

GALLERY = "figures/gallery"

EXPERIMENT = experiment.NAME
WIDTH = 120
"""Columns where the output is no terminal."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m figures", description="Draw figures, as PNG and PDF.")
    add_version(main)
    main.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"figures, of {', '.join(MODULES)} (default: all of these), or {EXPERIMENT}",
    )  # fmt: skip
    main.add_argument("--output", default=GALLERY, metavar="DIR", help=f"where to (default {GALLERY})")
    digits = main.add_argument_group(
        EXPERIMENT, "the paper's two-layer experiment; it goes on where it was interrupted"
    )
    digits.add_argument("--dataset", choices=images.DATASETS, help="default digits, those of scikit-learn")
    digits.add_argument("--data-dir", metavar="DIR", help="where the IDX files of mnist or fashion-mnist are")
    digits.add_argument("--download", action="store_true", help="fetch mnist from openml.org instead")
    digits.add_argument(
        "--paper", action="store_true", help="the paper's sizes: 240 networks, 6000 epochs of 4000 images"
    )
    digits.add_argument("--device", help="cpu (default) or cuda")
    return main


def validated(options: argparse.Namespace) -> tuple[list[str], Path]:
    """The names of the figures, and the folder.

    Raises:
        ValueError: naming the option that is wrong.
    """
    names = [*MODULES, EXPERIMENT]
    unknown = [name for name in options.names if name not in names]
    if unknown:
        raise ValueError(f"NAME must be one of {', '.join(names)}, got {unknown[0]!r}")
    if EXPERIMENT not in options.names:
        for option in ("dataset", "data_dir", "download", "paper", "device"):
            value = getattr(options, option)
            if value:
                raise ValueError(f"--{option.replace('_', '-')} goes with {EXPERIMENT}, got {value!r} without it")
    chosen, folder = options.names or list(MODULES), make_folder("--output", options.output)
    for name in chosen:
        if name != EXPERIMENT:
            _require_writable(folder, [f"{name}.{kind}" for kind in ("png", "pdf")])
    return chosen, folder


def _require_writable(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        require_writable("--output", folder / name)


def experiment_of(options: argparse.Namespace, folder: Path, err: Console) -> Callable[[Attempts], object]:
    """How to run the experiment as the options say, on all cores, all that it needs being read.

    Raises:
        ValueError: naming the option or the file that is wrong.
    """
    dataset, device = options.dataset or ("mnist" if options.download else "digits"), device_of(options.device or "cpu")
    if options.paper and dataset == "digits":
        raise ValueError("--paper needs more images than digits has, got --dataset digits: give mnist or fashion-mnist")
    protocol = papers(dataset) if options.paper else Protocol(dataset)
    _require_writable(folder, experiment.files_of(protocol))
    loaded = images.load(dataset, options.data_dir, options.download)
    runs = problem(protocol, loaded, device)
    reached(protocol, runs, folder)
    out = Console()
    out = out if out.is_terminal else Console(width=WIDTH)
    return partial(experiment.run, protocol, loaded, runs, folder, out, err)


def draw(name: str, folder: Path) -> str:
    """Draw one figure, and write it; return a line about it."""
    started, module = time.perf_counter(), MODULES[name]
    with matplotlib.rc_context(STYLE):
        png, pdf = save(module.draw(module.measure()), folder, name, module, module.SEEDS)
    return f"{png} and {pdf.suffix}, {time.perf_counter() - started:.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    It is 0; 1 if a flow could not be solved; 2 for bad input, or an output that cannot be written. A figure that
    fails costs no other.
    """
    options = parser().parse_args(arguments)
    err, failed = Console(stderr=True), Attempts()
    try:
        names, folder = validated(options)
        run_experiment = experiment_of(options, folder, err) if EXPERIMENT in names else None
    except ValueError as error:
        complain(str(error))
        return 2
    if run_experiment is not None:
        with failed.at(EXPERIMENT):
            run_experiment(failed)
    names = [name for name in names if name != EXPERIMENT]
    with one_thread(), reporting(err.file) as tell:
        for number, name in enumerate(names):
            tell(number / len(names), f"drawing {name}")
            with failed.at(str(folder / name)):
                print(draw(name, folder), flush=True)
    failed.report()
    return failed.status


if __name__ == "__main__":
    leave(
        "figures", main,
        "interrupted; figures drawn so far are kept, and the experiment goes on from here when run again",
    )  # fmt: skip
