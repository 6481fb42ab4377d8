"""What is read off a network: groups of channels that the same layers write and read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Term:
    """The channels that a layer writes or reads in a group.

    Args:
        layer: its name in the network.
        channels: their numbers in the layer, rows of a writer or columns of a reader.
        places: theirs in the group.
        of: how many channels the layer has on this side.
    """

    layer: str
    channels: Tensor
    places: Tensor
    of: int


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that the same layers write and read: one conserved quantity for each.

    Args:
        size: how many channels.
        writers: the layers that write them.
        readers: the layers that read them.
    """

    size: int
    writers: tuple[Term, ...]
    readers: tuple[Term, ...]

    @property
    def name(self) -> str:
        """Writers -> readers, as in 'stem + block.conv2 -> block.conv1 + head'."""
        sides = (" + ".join(term.layer for term in side) for side in (self.writers, self.readers))
        return " -> ".join(side or "other" for side in sides)


@dataclass(frozen=True)
class Reading:
    """What is conserved in a network, and what is not.

    Args:
        groups: for which the law holds.
        broken: why it does not hold for the others, by their names.
    """

    groups: tuple[Group, ...]
    broken: dict[str, str]
