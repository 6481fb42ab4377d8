"""The experiment from images to figures and tables."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import matplotlib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from figures.noisy_digits import alignment, conservation, flow_limit, losses
from figures.noisy_digits.images import Images
from figures.noisy_digits.protocol import RULES, Protocol, problem
from figures.noisy_digits.results import Results, claims, claims_table, conservation_table, write_csv
from figures.noisy_digits.training import state_path, train
from figures.style import STYLE, save
from figures.threads import one_thread

NAME = "noisy_digits"
FIGURES: dict[str, ModuleType] = {
    "conservation": conservation,
    "alignment": alignment,
    "losses": losses,
    "flow_limit": flow_limit,
}


def run(protocol: Protocol, images: Images, folder: Path, device: str, out: Console, err: Console) -> Results:
    """Train, write a table and the figures into the folder, and print the paper's table and claims.

    The flow limit comes first, as it is short: what does not work is known before the training.

    Raises:
        ValueError: if the protocol does not fit the images, or a saved state cannot be read.
    """
    runs = problem(protocol, images, device)
    with one_thread():
        limit = flow_limit.measure(protocol, images)
    count = len(RULES) * len(protocol.widths) * protocol.repeats
    columns = (
        TextColumn(f"training {count} networks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=protocol.epochs)
        records = train(protocol, runs, folder, lambda epoch: bar.update(task, completed=epoch))
    results, prefix = Results(protocol, records), prefix_of(protocol)
    write_csv(results, folder / f"{prefix}.csv")
    command = f"{NAME} ({protocol.dataset}, {protocol.samples} images, {protocol.epochs} epochs)"
    with matplotlib.rc_context(STYLE):
        for name, module in FIGURES.items():
            figure = flow_limit.draw(limit) if module is flow_limit else module.draw(results)
            seeds = (0,) if module is flow_limit else range(protocol.repeats)
            save(figure, folder, f"{prefix}_{name}", module, seeds, command)
    state_path(protocol, runs, folder).unlink(missing_ok=True)
    out.print(conservation_table(results), claims_table(claims(results)), sep="\n")
    print(f"{folder / prefix}.csv and {len(FIGURES)} figures", flush=True)
    return results


def prefix_of(protocol: Protocol) -> str:
    """What the names of the files begin with: other data or sizes do not overwrite the digits.

    >>> prefix_of(Protocol()), prefix_of(Protocol("mnist", samples=4000))
    ('noisy_digits', 'noisy_digits_mnist_4000')
    """
    return NAME if protocol.dataset == "digits" else f"{NAME}_{protocol.dataset}_{protocol.samples}"
