"""VGG-16 (Simonyan and Zisserman, arXiv 1409.1556, configuration D), as torchvision names its tensors.

Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from models.backbones.backbone import initialise
from models.backbones.fc_classifier import FcClassifier

# (convolutions, channels), one row a stage; a pooling that halves the map follows each
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def _features() -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for convolutions, outputs in _STAGES:
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGG16(FcClassifier):
    """Thirteen 3x3 convolutions, three fully connected layers; at least 32x32 pixels."""

    published = "vgg16-397923af.pth"
    pool_size = 7
    trunk_channels = 512

    def __init__(self) -> None:
        super().__init__()
        self.features = _features()
        self.avgpool = nn.AdaptiveAvgPool2d(self.pool_size)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),  # fc6
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),  # fc7
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )
        initialise(self)

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first ``blocks`` stages; Fast R-CNN (arXiv 1504.08083, 4.5) freezes 2."""
        convolutions = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        yield from convolutions[: sum(count for count, _ in _STAGES[:blocks])]
