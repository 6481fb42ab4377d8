"""Draw the figures: `python -m figures [NAME ...] [--output DIR]`."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType

import matplotlib
import torch
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
from figures.style import STYLE, save
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


def title_and_caption(module: ModuleType) -> tuple[str, str]:
    """A figure's title without its full stop, and its caption on one line, from the module's docstring.

    >>> title_and_caption(signs)[0]
    'Output weights keep their signs: Dale’s principle'
    """
    title, _, caption = inspect.cleandoc(module.__doc__ or "").partition("\n")
    return title.removesuffix("."), " ".join(caption.split())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m figures", description="Draw figures, as PNG and PDF.")
    main.add_argument("names", nargs="*", metavar="NAME", help=f"figures, of {', '.join(MODULES)} (default: all)")
    main.add_argument("--output", default=GALLERY, metavar="DIR", help=f"where to (default {GALLERY})")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, or 2 for bad input."""
    options = parser().parse_args(arguments)
    err = Console(stderr=True)
    try:
        unknown = [name for name in options.names if name not in MODULES]
        if unknown:
            raise ValueError(f"NAME must be one of {', '.join(MODULES)}, got {unknown[0]!r}")
        folder = make_folder("--output", options.output)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = options.names or list(MODULES)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("drawing", total=len(names))
        for name in names:
            bar.update(task, description=f"drawing {name}")
            started = time.perf_counter()
            module = MODULES[name]
            with matplotlib.rc_context(STYLE):
                png, pdf = save(module.draw(module.measure()), folder, name, *title_and_caption(module), module.SEEDS)
            bar.advance(task)
            print(f"{png} and {pdf.suffix}, {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # the tensors are small
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; figures drawn so far are kept")
