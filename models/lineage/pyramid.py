"""A picture at many scales, as maps of HOG blocks, and the windows that slide over them.

Scales larger than 1 are interpolated from the picture, smaller ones from it halved as often as leaves
no more than another half to interpolate, so that nothing is skipped. Every level is continued a little
beyond the picture's edge, where its outermost pixels are repeated: people there are seen whole.

Knows nothing of classifiers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lineage.hog import BLOCK, CELL, Hog

BORDER = 2 * CELL
"""Pixels by which each level is continued on every side."""


@dataclass(frozen=True, slots=True)
class Level:
    """One size of the picture, without its border, in pixels of its own."""

    height: int
    width: int
    scale_y: float
    """Pixels of the level per input pixel."""
    scale_x: float
    step: int = CELL
    """Pixels of the level between neighbouring blocks, and between neighbouring windows."""


def levels_of(
    height: int, width: int, largest: float, per_octave: int, window_height: int, window_width: int
) -> list[Level]:
    """The sizes of a picture, largest first, as long as a window fits into it.

    Raises:
        ValueError: it does not fit into the largest.
    """
    found: list[Level] = []
    while True:
        scale = largest * 2 ** (-len(found) / per_octave)
        rows, columns = round(height * scale), round(width * scale)
        fits = rows + 2 * BORDER >= window_height and columns + 2 * BORDER >= window_width
        if not fits or min(rows, columns) < BLOCK:
            break
        found.append(Level(rows, columns, rows / height, columns / width))
    if not found:
        raise ValueError(
            f"window of {window_height} x {window_width} does not fit into {height} x {width} times {largest}"
        )
    return found


class Pyramid(nn.Module):
    """Pictures of one size to the blocks of every level."""

    def __init__(self, levels: list[Level], height: int, width: int) -> None:
        super().__init__()
        self.levels = levels
        self.hog = Hog()
        self.halvings, self.resizes = [], nn.ModuleList()
        for level in levels:
            halvings = 0
            while 2 * level.height < height >> halvings and 2 * level.width < width >> halvings:
                halvings += 1
            self.halvings.append(halvings)
            self.resizes.append(Bilinear(height >> halvings, width >> halvings, level.height, level.width))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Blocks of pictures float32 (B, 3, H, W), 0 to 255: float32 (B, 36, rows, columns) a level."""
        return [
            self.hog(_continued(resized), level.step)
            for level, resized in zip(self.levels, self.resized(pictures), strict=True)
        ]

    def resized(self, pictures: Tensor) -> list[Tensor]:
        """The pictures in every level's size, without border."""
        halved = [pictures]
        while len(halved) <= max(self.halvings):
            halved.append(functional.avg_pool2d(halved[-1], 2))
        return [resize(halved[n]) for n, resize in zip(self.halvings, self.resizes, strict=True)]


class Bilinear(nn.Module):
    """Pictures resized along each axis between the two nearest pixels, as ``interpolate`` does.

    Every step is one that all runtimes compute to the same bit: HOG takes the strongest of three gradients,
    and the rounding of a runtime's own resizing would decide which that is.
    """

    y_before: Tensor
    y_after: Tensor
    y_share: Tensor
    x_before: Tensor
    x_after: Tensor
    x_share: Tensor

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        for axis, (length, new) in (("y", (height, new_height)), ("x", (width, new_width))):
            at = ((torch.arange(new).double() + 0.5) * length / new - 0.5).clamp(0, length - 1)
            before = at.long()
            self.register_buffer(f"{axis}_before", before, persistent=False)
            self.register_buffer(f"{axis}_after", (before + 1).clamp(max=length - 1), persistent=False)
            share = (at - before).float()
            self.register_buffer(f"{axis}_share", share[:, None] if axis == "y" else share, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, C, height, width) to (B, C, new_height, new_width)."""
        tall = _between(pictures, 2, self.y_before, self.y_after, self.y_share)
        return _between(tall, 3, self.x_before, self.x_after, self.x_share)


def _between(pictures: Tensor, axis: int, before: Tensor, after: Tensor, share: Tensor) -> Tensor:
    return pictures.index_select(axis, before) * (1 - share) + pictures.index_select(axis, after) * share


def _continued(pictures: Tensor) -> Tensor:
    """With a border, in which the outermost pixels are repeated."""
    rows, columns = pictures.shape[2:]
    top, bottom = pictures[:, :, :1], pictures[:, :, rows - 1 :]
    tall = torch.cat([top.expand(-1, -1, BORDER, -1), pictures, bottom.expand(-1, -1, BORDER, -1)], 2)
    left, right = tall[..., :1], tall[..., columns - 1 :]
    return torch.cat([left.expand(-1, -1, -1, BORDER), tall, right.expand(-1, -1, -1, BORDER)], 3)


@dataclass(frozen=True, slots=True)
class Windows:
    """Every window of every level, in one order: levels, then rows, then columns."""

    places: tuple[tuple[int, int], ...]
    """Rows and columns of windows on each level."""
    axes: Tensor
    """float32 (N, 4), input pixels: the object's middle in x, its top and bottom, and how wide it would
    be if it were as wide as high."""

    @classmethod
    def over(cls, levels: list[Level], height: int, width: int, margin: int) -> Windows:
        """Windows of ``height`` x ``width`` pixels of a level, ``margin`` above and below the object."""
        places, axes = [], []
        for level in levels:
            rows = (level.height + 2 * BORDER - height) // level.step + 1
            columns = (level.width + 2 * BORDER - width) // level.step + 1
            top = torch.arange(rows) * level.step - BORDER + margin
            middle = torch.arange(columns) * level.step - BORDER + width / 2
            y, x = torch.meshgrid(top / level.scale_y, middle / level.scale_x, indexing="ij")
            length = height - 2 * margin
            wide = torch.full_like(x, length / level.scale_x)
            axes.append(torch.stack([x, y, y + length / level.scale_y, wide], -1).reshape(-1, 4))
            places.append((rows, columns))
        return cls(tuple(places), torch.cat(axes))

    def place(self, window: int) -> tuple[int, int, int]:
        """Level, row and column of a window's top left block."""
        for level, (rows, columns) in enumerate(self.places):
            if window < rows * columns:
                return level, window // columns, window % columns
            window -= rows * columns
        raise IndexError(f"no window {window} beyond the last")


def object_boxes(axes: Tensor, aspect: Tensor) -> Tensor:
    """Boxes (N, 4), xyxy, of objects whose width is ``aspect`` of their height; see ``Windows.axes``."""
    half = axes[:, 3] * aspect / 2
    return torch.stack([axes[:, 0] - half, axes[:, 1], axes[:, 0] + half, axes[:, 2]], 1)
