"""YOLOX's, YOLOv6's, YOLOv5's and YOLOv7's rows: equal to the plain decoder, told apart, or asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import yolo_rows, yolox_grid
from export.graph import join, modernised, parse, prefixed, with_constants
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


class OneACell(nn.Module):
    """YOLOX's head with its decoding, or YOLOv6's.

    ``exponentials`` is one over all levels (YOLOX), one a level (YOLOv6 0.1), or none and an
    objectness of 1 (YOLOv6 since 0.2).
    """

    def __init__(self, exponentials: str = "one") -> None:
        super().__init__()
        self.pyramid, self.exponentials = Pyramid(), exponentials
        self.box = nn.ModuleList(nn.Conv2d(16, 4, 1) for _ in range(3))
        self.obj = nn.ModuleList(nn.Conv2d(16, 1, 1) for _ in range(3))
        self.cls = nn.ModuleList(nn.Conv2d(16, CLASSES, 1) for _ in range(3))

    def forward(self, pixels: Any) -> Any:
        levels, cells, strides = [], [], []
        for level, feature in enumerate(self.pyramid(pixels)):
            box, score, cls = (part[level](feature) for part in (self.box, self.obj, self.cls))
            rows = torch.cat([box.clamp(-2, 2), score.sigmoid(), cls.sigmoid()], 1).flatten(2).transpose(1, 2)
            cell = torch.stack([axis.reshape(-1) for axis in grid(feature)], 1)
            stride = torch.full((cell.shape[0], 1), 8.0 * 2**level)
            levels.append(self.decoded(rows, cell, stride) if self.exponentials != "one" else rows)
            cells.append(cell)
            strides.append(stride)
        rows = torch.cat(levels, 1)
        return (
            self.decoded(rows, torch.cat(cells), torch.cat(strides)) if self.exponentials == "one" else rows
        )

    def decoded(self, rows: Any, cells: Any, strides: Any) -> Any:
        centre, size, scores = (rows[..., :2] + cells) * strides, rows[..., 2:4], rows[..., 4:]
        if self.exponentials == "none":
            scores = torch.cat([torch.ones_like(scores[..., :1]), scores[..., 1:]], -1)
            return torch.cat([centre, (size.abs() + 0.5) * strides, scores], -1)
        return torch.cat([centre, size.exp() * strides, scores], -1)


class ThreeACell(nn.Module):
    """YOLOv5's head, decoded; with its raw maps or mask prototypes besides, as asked."""

    ANCHORS = ((10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326))

    def __init__(self, classes: int = CLASSES, besides: str = "", extra: int = 0) -> None:
        super().__init__()
        self.pyramid, self.classes, self.besides, self.extra = Pyramid(), classes, besides, extra
        self.heads = nn.ModuleList(nn.Conv2d(16, 3 * (5 + classes + extra), 1) for _ in range(3))
        self.proto = nn.Conv2d(3, 32, 4, 4)

    def forward(self, pixels: Any) -> Any:
        rows, maps = [], []
        for level, feature in enumerate(self.pyramid(pixels)):
            raw = self.heads[level](feature)
            batch, _, height, width = raw.shape
            raw = raw.reshape(batch, 3, -1, height, width).permute(0, 1, 3, 4, 2)
            maps.append(raw)
            anchors = torch.tensor(self.ANCHORS[level], dtype=torch.float32).reshape(3, 1, 1, 2)
            xy, wh, scores, rest = raw.split([2, 2, 1 + self.classes, self.extra], -1)
            cells = torch.stack(grid(feature), -1)
            xy = (xy.sigmoid() * 2 - 0.5 + cells) * 8 * 2**level
            parts = [xy, (wh.sigmoid() * 2) ** 2 * anchors, scores.sigmoid(), rest * 20]
            rows.append(torch.cat(parts, -1).reshape(batch, -1, 5 + self.classes + self.extra))
        found = torch.cat(rows, 1)
        if self.besides == "masks":
            return found, self.proto(pixels)
        return (found, *maps) if self.besides == "maps" else found


