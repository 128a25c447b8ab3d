"""PaddleDetection's rows past NMS: equal to the plain decoder, fillers left out, any output order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import compose, parser

from export.adapt import AdaptError, Wishes, adapt
from export.artifact import load
from export.convert import export_model
from export.families import paddle
from tests.export.families.small_yolos import CLASSES, NAMES, export, spread
from tests.export.families.test_yolo_rows import ThreeACell
from tests.export.proof import proven

COUNT = 1512


def paddle_like(path: Path, outputs: str = "float[n, 6] bbox, int32[1] bbox_num") -> Path:
    """Decoded rows given Paddle's end: boxes divided by the scale and clipped, NMS, a filler, a count."""
    head = onnx.load(str(export(spread(ThreeACell()), path)))
    end = parser.parse_model(
        f"""
        <ir_version: 7, opset_import: ["": 12]>
        end (float[1, {COUNT}, {5 + CLASSES}] found, float[1, 2] im_shape, float[1, 2] scale_factor)
            => ({outputs})
        <int64[1] most = {{20}}, float[1] iou = {{0.45}}, float[1] floor = {{0.1}}, float zero = {{0}},
         float[4, 4] turn = {{1, 0, 1, 0, 0, 1, 0, 1, -0.5, 0, 0.5, 0, 0, -0.5, 0, 0.5}},
         int64[4] x_last = {{1, 0, 1, 0}}, int64[2] places = {{0, 2}}, int64[1] start = {{0}},
         int64[1] one = {{1}}, int64[1] two = {{2}}, float[1, 6] filler = {{-1, 0.9, 0, 0, 50, 50}}>
        {{
            centred, objectness, given = Split <axis = 2, split = [4, 1, {CLASSES}]> (found)
            corners = MatMul (centred, turn)
            shape_four = Gather <axis = 1> (im_shape, x_last)
            scale_four = Gather <axis = 1> (scale_factor, x_last)
            clipped = Min (corners, shape_four)
            inside = Max (clipped, zero)
            boxes = Div (inside, scale_four)
            likely = Mul (given, objectness)
            by_class = Transpose <perm = [0, 2, 1]> (likely)
            kept = NonMaxSuppression (boxes, by_class, most, iou, floor)
            box_places = Gather <axis = 1> (kept, places)
            class = Slice (kept, one, two, one)
            class_float = Cast <to = 1> (class)
            corner_rows = GatherND (boxes, box_places)
            scores = GatherND (by_class, kept)
            score_column = Unsqueeze <axes = [1]> (scores)
            rows = Concat <axis = 1> (class_float, score_column, corner_rows)
            bbox = Concat <axis = 0> (filler, rows)
            size = Shape (bbox)
            first = Slice (size, start, one)
            bbox_num = Cast <to = 6> (first)
        }}
        """
    )
    head = compose.add_prefix(head, "head/")
    head.ir_version = 7
    whole = compose.merge_models(head, end, io_map=[(head.graph.output[0].name, "found")])
    del whole.opset_import[1:]  # of the two, each has said the same in its own way
    onnx.save(whole, str(path))
    return path


@pytest.mark.parametrize(
    "outputs", ["float[n, 6] bbox, int32[1] bbox_num", "int32[1] bbox_num, float[n, 6] bbox"]
)
def test_rows_equal_the_plain_decoder(outputs: str, tmp_path: Path) -> None:
    path = paddle_like(tmp_path / "paddle.onnx", outputs)
    with pytest.raises(AdaptError, match=f"{CLASSES} classes and no names"):
        export_model(path, tmp_path / "out.onnx", say=print)
    spec, said = proven(path, Wishes(names=NAMES))
    assert (spec.family, spec.nms_threshold, spec.resize) == ("paddle", None, "stretch")
    assert "PP-YOLOE and PicoDet want --mean" in said


def test_fillers_are_no_detections_and_the_scale_is_one(tmp_path: Path) -> None:
    path = paddle_like(tmp_path / "paddle.onnx")
    export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    picture = np.random.default_rng(0).integers(0, 256, (1, 128, 192, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    boxes, scores, classes = (array[0] for array in session.run(None, {"images": picture}))
    pixels = picture.transpose(0, 3, 1, 2).astype(np.float32) / 255
    feeds = {"head/images": pixels, "im_shape": np.array([[128, 192]], np.float32)}
    feeds["scale_factor"] = np.ones((1, 2), np.float32)
    original = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = original.run(["bbox"], feeds)[0][1:]
    rows = rows[np.argsort(-rows[:, 1], kind="stable")]
    count = int((scores > 0).sum())
    assert count == len(rows) > 3
    np.testing.assert_allclose(scores[:count], rows[:, 1], atol=1e-5)
    np.testing.assert_allclose(boxes[:count], rows[:, 2:], atol=1e-2)
    np.testing.assert_array_equal(classes[:count], rows[:, 0])


def test_another_input_of_two_numbers_is_not_taken_for_paddle(tmp_path: Path) -> None:
    path = paddle_like(tmp_path / "paddle.onnx")
    model = load(path)
    for node in model.graph.node:
        node.input[:] = ["ratio" if name == "scale_factor" else name for name in node.input]
    for value in model.graph.input:
        value.name = "ratio" if value.name == "scale_factor" else value.name
    with pytest.raises(AdaptError, match="PaddleDetection's rows past NMS"):
        adapt(path, model, Wishes(names=NAMES))


def test_decode_of_known_rows() -> None:
    found = paddle.decode(np.array([[2, 0.5, 10, 20, 30, 40], [-1, 0.9, 0, 0, 0, 0]], np.float32))
    np.testing.assert_array_equal(found.boxes, [[10, 20, 30, 40]])
    assert (found.scores[0], found.classes[0]) == (0.5, 2)
