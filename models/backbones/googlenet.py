"""GoogLeNet (Szegedy et al., arXiv 1409.4842), as torchvision names its tensors.

As there: batch norm after every convolution, and 3x3 convolutions where the paper has 5x5. Pixels are
scaled to -1..1; torchvision does so in two steps, its usual normalisation and then ``transform_input``.
Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.backbone import Classifier, initialise


class ConvBnRelu(nn.Module):
    """A convolution that keeps the size at stride 1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Four branches side by side; the arguments are the columns of the paper's table 1."""

    def __init__(
        self, inputs: int, one: int, three_reduced: int, three: int, five_reduced: int, five: int, pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = ConvBnRelu(inputs, one, 1)
        self.branch2 = nn.Sequential(
            ConvBnRelu(inputs, three_reduced, 1), ConvBnRelu(three_reduced, three, 3)
        )
        self.branch3 = nn.Sequential(ConvBnRelu(inputs, five_reduced, 1), ConvBnRelu(five_reduced, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBnRelu(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    """A classifier on a map halfway up, whose loss helps the lower layers to learn (the paper, section 5)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(inputs, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, 1000)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(functional.adaptive_avg_pool2d(x, 4))  # (B, 128, 4, 4)
        x = functional.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


class GoogLeNet(Classifier):
    """Nine inception modules.

    Args:
        auxiliary: with the two classifiers for training. The published file has tensors for them, which
            are left out without.
    """

    mean = (127.5, 127.5, 127.5)
    std = (127.5, 127.5, 127.5)
    head = "fc"
    extras = ("aux1", "aux2")
    published = "googlenet-1378be20.pth"
    pool_size = 14  # what the last two modules see of a 224x224 picture; the pooling before them halves it
    trunk_channels = 832
    top_channels = 1024

    def __init__(self, auxiliary: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvBnRelu(3, 64, 7, 2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = ConvBnRelu(64, 64, 1)
        self.conv3 = ConvBnRelu(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = Auxiliary(512) if auxiliary else None
        self.aux2 = Auxiliary(528) if auxiliary else None
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(self.top_channels, 1000)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(self.top(self.trunk(images))))
        return logits

    def all_logits(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What training lowers the loss of: the logits, and those of inception 4a and 4d, each (B, 1000).

        The paper adds the loss of the last two at a weight of 0.3.
        """
        if self.aux1 is None or self.aux2 is None:
            raise ValueError("this GoogLeNet was built without its auxiliary classifiers")
        first = self._to_4a(images)
        second = self._to_4d(first)
        logits = self.fc(self.dropout(self.top(self.inception4e(second))))
        return logits, self.aux1(first), self.aux2(second)

    def trunk(self, images: Tensor) -> Tensor:
        """Inception 4e, (B, 832, H / 16, W / 16), rounded up."""
        x: Tensor = self.inception4e(self._to_4d(self._to_4a(images)))
        return x

    def _to_4a(self, images: Tensor) -> Tensor:
        x = self.maxpool1(self.conv1(images))  # (B, 64, H / 4, W / 4)
        x = self.maxpool2(self.conv3(self.conv2(x)))  # (B, 192, H / 8, W / 8)
        x = self.maxpool3(self.inception3b(self.inception3a(x)))  # (B, 480, H / 16, W / 16)
        out: Tensor = self.inception4a(x)
        return out

    def _to_4d(self, x: Tensor) -> Tensor:
        out: Tensor = self.inception4d(self.inception4c(self.inception4b(x)))
        return out

    def top(self, regions: Tensor) -> Tensor:
        """Inception 5a and 5b, averaged, of (R, 832, 14, 14): (R, 1024)."""
        x: Tensor = self.inception5b(self.inception5a(self.maxpool4(regions)))  # (R, 1024, 7, 7)
        return x.mean((2, 3))

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The three convolutions and the first ``blocks`` inception modules."""
        if blocks:
            yield from (self.conv1, self.conv2, self.conv3)
        yield from [layer for layer in self.children() if isinstance(layer, Inception)][:blocks]
