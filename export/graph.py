"""The parts of a contract graph that surround a detector, and how they are joined.

A *body* is a model that turns ``images`` (uint8, RGB) into two tensors:

    boxes         float32 (B, N, 4)  x1, y1, x2, y2 in input pixels, one a candidate
    class_scores  float32 (B, N, C)  0-1

``with_nms`` grafts the rest of the contract (README, "The one graph contract") onto any body.
Subgraphs are written in ONNX's own text form. Knows nothing of families, torch or files.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import onnx
from onnx import compose, helper, numpy_helper, parser, version_converter

OPSET = 18
IR_VERSION = 10

CANDIDATES = 300
"""The boxes of a picture, by best class, that enter NMS; the rest are never looked at."""

KEPT = 100
"""Q, the rows of the output: as many detections as COCO counts in a picture."""

SCORE_FLOOR = 0.001
"""Below this nothing leaves the graph; the host thresholds higher, at run time."""


def preprocess(input_height: int, input_width: int, *, bgr: bool, opset: int = OPSET) -> onnx.ModelProto:
    """``images`` uint8 (B, H, W, 3) RGB to ``pixels`` float32 (B, 3, H, W), 0-255, RGB or BGR.

    Planes are moved as bytes and cast last: a quarter of the memory traffic of the other order.
    """
    order = "2, 1, 0" if bgr else "0, 1, 2"
    return parse(
        f"""
        preprocess (uint8[B, {input_height}, {input_width}, 3] images)
            => (float[B, 3, {input_height}, {input_width}] pixels)
        {{
            order = Constant <value_ints = [{order}]> ()
            rgb = Transpose <perm = [0, 3, 1, 2]> (images)
            planes = {"Gather <axis = 1> (rgb, order)" if bgr else "Identity (rgb)"}
            pixels = Cast <to = {onnx.TensorProto.FLOAT}> (planes)
        }}
        """,
        opset,
    )


def postprocess(candidates: int, classes: int, nms_threshold: float, opset: int = OPSET) -> onnx.ModelProto:
    """A body's two tensors to the contract's three: top candidates, per-class NMS, top scores, padding.

    A candidate enters under every class, not only its best: on COCO that is worth 0.4 AP and costs
    nothing here. Surviving scores are scattered back to their (class, candidate) place, which makes
    the ragged output of NonMaxSuppression rectangular and each picture independent of its batch.

    Args:
        candidates: N of the body.
        classes: C of the body.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped.
    """
    entering = min(CANDIDATES, candidates)
    kept = min(KEPT, entering * classes)
    return parse(
        f"""
        postprocess (float[B, {candidates}, 4] raw_boxes, float[B, {candidates}, {classes}] class_scores)
            => (float[B, {kept}, 4] boxes, float[B, {kept}] scores, int64[B, {kept}] classes)
        {{
            last = Constant <value_ints = [-1]> ()
            no_score = Constant <value_float = 0.0> ()
            no_class = Constant <value_int = 0> ()

            best_scores = ReduceMax <keepdims = 0> (class_scores, last)
            entering = Constant <value_ints = [{entering}]> ()
            _, top_index = TopK (best_scores, entering)
            top_rows = Unsqueeze (top_index, last)
            top_boxes = GatherND <batch_dims = 1> (raw_boxes, top_rows)
            top_class_scores = GatherND <batch_dims = 1> (class_scores, top_rows)
            scores_by_class = Transpose <perm = [0, 2, 1]> (top_class_scores)

            threshold = Constant <value_float = {nms_threshold:.9f}> ()
            floor = Constant <value_float = {SCORE_FLOOR:.9f}> ()
            per_class = Constant <value_int = {entering}> ()
            selected = NonMaxSuppression (top_boxes, scores_by_class, per_class, threshold, floor)
            survivor_scores = GatherND (scores_by_class, selected)
            nothing = Mul (scores_by_class, no_score)
            surviving_scores = ScatterND (nothing, selected, survivor_scores)

            flat = Constant <value_ints = [0, -1]> ()
            flat_scores = Reshape (surviving_scores, flat)
            kept = Constant <value_ints = [{kept}]> ()
            scores, order = TopK (flat_scores, kept)
            entering_scalar = Constant <value_int = {entering}> ()
            ordered_classes = Div (order, entering_scalar)
            ordered_row = Mod (order, entering_scalar)
            rows = Unsqueeze (ordered_row, last)
            ordered_boxes = GatherND <batch_dims = 1> (top_boxes, rows)
            is_real = Greater (scores, no_score)
            is_real_row = Unsqueeze (is_real, last)
            boxes = Where (is_real_row, ordered_boxes, no_score)
            classes = Where (is_real, ordered_classes, no_class)
        }}
        """,
        opset,
    )


def with_nms(body: onnx.ModelProto, nms_threshold: float) -> onnx.ModelProto:
    """The contract graph of a body (without its metadata)."""
    _, candidates, classes = static_shape(body.graph.output[1])
    opset = opset_of(body)
    tail = compose.add_prefix(postprocess(candidates, classes, nms_threshold, opset), "nms/")
    for output in tail.graph.output:
        _rename(tail.graph, output.name, output.name.removeprefix("nms/"))
    head = compose.add_prefix(body, "detector/")
    _rename(head.graph, "detector/images", "images")
    return join(head, tail, {"detector/boxes": "nms/raw_boxes", "detector/class_scores": "nms/class_scores"})


def join(first: onnx.ModelProto, second: onnx.ModelProto, wires: dict[str, str]) -> onnx.ModelProto:
    """One model of two: outputs of ``first`` feed the inputs of ``second`` that ``wires`` names."""
    merged = compose.merge_models(first, second, io_map=list(wires.items()))
    merged.producer_name = "lookout"
    return merged


def prefixed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """A copy with every name prefixed, so that it can be joined with anything."""
    copy: onnx.ModelProto = compose.add_prefix(model, prefix)
    return copy


def with_constants(model: onnx.ModelProto, constants: dict[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """The model, its inputs of these names replaced by constant tensors."""
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def modernised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose opset is at least ``OPSET``, so that the subgraphs here can be joined to it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset_of(copy) < OPSET:
        copy = version_converter.convert_version(copy, OPSET)
    copy.ir_version = IR_VERSION
    return copy


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The shape of a tensor; -1 where a dimension is symbolic."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)


def with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a batch-of-one model that takes any batch, where its graph allows.

    Exporters bake the batch into the constants of Reshape: a leading 1 there becomes 0, ONNX's
    "keep this dimension". Whether the result is right for a batch must be *measured* by the caller.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in [*copy.graph.input, *copy.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    targets = {node.input[1] for node in copy.graph.node if node.op_type == "Reshape"}
    for tensor in copy.graph.initializer:
        if tensor.name in targets:
            _keep_batch(tensor)
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.output[0] in targets:
            _keep_batch(helper.get_node_attr_value(node, "value"))
    return copy


def _keep_batch(shape: onnx.TensorProto) -> None:
    wanted = numpy_helper.to_array(shape).copy()
    if len(wanted) > 1 and wanted[0] == 1:
        wanted[0] = 0
        shape.CopyFrom(numpy_helper.from_array(wanted, shape.name))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for value in [*graph.input, *graph.output]:
        if value.name == old:
            value.name = new
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def parse(graph: str, opset: int) -> onnx.ModelProto:
    header = f'<ir_version: {IR_VERSION}, opset_import: ["": {opset}]>'
    model: onnx.ModelProto = parser.parse_model(header + re.sub(r"\s+", " ", graph))
    return model
