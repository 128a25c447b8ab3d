"""Finished rows: YOLOv10's, CenterNet's and others', equal to the plain decoder, or asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import top_rows
from tests.export.families.small_yolos import (
    CLASSES,
    NAMES,
    ULTRALYTICS,
    Pyramid,
    export,
    grid,
    nn,
    spread,
    torch,
)
from tests.export.proof import proven


class TopRows(nn.Module):
    """YOLOv10's end (arXiv 2405.14458): the best of all cells and classes, twice a TopK."""

    def __init__(self, rows: int = 300, class_first: bool = False, unit: float = 1.0) -> None:
        super().__init__()
        self.pyramid, self.rows, self.class_first, self.unit = Pyramid(), rows, class_first, unit
        self.box = nn.ModuleList(nn.Conv2d(16, 4, 1) for _ in range(3))
        self.cls = nn.ModuleList(nn.Conv2d(16, CLASSES, 1) for _ in range(3))

    def forward(self, pixels: Any) -> Any:
        corners, scores = [], []
        for level, feature in enumerate(self.pyramid(pixels)):
            left, top, right, bottom = (
                torch.nn.functional.softplus(self.box[level](feature)).flatten(2).unbind(1)
            )
            x, y = (axis.reshape(1, -1) + 0.5 for axis in grid(feature))
            parts = torch.stack([x - left, y - top, x + right, y + bottom], -1)
            corners.append(parts * 8 * 2**level * self.unit)
            scores.append(self.cls[level](feature).flatten(2).transpose(1, 2).sigmoid())
        boxes, scores = torch.cat(corners, 1), torch.cat(scores, 1)
        order = scores.amax(-1).topk(self.rows)[1].unsqueeze(-1)
        boxes, scores = boxes.gather(1, order.repeat(1, 1, 4)), scores.gather(1, order.repeat(1, 1, CLASSES))
        best, index = scores.flatten(1).topk(self.rows)
        boxes = boxes.gather(1, (index // CLASSES).unsqueeze(-1).repeat(1, 1, 4))
        ends = [best[..., None], (index % CLASSES)[..., None].to(boxes.dtype)]
        return torch.cat([boxes, *(ends[::-1] if self.class_first else ends)], -1)


class CenterNet(nn.Module):
    """CenterNet's end (arXiv 1904.07850): peaks of a heatmap at stride 4; boxes in its cells, or in pixels."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.heat, self.size, self.offset = (
            nn.Conv2d(16, CLASSES, 1),
            nn.Conv2d(16, 2, 1),
            nn.Conv2d(16, 2, 1),
        )
        self.unit = unit

    def forward(self, pixels: Any) -> Any:
        feature = torch.nn.functional.silu(self.stem(pixels))
        heat = self.heat(feature).sigmoid()
        peaks = (torch.nn.functional.max_pool2d(heat, 3, 1, 1) == heat).to(heat.dtype) * heat
        columns, cells = heat.shape[3], heat.shape[2] * heat.shape[3]
        scores, index = peaks.flatten(1).topk(100)
        place = index % cells
        x, y = (place % columns).to(heat.dtype), (place // columns).to(heat.dtype)
        turned = place.unsqueeze(-1).repeat(1, 1, 2)
        size = self.size(feature).abs().flatten(2).transpose(1, 2).gather(1, turned)
        offset = self.offset(feature).sigmoid().flatten(2).transpose(1, 2).gather(1, turned)
        centre = torch.stack([x, y], -1) + offset
        boxes = torch.cat([centre - size / 2, centre + size / 2], -1) * self.unit
        return torch.cat([boxes, scores[..., None], (index // cells)[..., None].to(heat.dtype)], -1)


@pytest.mark.parametrize("dynamic", [False, True], ids=["one picture", "any batch"])
def test_yolov10_by_its_metadata(dynamic: bool, tmp_path: Path) -> None:
    path = export(spread(TopRows()), tmp_path / "v10.onnx", dynamic=dynamic, metadata=ULTRALYTICS)
    spec, said = proven(path)
    assert (spec.family, spec.names, spec.nms_threshold) == ("yolov10", NAMES, None)
    assert "Ultralytics end-to-end rows" in said


def test_yolov10_by_its_graph(tmp_path: Path) -> None:
    path = export(spread(TopRows()), tmp_path / "v10.onnx")
    with pytest.raises(AdaptError, match="3 classes and no names"):
        export_model(path, tmp_path / "out.onnx", say=print)
    assert proven(path, Wishes(names=NAMES))[0].family == "yolov10"


@pytest.mark.parametrize(("unit", "said"), [(1.0, "boxes times 4 and 4"), (4.0, "CenterNet rows")])
def test_centernet_by_its_peaks(unit: float, said: str, tmp_path: Path) -> None:
    path = export(spread(CenterNet(unit)), tmp_path / "centernet.onnx")
    spec, line = proven(path, Wishes(names=NAMES))
    assert spec.family == "centernet"
    assert said in line
    assert ("boxes times" in line) == (unit == 1.0)
    assert "104.014,114.034,119.917" in line


def test_rows_of_unknown_making_are_asked_about(tmp_path: Path) -> None:
    path = export(spread(TopRows(rows=50, class_first=True)), tmp_path / "some.onnx")
    with pytest.raises(AdaptError, match=r"nothing in the file says how its pixels.*--family rows"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    spec, said = proven(path, Wishes(names=NAMES, family="rows", mean=(127.5,) * 3, std=(127.5,) * 3))
    assert spec.family == "rows"
    assert "class before score" in said
    assert "127.5" in said


def test_decode_of_a_known_row() -> None:
    row = np.array([[10, 20, 30, 40, 0.5, 2]], np.float32)
    found = top_rows.decode(row, top_rows.Columns(score=4, unit=(4.0, 2.0)))
    np.testing.assert_array_equal(found.boxes, [[40, 40, 120, 80]])
    assert (found.scores[0], found.classes[0]) == (0.5, 2)
    turned = top_rows.decode(row[:, [0, 1, 2, 3, 5, 4]], top_rows.Columns(score=5, unit=(1.0, 1.0)))
    assert (turned.scores[0], turned.classes[0]) == (0.5, 2)


def test_rows_that_are_no_corners_are_not_read(tmp_path: Path) -> None:
    path = export(spread(TopRows(rows=50, unit=-1.0)), tmp_path / "some.onnx")
    with pytest.raises(AdaptError, match="no adapter recognises"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
