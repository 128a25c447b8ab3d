"""DETR's lineage with raw heads: told apart by their graphs, and equal to a plain decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import detr
from models.coco_names import COCO_CATEGORIES, COCO_NAMES
from tests.export.families import small_detrs
from tests.export.proof import proven


def behind(path: Path, out: Path, output: str, operator: str, *constants: str) -> Path:
    """A copy of a file with an operator behind one of its outputs."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.input[:] = ["before" if name == output else name for name in node.input]
        node.output[:] = ["before" if name == output else name for name in node.output]
    for name, value in {"from": [0], "to": [5], "axis": [2], "factor": np.float32(640)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.append(helper.make_node(operator, ["before", *constants], [output]))
    for value in model.graph.output:
        if value.name == output and operator == "Slice":
            value.type.tensor_type.shape.dim[2].dim_value = 5
    onnx.save(model, str(out))
    return out


def test_detr_with_a_mask_and_open_channels(tmp_path: Path) -> None:
    spec, said = proven(small_detrs.detr(tmp_path / "detr.onnx"))
    assert (spec.family, spec.names, spec.resize) == ("detr", COCO_CATEGORIES, "letterbox")
    assert "123.675,116.28,103.53" in said
    assert "softmax" in said


@pytest.mark.slow
def test_deformable_detr(tmp_path: Path) -> None:
    spec, said = proven(small_detrs.deformable(tmp_path / "deformable.onnx"))
    assert (spec.family, spec.names, spec.resize) == ("deformable-detr", COCO_CATEGORIES, "letterbox")
    assert "sigmoid" in said


@pytest.mark.slow
def test_rf_detr_boxes_first(tmp_path: Path) -> None:
    path = small_detrs.rf_detr(tmp_path / "rf.onnx")
    spec, said = proven(path, Wishes(names=("none", "a", "b")))
    assert (spec.family, spec.resize) == ("rf-detr", "stretch")
    assert "123.675,116.28,103.53" in said
    with pytest.raises(AdaptError, match=r"2 names, the model has 3 classes \(one name a column: RF-DETR"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a", "b")), say=print)


@pytest.fixture(scope="module")
def rt_detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_detrs.rt_detr(tmp_path_factory.mktemp("rt-detr") / "rt.onnx")


def test_rt_detr(rt_detr: Path) -> None:
    spec, said = proven(rt_detr)
    assert (spec.family, spec.names, spec.resize) == ("rt-detr", COCO_NAMES, "stretch")
    assert "pixels taken as RGB (0-255 - 0) / 255, stretch" in said


def test_rt_detr_of_other_classes_is_a_question(rt_detr: Path, tmp_path: Path) -> None:
    path = behind(rt_detr, tmp_path / "five.onnx", "logits", "Slice", "from", "to", "axis")
    with pytest.raises(AdaptError, match=r"could be one of several families.*rt-detr: .*deformable-detr: "):
        export_model(path, tmp_path / "out.onnx", say=print)
    spec, _ = proven(path, Wishes(family="rt-detr", names=("a", "b", "c", "d", "e")))
    assert spec.family == "rt-detr"


def test_any_batch_at_once_and_four_columns(tmp_path: Path) -> None:
    path = small_detrs.plain(tmp_path / "plain.onnx", columns=4, any_batch=True)
    spec, said = proven(path, Wishes(names=("a", "b", "c")))
    assert spec.family == "detr"
    assert "any batch at once" in said


def test_outputs_that_no_name_or_shape_tells_apart_are_refused(tmp_path: Path) -> None:
    path = small_detrs.plain(tmp_path / "plain.onnx", columns=4, outputs=("one", "other"))
    with pytest.raises(AdaptError, match="no adapter recognises this model"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a", "b", "c")), say=print)


@pytest.mark.parametrize(
    "change",
    [("logits", "Sigmoid"), ("pred_boxes", "Mul", "factor")],
    ids=["scores, not logits", "boxes in pixels"],
)
def test_what_is_not_raw_is_not_detr(change: tuple[str, ...], tmp_path: Path) -> None:
    path = behind(small_detrs.plain(tmp_path / "plain.onnx", columns=6), tmp_path / "changed.onnx", *change)
    with pytest.raises(AdaptError) as caught:
        export_model(
            path, tmp_path / "out.onnx", wishes=Wishes(names=tuple("abcde"), family="detr"), say=print
        )
    assert "detr: DETR" not in str(caught.value)


def test_decode_of_a_known_query() -> None:
    logits = np.log(np.array([[1.0, 3.0, 4.0]], np.float32))
    boxes = np.array([[0.5, 0.25, 0.25, 0.5]], np.float32)
    best = detr.decode_softmax(logits, boxes, 100, 200)
    np.testing.assert_allclose(best.boxes, [[75, 0, 125, 50]], atol=1e-4)
    assert (best.scores[0], best.classes[0]) == (pytest.approx(3 / 8), 1)
    each = detr.decode_sigmoid(logits, boxes, 100, 200)
    np.testing.assert_allclose(each.boxes, best.boxes)
    np.testing.assert_allclose(each.class_scores, [[1 / 2, 3 / 4, 4 / 5]], atol=1e-6)
