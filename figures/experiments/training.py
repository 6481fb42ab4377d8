"""The loop of all experiments: epoch by epoch, saved as it goes, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsim.files import whole

SAVE_EVERY = 15.0
"""Seconds between saves."""

State = dict[str, Any]
"""Where a run is: `epoch`, its `records` up to there (tensors of one shape, one of them at least), and what else it
takes to go on: tensors, numbers and text, and lists and dicts of them."""


def train(
    start: State,
    advance: Callable[[State], State],
    ends: Callable[[State], bool],
    path: Path,
    advanced: Callable[[int], None] = lambda epoch: None,
    save_every: float = SAVE_EVERY,
) -> State:
    """Advance a run epoch by epoch to its end, from where it was saved, if it was.

    It is saved every so many seconds, when interrupted, when `advance` or `advanced` fails, and at the end, so that
    nothing is lost if what follows fails: delete `path` when all is done. A run that is reproducible has the same bits
    however often it was interrupted.

    Args:
        start: the state at epoch 0.
        advance: makes the state one epoch later, and leaves the one that it is given as it is: whenever the run is
            interrupted, the state is that at the end of an epoch.
        ends: whether a state is the last.
        path: the file of the state.
        advanced: called with the number of each epoch when it is over, and at first with that from which it goes on.
        save_every: seconds between saves.

    Raises:
        ValueError: if a saved state cannot be read.
        OSError: if the state cannot be saved.

    >>> import tempfile
    >>> def advance(state: State) -> State:
    ...     x = 0.5 * state["x"]
    ...     return {"epoch": state["epoch"] + 1, "records": [*state["records"], x], "x": x}
    >>> one = torch.ones(())
    >>> start = {"epoch": 0, "records": [one], "x": one}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "run.partial")
    ...     _ = train(start, advance, lambda state: state["epoch"] == 2, path)  # as if interrupted there
    ...     train(start, advance, lambda state: state["epoch"] == 3, path, print)["x"]
    2
    3
    tensor(0.1250)
    """
    state, saved = reached(path, start), time.monotonic()
    advanced(state["epoch"])
    try:
        while not ends(state):
            state = advance(state)
            advanced(state["epoch"])
            if time.monotonic() - saved >= save_every:
                save(path, state)
                saved = time.monotonic()
    finally:
        save(path, state)
    return state


def reached(path: Path, start: State) -> State:
    """Where a run was saved, its tensors on the devices of those of its start; or the start.

    Raises:
        ValueError: if it cannot be read, or is another run's, whose tensors have other shapes.
    """
    if not path.exists():
        return start
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        records = [_like(record, start["records"][0]) for record in content["records"]]
        return {**_like({**content, "records": []}, {**start, "records": []}), "records": records}
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not the state of a run: {reason}; delete it to start anew") from None


def save(path: Path, state: State) -> None:
    """Write a state, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    try:
        with whole(path) as partial:
            torch.save(state, partial)
    except (OSError, RuntimeError) as error:  # torch has one of its own where the disk is full
        raise OSError(f"{path}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}") from None


def state_path(folder: Path, name: str, settings: object, data: Iterable[Tensor]) -> Path:
    """The file of a state, named after the settings and all the data, so that no other is taken for it."""
    digest = hashlib.sha256(repr((settings, torch.__version__)).encode())
    for tensor in data:
        digest.update(tensor.cpu().numpy().tobytes())
    return folder / f"{name}-{digest.hexdigest()[:12]}.partial"


def _like(value: Any, model: Any) -> Any:
    """A value that was read, on the model's device, if it is made up as the model is."""
    if isinstance(model, Tensor):
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (model.shape, model.dtype):
            raise ValueError("its tensors have other shapes")
        return value.to(model.device)
    if type(value) is not type(model):
        raise ValueError(f"it has {type(value).__name__} in the place of {type(model).__name__}")
    if isinstance(model, dict):
        if value.keys() != model.keys():
            raise ValueError("it has other parts")
        return {key: _like(value[key], part) for key, part in model.items()}
    if isinstance(model, list):
        return [_like(*pair) for pair in zip(value, model, strict=True)]
    return value
