"""Small networks with the heads of SSD's and Generalized Focal Loss's lineages, seeded.

Heads are as the projects' own exporters leave them: convolutions on a pyramid, then what moves and
activates their channels.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.adapt import choose
from export.artifact import load
from export.reading import Reading
from export.signature import read_signature

torch = pytest.importorskip("torch", reason="needs the train extra")
nn = torch.nn

HEIGHT, WIDTH = 160, 224
STRIDES = (8, 16, 32, 64)


class Heads(nn.Module):
    """A convolution of its own for each stride and each number of channels: maps (B, c, h, w).

    Args:
        strides: of 8, 16, 32, 64.
        channels: of each stride, the numbers of channels of its heads.
        pixel_range: about how far pixels are from 0.
    """

    def __init__(
        self, strides: tuple[int, ...], channels: list[tuple[int, ...]], pixel_range: float = 2.0
    ) -> None:
        super().__init__()
        self.strides = strides
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.down = nn.ModuleList(nn.Conv2d(16, 16, 3, 2, 1) for _ in STRIDES[1:])
        self.heads = nn.ModuleList(nn.ModuleList(nn.Conv2d(16, c, 1) for c in each) for each in channels)
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            scale = 3.0 / weight[0].numel() ** 0.5 if weight.dim() > 1 else 0.3
            weight.data = torch.randn(weight.shape, generator=generator) * scale
        self.stem.weight.data /= pixel_range

    def maps(self, pixels: Any) -> list[list[Any]]:
        """Maps of each stride and each of its heads."""
        features = [torch.nn.functional.silu(self.stem(pixels))]
        for conv in self.down:
            features.append(torch.nn.functional.silu(conv(features[-1])))
        by_stride = dict(zip(STRIDES, features, strict=True))
        return [
            [head(by_stride[s]) for head in heads] for s, heads in zip(self.strides, self.heads, strict=True)
        ]


def as_rows(feature: Any, columns: int) -> Any:
    """(B, k * columns, h, w) to (B, h * w * k, columns), as SSDs permute and view."""
    return feature.permute(0, 2, 3, 1).reshape(feature.shape[0], -1, columns)


class Gfl(Heads):
    """NanoDet's and PicoDet's heads: class scores and distributions of each stride."""

    def __init__(self, strides: tuple[int, ...], layout: str, classes: int = 2, sigmoid: bool = True) -> None:
        super().__init__(strides, [(classes, 32)] * len(strides))
        self.layout, self.sigmoid = layout, sigmoid

    def forward(self, pixels: Any) -> Any:
        maps = self.maps(pixels)
        pairs = [(scores.sigmoid() if self.sigmoid else scores, sides) for scores, sides in maps]
        if self.layout == "maps":
            return [each for pair in pairs for each in pair]
        rows = [[each.flatten(2).permute(0, 2, 1) for each in pair] for pair in pairs]
        if self.layout == "scores then distributions":
            return [pair[0] for pair in rows] + [pair[1] for pair in rows]
        return torch.cat([torch.cat(pair, dim=1).flatten(2) for pair in pairs], dim=2).permute(0, 2, 1)


class Ssd(Heads):
    """SSD's two heads of each stride, and what is done to them."""

    def __init__(
        self, anchors: Any, per_cell: tuple[int, ...], columns: int, *, strides: tuple[int, ...] = STRIDES[:3],
        softmax: bool = False, decoded: bool = False, sigmoid: bool = False, with_anchors: bool = False,
        landmarks: bool = False, pixel_range: float = 2.0,
    ) -> None:  # fmt: skip
        extra = 10 if landmarks else 0
        channels = [(4 * k, columns * k, *([extra * k] if extra else [])) for k in per_cell]
        super().__init__(strides, channels, pixel_range)
        self.columns, self.softmax, self.sigmoid = columns, softmax, sigmoid
        self.decoded, self.with_anchors, self.landmarks = decoded, with_anchors, landmarks
        self.register_buffer("priors", torch.as_tensor(np.asarray(anchors, np.float32)))

    def forward(self, pixels: Any) -> Any:
        maps = self.maps(pixels)
        boxes = torch.cat([as_rows(each[0], 4) for each in maps], dim=1)
        scores = torch.cat([as_rows(each[1], self.columns) for each in maps], dim=1)
        scores = scores.softmax(dim=2) if self.softmax else scores.sigmoid() if self.sigmoid else scores
        if self.decoded:
            centres = boxes[..., :2] * 0.1 * self.priors[:, 2:] + self.priors[:, :2]
            sizes = torch.exp(boxes[..., 2:] * 0.2) * self.priors[:, 2:]
            return scores, torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2)
        if self.landmarks:
            return boxes, scores, torch.cat([as_rows(each[2], 10) for each in maps], dim=1)
        return (boxes, scores, self.priors + 0.0) if self.with_anchors else (boxes, scores)


class FastestDet(Heads):
    """Three heads of stride 16, side by side."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__((16,), [(1, 4, classes)])

    def forward(self, pixels: Any) -> Any:
        ((objectness, box, classes),) = self.maps(pixels)
        return torch.cat([objectness.sigmoid(), box, classes.softmax(dim=1)], dim=1)


def chosen(path: Path, family: str | None = None) -> Reading:
    """The one reading of a file."""
    return choose(read_signature(path, load(path), None), family)


def anchors_xy(
    height: int, width: int, sides: dict[int, tuple[int, ...]]
) -> list[tuple[float, float, float, float]]:
    """Anchors cx, cy, w, h relative to the input: squares of ``sides`` pixels about middles of cells."""
    return [
        ((x + 0.5) * stride / width, (y + 0.5) * stride / height, side / width, side / height)
        for stride, squares in sides.items()
        for y, x in itertools.product(range(math.ceil(height / stride)), range(math.ceil(width / stride)))
        for side in squares
    ]


def export(
    module: Any, path: Path, names: list[str] | None = None, *, height: int = HEIGHT, width: int = WIDTH,
    dynamic: bool = False,
) -> Path:  # fmt: skip
    """The module as an ONNX file for pictures of height x width.

    One picture by torch's older exporter, which most such files are of, and which is quick; any batch by its
    newer one.
    """
    pixels = torch.rand((2 if dynamic else 1, 3, height, width), generator=torch.manual_seed(0))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own modules
        if dynamic:
            options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
            torch.onnx.export(module.eval(), (pixels,), output_names=names, dynamo=True, **options).save(
                buffer
            )
        else:
            options = {
                "output_names": names,
                "do_constant_folding": False,
            }  # which would rename constant outputs
            torch.onnx.export(module.eval(), (pixels,), buffer, dynamo=False, **options)
    onnx.save(onnx.load_model_from_string(buffer.getvalue()), str(path))
    return path
