"""What a region is on the convolutional map: RoI max pooling and RoIAlign, as differentiable gathers.

Pooling is Fast R-CNN's (arXiv 1504.08083) and gives what ONNX MaxRoiPool gives; aligning is Mask R-CNN's
(arXiv 1703.06870) and gives what ONNX RoiAlign gives. Exported, aligning becomes that operator. Pooling
stays what it is here, because onnxruntime has MaxRoiPool on the CPU alone, and these operators everywhere.
No gradient flows to the boxes. Knows nothing of pictures, proposals or heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def regions_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (B, R, 4) as a flat list (B * R, 4), and int64 (B * R,): the picture of each."""
    pictures = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand(-1, boxes.shape[1])
    return boxes.flatten(0, 1), pictures.flatten()


def roi_pool(features: Tensor, boxes: Tensor, pictures: Tensor, size: int, scale: float) -> Tensor:
    """The maximum of the features in each of size x size bins of every region.

    Corners are rounded to whole cells, the last one included; neighbouring bins share the cells that
    a border crosses. Any bin is covered by four overlapping windows whose sides are powers of two, and
    the maxima of all such windows are tabulated first: a region costs four gathers a bin, however large.

    Args:
        features: float (B, C, h, w).
        boxes: float (R, 4), xyxy; what reaches beyond the map is cut off first, at the rounded corners.
        pictures: int64 (R,), which of the B maps each box lies on.
        size: bins along each side.
        scale: cells a unit of ``boxes``: 1 / stride for boxes in input pixels.

    Returns:
        float (R, C, size, size).
    """
    batch, channels, height, width = features.shape
    left, top, right, bottom = _rounded(boxes * scale).unbind(1)
    rows = _bins(top, bottom, height, size)
    columns = _bins(left, right, width, size)
    tables = torch.stack(
        [
            functional.pad(window, (0, width - window.shape[3], 0, height - window.shape[2]))
            for tall in _windows(features, height, size, 2)
            for window in _windows(tall, width, size, 3)
        ]
    )  # (row levels * column levels, B, C, h, w)
    table = tables.permute(0, 1, 3, 4, 2).reshape(-1, channels)
    level = rows.level[:, :, None] * _levels(width, size) + columns.level[:, None]  # (R, size, size)
    corner = (level * batch + pictures[:, None, None]) * (height * width)
    places = torch.stack(
        [
            corner + row[:, :, None] * width + column[:, None]
            for row in (rows.first, rows.second)
            for column in (columns.first, columns.second)
        ],
        3,
    )
    found = functional.embedding(places, table).amax(3)  # (R, size, size, C)
    real = (rows.real[:, :, None] & columns.real[:, None])[:, None]
    return torch.where(real, found.permute(0, 3, 1, 2), 0.0)


def _rounded(values: Tensor) -> Tensor:
    """To the nearest whole number, halves away from zero, as C rounds."""
    return values.sign() * (values.abs() + 0.5).floor()


def _longest(cells: int, size: int) -> int:
    """The most cells of a bin, where a region is at most one cell longer than the map."""
    return min(cells, math.ceil((cells + 1) / size) + 1)


def _levels(cells: int, size: int) -> int:
    """How many window lengths 1, 2, 4, ... are needed so that two windows cover the longest bin."""
    return _longest(cells, size).bit_length()


def _windows(features: Tensor, cells: int, size: int, axis: int) -> list[Tensor]:
    """For each level the maxima over 2**level cells along ``axis``, kept at the window's first cell."""
    tables = [features]
    for level in range(_levels(cells, size) - 1):
        step = 1 << level
        kernel, dilation = ((2, 1), (step, 1)) if axis == 2 else ((1, 2), (1, step))
        tables.append(functional.max_pool2d(tables[-1], kernel, 1, dilation=dilation))
    return tables


@dataclass(frozen=True, slots=True)
class _Bins:
    """The two windows that cover each bin of each region along one axis; all (R, size)."""

    first: Tensor
    """int64: the first cell of the one window,"""
    second: Tensor
    """int64: and of the other."""
    level: Tensor
    """int64: both have 2**level cells."""
    real: Tensor
    """bool: False where the bin has no cell on the map; its value is 0."""


