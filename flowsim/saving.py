"""Solutions as .npz files: without pickle, with a version, and checked when they are read.

A file holds what was solved (flow, initial weights, settings), the coordinates it was solved in, and the path: states
and modes at the starts of steps. From these everything is computed as before, the companion included, to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from flowsim.checked_arrays import CheckedArrays
from flowsim.data import Dataset
from flowsim.flat import join
from flowsim.flow import Flow
from flowsim.integrators import Path, Settings
from flowsim.integrators.event import KERNELS
from flowsim.integrators.event.kernel import order_for
from flowsim.integrators.event.path import EventPath
from flowsim.integrators.event.records import COLUMNS, Front, Layout, Record
from flowsim.integrators.runge_kutta import METHODS, RungeKuttaPath, Track
from flowsim.losses import LOSSES, Loss, polynomial
from flowsim.npz import read_npz, require_keys, write_npz
from flowsim.reduction import Reduction
from flowsim.rules import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    GradientDescent,
    Rule,
    SignFeedbackAlignment,
    is_one_of,
)
from flowsim.solution import Solution, flattened
from flowsim.validation import shown
from flowsim.weights import DeepWeights, NetworkWeights, Weights

KIND, VERSION = "flowsim solution", 2
PREFIX = "solution/"
"""Of the keys of a solution in a file that has more, see `flowsim.runs`."""

CLOSE = 1e-9
"""How nearly the coordinates of a file must fit what they were made from, relative to it."""

Arrays = dict[str, Any]


def save(solution: Solution, path: str | os.PathLike[str]) -> None:
    """Write a solution to an .npz file.

    Raises:
        ValueError: if the file cannot be written, or for a rule, a loss or a flow that is not flowsim's.
    """
    write_npz(os.fspath(path), arrays_of(solution))


def arrays_of(solution: Solution) -> dict[str, ArrayLike]:
    """What a file of a solution holds, by key.

    Raises:
        ValueError: for a rule, a loss or a flow that is not flowsim's.
    """
    flow, settings = solution.flow, solution.settings
    arrays = {
        "kind": KIND, "version": VERSION,
        "method": settings.method, "rtol": settings.rtol, "atol": settings.atol, "max_steps": settings.max_steps,
        "companion": str(settings.companion), **({"time": "log"} if settings.logarithmic else {}),
        "batch_shape": np.array(solution.batch_shape, dtype=np.int64),
        **_flow_arrays(flow), **_weights_arrays(solution.weights), **_reduction_arrays(solution.reduction),
        "reasons": np.array([reason or "" for reason in solution.path.reasons]), **_path_arrays(solution.path),
    }  # fmt: skip
    return {key: _plain(value) for key, value in arrays.items()}


class Parts(NamedTuple):
    """What a solution is made of."""

    flow: Flow
    weights: NetworkWeights
    settings: Settings
    batch_shape: torch.Size
    path: Path
    reduction: Reduction


def read(path: str | os.PathLike[str]) -> Parts:
    """Return what a solution was made of that `save` wrote to a file, on the CPU.

    Raises:
        ValueError: if the file cannot be read, or holds anything else, or something that does not fit the rest.
    """
    path = os.fspath(path)
    arrays = read_npz(path, ())
    inside = {key.removeprefix(PREFIX): array for key, array in arrays.items() if key.startswith(PREFIX)}
    arrays = inside or arrays
    try:
        require_keys("it", arrays, ("kind", "version"))
        file = CheckedArrays(arrays)
        if file.text("kind") != KIND:
            raise ValueError(f"kind must be {KIND!r}, got {file.text('kind')!r}")
        version = file.integer("version", least=1)
        if version != VERSION:
            raise ValueError(f"version must be {VERSION}, got {version}: read it with the flowsim that wrote it")
        parts = _read(file)
        file.require_all_read()
    except ValueError as error:
        raise ValueError(f"{path} is not a solution that can be read: {error}") from None
    return parts


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


# --- rules, losses, flows ---


class _Stored(NamedTuple):
    """How rules of a kind are written and read."""

    kind: type[Rule]
    arrays: Callable[[Any], Arrays]
    read: Callable[[CheckedArrays], Rule]


def _feedback_arrays(rule: FeedbackAlignment | DirectFeedbackAlignment) -> Arrays:
    if isinstance(rule.feedback, tuple):
        return {f"feedback[{index}]": matrix for index, matrix in enumerate(rule.feedback)}
    return {"feedback": rule.feedback}


def _read_feedback(file: CheckedArrays) -> tuple[Tensor, ...] | Tensor:
    return tuple(file.numbered("feedback")) if file.has("feedback[0]") else file.numbers("feedback")


RULES = {
    "gd": _Stored(GradientDescent, lambda rule: {}, lambda file: GradientDescent()),
    "fa": _Stored(FeedbackAlignment, _feedback_arrays, lambda file: FeedbackAlignment(_read_feedback(file))),
    "direct-fa": _Stored(
        DirectFeedbackAlignment, _feedback_arrays, lambda file: DirectFeedbackAlignment(_read_feedback(file))
    ),
    "sign-fa": _Stored(
        SignFeedbackAlignment,
        lambda rule: {"scale": rule.scale},
        lambda file: SignFeedbackAlignment(file.positive("scale")),
    ),
}
"""The rules that can be stored."""


def _flow_arrays(flow: Flow) -> Arrays:
    if type(flow) is not Flow:
        raise ValueError(f"flow must be a flowsim.Flow to be saved, got {type(flow).__name__}; pickle it")
    if flow.activation.leaky_slope is None:
        raise ValueError(f"activation must be a leaky ReLU to be saved, got {shown(flow.activation)}; pickle it")
    names = [name for name, stored in RULES.items() if is_one_of(flow.rule, stored.kind)]
    if not names:
        raise ValueError(f"rule must be one of flowsim's to be saved, got {type(flow.rule).__name__}; pickle it")
    (name,) = names
    data = flow.dataset
    return {
        "inputs": data.inputs, "labels": data.labels, "classes": data.classes or 0, "slope": float(flow.slope),
        "decay": flow.decay, "rule": name, **RULES[name].arrays(flow.rule), **_loss_arrays(flow.loss),
    }  # fmt: skip


def _loss_arrays(loss: str | Loss) -> Arrays:
    if isinstance(loss, str):
        return {"loss": loss}
    if loss.origin is None:
        raise ValueError(f"loss must be one of flowsim's to be saved, got the Loss {loss.name!r}; pickle it")
    function, argument = loss.origin
    return {"loss": "polynomial", "power": argument} if function is polynomial else {"loss": argument}


def _read_flow(file: CheckedArrays) -> Flow:
    name = file.text("rule", RULES)
    loss = file.text("loss", (*LOSSES, "polynomial"))
    slope = float(file.numbers("slope", ()))
    return Flow(
        Dataset(file.numbers("inputs"), file.numbers("labels"), file.integer("classes") or None),
        RULES[name].read(file),
        polynomial(file.positive("power")) if loss == "polynomial" else loss,
        slope,
        decay=float(file.numbers("decay", ())),
    )


def _weights_arrays(weights: NetworkWeights) -> Arrays:
    if isinstance(weights, Weights):
        return {"weights": "two-layer", "hidden": weights.hidden, "output": weights.output}
    return {"weights": "deep", **weights.tensors}


def _read_weights(file: CheckedArrays) -> NetworkWeights:
    if file.text("weights", ("two-layer", "deep")) == "deep":
        return DeepWeights(tuple(file.numbered("layers")))
    return Weights(file.numbers("hidden"), file.numbers("output"))


# --- coordinates ---


def _reduction_arrays(reduction: Reduction) -> Arrays:
    if reduction.basis is None:
        return {}
    return {
        "basis": reduction.basis, "offset": reduction.offset,
        "reduced_inputs": reduction.flow.dataset.inputs, "reduced_hidden": reduction.weights.layers[0],
    }  # fmt: skip


def _read_reduction(file: CheckedArrays, flow: Flow, weights: NetworkWeights) -> Reduction:
    """The coordinates of a flattened ensemble, which must fit it."""
    if not file.has("basis"):
        return Reduction(flow, weights, None, None)
    inputs, (first, *others) = flow.dataset.inputs, weights.layers
    (count, n, d), m = inputs.shape, first.shape[-2]
    r = min(n, d)
    basis, offset = file.numbers("basis", (count, r, d)), file.numbers("offset", (count, m, d))
    reduced, hidden = file.numbers("reduced_inputs", (count, n, r)), file.numbers("reduced_hidden", (count, m, r))
    for name, found, wanted, size in [
        ("basis", basis @ basis.mT, torch.eye(r, dtype=basis.dtype), torch.ones(count)),
        ("reduced_inputs", reduced, inputs @ basis.mT, inputs.abs().amax((-2, -1))),
        ("reduced_hidden", hidden, first @ basis.mT, first.abs().amax((-2, -1))),
        ("offset", offset, first - hidden @ basis, first.abs().amax((-2, -1))),
    ]:
        if not ((found - wanted).abs().amax((-2, -1)) <= CLOSE * d * size).all():
            raise ValueError(f"{name} must fit the inputs and initial weights, and does not")
    return Reduction(flow.with_inputs(reduced), weights.with_layers([hidden, *others]), basis, offset)


# --- paths ---


def _path_arrays(path: Path) -> Arrays:
    if isinstance(path, EventPath):
        (kernel,) = (name for name, kernel in KERNELS.items() if kernel == path.kernel)
        everyone = torch.arange(len(path.reasons), device=path.reached.device)
        (record,) = path.of_trajectories(everyone).records
        return {
            "kernel": kernel,
            **{f"step_{name}": getattr(record, name) for name in COLUMNS},
            **{f"end_{item.name}": getattr(path.front, item.name) for item in fields(Front) if item.name != "layout"},
        }
    if isinstance(path, RungeKuttaPath):
        tracks = path.tracks
        return {
            "step_count": np.array([len(track.times) for track in tracks]),
            "step_time": torch.cat([track.times for track in tracks]),
            "step_state": torch.cat([track.states for track in tracks]),
            "rejected": np.array([track.rejected for track in tracks]),
            "evaluations": np.array([track.evaluations for track in tracks]),
        }
    raise ValueError(f"solution must be as `solve` gave it to be saved, got the path {type(path).__name__}; pickle it")


def _read_event(
    file: CheckedArrays, reduction: Reduction, settings: Settings, reasons: tuple[str | None, ...]
) -> EventPath:
    flow, weights = reduction.flow, reduction.weights
    kernel = KERNELS[file.text("kernel", KERNELS)]
    initial, _ = kernel.begin(flow, weights, settings)  # refuses what the kernel is not for
    layout = initial.layout
    front, record = _read_front(file, layout, len(reasons)), _read_record(file, layout)
    index = record.index
    if not torch.equal(index, torch.repeat_interleave(torch.arange(len(reasons)), front.steps)):
        raise ValueError("step_index must name each trajectory as often as end_steps says, in order")
    _require_times(record.time, index, front.time)
    starts = record.opens == record.time
    if not (starts | (record.opens == torch.nextafter(record.time, torch.tensor(torch.inf)))).all():
        raise ValueError("step_opens must be the times of the steps, or the next numbers")
    first = torch.nonzero(index.diff(prepend=index.new_tensor([-1]))).flatten()
    given = initial.weights[index[first]]
    if not ((record.weights[first] - given).abs().amax(-1) <= CLOSE * given.abs().amax(-1)).all():
        raise ValueError("step_weights must start from the initial weights")
    order = order_for(settings.rtol, settings.companion)
    return EventPath(flow, weights, order, (record,), front, reasons, kernel, settings.logarithmic)


def _read_front(file: CheckedArrays, layout: Layout, count: int) -> Front:
    kinks, entries = (count, layout.kinks), (count, layout.entries)
    return Front(
        layout=layout,
        time=file.at_least_zero("end_time", (count,)),
        weights=file.numbers("end_weights", (count, layout.parameters)),
        side=file.small("end_side", kinks, -1, 1),
        sign=file.small("end_sign", entries, -1, 1),
        contact=file.small("end_contact", kinks, 0, 2),
        sign_contact=file.small("end_sign_contact", entries, 0, 127),
        unit=file.numbers("end_unit", (count,), finite=False),
        steps=file.counts("end_steps", (count,)),
        rounds=file.counts("end_rounds", (count,)),
        idle=file.counts("end_idle", (count,)),
    )


def _read_record(file: CheckedArrays, layout: Layout) -> Record:
    index = file.counts("step_index", (None,))
    steps = len(index)
    return Record(
        layout,
        index,
        file.at_least_zero("step_time", (steps,)),
        file.at_least_zero("step_opens", (steps,)),
        file.numbers("step_weights", (steps, layout.parameters)),
        file.small("step_side", (steps, layout.kinks), -1, 1),
        file.small("step_sign", (steps, layout.entries), -1, 1),
    )


def _read_tracks(
    file: CheckedArrays, reduction: Reduction, settings: Settings, reasons: tuple[str | None, ...]
) -> RungeKuttaPath:
    flow, weights = reduction.flow, reduction.weights
    start = join(weights.layers)
    counts = file.counts("step_count", (len(start),))
    total = int(counts.clamp(max=2**40).sum())
    times, states = file.at_least_zero("step_time", (total,)), file.numbers("step_state", (total, start.shape[-1]))
    if not (counts > 0).all():
        raise ValueError("step_count must be 1 at least")
    trajectory = torch.repeat_interleave(torch.arange(len(start)), counts)
    _require_times(times, trajectory, times[counts.cumsum(0) - 1])
    if not torch.equal(states[counts.cumsum(0) - counts], start):
        raise ValueError("step_state must start from the initial weights")
    work = [file.counts(name, (len(start),)).tolist() for name in ("rejected", "evaluations")]
    tracks = zip(times.split(counts.tolist()), states.split(counts.tolist()), *work, strict=True)
    return RungeKuttaPath(flow, weights, tuple(Track(*track) for track in tracks), settings, reasons)


def _require_times(times: Tensor, trajectory: Tensor, ends: Tensor) -> None:
    same = trajectory[1:] == trajectory[:-1]
    first = torch.cat([torch.ones_like(times[:1], dtype=torch.bool), ~same])[: len(times)]
    if not ((times[1:] >= times[:-1]) | ~same).all() or not (times <= ends[trajectory]).all() or times[first].any():
        raise ValueError("step_time must go from 0 to end_time, in order, for each trajectory")


def _read(file: CheckedArrays) -> Parts:
    settings = Settings(
        file.text("method", ("event", *METHODS)), file.positive("rtol"), file.positive("atol"),
        file.integer("max_steps", least=1), file.text("companion", ("True", "False")) == "True",
        file.text("time", ("log",)) if file.has("time") else "t",
    )  # fmt: skip
    if settings.logarithmic and settings.method != "event":
        raise ValueError(f"method must be event where time is log, got {settings.method!r}")
    flow, weights = _read_flow(file), _read_weights(file)
    batch_shape = flow.require_fit(weights)
    if tuple(file.counts("batch_shape", (None,)).tolist()) != tuple(batch_shape):
        raise ValueError(f"batch_shape must be that of flow and weights, {tuple(batch_shape)}")
    reasons = tuple(reason or None for reason in file.texts("reasons"))
    if len(reasons) != batch_shape.numel() or not reasons:
        raise ValueError(f"reasons must hold one entry for each of {batch_shape.numel()} trajectories")
    # the path's arrays tell whether there are as many trajectories before the ensemble is made
    file.numbers("end_time" if settings.method == "event" else "rejected", (len(reasons),))
    ensemble = flow.map_matrices(weights, lambda matrix: flattened(matrix, batch_shape))
    reduction = _read_reduction(file, *ensemble)
    read_path = _read_event if settings.method == "event" else _read_tracks
    path = read_path(file, reduction, settings, reasons)
    return Parts(flow, weights, settings, batch_shape, path, reduction)
