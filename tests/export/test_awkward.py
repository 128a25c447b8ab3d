"""Files as people really have them: old and new opsets, half precision, weights as inputs, data beside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.adapt import AdaptError, Wishes
from export.artifact import ArtifactError, weight_files
from export.convert import ensure_contract, export_model
from export.graph import static_shape
from tests.export.conftest import save, yolox_like

NAMES = Wishes(names=("a", "b", "c"))


def assert_adapts(model: onnx.ModelProto, tmp_path: Path, wishes: Wishes = NAMES) -> list[str]:
    said: list[str] = []
    spec = export_model(
        save(model, tmp_path / "some.onnx"), tmp_path / "out.onnx", wishes=wishes, say=said.append
    )
    assert spec.parity["max_box_difference_px"] <= 0.01
    assert spec.parity["max_score_difference"] <= 1e-4
    assert spec.parity["detections"] >= 100
    return said


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20, 23])
def test_every_opset(opset: int, tmp_path: Path) -> None:
    model = yolox_like()
    model.opset_import[0].version = opset
    if opset > 21:
        model.ir_version = 10
    assert_adapts(model, tmp_path)


def test_weights_listed_as_inputs(tmp_path: Path) -> None:
    model = yolox_like()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert_adapts(model, tmp_path)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights, input and output in half precision."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
            )
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def test_half_precision_throughout(tmp_path: Path) -> None:
    assert_adapts(half(yolox_like()), tmp_path)


def test_a_batch_that_cannot_be_freed_is_looped_over(tmp_path: Path) -> None:
    """Its Reshape is told a batch of 1 by a node: nothing shows that the number is the batch."""
    model = yolox_like()
    for tensor in model.graph.initializer:
        if tensor.name == "rows_of_one":
            tensor.CopyFrom(numpy_helper.from_array(np.array([1]), "one"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([8, -1]), "rows"))
    model.graph.node.insert(0, helper.make_node("Concat", ["one", "rows"], ["rows_of_one"], axis=0))
    said = assert_adapts(model, tmp_path)
    assert "a batch is looped over" in said[0]


def test_an_open_size_is_settled_and_said(tmp_path: Path) -> None:
    model = yolox_like()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    for value in model.graph.output:
        value.type.tensor_type.shape.dim[1].dim_param = "rows"
    said = assert_adapts(model, tmp_path, Wishes(names=("a", "b", "c"), input_size=(64, 96)))
    assert "input 96x64" in said[0]
    out = onnx.load(str(tmp_path / "out.onnx"))
    assert static_shape(out.graph.input[0]) == (-1, 64, 96, 3)


def test_another_size_than_the_files_is_refused(stranger: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaptError, match="96x64 was asked for, but the file is made for 128x128"):
        export_model(stranger, tmp_path / "out.onnx", wishes=Wishes(input_size=(64, 96)), say=print)


def beside(model: onnx.ModelProto, folder: Path) -> Path:
    """The model with its weights in a file beside it."""
    path = folder / "big.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="big.onnx.data", size_threshold=16)
    return path


def test_data_beside_the_file(tmp_path: Path) -> None:
    path = beside(yolox_like(), tmp_path)
    assert (tmp_path / "big.onnx.data").stat().st_size > 10_000
    spec = export_model(path, tmp_path / "out.onnx", wishes=NAMES, say=print)
    (tmp_path / "big.onnx.data").write_bytes(bytes((tmp_path / "big.onnx.data").stat().st_size))
    with pytest.raises(ArtifactError):  # nothing is found by weights of 0
        assert (
            spec.source_sha256
            == export_model(path, tmp_path / "2.onnx", wishes=NAMES, say=print).source_sha256
        )


def test_data_that_is_missing_is_named(tmp_path: Path) -> None:
    path = beside(yolox_like(), tmp_path)
    (tmp_path / "big.onnx.data").unlink()
    with pytest.raises(ArtifactError, match=r"big\.onnx.*big\.onnx\.data"):
        export_model(path, tmp_path / "out.onnx", wishes=NAMES, say=print)


def test_a_kept_adaptation_is_of_these_very_weights(tmp_path: Path) -> None:
    model = yolox_like()
    onnx.helper.set_model_props(model, {"names": '["a", "b", "c"]'})
    path, kept = beside(model, tmp_path), tmp_path / "kept"
    first = ensure_contract(path, print, kept)
    data = tmp_path / "big.onnx.data"
    data.write_bytes(data.read_bytes()[:-4] + np.float32(0.25).tobytes())
    assert ensure_contract(path, print, kept) != first


def test_weights_beyond_what_a_graph_can_hold(tmp_path: Path) -> None:
    path = beside(yolox_like(), tmp_path)
    (weights,) = weight_files(path)
    with weights.open("r+b") as file:
        file.truncate(3_000_000_000)  # sparse: takes no room
    with pytest.raises(ArtifactError, match=r"3\.0 GB with its weights; expected at most 2\.1 GB"):
        ensure_contract(path, print)


def test_an_output_that_a_branch_reads_too(tmp_path: Path) -> None:
    model = half(yolox_like())
    (output,) = model.graph.output
    inner = helper.make_node("Identity", [output.name], ["inner"])
    branch = helper.make_graph(
        [inner], "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT16, None)]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.node.append(
        helper.make_node("If", ["always"], ["again"], then_branch=branch, else_branch=branch)
    )
    assert_adapts(model, tmp_path)
