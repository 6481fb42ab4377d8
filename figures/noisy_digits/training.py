"""The training itself: all runs at once, recorded as it goes, saved so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from figures.noisy_digits.protocol import Problem, Protocol
from flowsim import Weights, descent
from flowsim.files import whole
from flowsim.observables import accuracy, alignment, conserved_per_layer

SAVE_EVERY = 15.0
"""Seconds between saves."""

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
"""What a state holds besides the weights."""


class Point(NamedTuple):
    """Where a training is, with what was recorded up to there."""

    epoch: int
    state: descent.State[Weights]
    records: tuple[Float[Tensor, "quantities rules repeats widths"], ...]


Records = Float[Tensor, "records quantities rules repeats widths"]


def observed(problem: Problem, state: descent.State[Weights]) -> Float[Tensor, "quantities rules repeats widths"]:
    """The quantities at a state."""
    flow, now, first = problem.flow, state.weights, problem.weights
    hidden, output = now.layers
    (feedback,) = flow.rule.feedback_matrices(now)
    found = [
        flow.risk(now),
        accuracy(flow, now),
        problem.test.risk(now),
        accuracy(problem.test, now),
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
    problem: Problem,
    folder: Path,
    advanced: Callable[[int], None] = lambda epoch: None,
    save_every: float = SAVE_EVERY,
) -> Records:
    """Train all runs, from where a run of the same protocol on the same device was interrupted.

    The state is saved in `folder` every so many seconds, when interrupted from the keyboard, and at the end, so that
    nothing is lost if what follows fails: delete `state_path` when all is done. On one machine, with one number of
    threads, the records are the same to the last bit, however often it was interrupted.

    Args:
        protocol: the settings.
        problem: made from them.
        folder: where the state is saved.
        advanced: called after each epoch, and at first with that from which it goes on.
        save_every: seconds between saves.

    Raises:
        ValueError: if a saved state cannot be read.
    """
    path, point = state_path(protocol, problem, folder), reached(protocol, problem, folder)
    recorded, saved = set(protocol.recorded), time.monotonic()
    advanced(point.epoch)
    try:
        while point.epoch < protocol.epochs:
            eta, epoch = protocol.step_size(point.epoch), point.epoch + 1
            state = descent.step(problem.flow, point.state, eta, protocol.momentum)
            more = (observed(problem, state),) if epoch in recorded else ()
            point = Point(epoch, state, point.records + more)  # all at once: an interruption finds it whole
            advanced(epoch)
            if time.monotonic() - saved >= save_every:
                _write(path, point)
                saved = time.monotonic()
    finally:
        _write(path, point)
    return torch.stack(point.records)


def reached(protocol: Protocol, problem: Problem, folder: Path) -> Point:
    """Where a run of the same protocol on the same device was interrupted, or the start.

    Raises:
        ValueError: if a saved state cannot be read.
    """
    path = state_path(protocol, problem, folder)
    if path.exists():
        return _read(path, problem)
    first = descent.start(problem.weights)
    return Point(0, first, (observed(problem, first),))


def state_path(protocol: Protocol, problem: Problem, folder: Path) -> Path:
    """The file of the state, named after the protocol, all data and the device, so that no other is taken for it."""
    name = hashlib.sha256(repr((astuple(protocol), str(problem.weights.hidden.device), torch.__version__)).encode())
    for dataset in (problem.flow.dataset, problem.test.dataset):
        name.update(dataset.inputs.cpu().numpy().tobytes())
        name.update(dataset.labels.cpu().numpy().tobytes())
    return folder / f"noisy_digits-{name.hexdigest()[:12]}.partial"


def _write(path: Path, point: Point) -> None:
    content = {
        "epoch": point.epoch,
        "records": list(point.records),
        "weights": list(point.state.weights.layers),
        **{name: list(getattr(point.state, name)) for name in PARTS},
    }
    try:
        with whole(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch has one of its own where the disk is full
        raise OSError(f"{path}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}") from None


def _read(path: Path, problem: Problem) -> Point:
    try:
        content: dict[str, Any] = torch.load(path, map_location=problem.weights.hidden.device, weights_only=True)
        weights = problem.weights.with_layers(content["weights"])
        state = descent.State(weights, **{name: tuple(content[name]) for name in PARTS})
        if _shapes(state) != _shapes(descent.start(problem.weights)):
            raise ValueError("its networks have other shapes")
        records = tuple(record.cpu() for record in content["records"])
        if {record.shape for record in records} != {(len(QUANTITIES), *problem.weights.batch_shape)}:
            raise ValueError("its records have other shapes")
        return Point(content["epoch"], state, records)
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not the state of a run: {reason}; delete it to start anew") from None


def _shapes(state: descent.State[Weights]) -> list[torch.Size]:
    parts = (state.weights.layers, *(getattr(state, name) for name in PARTS))
    return [tensor.shape for part in parts for tensor in part]
