"""The paper's two networks: LeNet, and ResNet-18, with the layers and names of the packages that it used."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def lenet(classes: int, channels: int = 3, width: int = 32) -> nn.Sequential:
    """LeNet for 32 x 32 images, as BioTorch's LeNetCIFAR: it is 3 channels and width 32 there.

    Three convolutions of 3 x 3 without padding; max pooling, twice, and then the average leave one number per channel.

    >>> import torch
    >>> network = lenet(10)
    >>> [tuple(layer.weight.shape[:2]) for layer in network if isinstance(layer, (nn.Conv2d, nn.Linear))]
    [(32, 3), (64, 32), (128, 64), (256, 128), (10, 256)]
    >>> network(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, width, 3), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(width, 2 * width, 3), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(2 * width, 4 * width, 3), relu3=nn.ReLU(), pool3=nn.AvgPool2d(4),
        flatten=nn.Flatten(),
        fc1=nn.Linear(4 * width, 8 * width), relu4=nn.ReLU(),
        fc2=nn.Linear(8 * width, classes),
    )  # fmt: skip
    return nn.Sequential(layers)


def resnet18(classes: int, channels: int = 3, width: int = 64) -> nn.Sequential:
    """ResNet-18 with batch norm, as torchvision's: it is 3 channels and width 64 there.

    >>> import torch
    >>> resnet18(10, channels=1, width=16)(torch.zeros(5, 1, 64, 64)).shape
    torch.Size([5, 10])
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False), bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(), maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        layer1=_stage(width, width, 1), layer2=_stage(width, 2 * width, 2),
        layer3=_stage(2 * width, 4 * width, 2), layer4=_stage(4 * width, 8 * width, 2),
        avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        fc=nn.Linear(8 * width, classes),
    )  # fmt: skip
    return nn.Sequential(layers)


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(channels, width, stride), Block(width, width, 1))


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut, which is a convolution of 1 x 1 where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, 1), nn.BatchNorm2d(width)
        self.relu, self.downsample = nn.ReLU(), None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(_conv(channels, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """relu(x + what the two convolutions make of it)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _conv(channels: int, width: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)


def initialize(network: nn.Module) -> None:
    """Xavier's initialisation, uniform; biases 0. Batch norm stays as it is, with gamma 1 and beta 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