@pytest.mark.parametrize(
    ("exponentials", "dynamic", "family", "pixels"),
    [("one", False, "yolox", "BGR"), ("one", True, "yolox", "BGR"), ("none", False, "yolov6", "RGB")],
)
def test_one_row_a_cell(exponentials: str, dynamic: bool, family: str, pixels: str, tmp_path: Path) -> None:
    module = spread(OneACell(exponentials), 255.0 if pixels == "BGR" else 1.0)
    path = export(module, tmp_path / "rows.onnx", dynamic=dynamic, opset=11)
    spec, said = proven(path, Wishes(names=NAMES))
    assert (spec.family, spec.names) == (family, NAMES)
    assert f"pixels taken as {pixels}" in said


def test_yolox_nano_decoded_in_its_graph(yolox_nano: Path, tmp_path: Path) -> None:
    raw = onnx.load(str(yolox_nano))
    corners, strides = yolox_grid.grid(416, 416)
    end = with_constants(
        parse(
            """
            end (float[1, 3549, 85] raw, float[3549, 2] corners, float[3549, 1] strides)
                => (float[1, 3549, 85] decoded)
            {
                split = Constant <value_ints = [2, 2, 81]> ()
                offset, size, scores = Split <axis = 2> (raw, split)
                cell = Add (offset, corners)
                centre = Mul (cell, strides)
                grown = Exp (size)
                scaled = Mul (grown, strides)
                decoded = Concat <axis = 2> (centre, scaled, scores)
            }
            """,
            18,
        ),
        {"corners": corners, "strides": strides},
    )
    whole = join(prefixed(modernised(raw), "nano/"), end, {f"nano/{raw.graph.output[0].name}": "raw"})
    onnx.save(whole, str(tmp_path / "decoded.onnx"))
    spec, said = proven(tmp_path / "decoded.onnx")
    assert (spec.family, spec.names[0]) == ("yolox", "person")
    assert "YOLOX decoded rows" in said


def test_level_by_level_could_be_either(tmp_path: Path) -> None:
    path = export(spread(OneACell("each")), tmp_path / "rows.onnx")
    with pytest.raises(AdaptError, match=r"--family.*yolox: .*BGR 0-255.*yolov6: .*RGB 0-1"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    spec, said = proven(path, Wishes(names=NAMES, family="yolov6"))
    assert spec.family == "yolov6"
    assert "YOLOv6" in said


@pytest.mark.parametrize(
    ("besides", "dynamic", "metadata"),
    [("", True, {"stride": "32", "names": str(list(NAMES))}), ("maps", False, None)],
    ids=["with metadata, any batch", "four outputs"],
)
def test_three_rows_a_cell(
    besides: str, dynamic: bool, metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = export(
        spread(ThreeACell(besides=besides)),
        tmp_path / "v5.onnx",
        dynamic=dynamic,
        metadata=metadata,
        opset=18,
    )
    spec, said = proven(path, Wishes(names=None if metadata else NAMES))
    assert (spec.family, spec.names) == ("yolov5", NAMES)
    assert "YOLOv5 or v7" in said


def test_one_class_of_either_is_asked_about(tmp_path: Path) -> None:
    path = export(spread(ThreeACell(classes=1)), tmp_path / "v7.onnx")
    with pytest.raises(AdaptError, match=r"--family.*yolov5: .*yolov7: .*objectness alone"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("cat",)), say=print)
    assert proven(path, Wishes(names=("cat",), family="yolov7"))[0].family == "yolov7"


def test_decode_of_a_known_row() -> None:
    rows = np.array([[100, 50, 20, 10, 0.5, 0.8, 0.2]], np.float32)
    found = yolo_rows.decode(rows)
    np.testing.assert_array_equal(found.boxes, [[90, 45, 110, 55]])
    np.testing.assert_allclose(found.class_scores, [[0.4, 0.1]], rtol=1e-6)
    np.testing.assert_array_equal(yolo_rows.decode(rows[:, :6], True).class_scores, [[0.5]])


@pytest.mark.parametrize(
    ("module", "metadata", "why"),
    [
        (ThreeACell(besides="masks", extra=32), None, "segmentation model .*mask prototypes"),
        (ThreeACell(extra=10), None, "columns after them are not within 0-1"),
        (ThreeACell(), ULTRALYTICS | {"task": "segment"}, "task segment"),
    ],
    ids=["masks", "landmarks", "task"],
)
def test_other_tasks_are_refused(
    module: Any, metadata: dict[str, str] | None, why: str, tmp_path: Path
) -> None:
    path = export(spread(module), tmp_path / "other.onnx", metadata=metadata)
    with pytest.raises(AdaptError, match=why):
        export_model(path, tmp_path / "out.onnx", say=print)
