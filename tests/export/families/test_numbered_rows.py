"""YOLOv7's rows past NMS: equal to the plain decoder, and not mixed up with rows of another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import compose, parser

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import numbered_rows
from tests.export.families.small_yolos import CLASSES, NAMES, export, spread
from tests.export.families.test_yolo_rows import ThreeACell
from tests.export.proof import proven

COUNT = 1512
YOLOV7 = "picture, corners, class, score"


def with_nms(path: Path, order: str = YOLOV7) -> Path:
    """The decoded rows of a file given YOLOv7's end: the likeliest class of each row, NMS, one list."""
    head = onnx.load(str(path))
    end = parser.parse_model(
        f"""
        <ir_version: 7, opset_import: ["": 12]>
        end2end (float[1, {COUNT}, {5 + CLASSES}] found) => (float[n, 7] output)
        <int64[1] most = {{100}}, float[1] iou = {{0.45}}, float[1] floor = {{0.1}},
         float[4, 4] turn = {{1, 0, 1, 0, 0, 1, 0, 1, -0.5, 0, 0.5, 0, 0, -0.5, 0, 0.5}}, int64[2] places = {{0, 2}},
         int64 first = {{0}}>
        {{
            centred, objectness, given = Split <axis = 2, split = [4, 1, {CLASSES}]> (found)
            boxes = MatMul (centred, turn)
            likely = Mul (given, objectness)
            best = ReduceMax <axes = [2], keepdims = 1> (likely)
            kind = ArgMax <axis = 2, keepdims = 1> (likely)
            by_class = Transpose <perm = [0, 2, 1]> (best)
            kept = NonMaxSuppression (boxes, by_class, most, iou, floor)
            rows = Gather <axis = 1> (kept, places)
            number = Gather <axis = 1> (kept, first)
            numbers = Unsqueeze <axes = [1]> (number)
            picture = Cast <to = 1> (numbers)
            corners = GatherND (boxes, rows)
            class_number = GatherND (kind, rows)
            class = Cast <to = 1> (class_number)
            score = GatherND (best, rows)
            output = Concat <axis = 1> ({order})
        }}
        """
    )
    head = compose.add_prefix(head, "head/")
    head.ir_version = 7
    wires = [(head.graph.output[0].name, "found")]
    whole = compose.merge_models(head, end, io_map=wires)
    del whole.opset_import[1:]  # of the two, each has said the same in its own way
    onnx.save(whole, str(path))
    return path


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    return export(spread(ThreeACell()), tmp_path / "v7.onnx")


def test_rows_past_nms_equal_the_plain_decoder(decoded: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaptError, match=f"{CLASSES} classes and no names"):
        export_model(with_nms(decoded), tmp_path / "out.onnx", say=print)
    spec, said = proven(decoded, Wishes(names=NAMES))
    assert (spec.family, spec.nms_threshold) == ("yolov7", None)
    assert "rows past NMS" in said
    assert "looped over" in said


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ("picture, class, corners, score", "no adapter recognises"),
        ("picture, corners, score, class", "does not show whether class or score is last"),
    ],
)
def test_other_orders_are_not_mixed_up(order: str, why: str, decoded: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaptError, match=why):
        export_model(with_nms(decoded, order), tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)


def test_decode_of_a_known_row() -> None:
    found = numbered_rows.decode(np.array([[0, 10, 20, 30, 40, 2, 0.5]], np.float32))
    np.testing.assert_array_equal(found.boxes, [[10, 20, 30, 40]])
    assert (found.scores[0], found.classes[0]) == (0.5, 2)
