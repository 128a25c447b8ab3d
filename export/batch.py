"""Models made for one picture, made to take any number of them.

Where the graph allows, its batch is freed; where it does not, it is looped over. Which of the two is
measured, never assumed. Knows nothing of detectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.cpu import cpu_session
from export.graph import IR_VERSION, rename, static_shape

_TOLERANCE = 1e-3
"""Pixels of a box, or a score: rounding differs with the shape of a matrix product, a wrong row by far more."""


def with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a batch-of-one model that takes any batch, where its graph allows.

    Exporters bake the batch into the constants of Reshape: a leading 1 there becomes 0, ONNX's
    "keep this dimension". Whether the result is right for a batch must be *measured* by the caller.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in [*copy.graph.input, *copy.graph.output]:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "B"
    targets = {node.input[1] for node in copy.graph.node if node.op_type == "Reshape"}
    for tensor in copy.graph.initializer:
        if tensor.name in targets:
            _keep_batch(tensor)
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.output[0] in targets:
            for attribute in node.attribute:
                if attribute.name == "value":
                    _keep_batch(attribute.t)
                elif attribute.name == "value_ints" and len(attribute.ints) > 1 and attribute.ints[0] == 1:
                    attribute.ints[0] = 0
    return copy


def _keep_batch(shape: onnx.TensorProto) -> None:
    wanted = numpy_helper.to_array(shape).copy()
    if len(wanted) > 1 and wanted[0] == 1:
        wanted[0] = 0
        shape.CopyFrom(numpy_helper.from_array(wanted, shape.name))


def looped(model: onnx.ModelProto) -> onnx.ModelProto:
    """A contract graph for one picture as one for any number: ONNX's Scan runs it on each in turn.

    Args:
        model: its first input and every output have a batch of 1 in front.
    """
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    inner.name = "one_picture"
    names = [value.name for value in (inner.input[0], *inner.output)]
    for name in names:  # a graph inside another may not use the other's names
        rename(inner, name, f"one/{name}")
    picture = inner.input[0]
    kind, shape = picture.type.tensor_type.elem_type, list(static_shape(picture))[1:]
    axis = numpy_helper.from_array(np.array([0], np.int64), "loop/axis")
    inner.initializer.append(axis)
    nodes = [helper.make_node("Unsqueeze", ["loop/picture", axis.name], [picture.name])]
    nodes += inner.node
    outputs, outer = [], []
    for value, outer_name in zip(inner.output, names[1:], strict=True):
        name, element = f"loop/{outer_name}", value.type.tensor_type.elem_type
        nodes.append(helper.make_node("Squeeze", [value.name, axis.name], [name]))
        dims = list(static_shape(value))[1:]
        outputs.append(helper.make_tensor_value_info(name, element, dims))
        outer.append(helper.make_tensor_value_info(outer_name, element, ["B", *dims]))
    del inner.node[:], inner.input[:], inner.output[:], inner.value_info[:]
    inner.node.extend(nodes)
    inner.input.append(helper.make_tensor_value_info("loop/picture", kind, shape))
    inner.output.extend(outputs)
    scan = helper.make_node("Scan", names[:1], [value.name for value in outer], body=inner, num_scan_inputs=1)
    images = helper.make_tensor_value_info(names[0], kind, ["B", *shape])
    graph = helper.make_graph([scan], "looped", [images], outer)
    return helper.make_model(
        graph,
        producer_name="lookout",
        ir_version=IR_VERSION,
        opset_imports=list(model.opset_import),
        functions=list(model.functions),
    )


def loop_body(model: onnx.ModelProto) -> onnx.ModelProto:
    """What runs on each picture: the inside of a loop as a model of its own, or a copy of one without a loop."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if scan := _loop(copy):
        body = onnx.GraphProto()
        body.CopyFrom(_body_of(scan))
        copy.graph.CopyFrom(body)
    return copy


def with_loop_body(model: onnx.ModelProto, body: onnx.ModelProto) -> onnx.ModelProto:
    """The reverse of :func:`loop_body`: ``body`` in the loop that ``model`` has, or by itself where it has none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(body)
    if _loop(model):
        copy.graph.CopyFrom(model.graph)
        (scan,) = copy.graph.node
        _body_of(scan).CopyFrom(body.graph)
    return copy


def _loop(model: onnx.ModelProto) -> onnx.NodeProto | None:
    nodes = model.graph.node
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == "Scan" else None


def _body_of(scan: onnx.NodeProto) -> onnx.GraphProto:
    graph: onnx.GraphProto = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
    return graph


def takes_batches(model: onnx.ModelProto) -> bool:
    """Whether each picture of a batch gives what it gives alone, by running it on noise."""
    shape = static_shape(model.graph.input[0])[1:]
    noise = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    try:
        session = cpu_session(model)
        together = _run(session, model, noise)
        alone = [_run(session, model, picture[None]) for picture in noise]
    except Exception:  # onnxruntime's errors share no base class; whatever it is, batches do not work
        return False
    return all(
        many.shape == (3, *one.shape[1:]) and np.allclose(many[row], one[0], atol=_TOLERANCE, rtol=1e-4)
        for row, ones in enumerate(alone)
        for many, one in zip(together, ones, strict=True)
    )


def _run(session: Any, model: onnx.ModelProto, images: Any) -> list[Any]:
    values: list[Any] = session.run(None, {model.graph.input[0].name: images})
    return values
