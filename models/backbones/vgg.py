"""VGG-16 (Simonyan and Zisserman, arXiv 1409.1556, configuration D), as torchvision names its tensors.

Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from models.backbones.backbone import Classifier, initialise

# (convolutions, channels), one row a stage; a pooling that halves the map follows each
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_TRUNK = 30  # layers before the last pooling


def _features() -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for convolutions, outputs in _STAGES:
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGG16(Classifier):
    """Thirteen 3x3 convolutions, three fully connected layers; at least 32x32 pixels."""

    head = "classifier.6"
    published = "vgg16-397923af.pth"
    pool_size = 7
    trunk_channels = 512
    top_channels = 4096

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

    def forward(self, images: Tensor) -> Tensor:
        x = self.avgpool(self.features(images))  # (B, 512, 7, 7)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits

    def trunk(self, images: Tensor) -> Tensor:
        """conv5_3, (B, 512, H // 16, W // 16)."""
        x: Tensor = self.features[:_TRUNK](images)
        return x

    def top(self, regions: Tensor) -> Tensor:
        """fc6 and fc7 of (R, 512, 7, 7): (R, 4096)."""
        x: Tensor = self.classifier[:6](regions.flatten(1))
        return x

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The first ``blocks`` stages; Fast R-CNN (arXiv 1504.08083, 4.5) freezes 2."""
        convolutions = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        yield from convolutions[: sum(count for count, _ in _STAGES[:blocks])]
