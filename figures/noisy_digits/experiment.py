"""The experiment from images to tables and figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import matplotlib
import pandas as pd
from rich.console import Console

from figures.experiments import table
from figures.experiments.claims import claims_table
from figures.experiments.images import Images, load, pixels
from figures.noisy_digits import alignment, conservation, flow_limit, losses, small_steps
from figures.noisy_digits.protocol import DATASETS, RULES, Ensemble, Protocol, draw_ensemble, papers
from figures.noisy_digits.results import claims, conservation_table, tabulate
from figures.noisy_digits.training import require_readable, state_path, train
from figures.style import STYLE, save
from flowsim.files import require_writable
from flowsim.progress import reporting
from flowsim.shell import Attempts
from flowsim.threads import one_thread
from flowsim.validation import device_of

NAME = "noisy_digits"
FIGURES: dict[str, ModuleType] = {
    "conservation": conservation,
    "alignment": alignment,
    "losses": losses,
    "flow_limit": flow_limit,
}


def prepare(options: argparse.Namespace, folder: Path, out: Console, err: Console) -> Callable[[Attempts], object]:
    """How to run the experiment as the options say, all that it needs being read.

    Raises:
        ValueError: naming the option or the file that is wrong.
    """
    dataset, device = options.dataset or ("mnist" if options.download else "digits"), device_of(options.device or "cpu")
    if dataset not in DATASETS:
        raise ValueError(f"--dataset of {NAME} must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if options.network is not None:
        raise ValueError(f"--network goes with deep_networks, got {options.network!r} with {NAME}")
    if options.paper and dataset == "digits":
        raise ValueError("--paper needs more images than digits has, got --dataset digits: give mnist or fashion-mnist")
    protocol = papers(dataset) if options.paper else Protocol(dataset)
    for name in files_of(protocol):
        require_writable("--output", folder / name)
    images = pixels(load(dataset, options.data_dir, options.download))
    runs = draw_ensemble(protocol, images, device)
    require_readable(protocol, runs, folder)
    return partial(run, protocol, images, runs, folder, out, err)


def run(
    protocol: Protocol, images: Images, runs: Ensemble, folder: Path, out: Console, err: Console, failed: Attempts
) -> None:
    """Train, write the tables and the figures into the folder, and print the paper's table and claims.

    The saved state of the training goes when everything is written.

    Raises:
        IntegrationError: if the flow limit cannot be solved.
        OSError: if the state of the training cannot be saved.
    """
    limit, trained = measure(protocol, images, runs, folder, err)
    prefix = folder / prefix_of(protocol)
    for content, path in [(trained, f"{prefix}.csv"), (limit, f"{prefix}_flow_limit.csv")]:
        with failed.at(path):
            table.write(content, Path(path))
    draw(protocol, limit, trained, folder, failed)
    if not failed.status:
        state_path(protocol, runs, folder).unlink(missing_ok=True)
    with failed.at("standard output"):
        show(trained, out)
        print(f"{prefix}.csv and {len(FIGURES)} figures", flush=True)


def measure(
    protocol: Protocol, images: Images, runs: Ensemble, folder: Path, err: Console
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of the flow limit, and of the training.

    The flow limit comes first, as it is short: what does not work is known before the training.
    """
    with reporting(err.file) as tell, one_thread():
        limit = small_steps.measure(protocol, images, tell=tell)
    doing = f"training {len(RULES) * len(protocol.widths) * protocol.repeats} networks"
    with reporting(err.file) as tell:
        records = train(protocol, runs, folder, lambda epoch: tell(epoch / protocol.epochs, doing))
    return limit, tabulate(protocol, records)


def draw(protocol: Protocol, limit: pd.DataFrame, trained: pd.DataFrame, folder: Path, failed: Attempts) -> None:
    """Draw the figures from the tables, and write them."""
    prefix, command = (
        prefix_of(protocol),
        f"{NAME} ({protocol.dataset}, {protocol.samples} images, {protocol.epochs} epochs)",
    )
    for name, module in FIGURES.items():
        with failed.at(f"{folder / prefix}_{name}"), matplotlib.rc_context(STYLE):
            figure = module.draw(limit if module is flow_limit else trained)
            seeds = (0,) if module is flow_limit else range(protocol.repeats)
            save(figure, folder, f"{prefix}_{name}", module, seeds, command)


def show(trained: pd.DataFrame, out: Console) -> None:
    """Print the table of appendix B.1, and the claims."""
    title = "Claims of the paper's section 6.1; differences count beyond one standard error"
    out.print(conservation_table(trained), claims_table(title, claims(trained)), sep="\n")


def files_of(protocol: Protocol) -> list[str]:
    """The names of what is written."""
    prefix = prefix_of(protocol)
    figures = [f"{prefix}_{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")]
    return [f"{prefix}.csv", f"{prefix}_flow_limit.csv", *figures]


def prefix_of(protocol: Protocol) -> str:
    """What the names of the files begin with: other data or sizes do not overwrite the digits.

    >>> prefix_of(Protocol()), prefix_of(Protocol("mnist", samples=4000))
    ('noisy_digits', 'noisy_digits_mnist_4000')
    """
    return NAME if protocol.dataset == "digits" else f"{NAME}_{protocol.dataset}_{protocol.samples}"
