"""torchvision's surface: lists as long as what was found, classes from 1, perhaps no batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from models.coco_names import COCO_CATEGORIES
from tests.export.proof import proven

STRIDE = 16


def one_stage(
    path: Path,
    columns: int,
    *,
    activation: str = "Softmax <axis = 1>",
    batch: bool = False,
    outputs: str = "float[n, 4] boxes, int64[n] labels, float[n] scores",
    opset: int = 17,
) -> Path:
    """One convolution, classes with a background, boxes about the middle; the rest as torchvision ends.

    Scores above 0.05 by NonZero, NonMaxSuppression by class with boxes moved apart, then their rows.
    """
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        one_stage (float[{"1, " if batch else ""}3, height, width] image) => ({outputs})
        {{
            zero = Constant <value_ints = [0]> ()
            one = Constant <value_ints = [1]> ()
            two = Constant <value_ints = [2]> ()
            four = Constant <value_ints = [4]> ()
            last = Constant <value_ints = [-1]> ()
            many = Constant <value_ints = [100000]> ()
            {"batched = Identity (image)" if batch else "batched = Unsqueeze (image, zero)"}
            centred = Sub (batched, mean)
            maps = Conv <kernel_shape = [{STRIDE}, {STRIDE}], strides = [{STRIDE}, {STRIDE}]> (centred, kernel, bias)
            together = Constant <value_ints = [{columns + 4}, -1]> ()
            flat = Reshape (maps, together)
            cells = Transpose <perm = [1, 0]> (flat)
            parts = Constant <value_ints = [{columns}, 4]> ()
            logits, raw = Split <axis = 1> (cells, parts)
            chances = {activation} (logits)
            shape = Shape (batched)
            height_width = Slice (shape, two, four)
            wanted = Constant <value_ints = [1, 0, 1, 0]> ()
            sides = Gather (height_width, wanted)
            lengths = Cast <to = 1> (sides)
            half = Constant <value_float = 0.5> ()
            shares = Sigmoid (raw)
            halves = Mul (shares, half)
            shifts = Constant <value_floats = [0.0, 0.0, 0.5, 0.5]> ()
            corners = Add (halves, shifts)
            all_boxes = Mul (corners, lengths)
            foreground = Slice (chances, one, many, one)
            least = Constant <value_float = 0.05> ()
            is_high = Greater (foreground, least)
            at = NonZero (is_high)
            index = Transpose <perm = [1, 0]> (at)
            some_scores = GatherND (foreground, index)
            row_one = Slice (at, zero, one, zero)
            row = Squeeze (row_one, zero)
            column_one = Slice (at, one, two, zero)
            column = Squeeze (column_one, zero)
            some_labels = Add (column, one)
            some_boxes = Gather (all_boxes, row)
            apart = Constant <value_float = 10000.0> ()
            float_labels = Cast <to = 1> (some_labels)
            offsets = Mul (float_labels, apart)
            offset_columns = Unsqueeze (offsets, last)
            moved = Add (some_boxes, offset_columns)
            nms_boxes = Unsqueeze (moved, zero)
            score_row = Unsqueeze (some_scores, zero)
            nms_scores = Unsqueeze (score_row, zero)
            overlap = Constant <value_floats = [0.9]> ()
            selected = NonMaxSuppression (nms_boxes, nms_scores, many, overlap)
            three = Constant <value_ints = [3]> ()
            keep_one = Slice (selected, two, three, one)
            keep = Squeeze (keep_one, one)
            boxes = Gather (some_boxes, keep)
            labels = Gather (some_labels, keep)
            scores = Gather (some_scores, keep)
        }}
        """
    )
    random = np.random.default_rng(0)
    kernel = random.normal(size=(columns + 4, 3, STRIDE, STRIDE)) * 10 / STRIDE
    kernel -= kernel.mean(axis=(2, 3), keepdims=True)  # plain grey gives the bias
    bias = np.zeros(columns + 4)
    bias[:columns] = -4 if "Sigmoid" in activation else 0
    bias[0] = 4 if "Softmax" in activation else -4
    mean = np.full((3, 1, 1), 0.45)
    for name, values in (("kernel", kernel), ("bias", bias), ("mean", mean)):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("batch", [False, True], ids=["without batch", "batch of one"])
