"""Draw the figures: `python -m figures [NAME ...] [--output DIR]`, see `--help`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import matplotlib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from figures import (
    activations,
    alignment,
    conservation,
    conserved_manifold,
    convergence,
    dominance,
    signs,
    work_precision,
)
from figures.noisy_digits import experiment, images
from figures.noisy_digits.protocol import Protocol, papers
from figures.style import STYLE, save
from figures.threads import one_thread
from flowsim import IntegrationError
from flowsim.__main__ import device_of
from flowsim.files import make_folder

MODULES: dict[str, ModuleType] = {
    "conserved_manifold": conserved_manifold,
    "conservation": conservation,
    "alignment": alignment,
    "signs": signs,
    "dominance": dominance,
    "convergence": convergence,
    "activations": activations,
    "work_precision": work_precision,
}

GALLERY = "figures/gallery"

EXPERIMENT = experiment.NAME
WIDTH = 120
"""Columns where the output is no terminal."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m figures", description="Draw figures, as PNG and PDF.")
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
    return options.names or list(MODULES), make_folder("--output", options.output)


def experiment_of(options: argparse.Namespace, folder: Path, err: Console) -> None:
    """Run the experiment as the options say, on all cores.

    Raises:
        ValueError: naming the option that is wrong.
    """
    dataset, device = options.dataset or ("mnist" if options.download else "digits"), device_of(options.device or "cpu")
    if options.paper and dataset == "digits":
        raise ValueError("--paper needs more images than digits has, got --dataset digits: give mnist or fashion-mnist")
    protocol = papers(dataset) if options.paper else Protocol(dataset)
    out = Console()
    experiment.run(
        protocol, images.load(dataset, options.data_dir, options.download), folder, device,
        out if out.is_terminal else Console(width=WIDTH), err,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 1 if a flow could not be solved, 2 for bad input."""
    options = parser().parse_args(arguments)
    err = Console(stderr=True)
    try:
        names, folder = validated(options)
        if EXPERIMENT in names:
            experiment_of(options, folder, err)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except IntegrationError as error:
        print(f"error: the experiment as a flow: {error}", file=sys.stderr)
        return 1
    names = [name for name in names if name != EXPERIMENT]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with one_thread(), Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("drawing", total=len(names))
        for name in names:
            bar.update(task, description=f"drawing {name}")
            started = time.perf_counter()
            module = MODULES[name]
            with matplotlib.rc_context(STYLE):
                png, pdf = save(module.draw(module.measure()), folder, name, module, module.SEEDS)
            bar.advance(task)
            print(f"{png} and {pdf.suffix}, {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; figures drawn so far are kept, and the experiment goes on from here when run again")
