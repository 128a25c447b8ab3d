"""An anchor-free detector in the manner of YOLOX (arXiv 2107.08430).

An EfficientNet-Lite0 backbone, a path-aggregation neck (arXiv 1803.01534) of depthwise-separable
convolutions, and on each stride a head that decouples class from box and objectness. ReLU is used
throughout because runtimes fuse it into the convolution before it.

Knows nothing of data, checkpoints or ONNX; suppression of overlapping boxes is not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.depthwise import DepthwiseConv2d
from models.backbones.efficientnet_lite0 import PIXEL_MEAN, PIXEL_STD, EfficientNetLite0
from models.grid import STRIDES
from models.grid_detector import GridDetector

SKIPPED_BLOCKS = (2, 7, 9, 12)
"""What the embedded model does without: with them it would take a quarter longer than YOLOX-nano."""


@dataclass(frozen=True, slots=True)
class YoloxConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    backbone_blocks: int = 13
    width: int = 80
    """Channels of the neck and the head."""
    skipped_blocks: tuple[int, ...] = SKIPPED_BLOCKS
    """See :class:`models.backbones.efficientnet_lite0.EfficientNetLite0`."""


class Separable(nn.Sequential):
    """Depthwise then pointwise convolution, each with batch norm and ReLU (arXiv 1704.04861)."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            DepthwiseConv2d(channels, kernel, stride, kernel // 2),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


class Neck(nn.Module):
    """Mixes three strides top-down, then bottom-up; every output has ``width`` channels."""

    def __init__(self, channels: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            )
            for inputs in channels
        )
        self.down_path = nn.ModuleList(Separable(width, 5) for _ in range(2))
        self.shrink = nn.ModuleList(Separable(width, 5, stride=2) for _ in range(2))
        self.up_path = nn.ModuleList(Separable(width, 5) for _ in range(2))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone features at strides 8, 16, 32 to ``width`` channels at the same strides."""
        fine, middle, coarse = (layer(x) for layer, x in zip(self.lateral, features, strict=True))
        middle = self.down_path[0](middle + functional.interpolate(coarse, scale_factor=2.0))
        fine = self.down_path[1](fine + functional.interpolate(middle, scale_factor=2.0))
        middle = self.up_path[0](middle + self.shrink[0](fine))
        coarse = self.up_path[1](coarse + self.shrink[1](middle))
        return [fine, middle, coarse]


class Head(nn.Module):
    """The decoupled head of one stride: a branch for the classes, a branch for box and objectness."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.class_branch = nn.Sequential(Separable(width, 3), Separable(width, 3))
        self.box_branch = nn.Sequential(Separable(width, 3), Separable(width, 3))
        self.class_logits = nn.Conv2d(width, classes, 1)
        self.box_and_objectness = nn.Conv2d(width, 5, 1)
        rare = -math.log((1 - 0.01) / 0.01)  # start from "almost nothing is an object" (arXiv 1708.02002)
        nn.init.constant_(_bias(self.class_logits), rare)
        with torch.no_grad():
            _bias(self.box_and_objectness)[4] = rare

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, width, h, w) to raw predictions (B, h * w, 5 + classes)."""
        raw = torch.cat(
            [self.box_and_objectness(self.box_branch(x)), self.class_logits(self.class_branch(x))], 1
        )
        return raw.flatten(2).transpose(1, 2)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


class Yolox(GridDetector):
    """The whole detector."""

    family = "lookout-yolox"

    def __init__(self, config: YoloxConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = EfficientNetLite0(config.backbone_blocks, config.skipped_blocks)
        self.neck = Neck(self.backbone.channels, config.width)
        self.heads = nn.ModuleList(Head(config.width, len(config.names)) for _ in STRIDES)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W) as the backbone expects it."""
        return (images.permute(0, 3, 1, 2).float() - PIXEL_MEAN) * (1 / PIXEL_STD)

    def blocks(self) -> list[nn.Module]:
        return self.backbone.by_stride()

    def mixed(self, stages: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = self.neck(stages)
        return maps

    def predict(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([head(x) for head, x in zip(self.heads, maps, strict=True)], 1)

    def start_from_imagenet(self) -> None:
        self.backbone.load_imagenet()

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.early(blocks)
