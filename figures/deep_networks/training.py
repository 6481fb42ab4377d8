"""The training of one run: an epoch at a time, recorded after each, with the law's ledger of every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from figures.deep_networks.protocol import Data, Protocol, Setting, network_of, normalized, order_of
from figures.experiments import training
from figures.experiments.processes import Tell
from figures.experiments.training import SAVE_EVERY, State
from flowsim.modules import Group, Ledger, feedback_layers, read

OF_RUN = (
    "updates",
    "diverged",  # 1 where it did so in this epoch, which is its last: what else is recorded is not a number then
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "drift",  # of the conserved quantities since the start, the largest of all channels
    "rest",  # what is left of it after the formula for discrete steps
)
"""What is recorded of a run."""

OF_LAYER = (
    "cosine",  # cos(W, B)
    "product",  # <W, B>
    "weight_norm",
    "feedback_norm",
    "gain",  # of (|W|^2 + |b|^2) / 2 one layer before, since the start
    "correction",  # of the law between the two, by the formula for discrete steps
)
"""What is recorded of each layer with feedback; the last two where it alone reads what is before it."""

LARGEST_LOSS, LARGEST_WEIGHT = 1e4, 1e6
"""Beyond these, or where it is not finite, a run has diverged: guessing has the loss log k. It would only grow until it
overflows, and its accuracy is that of guessing."""

EVALUATED = 128
"""Images at a time where no gradient is taken."""


class Training(NamedTuple):
    """A run: its data as the network takes them, the network with what trains it, and groups by `read_alone`."""

    protocol: Protocol
    setting: Setting
    data: Data
    module: nn.Module
    optimizer: torch.optim.SGD
    ledger: Ledger
    alone: dict[str, Group]


class Records(NamedTuple):
    """What a run recorded, by name and epoch, and the file of its state."""

    quantities: list[str]
    values: list[list[float]]
    path: Path


def run(
    protocol: Protocol,
    setting: Setting,
    data: Data,
    folder: Path,
    device: str,
    tell: Tell = lambda share: None,
    save_every: float = SAVE_EVERY,
) -> Records:
    """Train a run to its end, from where it was interrupted; see `figures.experiments.training.train`.

    Raises:
        ValueError: if a saved state cannot be read.
        OSError: if the state cannot be saved.
    """
    path = state_path(protocol, setting, data, folder, device)
    runs = set_up(protocol, setting, data, device)
    end = training.train(
        start(runs), partial(advance, runs), partial(ends, runs), path,
        lambda epoch: tell(epoch / protocol.epochs), save_every,
    )  # fmt: skip
    return Records(quantities(runs.module), torch.stack(end["records"]).tolist(), path)


def state_path(protocol: Protocol, setting: Setting, data: Data, folder: Path, device: str) -> Path:
    """The file of a run's state, named after the protocol, the run, its images and the device."""
    settings = (astuple(protocol), astuple(setting), device)
    return training.state_path(folder, "deep_networks", settings, [*data.train, *data.test])


def set_up(protocol: Protocol, setting: Setting, data: Data, device: str) -> Training:
    """A run at its start."""
    ready = normalized(protocol, data, device)
    module = network_of(protocol, setting, channels=data.train[0].shape[1]).to(device)
    optimizer = torch.optim.SGD(
        module.parameters(), protocol.rate, momentum=protocol.momentum, weight_decay=protocol.decay
    )
    for parameter in module.parameters():  # so that the state of a run has the same parts from the start
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return Training(protocol, setting, ready, module, optimizer, Ledger(module, optimizer), read_alone(module))


# --- its states ---


def start(runs: Training) -> State:
    """The state at epoch 0."""
    squares = {name: half_squares(runs.module, group) for name, group in runs.alone.items()}
    first = {"epoch": 0, "updates": 0, "diverged": False, "squares": squares, "records": []}
    return _state(runs, first)


def advance(runs: Training, state: State) -> State:
    """The state after one epoch more."""
    _restore(runs, state)
    updates, finite = state["updates"], True
    for images, labels in batches(runs, state["epoch"]):
        finite = step(runs, images, labels)
        if not finite:
            break
        updates += 1
    return _state(runs, {**state, "epoch": state["epoch"] + 1, "updates": updates, "diverged": not finite})


def ends(runs: Training, state: State) -> bool:
    """Whether a state is the last: where the run diverges it ends."""
    return state["diverged"] or state["epoch"] == runs.protocol.epochs


