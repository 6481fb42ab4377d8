"""A solution as an xarray.Dataset: labelled arrays to select from and to plot, and to write as NetCDF or zarr.

It holds what is observed at chosen times. The solution itself, which can be asked for any time and extended, is kept
by `Solution.save`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowsim.extras import needed
from flowsim.losses import named
from flowsim.observables import conserved, network_alignment
from flowsim.rules import SignFeedbackAlignment
from flowsim.solution import Solution, as_times
from flowsim.validation import shown
from flowsim.weights import NetworkWeights, Weights

if TYPE_CHECKING:
    import xarray as xr

Variables = dict[str, tuple[tuple[str, ...], Tensor, str]]
"""By name: dimensions beside times and ensemble, values, and what they are."""


def as_dataset(solution: Solution, times: Any, batch: Sequence[str] | None) -> xr.Dataset:
    """What `Solution.to_xarray` returns; errors as there."""
    with needed("to_xarray", "xarray"):
        import xarray as xr  # noqa: PLC0415
    at = as_times(times, solution.t_final)
    if at.ndim != 1:
        raise ValueError(f"times must be a list of times, got shape {tuple(at.shape)}: put it in brackets")
    logarithmic = solution.settings.logarithmic
    time, symbol = ("log_time", "s = log(1 + t)") if logarithmic else ("time", "t")
    reached = solution.status.time
    clock = at.to(reached).reshape(-1, *(1,) * reached.ndim).expand(-1, *reached.shape)
    asked = torch.minimum(clock, reached)
    variables = _observe(solution, asked)
    taken = {time, "reached", *variables, *(name for dimensions, *_ in variables.values() for name in dimensions)}
    ensemble = _batch_dimensions(batch, tuple(reached.shape), taken)
    dataset = xr.Dataset(
        {
            name: ((time, *ensemble, *dimensions), _array(values), _described(meaning))
            for name, (dimensions, values, meaning) in variables.items()
        },
        attrs=_attributes(solution),
    )
    if not torch.equal(asked, clock):
        dataset = dataset.where(xr.DataArray(_array(asked == clock), dims=(time, *ensemble)))
    dataset["reached"] = ensemble, _array(reached), _described(f"the {time} up to which the trajectory got")
    counted = {name: np.arange(size) for name, size in dataset.sizes.items() if name != time}
    return dataset.assign_coords({time: (time, _array(at), _described(symbol)), **counted})


def _observe(solution: Solution, asked: Tensor) -> Variables:
    """What is observed of each trajectory at times of its own, `times x *batch`."""
    flow, shape = solution.flow, solution.batch_shape
    whose = torch.arange(shape.numel(), device=asked.device).reshape(shape).expand(asked.shape)
    weights = solution.evaluate(asked, whose)
    two_layers = isinstance(weights, Weights)
    numbers = [""] if two_layers else [f"_{number}" for number in range(1, len(weights.layers))]
    neurons = [f"neuron{number}" for number in numbers]
    lawful = flow.rule.layers_with_law(weights)
    variables: Variables = {}
    if solution.settings.logarithmic:
        variables["log_loss"] = (), flow.log_risk(weights), "natural logarithm of the risk L"
    else:
        variables["loss"] = (), flow.risk(weights), "risk L"
    if two_layers or not flow.rule.direct:
        variables["alignment"] = (), network_alignment(flow, weights), "cosine of forward and feedback weights"
    variables |= _layers(weights, neurons)
    for layer, values in zip(lawful, conserved(flow, weights, lawful), strict=True):
        meaning = f"Psi(W_{layer + 1}[:, i]) - |W_{layer}[i, :]|^2 / 2"
        variables[f"conserved{numbers[layer - 1]}"] = (neurons[layer - 1],), values, meaning
    for number, neuron, values in zip(numbers, neurons, solution.pattern(asked, whose), strict=True):
        meaning = "1 where the neuron is active, -1 where it is not, 0 where it slides along its kink"
        variables[f"pattern{number}"] = ("sample", neuron), values.to(torch.int8), meaning
    return variables


def _layers(weights: NetworkWeights, neurons: Sequence[str]) -> Variables:
    """The weights, layer by layer."""
    pairs = list(zip((*neurons, "output_neuron"), ("input", *neurons), strict=True))
    if isinstance(weights, Weights):
        hidden, output = pairs
        rows = output[1:] if weights.scalar_output else output
        return {"hidden": (hidden, weights.hidden, "W_1"), "output": (rows, weights.output, "W_2")}
    layers = enumerate(zip(pairs, weights.layers, strict=True), 1)
    return {f"layer_{number}": (pair, layer, f"W_{number}") for number, (pair, layer) in layers}


def _batch_dimensions(batch: Sequence[str] | None, shape: tuple[int, ...], taken: Collection[str]) -> tuple[str, ...]:
    """The names of the ensemble's dimensions.

    Raises:
        ValueError: if there are too few or too many, or one is not a name of its own.
    """
    if batch is None:
        return tuple(f"batch_{index}" for index in range(len(shape)))
    if not isinstance(batch, (list, tuple)) or not all(isinstance(name, str) for name in batch):
        raise ValueError(f"batch must be a list of names, as ['seed'], got {shown(batch)}")
    if len(batch) != len(shape):
        raise ValueError(f"batch must name each of the {len(shape)} dimensions of the ensemble {shape}, got {batch}")
    double = [name for index, name in enumerate(batch) if name in taken or name in batch[:index]]
    if double:
        raise ValueError(f"batch must have names that nothing else has, got {double[0]!r}: choose another")
    return tuple(batch)


def _attributes(solution: Solution) -> dict[str, str | float]:
    """What was solved, and how."""
    flow, settings = solution.flow, solution.settings
    slope = flow.activation.leaky_slope
    return {
        "title": "Flow of a learning rule",
        "flowsim_version": importlib.metadata.version("flowsim"),
        "rule": type(flow.rule).__name__,
        **({"scale": flow.rule.scale} if isinstance(flow.rule, SignFeedbackAlignment) else {}),
        "loss": named(flow.loss).name,
        **({"activation": repr(flow.activation)} if slope is None else {"slope": slope}),
        "decay": flow.decay,
        "method": settings.method,
        "rtol": settings.rtol,
        "atol": settings.atol,
        "max_steps": settings.max_steps,
        f"{settings.symbol}_final": solution.t_final,
    }


def _described(meaning: str) -> dict[str, str]:
    """The attributes of an array; all quantities are pure numbers."""
    return {"long_name": meaning, "units": "1"}


def _array(tensor: Tensor) -> NDArray:
    return tensor.cpu().numpy()
