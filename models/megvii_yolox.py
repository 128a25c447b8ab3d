"""YOLOX as Megvii trained and published it, in its six sizes (arXiv 2107.08430).

CSPDarknet, a path-aggregation neck (arXiv 1803.01534) of cross-stage partial blocks, and on each stride a
head that decouples class from box and objectness. Tensors have the names of Megvii's files, which
:mod:`models.megvii_weights` reads.

Knows nothing of data, checkpoints or ONNX; suppression of overlapping boxes is not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.csp_darknet import ConvNorm, CspDarknet, CspLayer, spatial
from models.errors import DataError
from models.grid import STRIDES
from models.grid_detector import GridDetector

SizeName = Literal["nano", "tiny", "s", "m", "l", "x"]


@dataclass(frozen=True, slots=True)
class Size:
    """What makes one network of the family.

    Attributes:
        width: channels of the stem, of which all others are multiples.
        depth: bottlenecks of a block in the neck.
        input_side: pixels, as published.
        depthwise: whether 3x3 convolutions are separable.
    """

    width: int
    depth: int
    input_side: int = 640
    depthwise: bool = False


SIZES: dict[SizeName, Size] = {
    "nano": Size(16, 1, 416, depthwise=True),
    "tiny": Size(24, 1, 416),
    "s": Size(32, 1),
    "m": Size(48, 2),
    "l": Size(64, 3),
    "x": Size(80, 4),
}


@dataclass(frozen=True, slots=True)
class MegviiYoloxConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    size: SizeName = "s"


class Neck(nn.Module):
    """Three strides mixed top-down, then bottom-up; and, as its tensors are named, the backbone that gives them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.backbone = CspDarknet(size.width, size.depth, size.depthwise)
        fine, middle, coarse = self.backbone.channels
        shrink = spatial(size.depthwise)

        def block(inputs: int, outputs: int) -> CspLayer:
            return CspLayer(inputs, outputs, size.depth, False, size.depthwise)

        self.lateral_conv0 = ConvNorm(coarse, middle, 1)
        self.C3_p4 = block(2 * middle, middle)
        self.reduce_conv1 = ConvNorm(middle, fine, 1)
        self.C3_p3 = block(2 * fine, fine)
        self.bu_conv2 = shrink(fine, fine, 3, 2)
        self.C3_n3 = block(2 * fine, middle)
        self.bu_conv1 = shrink(middle, middle, 3, 2)
        self.C3_n4 = block(2 * middle, coarse)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """The backbone's maps at strides 8, 16, 32 to maps of the same shapes."""
        fine, middle, coarse = stages
        from_coarse = self.lateral_conv0(coarse)
        middle = self.C3_p4(torch.cat([functional.interpolate(from_coarse, scale_factor=2.0), middle], 1))
        from_middle = self.reduce_conv1(middle)
        fine = self.C3_p3(torch.cat([functional.interpolate(from_middle, scale_factor=2.0), fine], 1))
        middle = self.C3_n3(torch.cat([self.bu_conv2(fine), from_middle], 1))
        coarse = self.C3_n4(torch.cat([self.bu_conv1(middle), from_coarse], 1))
        return [fine, middle, coarse]


class Head(nn.Module):
    """On each stride a branch for the classes, and one for box and objectness."""

    def __init__(self, channels: tuple[int, int, int], classes: int, depthwise: bool) -> None:
        super().__init__()
        width, conv = channels[0], spatial(depthwise)

        def branches() -> nn.ModuleList:
            return nn.ModuleList(nn.Sequential(conv(width, width, 3), conv(width, width, 3)) for _ in STRIDES)

        def predictions(outputs: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in STRIDES)

        self.cls_convs = branches()
        self.reg_convs = branches()
        self.cls_preds = predictions(classes)
        self.reg_preds = predictions(4)
        self.obj_preds = predictions(1)
        self.stems = nn.ModuleList(ConvNorm(inputs, width, 1) for inputs in channels)
        rare = -math.log((1 - 0.01) / 0.01)  # start from "almost nothing is an object" (arXiv 1708.02002)
        for layer in (*self.cls_preds, *self.obj_preds):
            nn.init.constant_(layer.bias, rare)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps at strides 8, 16, 32 to raw predictions (B, N, 5 + classes)."""
        found = []
        for level, features in enumerate(maps):
            x = self.stems[level](features)
            classes = self.cls_preds[level](self.cls_convs[level](x))
            where = self.reg_convs[level](x)
            raw = torch.cat([self.reg_preds[level](where), self.obj_preds[level](where), classes], 1)
            found.append(raw.flatten(2))
        return torch.cat(found, 2).transpose(1, 2)


class MegviiYolox(GridDetector):
    """The whole detector."""

    family = "yolox"
    config: MegviiYoloxConfig

    def __init__(self, config: MegviiYoloxConfig) -> None:
        super().__init__()
        self.config = config
        size = SIZES[config.size]
        self.backbone = Neck(size)
        self.head = Head(self.backbone.backbone.channels, len(config.names), size.depthwise)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to float32 BGR (B, 3, H, W), 0 to 255."""
        return images.permute(0, 3, 1, 2).flip(1).float()

    def blocks(self) -> list[nn.Module]:
        return self.backbone.backbone.blocks()

    def ends(self) -> list[nn.Module]:
        neck, backbone = self.backbone, self.backbone.backbone
        stages = (backbone.dark2, backbone.dark3, backbone.dark4, backbone.dark5)
        layers = [*(stage[-1] for stage in stages), neck.C3_p3, neck.C3_n3, neck.C3_n4]
        return [cast(CspLayer, layer).conv3.bn for layer in layers]

    def mixed(self, stages: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = self.backbone(stages)
        return maps

    def predict(self, maps: list[Tensor]) -> Tensor:
        raw: Tensor = self.head(maps)
        return raw

    def start_from_imagenet(self) -> None:
        raise DataError(
            "YOLOX was trained without ImageNet: start from Megvii's COCO weights (model.weights)"
        )

    def early(self, blocks: int) -> Iterable[nn.Module]:
        return self.backbone.backbone.early(blocks)
