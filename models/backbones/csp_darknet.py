"""CSPDarknet, YOLOX's backbone (arXiv 2107.08430), and the blocks that its neck and head are made of.

Cross-stage partial blocks (arXiv 1911.11929) on a stem that folds 2x2 pixels into channels, with spatial
pyramid pooling (arXiv 1406.4729) before the last. Tensors are named as in Megvii's files. Knows nothing of
detection.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.backbones.depthwise import DepthwiseConv2d

_POOLS = (5, 9, 13)


class ConvNorm(nn.Module):
    """Convolution that keeps the size (or halves it, with a stride of 2), batch norm, SiLU (arXiv 1702.03118)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, depthwise: bool = False
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = (
            DepthwiseConv2d(inputs, kernel, stride, padding)
            if depthwise
            else nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        )
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class Separable(nn.Module):
    """Depthwise then pointwise convolution, each with batch norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.dconv = ConvNorm(inputs, inputs, kernel, stride, depthwise=True)
        self.pconv = ConvNorm(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pconv(self.dconv(x))
        return out


def spatial(depthwise: bool) -> type[ConvNorm] | type[Separable]:
    """What a network has where a kernel is larger than 1x1."""
    return Separable if depthwise else ConvNorm


class Bottleneck(nn.Module):
    """1x1 then 3x3, added to what came in if ``shortcut``."""

    def __init__(self, channels: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 1)
        self.conv2 = spatial(depthwise)(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out + x if self.shortcut else out


class CspLayer(nn.Module):
    """Half of the channels through ``count`` bottlenecks, the other half past them."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = ConvNorm(inputs, half, 1)
        self.conv2 = ConvNorm(inputs, half, 1)
        self.conv3 = ConvNorm(2 * half, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut, depthwise) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        through, past = self.conv1(x), self.conv2(x)
        out: Tensor = self.conv3(torch.cat([self.m(through), past], 1))
        return out


class PyramidPooling(nn.Module):
    """Every place beside the maxima of growing neighbourhoods of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNorm(channels, half, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in _POOLS)
        self.conv2 = ConvNorm(half * (1 + len(_POOLS)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        out: Tensor = self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))
        return out


class Focus(nn.Module):
    """Each 2x2 pixels become one of four times the channels, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNorm(4 * inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H / 2, W / 2); the four go down the left column first."""
        parts = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.conv(torch.cat(parts, 1))
        return out


class CspDarknet(nn.Module):
    """The whole backbone.

    Args:
        width: channels of the stem; each stage doubles them.
        depth: bottlenecks of the first and last stage, a third of the others'.
        depthwise: whether 3x3 convolutions are separable.

    Attributes:
        channels: of the maps at strides 8, 16, 32.
    """

    def __init__(self, width: int, depth: int, depthwise: bool) -> None:
        super().__init__()
        self.channels = (4 * width, 8 * width, 16 * width)
        self.stem = Focus(3, width)
        self.dark2 = _stage(2 * width, depth, depthwise)
        self.dark3 = _stage(4 * width, 3 * depth, depthwise)
        self.dark4 = _stage(8 * width, 3 * depth, depthwise)
        self.dark5 = nn.Sequential(
            spatial(depthwise)(8 * width, 16 * width, 3, 2),
            PyramidPooling(16 * width),
            CspLayer(16 * width, 16 * width, depth, False, depthwise),
        )

    def blocks(self) -> list[nn.Module]:
        """The network, as a chain whose parts give maps at strides 4, 8, 16, 32.

        Its images are normalised (B, 3, H, W), H and W multiples of 32.
        """
        return [nn.Sequential(self.stem, self.dark2), self.dark3, self.dark4, self.dark5]

    def early(self, blocks: int) -> Iterable[nn.Module]:
        """The stem and the first ``blocks`` of its four stages; nothing for 0."""
        if blocks:
            yield self.stem
        yield from (self.dark2, self.dark3, self.dark4, self.dark5)[:blocks]


def _stage(channels: int, count: int, depthwise: bool) -> nn.Sequential:
    """To half the resolution and twice the channels, then ``count`` bottlenecks."""
    return nn.Sequential(
        spatial(depthwise)(channels // 2, channels, 3, 2),
        CspLayer(channels, channels, count, True, depthwise),
    )
