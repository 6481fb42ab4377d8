"""The experiment from images to figures and tables."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import matplotlib
from rich.console import Console

from figures.noisy_digits import alignment, conservation, flow_limit, losses
from figures.noisy_digits.images import Images
from figures.noisy_digits.protocol import RULES, Problem, Protocol
from figures.noisy_digits.results import Results, claims, claims_table, conservation_table, write_csv
from figures.noisy_digits.training import state_path, train
from figures.style import STYLE, save
from figures.threads import one_thread
from flowsim.progress import reporting
from flowsim.shell import Attempts

NAME = "noisy_digits"
FIGURES: dict[str, ModuleType] = {
    "conservation": conservation,
    "alignment": alignment,
    "losses": losses,
    "flow_limit": flow_limit,
}


def run(
    protocol: Protocol, images: Images, runs: Problem, folder: Path, out: Console, err: Console, failed: Attempts
) -> Results:
    """Train, write a table and the figures into the folder, and print the paper's table and claims.

    The flow limit comes first, as it is short: what does not work is known before the training. The saved state of
    the training goes when everything is written.

    Raises:
        IntegrationError: if the flow limit cannot be solved.
        OSError: if the state of the training cannot be saved.
    """
    with reporting(err.file) as tell, one_thread():
        limit = flow_limit.measure(protocol, images, tell=tell)
    doing = f"training {len(RULES) * len(protocol.widths) * protocol.repeats} networks"
    with reporting(err.file) as tell:
        records = train(protocol, runs, folder, lambda epoch: tell(epoch / protocol.epochs, doing))
    results, prefix = Results(protocol, records), prefix_of(protocol)
    with failed.at(f"{folder / prefix}.csv"):
        write_csv(results, folder / f"{prefix}.csv")
    command = f"{NAME} ({protocol.dataset}, {protocol.samples} images, {protocol.epochs} epochs)"
    for name, module in FIGURES.items():
        with failed.at(f"{folder / prefix}_{name}"), matplotlib.rc_context(STYLE):
            figure = flow_limit.draw(limit) if module is flow_limit else module.draw(results)
            seeds = (0,) if module is flow_limit else range(protocol.repeats)
            save(figure, folder, f"{prefix}_{name}", module, seeds, command)
    if not failed.status:
        state_path(protocol, runs, folder).unlink(missing_ok=True)
    with failed.at("standard output"):
        out.print(conservation_table(results), claims_table(claims(results)), sep="\n")
        print(f"{folder / prefix}.csv and {len(FIGURES)} figures", flush=True)
    return results


def files_of(protocol: Protocol) -> list[str]:
    """The names of what is written."""
    prefix = prefix_of(protocol)
    return [f"{prefix}.csv", *(f"{prefix}_{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))]


def prefix_of(protocol: Protocol) -> str:
    """What the names of the files begin with: other data or sizes do not overwrite the digits.

    >>> prefix_of(Protocol()), prefix_of(Protocol("mnist", samples=4000))
    ('noisy_digits', 'noisy_digits_mnist_4000')
    """
    return NAME if protocol.dataset == "digits" else f"{NAME}_{protocol.dataset}_{protocol.samples}"
