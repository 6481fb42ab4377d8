"""Small networks with every kind of layer that the law of weight sharing knows, and their twins for controls.

Inputs are images of 3 x 8 x 8, outputs three numbers. A twin has layers of the same names: what is read off it is what
somebody would believe of the network itself who does not know better.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE, OUTPUTS = (3, 8, 8), 3

Make = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]


def chain() -> nn.Sequential:
    """As LeNet: convolutions, pooling, and linear layers after them."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 8), nn.LeakyReLU(0.3), nn.Linear(8, OUTPUTS),
    )  # fmt: skip


def pooling() -> nn.Sequential:
    """Overlapping maxima, L2 pooling, stride, and a global average."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, padding=2), nn.LeakyReLU(0.2), nn.LPPool2d(2, 2, stride=1),
        nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, OUTPUTS),
    )  # fmt: skip


def smooth(between: Make = nn.Identity) -> nn.Module:
    """Convolutions and L2 pooling: homogeneous, and without kinks but at 0; what is between has the name 2."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.LPPool2d(2, 2), between(),
        nn.Conv2d(4, 6, 3, padding=1), nn.LPPool2d(2, 2), nn.Flatten(), nn.Linear(6, OUTPUTS),
    )  # fmt: skip


def kernels() -> nn.Sequential:
    """Groups, dilation, reflected borders, learned slopes, and dropout with the mask of each batch."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), nn.PReLU(4),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Conv2d(6, 6, 3, padding="same", groups=6), nn.ReLU(), nn.AvgPool2d(4),
        nn.Flatten(), nn.Linear(24, OUTPUTS),
    )  # fmt: skip


def norms() -> nn.Sequential:
    """Group norm between convolutions, layer norm between linear layers, each with its own gamma and beta."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 8), nn.LayerNorm(8), nn.LeakyReLU(0.3), nn.Linear(8, OUTPUTS),
    )  # fmt: skip


def with_activation(make: Make) -> nn.Module:
    """Two convolutions around an activation."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), make(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(6, OUTPUTS),
    )  # fmt: skip


def with_norm(norm: Norm) -> nn.Module:
    """Two convolutions around a norm."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), norm(4), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, OUTPUTS),
    )  # fmt: skip


class Block(nn.Module):
    """Two convolutions beside a shortcut: none, itself, a 1x1 convolution, or channels of zeros."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1)
        self.norm1 = norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.norm2 = norm(after)
        self.stride, self.more, self.shortcut = stride, after - before, shortcut
        self.project = self.norm3 = None
        if shortcut == "1x1" and self.more:
            self.project, self.norm3 = nn.Conv2d(before, after, 1, stride), norm(after)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways."""
        inner = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        if self.shortcut == "none":
            return functional.relu(inner)
        if self.project is not None and self.norm3 is not None:
            x = self.norm3(self.project(x))
        elif self.more:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 1, self.more - 1))
        return functional.relu(inner + x)


class Residual(nn.Module):
    """A stem, three blocks in two stages, a global average, and a linear layer."""

    def __init__(self, norm: Norm = nn.Identity, shortcut: str = "1x1") -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), norm(4)
        self.blocks = nn.Sequential(
            Block(4, 4, 1, norm, shortcut), Block(4, 6, 2, norm, shortcut), Block(6, 6, 1, norm, shortcut)
        )
        self.head = nn.Linear(6, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Three numbers for each image."""
        return self.head(self.blocks(functional.relu(self.norm(self.stem(x)))).mean((2, 3)))


class Branches(nn.Module):
    """Channels side by side, and a convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 3, 5, padding=2)
        self.twice = nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Linear(5, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """Three numbers for each image."""
        x = torch.cat([functional.relu(self.left(x)), functional.leaky_relu(self.right(x), 0.2)], dim=1)
        for _ in range(2):
            x = functional.leaky_relu(self.twice(x), 0.5)
        return self.head(functional.max_pool2d(x, 8).flatten(1))
