"""ResNet-18, -34, -50 and -101 (He et al., arXiv 1512.03385), as torchvision names their tensors.

As there, a bottleneck halves the map in its 3x3 convolution and not, as in the paper, in the 1x1 before.
Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from models.backbones.backbone import Classifier, initialise

_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_PUBLISHED = {
    18: "resnet18-f37072fd.pth",
    34: "resnet34-b627a593.pth",
    50: "resnet50-0676ba61.pth",
    101: "resnet101-63fe2227.pth",
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The shortcut where the block changes the shape; None is the identity."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x)) + shortcut
        out: Tensor = self.relu(x)
        return out


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, around a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * 4, 1)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(inputs, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x)) + shortcut
        out: Tensor = self.relu(x)
        return out


class ResNet(Classifier):
    """A residual network.

    Args:
        depth: 18, 34, 50 or 101 layers.
    """

    head = "fc"
    pool_size = 14  # what conv5 sees of a 224x224 picture; it halves it (the paper, appendix A)

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth not in _STAGES:
            raise ValueError(f"depth is {depth}, expected one of {', '.join(map(str, _STAGES))}")
        self.published = _PUBLISHED[depth]
        block = BasicBlock if depth < 50 else Bottleneck
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        counts = _STAGES[depth]
        self.layer1 = _stage(block, 64, 64, counts[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, counts[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, counts[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, counts[3], 2)
        self.trunk_channels = 256 * block.expansion
        self.top_channels = 512 * block.expansion
        self.fc = nn.Linear(self.top_channels, 1000)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.top(self.trunk(images)))
        return logits

    def trunk(self, images: Tensor) -> Tensor:
        """conv4, (B, 256 or 1024, H / 16, W / 16), rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # stride 4
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out

    def top(self, regions: Tensor) -> Tensor:
        """conv5, averaged, of (R, trunk_channels, 14, 14): (R, 512 or 2048)."""
        x: Tensor = self.layer4(regions)  # (R, top_channels, 7, 7)
        return x.mean((2, 3))

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """conv1 and the first ``blocks`` of conv2 to conv5."""
        if blocks:
            yield from (self.conv1, self.bn1)
        yield from (self.layer1, self.layer2, self.layer3, self.layer4)[:blocks]


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, width: int, count: int, stride: int
) -> nn.Sequential:
    """``count`` blocks, the first of which changes channels and resolution."""
    outputs = width * block.expansion
    rest = [block(outputs, width, 1) for _ in range(count - 1)]
    return nn.Sequential(block(inputs, width, stride), *rest)