def _bins(low: Tensor, high: Tensor, cells: int, size: int) -> _Bins:
    """The bins between the whole numbers ``low`` and ``high`` (R,), both included, on ``cells`` cells."""
    low, high = low.clamp(0, cells)[:, None], high.clamp(0, cells)[:, None]
    length = (high - low + 1).clamp(min=1) / size
    steps = torch.arange(size, device=low.device)
    start = ((steps * length).floor() + low).clamp(max=cells)
    end = (((steps + 1) * length).ceil() + low).clamp(max=cells)
    covered = end - start
    level = torch.zeros_like(covered)
    window = torch.ones_like(covered)
    for longer in range(1, _levels(cells, size)):
        fits = (covered >= 1 << longer).to(covered.dtype)
        level = level + fits
        window = window + fits * (1 << (longer - 1))
    first = start.clamp(max=cells - 1)  # of a bin off the map, whatever is there
    second = torch.maximum(end - window, first)
    return _Bins(first.long(), second.long(), level.long(), covered > 0)


def roi_align(
    features: Tensor,
    boxes: Tensor,
    pictures: Tensor,
    size: int,
    scale: float,
    samples: int = 2,
    aligned: bool = True,
) -> Tensor:
    """The mean of samples x samples interpolated features in each of size x size bins of every region.

    Interpolation and mean are one weighted sum of 4 * samples**2 cells a bin.

    Args:
        features: float (B, C, h, w).
        boxes: float (R, 4), xyxy; a sample more than a cell beyond the map counts as 0.
        pictures: int64 (R,), which of the B maps each box lies on.
        size: bins along each side.
        scale: cells a unit of ``boxes``: 1 / stride for boxes in input pixels.
        samples: along each side of a bin.
        aligned: cell centres are at half (ONNX half_pixel). False is the first publication's rule, half
            a cell off, with regions of at least one cell (ONNX output_half_pixel), as torchvision's
            detectors were trained.

    Returns:
        float32 (R, C, size, size).
    """
    if torch.compiler.is_exporting():
        exported: Tensor = torch.ops.lookout.roi_align(
            features, boxes, pictures, size, scale, samples, aligned
        )
        return exported
    return _aligned(features, boxes, pictures, size, scale, samples, aligned)


def _aligned(
    features: Tensor, boxes: Tensor, pictures: Tensor, size: int, scale: float, samples: int, aligned: bool
) -> Tensor:
    height, width = features.shape[2:]
    left, top, right, bottom = (boxes.detach().float() * scale - (0.5 if aligned else 0.0)).unbind(1)
    rows, row_weights = _samples(top, bottom, height, size, samples, aligned)
    columns, column_weights = _samples(left, right, width, size, samples, aligned)
    # For each bin, every pair of one of its 2 * samples row terms and as many column terms.
    corner = pictures[:, None, None, None, None] * (height * width)
    places = corner + rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    table = features.float().permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    terms = 4 * samples * samples
    found = functional.embedding_bag(
        places.reshape(-1, terms), table, mode="sum", per_sample_weights=weights.reshape(-1, terms)
    )
    return found.view(len(boxes), size, size, features.shape[1]).permute(0, 3, 1, 2)


def _samples(
    low: Tensor, high: Tensor, cells: int, size: int, samples: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """The cells along one axis that are summed for each bin, and how much each counts.

    Args:
        low, high: (R,), in cells.

    Returns:
        int64 and float32 (R, size, 2 * samples).
    """
    length = high - low if aligned else (high - low).clamp(min=1)
    steps = (torch.arange(size * samples, device=low.device) + 0.5) / samples
    places = low[:, None] + steps * (length[:, None] / size)  # (R, size * samples)
    counted = ((places >= -1) & (places <= cells)).float() / samples
    places = places.clamp(0, cells - 1)
    before = places.floor()
    after = (before + 1).clamp(max=cells - 1)
    part = places - before
    terms = torch.stack([before, after], 2).long().view(-1, size, 2 * samples)
    weights = torch.stack([(1 - part) * counted, part * counted], 2)
    return terms, weights.view(-1, size, 2 * samples)


@torch.library.custom_op("lookout::roi_align", mutates_args=())
def _roi_align(
    features: Tensor, boxes: Tensor, pictures: Tensor, size: int, scale: float, samples: int, aligned: bool
) -> Tensor:
    """What stands for :func:`roi_align` in an exported program."""
    return _aligned(features, boxes, pictures, size, scale, samples, aligned).contiguous()


@_roi_align.register_fake
def _(
    features: Tensor, boxes: Tensor, pictures: Tensor, size: int, scale: float, samples: int, aligned: bool
) -> Tensor:
    return features.new_empty((boxes.shape[0], features.shape[1], size, size))
