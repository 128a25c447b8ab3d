"""A stranger's detector small enough to be made on the spot: YOLOX's surface on three convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.adapt import Wishes
from export.convert import export_model

CLASSES = 3
SIZE = 128


def yolox_like(*, sigmoid: bool = True, silent: bool = False) -> onnx.ModelProto:
    """A batch-of-one model with YOLOX's raw grid output (1, 336, 8) for pictures of 128x128.

    Args:
        sigmoid: whether scores pass through their sigmoid, as YOLOX's do.
        silent: whether every score is practically 0.
    """
    random = np.random.default_rng(0)
    nodes, weights = [], [numpy_helper.from_array(np.array([1, 5 + CLASSES, -1]), "rows_of_one")]
    for stride in (8, 16, 32):
        columns = []
        for part, channels in (("box", 4), ("object", 1), ("class", CLASSES)):
            name = f"{part}{stride}"
            kernel = random.normal(size=(channels, 3, stride, stride)) / stride / 128
            bias = np.full(channels, 0.0 if part == "box" else -30.0 if silent else 0.5)
            weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"{name}_kernel"))
            weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}_bias"))
            shape = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
            inputs = ["pixels", f"{name}_kernel", f"{name}_bias"]
            nodes.append(helper.make_node("Conv", inputs, [name], **shape))
            if part != "box" and sigmoid:
                nodes.append(helper.make_node("Sigmoid", [name], [f"{name}_score"]))
                name += "_score"
            columns.append(name)
        nodes.append(helper.make_node("Concat", columns, [f"map{stride}"], axis=1))
        nodes.append(helper.make_node("Reshape", [f"map{stride}", "rows_of_one"], [f"flat{stride}"]))
    nodes.append(helper.make_node("Concat", ["flat8", "flat16", "flat32"], ["flat"], axis=2))
    nodes.append(helper.make_node("Transpose", ["flat"], ["found"], perm=[0, 2, 1]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 336, 5 + CLASSES])
    graph = helper.make_graph(nodes, "stranger", [pixels], [found], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """``yolox_like`` in a file."""
    return save(yolox_like(), tmp_path / "stranger.onnx")


@pytest.fixture
def adapted(stranger: Path, tmp_path: Path) -> Path:
    """The contract file made of ``stranger``."""
    out = tmp_path / "adapted.onnx"
    export_model(stranger, out, wishes=Wishes(names=("a", "b", "c")), say=lambda line: None)
    return out
