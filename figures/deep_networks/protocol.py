"""What is run: the settings of the paper's two experiments and of ours, and the classes and weights of each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from figures.deep_networks.networks import initialize, lenet, resnet18
from figures.experiments.images import Images, Part
from flowsim.modules import feedback_alignment

RULES = {"GD": "gd", "FA": "fa", "adaFA": "adafa", "sign-FA": "sign-fa"}
"""By the names that the paper has for them."""

NETWORKS = {"lenet": lenet, "resnet": resnet18}


@dataclass(frozen=True)
class Protocol:
    """The settings of an experiment.

    Args:
        dataset: see `figures.experiments.images.load`.
        network: lenet or resnet.
        width: of its first layer.
        side: of the images: smaller ones are made as many times as large as fits, and filled up with black.
        classes: the numbers k of classes.
        repeats: seeds 0 .. repeats-1: other classes, weights, feedback and order of the data.
        epochs: after each is recorded.
        batch: images of a step.
        rate: the step size at first.
        halved: the epochs after which it is halved.
        momentum: of SGD.
        decay: of weights, biases included.
        per_class: training and test images of each class, the first ones; all if None.
        piece: so many images are computed at a time, and their gradients added; all of a batch if None, which batch
            norm needs.
    """

    dataset: str
    network: str
    width: int
    side: int
    classes: tuple[int, ...]
    repeats: int
    epochs: int
    batch: int
    rate: float
    halved: tuple[int, ...]
    momentum: float = 0.9
    decay: float = 1e-4
    per_class: tuple[int, int] | None = None
    piece: int | None = None

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, which is faster, unless there are so few that oneDNN computes wrong gradients of convolutions.

        Those of strided 1 x 1 kernels on fewer channels than a vector has numbers (16) write beyond their workspace:
        https://github.com/uxlfoundation/oneDNN/issues/6035.

        >>> from dataclasses import replace
        >>> TINY_IMAGENET.memory_format, replace(TINY_IMAGENET, width=4).memory_format
        (torch.channels_last, torch.contiguous_format)
        """
        return torch.channels_last if self.width >= 16 else torch.contiguous_format

    def step_size(self, epoch: int) -> float:
        """In the epoch that follows `epoch`.

        >>> [CIFAR100.step_size(epoch) for epoch in (0, 99, 100, 250)]
        [0.01, 0.01, 0.005, 0.0025]
        """
        return self.rate / 2 ** sum(epoch >= at for at in self.halved)


CIFAR100 = Protocol(
    "cifar-100", "lenet", width=32, side=32, classes=(10, 25, 50), repeats=6, epochs=500, batch=1024, rate=0.01,
    halved=(100, 250), piece=128,
)  # fmt: skip
"""LeNet on CIFAR-100: the paper's section 6.2 and appendix A. Pieces change nothing but rounding."""

TINY_IMAGENET = Protocol(
    "tiny-imagenet", "resnet", width=64, side=64, classes=(10, 25, 50), repeats=4, epochs=50, batch=512, rate=0.01,
    halved=(20, 40),
)  # fmt: skip
"""ResNet-18 on Tiny ImageNet: likewise."""

SMALL = {
    "lenet": Protocol(
        "mnist-5000", "lenet", width=16, side=32, classes=(3, 5, 10), repeats=3, epochs=20, batch=50, rate=0.007,
        halved=(14, 18), per_class=(200, 100), piece=64,
    ),
    "resnet": Protocol(
        "mnist-5000", "resnet", width=16, side=64, classes=(3, 5, 10), repeats=2, epochs=6, batch=50, rate=0.01,
        halved=(4,), per_class=(100, 50),
    ),
}  # fmt: skip
"""Ours, which take minutes on two cores, by network. At rate 0.01 LeNet diverges in some runs of adaFA with k = 10."""


@dataclass(frozen=True)
class Setting:
    """Which run of a protocol: the rule, the number k of classes, and the repeat."""

    rule: str
    classes: int
    repeat: int

    def __str__(self) -> str:
        return f"{self.rule}, k = {self.classes}, repeat {self.repeat}"


def settings_of(protocol: Protocol) -> list[Setting]:
    """All runs."""
    return [
        Setting(rule, classes, repeat)
        for rule in RULES
        for classes in protocol.classes
        for repeat in range(protocol.repeats)
    ]


class Data(NamedTuple):
    """The images of a run, and their classes 0 .. k-1; bytes, until they are normalised."""

    train: tuple[Tensor, Int[Tensor, " n"]]
    test: tuple[Tensor, Int[Tensor, " n"]]


