"""OverFeat's "fast" network (Sermanet et al. 2014, arXiv 1312.6229, table 1) without padding.

The paper pads its layers 3 to 5 by one cell of zeros. Padding is what keeps a sliding window from being a
crop: inside a picture a border window sees its neighbours' pixels where the crop sees zeros. Here no layer
pads, so the map's cells depend on the pixels of their own window alone, and dense evaluation equals cropping
to the last rounding. A window of 231 x 231 pixels leaves 6 x 6 cells before the last pooling (12 x 12 in the
paper), 3 x 3 after it.

There are no published weights of this network in a package. Knows nothing of classes or boxes.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from models.backbones.backbone import Backbone, initialise
from models.errors import DataError

FIELD = 151
"""Pixels that one cell of the map sees; n cells in a row see ``FIELD + (n - 1) * 16``."""


class OverfeatFast(Backbone):
    """Layers 1 to 5 of the fast network, up to its last pooling; stride 16. The heads are the detector's.

    Args:
        width: channels as a part of the paper's.
    """

    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)
    """ImageNet's own, as everywhere here."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        one, two, three, four = (max(4, round(channels * width)) for channels in (96, 256, 512, 1024))
        self.trunk_channels = four
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, one, 11, 4), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Conv2d(one, two, 5), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Conv2d(two, three, 3), nn.ReLU()),
                nn.Sequential(nn.Conv2d(three, four, 3), nn.ReLU()),
                nn.Sequential(nn.Conv2d(four, four, 3), nn.ReLU()),
            ]
        )
        initialise(self)

    def trunk(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, trunk_channels, h, w), where h is the whole number of (H - 151) / 16 + 1."""
        for block in self.blocks:
            images = block(images)
        return images

    def early(self, blocks: int) -> Iterable[nn.Module]:
        yield from self.blocks[:blocks]

    def load_imagenet(self) -> None:
        raise DataError("there are no ImageNet weights for overfeat-fast; set model.pretrained: false")
