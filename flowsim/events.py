"""Events: where the velocity of a trajectory jumps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, overload

import torch
from jaxtyping import Int
from torch import Tensor

from flowsim.extras import needed

KINDS = ("crossing", "sliding entry", "sliding exit", "sign change")


class Event(NamedTuple):
    """One event, in plain numbers; see `Events` for what they mean."""

    time: float
    trajectory: int
    layer: int
    sample: int
    neuron: int
    before: int
    after: int
    kind: str


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """Where the velocity jumps: the neuron of hidden layer `layer` goes over from one side of a kink to another.

    `before` and `after` are 1 (active, z > 0), -1 (inactive, z < 0) or 0 (sliding, z stays 0) for the `sample` and
    `neuron`. Under sign-FA also where an outgoing weight of the neuron changes its sign from `before` to `after`, and
    with it the feedback; `sample` is then -1. One entry per event, ordered by trajectory (in the flattened ensemble),
    then time; layers count from 1, samples, neurons and trajectories from 0.

    They are a sequence of `Event`: an integer as index gives one of them, a slice or a mask other Events.

    >>> one = torch.ones(2, dtype=torch.long)
    >>> events = Events(torch.tensor([0.5, 0.7]), 0 * one, one, 0 * one, 2 * one, one, -one)
    >>> events[1].neuron, [event.kind for event in events], events[events.time > 0.6]
    (2, ['crossing', 'crossing'], Events(1: 1 crossing))
    """

    time: Tensor
    trajectory: Int[Tensor, " events"]
    layer: Int[Tensor, " events"]
    sample: Int[Tensor, " events"]
    neuron: Int[Tensor, " events"]
    before: Int[Tensor, " events"]
    after: Int[Tensor, " events"]

    def __len__(self) -> int:
        return len(self.time)

    def __iter__(self) -> Iterator[Event]:
        return iter([Event(*row) for row in zip(*self.columns().values(), strict=True)])

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice | list[int] | list[bool] | Tensor) -> Events: ...
    def __getitem__(self, index: Any) -> Event | Events:
        columns = [getattr(self, field.name)[index] for field in fields(self)]
        if columns[0].ndim:
            return Events(*columns)
        (event,) = Events(*(column.reshape(1) for column in columns))
        return event

    def __repr__(self) -> str:
        kinds = self.kind
        counts = [f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds]
        return f"Events({len(self)}{': ' if counts else ''}{', '.join(counts)})"

    @property
    def kind(self) -> list[str]:
        """Of each event: "crossing", "sliding entry", "sliding exit", or "sign change"."""
        kinds = torch.where(self.after == 0, 1, torch.where(self.before == 0, 2, 0))
        kinds = torch.where(self.sample < 0, 3, kinds)
        return [KINDS[kind] for kind in kinds.tolist()]

    def columns(self) -> dict[str, list]:
        """The fields of `Event` as lists of plain numbers, by name."""
        return {**{field.name: getattr(self, field.name).tolist() for field in fields(self)}, "kind": self.kind}

    def to_dataframe(self) -> Any:
        """Return the events as a pandas DataFrame, one row each, with the fields of `Event` as columns.

        Raises:
            ImportError: if pandas is not installed.
        """
        with needed("to_dataframe", "tables"):
            import pandas as pd  # noqa: PLC0415
        return pd.DataFrame(self.columns())
