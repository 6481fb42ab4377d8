"""Runs as .npz files: what was measured along a solution, its events, and the solution itself.

| key | shape | what |
|---|---|---|
| `times` | T | 0, then logarithmically spaced up to t_final |
| `loss` | T | the risk L |
| `hidden`, `output` | T, m, d and T, m or T, k, m | the weights of two layers |
| `layers[0]`, `layers[1]`, .. | T, m_l, m_(l-1) | those of more layers, in their place |
| `conserved` | T, m | what Theorem 5.2 says is conserved, for each hidden neuron |
| `conserved[0]`, `conserved[1]`, .. | T, m_l | that of several hidden layers, in its place |
| `alignment` | T | cos(W, B) over the network |
| `event_times`, `event_kinds`, `event_layers`, `event_samples`, `event_neurons` | E | see `flowsim.events.Events` |
| `solution/..` | | the solution, which `flowsim.load` reads |

Settings stand beside them, one value each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from numpy.typing import ArrayLike
from torch import Tensor

from flowsim.npz import write_npz
from flowsim.observables import conserved, network_alignment
from flowsim.saving import PREFIX, arrays_of
from flowsim.solution import Solution
from flowsim.times import FIRST, log_times


def observe(solution: Solution, times: int) -> dict[str, ArrayLike]:
    """What is measured at so many times, and the events, by key.

    Args:
        solution: of one trajectory.
        times: 2 at least.
    """
    at = log_times(FIRST * solution.t_final, solution.t_final, times)
    flow, weights, events = solution.flow, solution.evaluate(at), solution.events
    quantities = conserved(flow, weights)
    several = len(quantities) > 1
    tensors: dict[str, Tensor] = {
        "times": at,
        "loss": flow.risk(weights),
        **weights.tensors,
        **{f"conserved[{layer}]" if several else "conserved": c for layer, c in enumerate(quantities)},
        "alignment": network_alignment(flow, weights),
        "event_times": events.time,
        "event_layers": events.layer,
        "event_samples": events.sample,
        "event_neurons": events.neuron,
    }
    return {**{key: tensor.cpu().numpy() for key, tensor in tensors.items()}, "event_kinds": events.kind}


def write_run(path: str | os.PathLike[str], solution: Solution, arrays: Mapping[str, ArrayLike]) -> None:
    """Write what was measured, and the solution under keys of its own, to an .npz file.

    Raises:
        ValueError: if the file cannot be written, or the solution cannot be saved, see `Solution.save`.
    """
    whole = {f"{PREFIX}{key}": value for key, value in arrays_of(solution).items()}
    write_npz(os.fspath(path), {**arrays, **whole})
