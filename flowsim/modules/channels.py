"""The channels of a network while it is followed: which are one, who writes and reads them, and what breaks the law."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from flowsim.modules.groups import Group, Reading, Term

Side = Literal["out", "in"]
"""Of a layer: the channels that it writes, or those that it reads."""

Place = tuple[str, Side]

Numbers = tuple[int, ...]
"""Channels, each by its number in `Channels`."""

Met = dict[Place, list[int]]
"""Who writes and reads one channel, with its numbers there."""


@dataclass
class Channels:
    """All channels met so far.

    Args:
        layers: of the network, by name.
        parent: the union-find forest of the channels.
        lost: layers that were also called where they could not be followed.
        outside: by identity, the tensors that the network uses by themselves, with their names.
        why: what breaks the law, where something does.
        sides: which channels each layer reads and writes.
    """

    layers: dict[str, nn.Module]
    parent: list[int] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    outside: dict[int, str] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    sides: dict[Place, Numbers] = field(default_factory=dict)

    def new(self, count: int) -> Numbers:
        """So many channels that nothing is known of."""
        first = len(self.parent)
        self.parent += range(first, first + count)
        return tuple(range(first, first + count))

    def find(self, channel: int) -> int:
        """The number that stands for all that are one with this channel."""
        while self.parent[channel] != channel:
            self.parent[channel] = channel = self.parent[self.parent[channel]]
        return channel

    def join(self, some: Sequence[int], others: Sequence[int]) -> None:
        """Make one of each pair."""
        for one, other in zip(some, others, strict=True):
            self.parent[self.find(other)] = self.find(one)

    def break_law(self, channels: Sequence[int], why: str) -> None:
        """Say what breaks the law on these channels."""
        for channel in channels:
            self.why.setdefault(channel, why)

    def attach(self, layer: str, side: Side, channels: Numbers) -> None:
        """Let a layer write or read channels; those where it is used again are one with those where it was first."""
        met = self.sides.setdefault((layer, side), channels)
        if len(met) == len(channels):
            self.join(met, channels)
        else:
            self.break_law((*met, *channels), f"{layer} is used with {len(met)} and {len(channels)} channels")

    def reading(self) -> Reading:
        """What is conserved, and what is not, once all is followed."""
        self._break_untrained()
        terms: dict[int, Met] = defaultdict(lambda: defaultdict(list))
        for place, channels in self.sides.items():
            for number, channel in enumerate(channels):
                terms[self.find(channel)][place].append(number)
        why = {self.find(channel): reason for channel, reason in reversed(self.why.items())}
        alike: dict[tuple[str, tuple[Place, ...]], list[Met]] = defaultdict(list)
        for root, met in terms.items():
            alike[why.get(root, ""), tuple(met)].append(met)
        groups, broken = [], defaultdict[str, list[str]](list)
        for (reason, places), members in alike.items():
            sides = ([self._term(place, members) for place in places if place[1] == side] for side in ("out", "in"))
            group = Group(len(members), *map(tuple, sides))
            if reason:
                broken[group.name].append(reason)
            else:
                groups.append(group)
        return Reading(tuple(groups), {name: "; ".join(reasons) for name, reasons in broken.items()})

    def _term(self, place: Place, members: Sequence[Met]) -> Term:
        pairs = [(number, index) for index, met in enumerate(members) for number in met[place]]
        channels, places = (torch.tensor(part) for part in zip(*pairs, strict=True))
        return Term(place[0], channels, places, len(self.sides[place]))

    def _break_untrained(self) -> None:
        """The law needs every parameter of its layers to move, and to do nothing else."""
        owners: dict[int, list[str]] = defaultdict(list)
        for name, module in self.layers.items():
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)].append(name)
        for place, name, parameter in self._parameters():
            layer, others = place[0], [owner for owner in owners[id(parameter)] if owner != place[0]]
            if not parameter.requires_grad:
                self.break_law(self.sides[place], f"{layer}.{name} is not trained")
            if others:
                self.break_law(self.sides[place], f"{layer}.{name} is that of {others[0]}, too")
            if id(parameter) in self.outside:
                self.break_law(self.sides[place], f"{self.outside[id(parameter)]} is used outside of its layer, too")
            if layer in self.lost:
                self.break_law(self.sides[place], f"{layer} is also used where it cannot be followed")

    def _parameters(self) -> Iterator[tuple[Place, str, Tensor]]:
        """Those that the law is about, with where they are: the bias of a reader plays no part."""
        for place in self.sides:
            for name in ("weight", "bias") if place[1] == "out" else ("weight",):
                parameter = getattr(self.layers[place[0]], name, None)
                if isinstance(parameter, Tensor):
                    yield place, name, parameter
