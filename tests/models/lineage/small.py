"""A backbone that takes no time: a VGG in miniature, with random weights."""

from __future__ import annotations

from types import ModuleType

import pytest
from torch import Tensor, nn

from models.backbones.backbone import Backbone


class Small(Backbone):
    """Two strides of 4 and two fully connected layers."""

    mean = std = (128.0, 128.0, 128.0)
    pool_size = 3
    trunk_channels = 32
    top_channels = 12

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, 32, 4, 4))
        self.classifier = nn.Sequential(nn.Linear(32 * 9, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU())

    def trunk(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images)
        return features

    def top(self, regions: Tensor) -> Tensor:
        features: Tensor = self.classifier(regions.flatten(1))
        return features


def use_small(patch: pytest.MonkeyPatch, detector: ModuleType) -> None:
    """Whatever backbone ``detector`` is to be built with, it is this one."""
    patch.setattr(detector, "build_backbone", lambda name, frozen_norm: Small())
