"""What AlexNet, ZFNet and VGG-16 have in common: convolutions, a last pooling, and fc6, fc7 and fc8."""

from __future__ import annotations

from torch import Tensor, nn

from models.backbones.backbone import Classifier


class FcClassifier(Classifier):
    """Its ``features`` end in the pooling that detectors replace, its ``classifier`` in the logits."""

    head = "classifier.6"
    top_channels = 4096
    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Sequential

    def forward(self, images: Tensor) -> Tensor:
        x = self.avgpool(self.features(images))  # (B, trunk_channels, pool_size, pool_size)
        logits: Tensor = self.classifier(x.flatten(1))
        return logits

    def trunk(self, images: Tensor) -> Tensor:
        """The last convolution's map, (B, trunk_channels, h, w)."""
        x: Tensor = self.features[:-1](images)
        return x

    def top(self, regions: Tensor) -> Tensor:
        """fc6 and fc7 of (R, trunk_channels, pool_size, pool_size): (R, 4096)."""
        x: Tensor = self.classifier[:6](regions.flatten(1))
        return x


def dropout_first(inputs: int) -> nn.Sequential:
    """The three fully connected layers as AlexNet has them, of ``inputs`` numbers."""
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(inputs, 4096),  # fc6
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),  # fc7
        nn.ReLU(inplace=True),
        nn.Linear(4096, 1000),
    )
