"""YOLOv8's columns: equal to the plain decoder, or refused with what they are instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import yolo_columns
from tests.export.families.small_yolos import (
    CLASSES,
    HEIGHT,
    NAMES,
    ULTRALYTICS,
    WIDTH,
    Pyramid,
    export,
    grid,
    nn,
    spread,
    torch,
)
from tests.export.proof import proven

BINS = 8


class Columns(nn.Module):
    """Boxes by a distribution of distances (arXiv 2006.04388), classes by a sigmoid: YOLOv8's head.

    ``extra`` columns come after, as masks', with prototypes as a second output, or keypoints'.
    """

    def __init__(self, extra: int = 0, masks: bool = False, turned: bool = False) -> None:
        super().__init__()
        self.pyramid = Pyramid()
        self.box = nn.ModuleList(nn.Conv2d(16, 4 * BINS, 1) for _ in range(3))
        self.cls = nn.ModuleList(nn.Conv2d(16, CLASSES + extra, 1) for _ in range(3))
        self.proto = nn.Conv2d(3, 32, 4, 4)
        self.masks, self.turned = masks, turned

    def forward(self, pixels: Any) -> Any:
        boxes, scores = [], []
        bins = torch.arange(BINS, dtype=pixels.dtype)
        for level, feature in enumerate(self.pyramid(pixels)):
            batch = feature.shape[0]
            logits = self.box[level](feature).reshape(batch, 4, BINS, -1)
            left, top, right, bottom = (logits.softmax(2) * bins[:, None]).sum(2).unbind(1)
            x, y = (axis.reshape(1, -1) + 0.5 for axis in grid(feature))
            parts = [x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom]
            boxes.append(torch.stack(parts, 1) * 8 * 2**level)
            scores.append(self.cls[level](feature).flatten(2))
        classes, extra = torch.cat(scores, 2).split([CLASSES, self.cls[0].out_channels - CLASSES], 1)
        columns = torch.cat([torch.cat(boxes, 2), classes.sigmoid(), extra * 20], 1)
        columns = columns.transpose(1, 2) if self.turned else columns
        return (columns, self.proto(pixels)) if self.masks else columns


@pytest.mark.parametrize("dynamic", [False, True], ids=["one picture", "any batch"])
def test_columns_equal_the_plain_decoder(dynamic: bool, tmp_path: Path) -> None:
    path = export(
        spread(Columns()),
        tmp_path / "v8.onnx",
        dynamic=dynamic,
        metadata=ULTRALYTICS,
        opset=18 if dynamic else 12,
    )
    spec, said = proven(path)
    assert (spec.family, spec.names) == ("yolov8", NAMES)
    assert (spec.input_height, spec.input_width) == (HEIGHT, WIDTH)
    assert "YOLOv8 or later" in said
    assert "pixels taken as RGB 0-1" in said


def test_without_metadata_names_are_asked_for(tmp_path: Path) -> None:
    path = export(spread(Columns()), tmp_path / "v8.onnx")
    with pytest.raises(AdaptError, match="3 classes and no names"):
        export_model(path, tmp_path / "out.onnx", say=print)
    spec, _ = proven(path, Wishes(names=NAMES))
    assert spec.names == NAMES


def test_turned_columns_are_read_where_the_file_has_names(tmp_path: Path) -> None:
    path = export(spread(Columns(turned=True)), tmp_path / "v8.onnx", metadata=ULTRALYTICS)
    spec, _ = proven(path)
    assert spec.family == "yolov8"
    nameless = export(spread(Columns(turned=True)), tmp_path / "v8.onnx")
    with pytest.raises(AdaptError, match="no adapter recognises"):
        export_model(nameless, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)


def test_a_file_that_takes_any_size(tmp_path: Path) -> None:
    path = export(spread(Columns()), tmp_path / "v8.onnx", metadata=ULTRALYTICS, takes_any_size=True)
    spec, _ = proven(path, Wishes(input_size=(96, 160)))
    assert (spec.family, spec.input_height, spec.input_width) == ("yolov8", 96, 160)


def test_half_precision(tmp_path: Path) -> None:
    path = export(spread(Columns()), tmp_path / "v8.onnx", metadata=ULTRALYTICS)
    model = onnx.load(str(path))
    half = onnx.helper.make_tensor_value_info("half", onnx.TensorProto.FLOAT16, [1, 3, HEIGHT, WIDTH])
    out = model.graph.output[0]
    for node in model.graph.node:
        node.input[:] = ["wide" if name == model.graph.input[0].name else name for name in node.input]
        node.output[:] = ["raw" if name == out.name else name for name in node.output]
    cast = onnx.helper.make_node
    model.graph.node.insert(0, cast("Cast", ["half"], ["wide"], to=onnx.TensorProto.FLOAT))
    model.graph.node.append(cast("Cast", ["raw"], [out.name], to=onnx.TensorProto.FLOAT16))
    out.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del model.graph.input[:], model.graph.value_info[:]
    model.graph.input.append(half)
    onnx.save(model, str(path))
    assert proven(path)[0].family == "yolov8"


def test_decode_of_a_known_column() -> None:
    columns = np.array([[100, 50, 20, 10, 0.25, 0.75]], np.float32).T
    found = yolo_columns.decode(columns)
    np.testing.assert_array_equal(found.boxes, [[90, 45, 110, 55]])
    np.testing.assert_array_equal(found.class_scores, [[0.25, 0.75]])


@pytest.mark.parametrize(
    ("module", "metadata", "why"),
    [
        (Columns(extra=32, masks=True), ULTRALYTICS | {"task": "segment"}, "task segment"),
        (Columns(extra=32, masks=True), None, "segmentation model .*mask prototypes"),
        (Columns(extra=9), ULTRALYTICS | {"task": "pose"}, "task pose"),
        (Columns(extra=9), None, "columns after them are not within 0-1"),
        (Columns(), ULTRALYTICS | {"names": "{0: 'one'}"}, "names 1 classes, but has 3 columns"),
    ],
    ids=["segment", "segment, nameless", "pose", "pose, nameless", "other names"],
)
def test_other_tasks_are_refused(
    module: Any, metadata: dict[str, str] | None, why: str, tmp_path: Path
) -> None:
    path = export(spread(module), tmp_path / "other.onnx", metadata=metadata)
    with pytest.raises(AdaptError, match=why) as caught:
        export_model(path, tmp_path / "out.onnx", say=print)
    assert "\n" not in str(caught.value)