def test_coco_by_its_category_numbers(batch: bool, tmp_path: Path) -> None:
    wishes = Wishes(input_size=(128, 192))
    spec, said = proven(one_stage(tmp_path / "coco.onnx", 91, batch=batch), wishes)
    assert (spec.family, spec.names, spec.resize) == ("torchvision", COCO_CATEGORIES, "letterbox")
    assert (spec.input_height, spec.input_width) == (128, 192)
    assert "a batch is looped over" in said


@pytest.mark.parametrize("names", [("a", "b"), ("__background__", "a", "b")], ids=["without", "with"])
def test_names_with_or_without_the_background(names: tuple[str, ...], tmp_path: Path) -> None:
    path = one_stage(tmp_path / "own.onnx", 3, activation="Sigmoid")
    spec, _ = proven(path, Wishes(names=names, input_size=(128, 128)))
    assert len(spec.names) == 3
    assert spec.names[1:] == ("a", "b")
    session = onnxruntime.InferenceSession(str(path.with_suffix(".out")), providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    _, scores, classes = session.run(["boxes", "scores", "classes"], {"images": noise})
    assert set(classes[scores > 0].tolist()) == {1, 2}


def test_wrong_names_say_how_they_are_given(tmp_path: Path) -> None:
    path = one_stage(tmp_path / "own.onnx", 5)
    for names, said in ((None, "5 classes and no names"), (("a", "b"), "2 names, the model has 5 classes")):
        with pytest.raises(AdaptError, match=said + r" \(labels count from 1, 0 is no object"):
            export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=names), say=print)


def test_nothing_found_beside_something_in_one_batch(tmp_path: Path) -> None:
    path = one_stage(tmp_path / "own.onnx", 3)
    proven(path, Wishes(names=("a", "b"), input_size=(128, 128)))
    session = onnxruntime.InferenceSession(str(path.with_suffix(".out")), providers=["CPUExecutionProvider"])
    images = np.full((3, 128, 128, 3), 128, np.uint8)
    images[1] = np.random.default_rng(0).integers(0, 256, images.shape[1:], np.uint8)
    boxes, scores, classes = session.run(["boxes", "scores", "classes"], {"images": images})
    assert boxes.shape == (3, 100, 4)
    assert (scores > 0).any(axis=1).tolist() == [False, True, False]
    assert not boxes[[0, 2]].any()
    assert not classes[[0, 2]].any()


def test_an_old_file_with_other_order(tmp_path: Path) -> None:
    """Opset 13, scores first."""
    outputs = "float[n] scores, float[n, 4] boxes, int64[n] labels"
    path = one_stage(tmp_path / "old.onnx", 3, outputs=outputs, opset=13, activation="Sigmoid")
    spec, _ = proven(path, Wishes(names=("a", "b"), input_size=(96, 160)))
    assert spec.family == "torchvision"


def test_the_scores_may_come_out_of_a_condition(tmp_path: Path) -> None:
    """As torchvision's, which skips its suppression where nothing was found."""
    path = one_stage(tmp_path / "own.onnx", 3)
    model = onnx.load(str(path))
    branches = {
        f"{which}_branch": helper.make_graph(
            [helper.make_node("Identity", ["inner_scores"], [f"{which}_scores"])],
            which,
            [],
            [helper.make_tensor_value_info(f"{which}_scores", TensorProto.FLOAT, ["n"])],
        )
        for which in ("then", "else")
    }
    model.graph.node[-1].output[0] = "inner_scores"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.node.append(helper.make_node("If", ["always"], ["scores"], **branches))
    onnx.save(model, str(path))
    spec, _ = proven(path, Wishes(names=("a", "b"), input_size=(128, 128)))
    assert len(spec.names) == 3


def test_fixed_lists_are_not_torchvision(tmp_path: Path) -> None:
    path = one_stage(
        tmp_path / "fixed.onnx", 3, outputs="float[n, 4] boxes, int64[n] labels, float[n] scores"
    )
    model = onnx.load(str(path))
    model.graph.output.pop()
    onnx.save(model, str(path))
    with pytest.raises(AdaptError, match="no adapter recognises this model"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a", "b")), say=print)
