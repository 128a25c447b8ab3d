"""The feature pyramid (Lin et al., arXiv 1612.03144) on a ResNet, and RoIAlign on the level that fits.

A top-down path hands what the coarse maps know to the fine ones, so that every level may be asked for
objects of its size. Tensors are named as in torchvision's detectors. Knows nothing of proposals or heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.resnet import ResNet
from models.lineage.roi import roi_align

STRIDES = (4, 8, 16, 32)
WIDTH = 256
_CANONICAL_SIDE = 224
_CANONICAL_LEVEL = 2
"""A region as large as ImageNet's pictures belongs on stride 16, the paper's equation 1."""


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and scales are constants, as detectors fine-tune with few pictures a step."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.epsilon
        )


class FeaturePyramid(nn.Module):
    """Each stage's map to ``WIDTH`` channels, the coarser ones added on top.

    Args:
        channels: of the stages, finest first.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(some, WIDTH, 1)) for some in channels)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)) for _ in channels
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Maps at strides 4 to 32 to maps at strides 4 to 64; the last is every other cell of the one before."""
        inner = [layer(x) for layer, x in zip(self.inner_blocks, stages, strict=True)]
        for level in range(len(inner) - 1, 0, -1):
            size = inner[level - 1].shape[2:]
            inner[level - 1] = inner[level - 1] + functional.interpolate(inner[level], size=size)
        levels = [layer(x) for layer, x in zip(self.layer_blocks, inner, strict=True)]
        return [*levels, functional.max_pool2d(levels[-1], 1, 2)]


class PyramidBackbone(nn.Module):
    """A ResNet and its feature pyramid.

    Args:
        depth: of the ResNet.
        epsilon: of its frozen batch norm.
    """

    def __init__(self, depth: int, epsilon: float) -> None:
        super().__init__()
        self.body = ResNet(depth)
        self.body.drop_head()
        for name, layer in list(self.body.named_modules()):
            if isinstance(layer, nn.BatchNorm2d):
                self.body.set_submodule(name, FrozenBatchNorm2d(layer.num_features, epsilon))
        self.fpn = FeaturePyramid(tuple(self.body.top_channels >> level for level in (3, 2, 1, 0)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to five maps (B, 256, h, w) at strides 4 to 64."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(images))))
        stages = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = stage(x)
            stages.append(x)
        maps: list[Tensor] = self.fpn(stages)
        return maps


def levels_of(boxes: Tensor) -> Tensor:
    """int64 (R,): on which of the levels 0 to 3 a box (R, 4) in input pixels is looked at, by its area."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = (_CANONICAL_LEVEL + (side / _CANONICAL_SIDE).log2() + 1e-6).floor()
    return level.clamp(0, len(STRIDES) - 1).long()


def pyramid_roi_align(maps: list[Tensor], boxes: Tensor, pictures: Tensor, size: int) -> Tensor:
    """RoIAlign of each region on its own level; the first publication's rule, as torchvision's detectors.

    Args:
        maps: float (B, C, h, w) at strides 4, 8, 16 and 32.
        boxes: float (R, 4), xyxy in input pixels.
        pictures: int64 (R,).
        size: bins along each side.

    Returns:
        float32 (R, C, size, size).
    """
    levels = levels_of(boxes)
    if torch.compiler.is_exporting():
        exported: Tensor = torch.ops.lookout.pyramid_roi_align(*maps, boxes, pictures, levels, size)
        return exported
    return _on_levels(maps, boxes, pictures, levels, size)


def _on_levels(maps: list[Tensor], boxes: Tensor, pictures: Tensor, levels: Tensor, size: int) -> Tensor:
    rows = [(levels == level).nonzero()[:, 0] for level in range(len(STRIDES))]
    found = torch.cat(
        [
            roi_align(features.float(), boxes[some], pictures[some], size, 1 / stride, aligned=False)
            for features, stride, some in zip(maps, STRIDES, rows, strict=True)
        ]
    )
    return found[torch.cat(rows).argsort()]


@torch.library.custom_op("lookout::pyramid_roi_align", mutates_args=())
def _pyramid_roi_align(
    stride_4: Tensor,
    stride_8: Tensor,
    stride_16: Tensor,
    stride_32: Tensor,
    boxes: Tensor,
    pictures: Tensor,
    levels: Tensor,
    size: int,
) -> Tensor:
    """What stands for :func:`pyramid_roi_align` in an exported program."""
    return _on_levels([stride_4, stride_8, stride_16, stride_32], boxes, pictures, levels, size)


@_pyramid_roi_align.register_fake
def _(
    stride_4: Tensor,
    stride_8: Tensor,
    stride_16: Tensor,
    stride_32: Tensor,
    boxes: Tensor,
    pictures: Tensor,
    levels: Tensor,
    size: int,
) -> Tensor:
    return stride_4.new_empty((boxes.shape[0], stride_4.shape[1], size, size))
