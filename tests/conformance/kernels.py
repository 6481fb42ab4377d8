"""The kernels and devices that the suite runs on, one after another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import flowsim
from flowsim import Flow, Solution
from flowsim.integrators.event import batched, compiled
from flowsim.weights import AnyWeights

KERNELS = ["compiled", "batched", *["batched on cuda"] * torch.cuda.is_available()]

_require_supported = batched.require_supported
_turn = "compiled"


def take_turn(kernel: str, patch: pytest.MonkeyPatch) -> None:
    """From here on `solve` goes by this kernel; it skips the tests with problems that the kernel refuses."""
    patch.setattr("conformance.kernels._turn", kernel)
    if kernel != "compiled":
        patch.setattr(compiled, "has_compiled_series", lambda flow: False)
        patch.setattr(batched, "require_supported", _skip_unsupported)


def _skip_unsupported(flow: Flow, weights: Any) -> None:
    try:
        _require_supported(flow, weights)
    except ValueError as refusal:
        pytest.skip(str(refusal))


def solve(flow: Flow, weights: AnyWeights, t_final: float, **options: Any) -> Solution[AnyWeights]:
    """`flowsim.solve` by the kernel whose turn it is. From another device the solution comes back to the CPU."""
    if _turn != "batched on cuda":
        return flowsim.solve(flow, weights, t_final, **options)
    solution = flowsim.solve(*flow.map_matrices(weights, torch.Tensor.cuda), t_final, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "solution.npz"
        solution.save(path)
        return flowsim.load(path)
