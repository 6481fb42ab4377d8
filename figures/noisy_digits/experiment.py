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
from figures.noisy_digits.training import train
from figures.style import STYLE, save

NAME = "noisy_digits"
FIGURES: dict[str, ModuleType] = {
    f"{NAME}_conservation": conservation,
    f"{NAME}_alignment": alignment,
    f"{NAME}_losses": losses,
}
FLOW_LIMIT = f"{NAME}_flow_limit"


def run(protocol: Protocol, images: Images, folder: Path, device: str, out: Console, err: Console) -> Results:
    """Train, write NAME.csv and the figures into the folder, and print the tables.

    Raises:
        ValueError: if the protocol does not fit the images, or a saved state cannot be read.
    """
    runs = problem(protocol, images, device)
    count = len(RULES) * len(protocol.widths) * protocol.repeats
    columns = (
        TextColumn(f"training {count} networks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=protocol.epochs)
        records = train(protocol, runs, folder, lambda epoch: bar.update(task, completed=epoch))
    results = Results(protocol, records)
    write_csv(results, folder / f"{NAME}.csv")
    seeds = range(protocol.repeats)
    with matplotlib.rc_context(STYLE):
        for name, module in FIGURES.items():
            save(module.draw(results), folder, name, module, seeds, NAME)
        save(flow_limit.draw(flow_limit.measure(protocol, images)), folder, FLOW_LIMIT, flow_limit, (0,), NAME)
    out.print(conservation_table(results), claims_table(claims(results)), sep="\n")
    print(f"{folder / NAME}.csv and {len(FIGURES) + 1} figures", flush=True)
    return results
