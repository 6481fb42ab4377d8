"""The experiment from images to tables and figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import matplotlib
import pandas as pd
from rich.console import Console

from figures.deep_networks import accuracy, alignment, conservation
from figures.deep_networks.protocol import (
    CIFAR100,
    SMALL,
    TINY_IMAGENET,
    Protocol,
    Setting,
    filled,
    select,
    settings_of,
)
from figures.deep_networks.results import accuracy_table, claims, tabulate
from figures.deep_networks.training import Records
from figures.deep_networks.training import run as train
from figures.experiments import table
from figures.experiments.claims import claims_table
from figures.experiments.images import Images, load
from figures.experiments.processes import Run, carry_out
from figures.style import STYLE, save
from flowsim.executor import ProcessDiedError, cores
from flowsim.files import require_writable
from flowsim.shell import Attempts
from flowsim.validation import device_of

NAME = "deep_networks"
DATASETS = ("mnist-5000", "fashion-mnist", "cifar-100", "tiny-imagenet")
PAPERS = {protocol.dataset: protocol for protocol in (CIFAR100, TINY_IMAGENET)}
FIGURES: dict[str, ModuleType] = {"alignment": alignment, "accuracy": accuracy, "conservation": conservation}


def prepare(options: argparse.Namespace, folder: Path, out: Console, err: Console) -> Callable[[Attempts], object]:
    """How to run the experiment as the options say, all that it needs being read.

    Raises:
        ValueError: naming the option or the file that is wrong.
    """
    protocol, device = protocol_of(options), device_of(options.device or "cpu")
    for name in files_of(protocol):
        require_writable("--output", folder / name)
    images = load(protocol.dataset, options.data_dir, options.download)
    for setting in settings_of(protocol)[:: protocol.repeats]:  # whether there are enough classes, and they fit
        filled(select(protocol, images, setting).train[0][:1], protocol.side)
    return partial(run, protocol, images, folder, device, out, err)


def protocol_of(options: argparse.Namespace) -> Protocol:
    """The protocol that the options ask for.

    Raises:
        ValueError: naming the option that is wrong.
    """
    dataset = options.dataset or "mnist-5000"
    if dataset not in DATASETS:
        raise ValueError(f"--dataset of {NAME} must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if not options.paper:
        return replace(SMALL[options.network or "lenet"], dataset=dataset)
    if dataset not in PAPERS:
        raise ValueError(f"--paper goes with --dataset {' or '.join(PAPERS)}, got {dataset}")
    protocol = PAPERS[dataset]
    if options.network not in (None, protocol.network):
        raise ValueError(f"--network of the paper's {dataset} is {protocol.network}, got {options.network!r}")
    return protocol


def run(
    protocol: Protocol, images: Images, folder: Path, device: str, out: Console, err: Console, failed: Attempts
) -> None:
    """Train all runs, write the table and the figures into the folder, and print the paper's table and claims.

    The saved states go when everything is written. A run that fails costs no other, but there is no table then.
    """
    found = measure(protocol, images, folder, device, err, failed)
    if failed.status:
        return
    trained, prefix = tabulate(list(found.items())), folder / prefix_of(protocol)
    with failed.at(f"{prefix}.csv"):
        table.write(trained, Path(f"{prefix}.csv"))
    draw(protocol, trained, folder, failed)
    if not failed.status:
        for records in found.values():
            records.path.unlink(missing_ok=True)
    with failed.at("standard output"):
        show(protocol, trained, out)
        print(f"{prefix}.csv and {len(FIGURES)} figures", flush=True)


def measure(
    protocol: Protocol, images: Images, folder: Path, device: str, err: Console, failed: Attempts
) -> dict[Setting, Records]:
    """What all runs recorded, in the order of the protocol; each is named on `err` when it is over."""
    settings = {str(setting): setting for setting in settings_of(protocol)}
    runs = [
        Run(name, setting.classes, train, partial(_arguments, protocol, setting, images, folder, device))
        for name, setting in settings.items()
    ]
    processes = cores() if device == "cpu" else 1
    found: dict[str, Records] = {}
    for done, future in carry_out(runs, processes, err.file):
        with failed.at(done.name):
            try:
                found[done.name] = future.result()
            except ProcessDiedError:
                message = "a process died, perhaps as memory ran out; what was saved goes on when it is run again"
                failed.stopped += [] if message in failed.stopped else [message]
                continue
            except ValueError as error:
                failed.stopped.append(f"{done.name}: {error}")
                continue
            err.print(f"{done.name}: {outcome(found[done.name])}", highlight=False)
    return {setting: found[name] for name, setting in settings.items() if name in found}


def _arguments(protocol: Protocol, setting: Setting, images: Images, folder: Path, device: str) -> tuple[object, ...]:
    return protocol, setting, select(protocol, images, setting), folder, device


def outcome(records: Records) -> str:
    """How a run ended, in words."""
    last = dict(zip(records.quantities, records.values[-1], strict=True))
    if last["diverged"]:
        return f"diverged in epoch {len(records.values) - 1}"
    return f"test accuracy {100 * last['test_accuracy']:.1f} % after {last['updates']:.0f} updates"


def draw(protocol: Protocol, trained: pd.DataFrame, folder: Path, failed: Attempts) -> None:
    """Draw the figures from the table, and write them."""
    prefix = prefix_of(protocol)
    for name, module in FIGURES.items():
        with failed.at(f"{folder / prefix}_{name}"), matplotlib.rc_context(STYLE):
            command = f"{NAME} ({protocol.dataset}, {protocol.network}, {protocol.epochs} epochs)"
            save(module.draw(trained), folder, f"{prefix}_{name}", module, range(protocol.repeats), command)


def show(protocol: Protocol, trained: pd.DataFrame, out: Console) -> None:
    """Print the paper's table 1 or 2, and its sentences."""
    number, network = (1, "LeNet") if protocol.network == "lenet" else (2, "ResNet-18")
    title = f"As table {number} of the paper: test accuracy (%) of {network} on {protocol.dataset}"
    sentences = "The paper's section 6.2 and appendix B.2; differences count beyond one standard error"
    out.print(accuracy_table(trained, title), claims_table(sentences, claims(trained)), sep="\n")


def files_of(protocol: Protocol) -> list[str]:
    """The names of what is written."""
    prefix = prefix_of(protocol)
    return [f"{prefix}.csv", *(f"{prefix}_{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))]


def prefix_of(protocol: Protocol) -> str:
    """What the names of the files begin with: other data, networks or sizes do not overwrite the digits.

    >>> [prefix_of(protocol) for protocol in (SMALL["lenet"], SMALL["resnet"], CIFAR100)]
    ['deep_networks', 'deep_networks_mnist-5000_resnet_6', 'deep_networks_cifar-100_lenet_500']
    """
    if protocol == SMALL["lenet"]:
        return NAME
    return f"{NAME}_{protocol.dataset}_{protocol.network}_{protocol.epochs}"
