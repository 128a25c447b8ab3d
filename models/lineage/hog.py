"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), dense over a picture.

The arithmetic is OpenCV's ``HOGDescriptor`` with its defaults: cells of 8 x 8 pixels, blocks of 2 x 2
cells, 9 unsigned orientations, the square root of every pixel, the strongest gradient of the three
channels, a Gaussian over each block, linear interpolation between cells and orientations, L2-Hys.
Because a window's blocks are those of the picture under it, one map of blocks serves all windows, and
a linear classifier of windows is a convolution of that map.

Knows nothing of windows, classifiers or scales.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CELL = 8
"""Pixels between neighbouring cells, and between neighbouring blocks."""
BLOCK = 16
"""Pixels a block is wide and high."""
BINS = 9
CHANNELS = (BLOCK // CELL) ** 2 * BINS
"""Numbers a block has: for each orientation its four cells, column by column."""

_CLIP = 0.2  # Lowe's, which L2-Hys takes over
_BEFORE, _AFTER = 0.1 * CHANNELS, 1e-3  # what OpenCV adds to the norm before and after clipping

_TINY = 1e-12
_ARCTANGENT = (0.9997878412794807, -0.3258083974640975, 0.1555786518463281, -0.04432655554792128)
"""The odd powers of a ratio up to 1, from the first."""


class Hog(nn.Module):
    """Pictures to maps of blocks; it has no weights that are learnt."""

    cells: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = _cell_weights()[:, None]  # (4, 1, 16, 16)
        self.register_buffer("cells", weights.repeat(BINS, 1, 1, 1), persistent=False)

    def forward(self, pictures: Tensor, step: int = CELL) -> Tensor:
        """Blocks of pictures.

        Args:
            pictures: float32 (B, 3, H, W), 0 to 255; H and W are at least 16.
            step: pixels between neighbouring blocks; a whole part of a cell.

        Returns:
            float32 (B, 36, (H - 16) // step + 1, (W - 16) // step + 1): the block in row r and column c has its
            top left pixel at (step * r, step * c).
        """
        votes = _orientation_votes(pictures)  # (B, 9, H, W)
        histograms = functional.conv2d(votes, self.cells, stride=step, groups=BINS)  # (B, 9 * 4, h, w)
        return _normalised(histograms)


def _orientation_votes(pictures: Tensor) -> Tensor:
    """Each pixel's gradient length, shared between the two nearest orientations: (B, 9, H, W)."""
    # In double precision, where the last bit of a root, in which runtimes differ, does not survive: which of
    # two channels has the longer gradient must not hang on it.
    roots = pictures.double().sqrt().float()
    padded = functional.pad(roots, (1, 1, 1, 1), mode="reflect")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]  # (B, 3, H, W)
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    squares = dx * dx + dy * dy
    dx, dy, square = _strongest(dx, dy, squares)
    at = _orientation(dx, dy) * (BINS / math.pi)  # 0 to 9
    middles = torch.arange(BINS, device=at.device)[:, None, None] + 0.5
    apart = (at - middles).abs()  # from each bin's middle, up to 8.5 in a circle of 9
    return torch.maximum(1 - apart, apart - (BINS - 1)).clamp(min=0) * square.sqrt()


def _orientation(dx: Tensor, dy: Tensor) -> Tensor:
    """The angle of a gradient or its opposite, 0 to pi.

    OpenCV's polynomial (``fastAtan2``, within 0.0003 of the arctangent): its figures are matched to
    rounding, and no runtime computes an exact arctangent as quickly.
    """
    x, y = dx.abs(), dy.abs()
    # Clipped, not added to: the exporter takes a sum with something tiny for the number itself.
    ratio = torch.minimum(x, y) / torch.maximum(x, y).clamp(min=_TINY)
    square = ratio * ratio
    angle = torch.full_like(ratio, _ARCTANGENT[-1])
    for factor in _ARCTANGENT[-2::-1]:
        angle = angle * square + factor
    angle = angle * ratio
    angle = torch.where(y > x, math.pi / 2 - angle, angle)
    return torch.where(dx * dy < 0, math.pi - angle, angle)


def _strongest(dx: Tensor, dy: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient (B, 1, H, W) of the channel where it is longest: its two parts and its square."""
    x, y, square = dx[:, :1], dy[:, :1], squares[:, :1]
    for channel in (1, 2):
        its = slice(channel, channel + 1)
        longer = squares[:, its] > square
        x, y = torch.where(longer, dx[:, its], x), torch.where(longer, dy[:, its], y)
        square = torch.where(longer, squares[:, its], square)
    return x, y, square


def _normalised(histograms: Tensor) -> Tensor:
    """L2-Hys: unit length, clipped, unit length again."""
    length = (histograms * histograms).sum(1, keepdim=True).sqrt()
    clipped = (histograms / (length + _BEFORE)).clamp(max=_CLIP)
    return clipped / ((clipped * clipped).sum(1, keepdim=True).sqrt() + _AFTER)


def _cell_weights() -> Tensor:
    """What each pixel of a block counts in each of its cells: float32 (4, 16, 16), column by column."""
    pixels = torch.arange(BLOCK, dtype=torch.float64)
    sigma = BLOCK / 4
    gauss = torch.exp(-((pixels - BLOCK / 2) ** 2) / (2 * sigma * sigma))
    cells = torch.arange(BLOCK // CELL, dtype=torch.float64)[:, None]
    share = (1 - ((pixels + 0.5) / CELL - 0.5 - cells).abs()).clamp(min=0) * gauss  # (2, 16)
    weights = share[:, None, None, :] * share[None, :, :, None]  # (cell column, cell row, y, x)
    return weights.flatten(0, 1).float()