def _state(runs: Training, rest: State) -> State:
    """The state that network, optimizer and ledger are in, with one record more."""
    parts = {
        "module": {name: value.clone() for name, value in runs.module.state_dict().items()},
        "momentum": [runs.optimizer.state[each]["momentum_buffer"].clone() for each in runs.module.parameters()],
        "ledger": {
            part: {name: value.clone() for name, value in of.items()} for part, of in runs.ledger.state_dict().items()
        },
    }
    return {**rest, **parts, "records": [*rest["records"], observe(runs, rest)]}


def _restore(runs: Training, state: State) -> None:
    runs.module.load_state_dict(state["module"])
    for parameter, buffer in zip(runs.module.parameters(), state["momentum"], strict=True):
        runs.optimizer.state[parameter]["momentum_buffer"] = buffer.clone()
    runs.ledger.load_state_dict(state["ledger"])


# --- an epoch ---


def batches(runs: Training, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The training images in the order of an epoch, with the step size set to its own."""
    for options in runs.optimizer.param_groups:
        options["lr"] = runs.protocol.step_size(epoch)
    images, labels = runs.data.train
    order = order_of(runs.setting, epoch, len(labels)).to(labels.device)
    for chosen in order.split(runs.protocol.batch):
        yield images[chosen], labels[chosen]


def step(runs: Training, images: Tensor, labels: Tensor) -> bool:
    """One step on a batch; return whether the run goes on: it does not where it diverges."""
    runs.module.train()
    loss = accumulate(runs.module, images, labels, runs.protocol.piece)
    if not loss < LARGEST_LOSS:
        return False
    runs.optimizer.step()
    return all(parameter.detach().abs().max().item() < LARGEST_WEIGHT for parameter in runs.module.parameters())


def accumulate(module: nn.Module, images: Tensor, labels: Tensor, piece: int | None) -> float:
    """Set the gradients to those of the mean cross-entropy, a piece of the batch at a time; return it.

    Small pieces stay in the cache. The gradient is the same up to rounding, unless batch norm sees the pieces.
    """
    module.zero_grad()
    total = 0.0
    for part, of in zip(images.split(piece or len(images)), labels.split(piece or len(labels)), strict=True):
        loss = cross_entropy(module(part), of, reduction="sum") / len(labels)
        loss.backward()
        total += loss.item()
    return total


# --- what is recorded ---


def quantities(module: nn.Module) -> list[str]:
    """The names of what is recorded, in order: of the run, and of each layer."""
    return [*OF_RUN, *(f"{quantity} {layer}" for layer in feedback_layers(module) for quantity in OF_LAYER)]


@torch.no_grad()
def observe(runs: Training, state: State) -> Float64[Tensor, " quantities"]:
    """What is recorded at a state, in which network and ledger are; of one that diverged nothing is a number."""
    module, of_run = runs.module, [float(state["updates"]), float(state["diverged"])]
    if state["diverged"]:
        return torch.tensor([*of_run, *[math.nan] * (len(quantities(module)) - 2)], dtype=torch.float64)
    for images, labels in runs.data:
        of_run += evaluate(module, images, labels)
    drift, correction = (torch.cat(list(of.values())) for of in (runs.ledger.drift, runs.ledger.correction))
    of_run += [drift.abs().max().item(), (drift - correction).abs().max().item()]
    of_layers = []
    for name, layer in feedback_layers(module).items():
        weight, feedback = layer.weight.double(), layer.feedback_weights.double()
        product, norms = (weight * feedback).sum().item(), (weight.norm().item(), feedback.norm().item())
        law = (math.nan, math.nan)
        if name in runs.alone:
            gain = half_squares(module, runs.alone[name]) - state["squares"][name]
            law = (gain, runs.ledger.correction[runs.alone[name].name].sum().item())
        of_layers += [product / math.prod(norms), product, *norms, *law]
    return torch.tensor([*of_run, *of_layers], dtype=torch.float64)


def evaluate(module: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, batch norm with its running moments."""
    module.eval()
    outputs = torch.cat([module(part) for part in images.split(EVALUATED)])
    return cross_entropy(outputs, labels).item(), (outputs.argmax(1) == labels).double().mean().item()


def read_alone(module: nn.Module) -> dict[str, Group]:
    """The groups whose channels one layer reads, and no other, by that layer."""
    return {group.readers[0].layer: group for group in read(module).groups if len(group.readers) == 1}


def half_squares(module: nn.Module, group: Group) -> float:
    """(|W|^2 + |b|^2) / 2 of the layers that write the channels of a group, all of which they write there."""
    writers = [module.get_submodule(term.layer) for term in group.writers]
    return sum(0.5 * parameter.double().square().sum().item() for each in writers for parameter in each.parameters())
