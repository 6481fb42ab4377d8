"""Observables of a sweep by name, and the columns that they fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from flowsim import observables
from flowsim.flow import Flow
from flowsim.weights import NetworkWeights


class Snapshot(NamedTuple):
    """Trajectories at one time: their flow, their weights, and the weights that they began with."""

    flow: Flow
    weights: NetworkWeights
    start: NetworkWeights
    alpha: float

    def deviations(self) -> tuple[Float[Tensor, "*batch"], ...]:
        """The largest change of a conserved quantity, of each hidden layer."""
        pairs = zip(*(observables.conserved(self.flow, at) for at in (self.weights, self.start)), strict=True)
        return tuple((now - then).abs().amax(-1) for now, then in pairs)


class Observable(NamedTuple):
    """One value for each trajectory, or one for each of some layers, which begin with the given number."""

    values: Callable[[Snapshot], Tensor | tuple[Tensor, ...]]
    first: int | None = None


OBSERVABLES = {
    "loss": Observable(lambda at: at.flow.risk(at.weights)),
    "log_loss": Observable(lambda at: at.flow.log_risk(at.weights)),
    "accuracy": Observable(lambda at: observables.accuracy(at.flow, at.weights)),
    "margin": Observable(lambda at: observables.normalized_margin(at.flow, at.weights)),
    "alignment": Observable(lambda at: observables.alignment(at.flow, at.weights), first=2),
    "network_alignment": Observable(lambda at: observables.network_alignment(at.flow, at.weights)),
    "conserved_deviation": Observable(Snapshot.deviations, first=1),
    "gradient_norm": Observable(lambda at: observables.descent_factors(at.flow, at.weights).gradient_norm),
    "update_norm": Observable(lambda at: observables.descent_factors(at.flow, at.weights).update_norm),
    "descent_cosine": Observable(lambda at: observables.descent_factors(at.flow, at.weights).cosine),
    "dominance_ratio": Observable(lambda at: observables.dominance_ratio(at.flow, at.weights, at.alpha)),
}
"""What can be observed. Columns bear these names, with the number of the layer behind those that have one per layer."""


def column_names(name: str, hidden_layers: int) -> list[str]:
    """The columns of an observable for networks with so many hidden layers at most.

    >>> column_names("loss", 2), column_names("alignment", 2)
    (['loss'], ['alignment_2', 'alignment_3'])
    """
    first = OBSERVABLES[name].first
    return [name] if first is None else [f"{name}_{first + layer}" for layer in range(hidden_layers)]


def observe(name: str, snapshot: Snapshot) -> dict[str, Tensor]:
    """The columns of an observable."""
    values = OBSERVABLES[name].values(snapshot)
    several = values if isinstance(values, tuple) else (values,)
    return dict(zip(column_names(name, len(several)), several, strict=True))
