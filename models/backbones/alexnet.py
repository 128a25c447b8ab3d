"""AlexNet (Krizhevsky, Sutskever and Hinton, NIPS 2012), the network of R-CNN and OverFeat's time.

The layers are torchvision's: the one-column variant of arXiv 1404.5997, with 64 filters in the first layer
and no response normalisation. Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from models.backbones.backbone import initialise
from models.backbones.fc_classifier import FcClassifier, dropout_first

_CONVOLUTIONS = (0, 3, 6, 8, 10)


def _conv_relu(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True)


class AlexNet(FcClassifier):
    """Five convolutions, three fully connected layers; at least 63x63 pixels."""

    published = "alexnet-owt-7be5be79.pth"
    pool_size = 6
    trunk_channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv_relu(3, 64, 11, 4, 2),  # 224 -> 55
            nn.MaxPool2d(3, 2),  # 27
            *_conv_relu(64, 192, 5, 1, 2),
            nn.MaxPool2d(3, 2),  # 13
            *_conv_relu(192, 384, 3, 1, 1),
            *_conv_relu(384, 256, 3, 1, 1),
            *_conv_relu(256, 256, 3, 1, 1),
            nn.MaxPool2d(3, 2),  # 6
        )
        self.avgpool = nn.AdaptiveAvgPool2d(self.pool_size)
        self.classifier = dropout_first(256 * 6 * 6)
        initialise(self)

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first ``blocks`` convolutions."""
        for index in _CONVOLUTIONS[:blocks]:
            yield self.features[index]
