"""Strangers' files: recognised and equal to a plain decoder, or refused with what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.adapt import AdaptError, Wishes, adapt
from export.artifact import ArtifactError, load, read_spec
from export.convert import export_model
from export.families import FAMILIES, yolox_grid
from export.parity import FEWEST_DETECTIONS, check_parity
from export.pictures import demo_pictures, parity_pictures
from tests.export.conftest import save, yolox_like


def test_yolox_nano_equals_the_plain_decoder(yolox_nano: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "nano.onnx"
    spec = export_model(yolox_nano, out, say=said.append)
    print(spec.parity)
    assert spec.parity["max_box_difference_px"] <= 0.01
    assert spec.parity["max_score_difference"] <= 1e-4
    assert spec.parity["detections"] >= 100
    assert (spec.family, len(spec.names), spec.names[0], spec.names[79]) == (
        "yolox",
        80,
        "person",
        "toothbrush",
    )
    assert "YOLOX raw grid" in said[0]
    assert read_spec(load(out), "nano") == spec


def test_a_tiny_stranger_equals_the_plain_decoder(adapted: Path) -> None:
    spec = read_spec(load(adapted), "adapted")
    print(spec.parity)
    assert spec.parity["max_box_difference_px"] <= 0.01
    assert spec.parity["max_score_difference"] <= 1e-4
    assert spec.parity["detections"] >= FEWEST_DETECTIONS
    assert spec.parity["pictures"] == len(demo_pictures())
    assert spec.parity["shapes"] == 3


def test_batches_of_any_size_give_the_same(adapted: Path, stranger: Path) -> None:
    body = adapt(stranger, load(stranger), Wishes(names=("a", "b", "c")))
    spec = read_spec(load(adapted), "adapted")
    for count in (1, 2, 5):
        assert check_parity(adapted, body.reference, parity_pictures(None)[:count], spec).detections > 0


def test_decode_of_a_known_cell() -> None:
    rows = np.zeros((336, 6), np.float32)
    rows[17, :] = [0.5, 0.25, np.log(2), np.log(3), 0.5, 0.8]  # second row of 16 cells, second column
    found = yolox_grid.decode(rows, 128, 128)
    np.testing.assert_allclose(found.boxes[17], [12 - 8, 10 - 12, 12 + 8, 10 + 12], atol=1e-5)
    assert found.class_scores[17, 0] == pytest.approx(0.4)


def decoded() -> onnx.ModelProto:
    """Of the very same shape, but its boxes are already decoded."""
    model = yolox_like()
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(helper.make_node("Exp", ["raw"], ["found"]))
    return model


def classifier() -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, 224, 224])
    node = helper.make_node("Relu", ["image"], ["logits"])
    graph = helper.make_graph([node], "classifier", [image], [logits])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (classifier(), "image float32 (batch, 3, 224, 224)"),
        (decoded(), "found float32 (1, 336, 8)"),
        (yolox_like(sigmoid=False), "pixels float32 (1, 3, 128, 128)"),
    ],
    ids=["not a detector", "boxes already decoded", "scores without sigmoid"],
)
def test_an_unknown_signature_is_shown_and_refused(
    model: onnx.ModelProto, shown: str, tmp_path: Path
) -> None:
    path = save(model, tmp_path / "unknown.onnx")
    with pytest.raises(AdaptError) as caught:
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a", "b", "c")), say=print)
    message = str(caught.value)
    assert shown in message
    assert "Needed: " in message
    assert "YOLOX raw grid output" in message
    assert len(message.splitlines()) == 1 + len(FAMILIES), "a line for what it is, and one for each family"
    assert [file.name for file in tmp_path.iterdir()] == ["unknown.onnx"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (None, "3 classes and no names; export it first: lookout export .* --names a,b,c --out"),
        (("a", "b"), "2 names, the model has 3 classes"),
    ],
)
def test_names_must_fit(stranger: Path, tmp_path: Path, names: tuple[str, ...] | None, said: str) -> None:
    with pytest.raises(AdaptError, match=said):
        export_model(stranger, tmp_path / "out.onnx", wishes=Wishes(names=names), say=print)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x07\x12\x07pytorch"])
def test_what_is_not_onnx_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"some\.onnx: not an ONNX") as caught:
        export_model(path, tmp_path / "out.onnx", say=print)
    assert "\n" not in str(caught.value)


def test_a_truncated_model_is_named(stranger: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(stranger.read_bytes()[: stranger.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"half\.onnx"):
        export_model(path, tmp_path / "out.onnx", say=print)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such model file"):
        export_model(tmp_path / "none.onnx", tmp_path / "out.onnx", say=print)
