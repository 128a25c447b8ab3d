"""The cells of YOLOX's three strides, and the boxes its predictions mean there (arXiv 2107.08430).

Knows nothing of networks or losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.boxes import cxcywh_to_xyxy

STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the N predictions of one input size sit: row-major within a stride, strides ascending."""

    cells: Tensor
    """float (N, 2): column and row of each prediction's cell."""
    strides: Tensor
    """float (N, 1): input pixels a cell."""

    @property
    def centres(self) -> Tensor:
        """Cell centres float (N, 2): x, y in input pixels."""
        return (self.cells + 0.5) * self.strides


def grid(height: int, width: int, device: torch.device) -> Grid:
    """The cells of an input of ``height`` x ``width`` pixels."""
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        y, x = torch.meshgrid(
            torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
        )
        cells.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((rows * columns, 1), float(stride), device=device))
    return Grid(torch.cat(cells).float(), torch.cat(strides))


def decode_boxes(raw: Tensor, where: Grid) -> Tensor:
    """Boxes (B, N, 4), xyxy in input pixels, of raw predictions (B, N, 5 + C)."""
    centre = (raw[..., :2] + where.cells) * where.strides
    size = raw[..., 2:4].exp() * where.strides
    return cxcywh_to_xyxy(torch.cat([centre, size], -1))
