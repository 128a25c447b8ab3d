"""RT-DETR's deployed surface: which way round it takes the picture's size is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from models.coco_names import COCO_NAMES
from tests.export.families import small_detrs
from tests.export.proof import proven


def test_rt_detr_takes_the_width_first(tmp_path: Path) -> None:
    spec, said = proven(small_detrs.rt_detr_deployed(tmp_path / "rt.onnx"))
    assert (spec.family, spec.names, spec.resize) == ("rt-detr-deploy", COCO_NAMES, "stretch")
    assert (spec.input_height, spec.input_width) == (small_detrs.HEIGHT, small_detrs.WIDTH)
    assert "the width comes first" in said


def deployed(scale: str) -> onnx.ModelProto:
    """RT-DETR's outputs for any batch, a square input, four classes; ``scale`` makes the boxes' scale of the size."""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 17]>
        deployed (float[N, 3, 64, 64] images, int64[N, 2] orig_target_sizes)
            => (float[N, Q] scores, int64[N, Q] labels, float[N, Q, 4] boxes)
        {{
            minus = Constant <value_ints = [0, 8, -1]> ()
            maps = Conv <kernel_shape = [16, 16], strides = [16, 16]> (images, kernel)
            flat = Reshape (maps, minus)
            rows = Transpose <perm = [0, 2, 1]> (flat)
            split = Constant <value_ints = [4, 4]> ()
            logits, raw = Split <axis = 2> (rows, split)
            chances = Sigmoid (logits)
            all = Flatten <axis = 1> (chances)
            kept = Constant <value_ints = [16]> ()
            scores, best = TopK (all, kept)
            classes = Constant <value_int = 4> ()
            labels = Mod (best, classes)
            row = Div (best, classes)
            last = Constant <value_ints = [-1]> ()
            row_at = Unsqueeze (row, last)
            relative = Sigmoid (raw)
            here = GatherND <batch_dims = 1> (relative, row_at)
            half = Constant <value_float = 0.5> ()
            quarter = Mul (here, half)
            middle = Constant <value_ints = [2, 2]> ()
            first, second = Split <axis = 2> (quarter, middle)
            later = Add (second, half)
            corners = Concat <axis = 2> (first, later)
            sizes = Cast <to = 1> (orig_target_sizes)
            {scale}
            axis = Constant <value_ints = [1]> ()
            each = Unsqueeze (four, axis)
            boxes = Mul (corners, each)
        }}
        """
    )
    kernel = small_detrs.torch.randn(8, 3, 16, 16, generator=small_detrs.torch.Generator().manual_seed(0)) / 8
    model.graph.initializer.append(
        helper.make_tensor("kernel", TensorProto.FLOAT, [8, 3, 16, 16], kernel.flatten().tolist())
    )
    return model


def test_a_square_input_for_any_batch(tmp_path: Path) -> None:
    path = tmp_path / "square.onnx"
    onnx.save(deployed("four = Concat <axis = 1> (sizes, sizes)"), str(path))
    spec, said = proven(path, Wishes(names=("a", "b", "c", "d")))
    assert "width comes first" in said
    assert "any batch at once" in said
    with pytest.raises(AdaptError, match="the model has 4 classes and no names"):
        export_model(path, tmp_path / "out.onnx", say=print)
    assert spec.family == "rt-detr-deploy"


def test_the_height_may_come_first(tmp_path: Path) -> None:
    path = tmp_path / "flipped.onnx"
    order = "order = Constant <value_ints = [1, 0, 1, 0]> ()"
    model = deployed(f"{order} four = Gather <axis = 1> (sizes, order)")
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 128
    onnx.save(model, str(path))
    spec, said = proven(path, Wishes(names=("a", "b", "c", "d")))
    assert "the height comes first" in said
    assert (spec.input_height, spec.input_width) == (64, 128)
    # Of a picture 128 wide the boxes about the middle end on its right, beyond 64.
    session = onnxruntime.InferenceSession(str(path.with_suffix(".out")), providers=["CPUExecutionProvider"])
    boxes, *_ = session.run(None, {"images": np.full((1, 64, 128, 3), 90, np.uint8)})
    assert boxes[0, :4, 2].min() > 64
    assert boxes[..., 3].max() <= 64


def test_boxes_that_do_not_follow_the_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deaf.onnx"
    deaf = "zero = Sub (sizes, sizes) big = Constant <value_float = 640.0> () moved = Add (zero, big)"
    onnx.save(deployed(f"{deaf} four = Concat <axis = 1> (moved, moved)"), str(path))
    with pytest.raises(AdaptError, match="no adapter recognises this model"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=("a", "b", "c", "d")), say=print)
