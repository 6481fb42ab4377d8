"""Ensembles on a GPU against the compiled core on all processor cores: `python tests/benchmarks --cuda`, minutes.

On a GPU all trajectories take their steps together, in torch. The alternative is to integrate them on the host and to
hand back what it finds. Writes gpu.json and gpu.md beside this file; without a GPU the table says that it is empty.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from problems import separable
from telling import tabulate

from flowsim import Flow, Weights, solve
from flowsim.files import whole

ENSEMBLES = (64, 1024, 8192)
T_FINAL, RTOL = 100.0, 1e-8
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """An ensemble: seconds on the device, seconds on the host there and back, the largest difference at the end."""

    ensemble: int
    on_device: float
    on_host: float
    difference: float


@dataclass(frozen=True)
class Results:
    """What was measured, on which device, against how many cores of the host."""

    device: str
    cores: int
    rows: tuple[Row, ...]


def measure(device: torch.device, ensemble: int) -> Row:
    """An ensemble there, and on the host with its tensors carried over and back."""
    flow, weights = _carried(*separable(ensemble), device)

    def there() -> torch.Tensor:
        return _end(flow, weights)

    def here() -> torch.Tensor:
        return _end(*_carried(flow, weights, torch.device("cpu"))).to(device)

    (on_device, found), (on_host, expected) = _timed(there, device), _timed(here, device)
    return Row(ensemble, on_device, on_host, (found - expected).abs().max().item())


def _carried(flow: Flow, weights: Weights, device: torch.device) -> tuple[Flow, Weights]:
    return flow.map_matrices(weights, lambda matrix: matrix.to(device))


def _end(flow: Flow, weights: Weights) -> torch.Tensor:
    return solve(flow, weights, T_FINAL, rtol=RTOL, atol=1e-2 * RTOL).evaluate(T_FINAL).hidden


def _timed(work: Callable[[], torch.Tensor], device: torch.device) -> tuple[float, torch.Tensor]:
    """Seconds until the device has done it."""
    started = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, found


def measure_all(device: torch.device, ensembles: Sequence[int] = ENSEMBLES) -> Results:
    """All ensembles, after a small one that loads and compiles what is used."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    measure(device, 2)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Results(name, cores, tuple(measure(device, ensemble) for ensemble in ensembles))


def write(results: Results | None, folder: Path = FOLDER) -> None:
    """gpu.json, if anything was measured, and gpu.md."""
    if results:
        with whole(folder / "gpu.json") as partial:
            partial.write_text(json.dumps(asdict(results), indent=1) + "\n")
    with whole(folder / "gpu.md") as partial:
        partial.write_text(tell(results))


def tell(results: Results | None) -> str:
    """The table, without rows where there was no GPU."""
    where = (
        f"Measured on {results.device} against {results.cores} cores of its host."
        if results
        else "Not measured: no machine with a GPU was to be had."
    )
    rows = results.rows if results else ()
    header = "| together | on the GPU, s | on the host, there and back, s | times as fast on the GPU | difference |"
    lines = (
        f"| {row.ensemble} | {row.on_device:.3g} | {row.on_host:.3g} | {row.on_host / row.on_device:.2f} "
        f"| {row.difference:.0e} |"
        for row in rows
    )
    problem = f"Separable, n = 20, d = 40, m = 50, to t = {T_FINAL:g} at a tolerance of {RTOL:g}"
    compared = "all trajectories a step at a time in torch on a GPU, and the compiled core on the cores of its host"
    return f"{problem}: {compared}.\n{where}\n\n{tabulate(header, lines)}\n"