def chosen_classes(protocol: Protocol, available: int, setting: Setting) -> list[int]:
    """The classes of a run: a fresh choice for each repeat and k, which all rules share.

    >>> chosen_classes(CIFAR100, 100, Setting("GD", 10, 0)) == chosen_classes(CIFAR100, 100, Setting("FA", 10, 0))
    True
    """
    generator = np.random.default_rng([setting.repeat, setting.classes])
    return generator.permutation(available)[: setting.classes].tolist()


def select(protocol: Protocol, images: Images, setting: Setting) -> Data:
    """The images of a run, of those that were read.

    Raises:
        ValueError: if there are too few classes, or no test images.
    """
    if images.test is None:
        raise ValueError(f"--dataset must have a test set, got {protocol.dataset} without one")
    available = int(images.train[1].max()) + 1
    if setting.classes > available:
        raise ValueError(f"--dataset must have {setting.classes} classes, got {protocol.dataset} with {available}")
    classes = chosen_classes(protocol, available, setting)
    counts = protocol.per_class or (None, None)
    return Data(*(_of_classes(*pair, classes) for pair in zip((images.train, images.test), counts, strict=True)))


def _of_classes(part: Part, count: int | None, classes: list[int]) -> tuple[Tensor, Tensor]:
    images, labels = part
    places = [np.flatnonzero(labels == each)[:count] for each in classes]
    numbers = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(place) for place in places]))
    return torch.from_numpy(images[np.concatenate(places)]), numbers


def normalized(protocol: Protocol, data: Data, device: str) -> Data:
    """Images of the protocol's size in float32, with mean 0 and deviation 1 of each colour over the training set.

    Mean and deviation are those of the images as they were read, before they are filled up with black.
    """
    mean, deviation = _moments(data.train[0])

    def prepared(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = part
        scaled = (filled(images, protocol.side) - mean) / deviation
        return scaled.contiguous(memory_format=protocol.memory_format).to(device), labels.to(device)

    return Data(prepared(data.train), prepared(data.test))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each colour, `channels x 1 x 1`; part by part: all of them in float64 are many."""
    count, total, squares = images[:, 0].numel(), torch.zeros(()), torch.zeros(())
    for part in images.split(1000):
        total = total + part.double().sum((0, 2, 3))
        squares = squares + part.double().square().sum((0, 2, 3))
    mean = total / count
    deviation = (squares / count - mean**2).clamp(min=1e-6).sqrt()
    return mean.float()[:, None, None], deviation.float()[:, None, None]


def filled(images: Tensor, side: int) -> Float[Tensor, "n channels side side"]:
    """Images as many times as large as fits, filled up with black around.

    Raises:
        ValueError: if they are larger than that.

    >>> filled(torch.tensor([[[[7, 8]]]]), 5)[0, 0].tolist()[1:3]
    [[7.0, 7.0, 8.0, 8.0, 0.0], [7.0, 7.0, 8.0, 8.0, 0.0]]
    """
    height, width = images.shape[-2:]
    if max(height, width) > side:
        raise ValueError(f"--dataset must have images of {side} x {side} pixels or less, got {height} x {width}")
    times = side // max(height, width)
    large = images.float().repeat_interleave(times, -2).repeat_interleave(times, -1)
    down, right = side - times * height, side - times * width
    return nn.functional.pad(large, (right // 2, right - right // 2, down // 2, down - down // 2))


def network_of(protocol: Protocol, setting: Setting, channels: int) -> nn.Module:
    """The network of a run at the start: W(0) is that of the other rules, B is its own.

    FA draws B with Xavier's deviation; sign-FA has it as its scale, as in BioTorch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.repeat)
        plain = NETWORKS[protocol.network](setting.classes, channels, protocol.width)
        initialize(plain)
    rule = RULES[setting.rule]
    converted = feedback_alignment(plain, rule, scale="xavier", seed=1000 + setting.repeat)  # type: ignore[arg-type]
    return converted.to(memory_format=protocol.memory_format)  # type: ignore[call-overload]


def order_of(setting: Setting, epoch: int, count: int) -> Int[Tensor, " n"]:
    """The order of the training images in an epoch: the same for all rules, and whether it was interrupted or not."""
    seed = np.random.SeedSequence([setting.repeat, setting.classes, epoch]).generate_state(1, np.uint64)[0]
    return torch.randperm(count, generator=torch.Generator().manual_seed(int(seed >> 1)))
