"""TensorFlow Object Detection API's surface: bytes in, boxes with y first, classes that count from 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import tensorflow_od
from models.coco_names import COCO_CATEGORIES
from tests.export.families.test_torchvision_lists import proven

KEPT = 24


def tensorflow_like(
    path: Path,
    columns: int,
    *,
    raw: bool = False,
    suffix: str = "",
    picture: str = "uint8[1, height, width, 3]",
) -> Path:
    """An SSD in the API's form: its own resizing to 64x64, sigmoid with a background, the best of each cell.

    Args:
        path: of the file.
        columns: of the class head, with the background.
        raw: whether raw_detection_scores comes out too.
        suffix: of the outputs' names, ":0" after tf2onnx with such names.
        picture: type and shape of the input.
    """
    outputs = f"float[1, {KEPT}] classes, float[1] number, float[1, {KEPT}, 4] boxes, float[1, {KEPT}] scores"
    raw_output = f", float[1, cells, {columns}] chances" if raw else ""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 13]>
        tensorflow ({picture} input_tensor) => ({outputs}{raw_output})
        {{
            floats = Cast <to = 1> (input_tensor)
            planes = Transpose <perm = [0, 3, 1, 2]> (floats)
            shape = Shape (planes)
            zero = Constant <value_ints = [0]> ()
            one = Constant <value_ints = [1]> ()
            two = Constant <value_ints = [2]> ()
            many = Constant <value_ints = [100000]> ()
            outer = Slice (shape, zero, two)
            inner = Constant <value_ints = [64, 64]> ()
            sizes = Concat <axis = 0> (outer, inner)
            resized = Resize <mode = "linear"> (planes, , , sizes)
            range = Constant <value_float = 255.0> ()
            unit = Div (resized, range)
            maps = Conv <kernel_shape = [8, 8], strides = [8, 8]> (unit, kernel)
            together = Constant <value_ints = [1, {columns + 4}, -1]> ()
            flat = Reshape (maps, together)
            rows = Transpose <perm = [0, 2, 1]> (flat)
            parts = Constant <value_ints = [{columns}, 4]> ()
            logits, offsets = Split <axis = 2> (rows, parts)
            chances = Sigmoid (logits)
            foreground = Slice (chances, one, many, two)
            best = ReduceMax <axes = [2], keepdims = 0> (foreground)
            best_class = ArgMax <axis = 2, keepdims = 0> (foreground)
            kept = Constant <value_ints = [{KEPT}]> ()
            scores, order = TopK (best, kept)
            class_here = GatherElements <axis = 1> (best_class, order)
            class_floats = Cast <to = 1> (class_here)
            from_one = Constant <value_float = 1.0> ()
            classes = Add (class_floats, from_one)
            last = Constant <value_ints = [-1]> ()
            order_rows = Unsqueeze (order, last)
            offsets_here = GatherND <batch_dims = 1> (offsets, order_rows)
            shares = Sigmoid (offsets_here)
            half = Constant <value_float = 0.5> ()
            halves = Mul (shares, half)
            shifts = Constant <value_floats = [0.0, 0.0, 0.5, 0.5]> ()
            boxes = Add (halves, shifts)
            number = Constant <value_floats = [{float(KEPT)}]> ()
        }}
        """
    )
    kernel = np.random.default_rng(0).normal(size=(columns + 4, 3, 8, 8)) / 8
    model.graph.initializer.append(numpy_helper.from_array(kernel.astype(np.float32), "kernel"))
    named = {
        "classes": "detection_classes",
        "number": "num_detections",
        "boxes": "detection_boxes",
        "scores": "detection_scores",
    }
    names = {old: new + suffix for old, new in named.items()} | (
        {"chances": "raw_detection_scores"} if raw else {}
    )
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in model.graph.output:
        value.name = names[value.name]
    onnx.save(model, str(path))
    return path


def test_coco_shows_at_the_class_head(tmp_path: Path) -> None:
    path = tensorflow_like(tmp_path / "coco.onnx", 91, suffix=":0")
    spec, said = proven(path, Wishes(input_size=(96, 160)))
    assert (spec.family, spec.names) == ("tensorflow", COCO_CATEGORIES)
    assert (spec.input_height, spec.input_width) == (96, 160)
    assert "RGB 0-255" in said


def test_other_classes_show_in_the_raw_scores(tmp_path: Path) -> None:
    path = tensorflow_like(tmp_path / "own.onnx", 4, raw=True)
    spec, _ = proven(path, Wishes(names=("a", "b", "c"), input_size=(64, 64)))
    assert spec.names == ("background", "a", "b", "c")
    with pytest.raises(AdaptError, match=r"the model has 4 classes \(classes count from 1"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a",)), say=print)


def test_otherwise_names_are_asked_for_and_taken(tmp_path: Path) -> None:
    path = tensorflow_like(tmp_path / "own.onnx", 4)
    with pytest.raises(AdaptError, match=r"unknown number of classes and no names \(classes count from 1"):
        export_model(path, tmp_path / "out.onnx", say=print)
    spec, _ = proven(path, Wishes(names=("a", "b", "c")))
    assert spec.names == ("background", "a", "b", "c")
    assert (spec.input_height, spec.input_width) == (640, 640)


def test_decode_of_a_known_row() -> None:
    found = tensorflow_od.decode(
        np.array([[0.1, 0.2, 0.5, 0.8]]), np.array([0.75]), np.array([3.0]), input_height=100, input_width=200
    )
    np.testing.assert_allclose(found.boxes, [[40, 10, 160, 50]], atol=1e-4)
    assert (found.scores[0], found.classes[0]) == (0.75, 3)


def test_floats_in_are_another_surface(tmp_path: Path) -> None:
    path = tensorflow_like(tmp_path / "floats.onnx", 4, picture="float[1, height, width, 3]")
    with pytest.raises(
        AdaptError, match=r"(?s)no adapter recognises this model.*detection_boxes \(1, K, 4\)"
    ):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a", "b", "c")), say=print)
