"""The training itself: all runs at once, recorded as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from figures.experiments import training
from figures.experiments.training import SAVE_EVERY, State
from figures.noisy_digits.protocol import Ensemble, Protocol
from flowsim import Weights, descent
from flowsim.observables import accuracy, alignment, conserved_per_layer

QUANTITIES = (
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "hidden_norm",
    "output_norm",
    "product",  # <V, B>
    "alignment",  # cos(V, B)
    "half_norm_gain",  # |W|^2 / 2 since the start
    "conserved_gain",  # of sum_j c_j = Psi(V) - |W|^2 / 2 since the start: 0 along the flow
    "correction",  # what the steps add to it, by the formula
)
"""What is recorded, in this order. The quantity of the paper's appendix B.1 is 1 + conserved_gain / half_norm_gain."""

PARTS = ("update", "mismatch", "correction")
"""What a state of the descent holds besides the weights."""


Records = Float[Tensor, "records quantities rules repeats widths"]


def observe(runs: Ensemble, state: descent.State[Weights]) -> Float[Tensor, "quantities rules repeats widths"]:
    """The quantities at a state."""
    flow, now, first = runs.flow, state.weights, runs.weights
    hidden, output = now.layers
    (feedback,) = flow.rule.feedback_matrices(now)
    found = [
        flow.risk(now),
        accuracy(flow, now),
        runs.test.risk(now),
        accuracy(runs.test, now),
        hidden.norm(dim=(-2, -1)),
        output.norm(dim=(-2, -1)),
        (output * feedback).sum((-2, -1)),
        alignment(flow, now)[0],
        0.5 * (hidden.square().sum((-2, -1)) - first.layers[0].square().sum((-2, -1))),
        conserved_per_layer(flow, now)[0] - conserved_per_layer(flow, first)[0],
        state.correction[0].sum(-1),
    ]
    return torch.stack(found).cpu()


def train(
    protocol: Protocol,
    runs: Ensemble,
    folder: Path,
    advanced: Callable[[int], None] = lambda epoch: None,
    save_every: float = SAVE_EVERY,
) -> Records:
    """Train all runs, from where a run of the same protocol on the same device was interrupted.

    On one machine, with one number of threads, the records are the same to the last bit, however often it was
    interrupted.

    Args:
        protocol: the settings.
        runs: made from them.
        folder: where the state is saved, see `figures.experiments.training.train`.
        advanced: called after each epoch, and at first with that from which it goes on.
        save_every: seconds between saves.

    Raises:
        ValueError: if a saved state cannot be read.
        OSError: if the state cannot be saved.
    """
    end = training.train(
        start(runs), partial(advance, protocol, runs), lambda state: state["epoch"] == protocol.epochs,
        state_path(protocol, runs, folder), advanced, save_every,
    )  # fmt: skip
    return torch.stack(end["records"])


def start(runs: Ensemble) -> State:
    """The state at epoch 0."""
    first = descent.start(runs.weights)
    return _state(0, [observe(runs, first)], first)


def advance(protocol: Protocol, runs: Ensemble, state: State) -> State:
    """The state after one step more."""
    epoch, weights = state["epoch"] + 1, runs.weights.with_layers(state["weights"])
    before = descent.State(weights, **{name: tuple(state[name]) for name in PARTS})
    after = descent.step(runs.flow, before, protocol.step_size(epoch - 1), protocol.momentum)
    more = [observe(runs, after)] if protocol.records(epoch) else []
    return _state(epoch, state["records"] + more, after)


def _state(epoch: int, records: list[Tensor], at: descent.State[Weights]) -> State:
    parts = {name: list(getattr(at, name)) for name in PARTS}
    return {"epoch": epoch, "records": records, "weights": list(at.weights.layers), **parts}


def state_path(protocol: Protocol, runs: Ensemble, folder: Path) -> Path:
    """The file of the state, named after the protocol, all data and the device."""
    datasets = (runs.flow.dataset, runs.test.dataset)
    data = [tensor for dataset in datasets for tensor in (dataset.inputs, dataset.labels)]
    settings = (astuple(protocol), str(runs.weights.hidden.device))
    return training.state_path(folder, "noisy_digits", settings, data)


def require_readable(protocol: Protocol, runs: Ensemble, folder: Path) -> None:
    """Check before a long run that the state of an interrupted one, if there is one, can be read.

    Raises:
        ValueError: if it cannot.
    """
    training.reached(state_path(protocol, runs, folder), start(runs))
