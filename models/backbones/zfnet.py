"""ZFNet (Zeiler and Fergus, arXiv 1311.2901, figure 3): AlexNet that looks closer in its first layers.

torchvision has no such network, so there are no published weights of its kind: it trains from nothing.
The sizes of the layers are the paper's. After the first two poolings the paper normalises contrast across
the maps; here with the constants of AlexNet (Krizhevsky et al., section 3.3), whose alpha of 1e-4 torch
divides by the 5 maps. Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from models.backbones.backbone import initialise
from models.backbones.fc_classifier import FcClassifier, dropout_first

_CONVOLUTIONS = (0, 4, 8, 10, 12)


class ZFNet(FcClassifier):
    """Five convolutions, three fully connected layers."""

    published = ""
    pool_size = 6
    trunk_channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, 2, 1),  # 224 -> 110
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),  # 55
            nn.LocalResponseNorm(5, alpha=5e-4, k=2),
            nn.Conv2d(96, 256, 5, 2),  # 26
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),  # 13
            nn.LocalResponseNorm(5, alpha=5e-4, k=2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),  # 6
        )
        self.avgpool = nn.AdaptiveAvgPool2d(self.pool_size)  # the identity for 224x224
        self.classifier = dropout_first(256 * 6 * 6)
        initialise(self)

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first ``blocks`` convolutions."""
        for index in _CONVOLUTIONS[:blocks]:
            yield self.features[index]
