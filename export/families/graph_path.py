"""What lies on the way to an output: the operators that it passes, and how wide its scores once were.

Detectors that end in a list of their best detections no longer show their number of classes; the
graph before that end does. Knows nothing of families.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from export.cpu import cpu_session
from export.pixels import Array
from export.signature import Signature, side_values

MOST_COLUMNS = 4096
"""More than any detector has classes: such a tensor is not one row a box any more."""

_LEARNT = {
    *("MatMul", "Gemm", "Conv", "LayerNormalization", "SkipLayerNormalization", "Softmax"),
    *(
        "FusedMatMul",
        "FusedGemm",
        "MatMulInteger",
        "QLinearMatMul",
        "DynamicQuantizeLinear",
        "DequantizeLinear",
    ),
}
"""Where a head begins: what is before says nothing of its end."""

_ALL_INPUTS = {"Concat", "Mul", "Add", "Sub", "Max", "Min", "SequenceConstruct", "SequenceInsert"}
_FIRST_INPUT = {
    *(
        "Gather",
        "GatherND",
        "GatherElements",
        "Slice",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Split",
    ),
    *("Cast", "Identity", "Flatten", "Sqrt", "Pow", "Clip", "Pad", "Expand", "Tile", "ReduceMax", "Compress"),
    *("SequenceAt", "SplitToSequence", "ConcatFromSequence"),
}


def end_of_head(model: onnx.ModelProto, output: str) -> tuple[frozenset[str], int]:
    """The operators between an output and the last learnt layers before it, and the largest constant there.

    Returns:
        Names of operators, and how many numbers the largest floating-point constant has, 0 without one.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    operators, largest = set(), 0
    waiting, seen = [output], {output}
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        tensor = constants.get(name) if node is None else _constant(node)
        if tensor is not None and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            largest = max(largest, int(np.prod(tensor.dims)))
        if node is None or node.op_type in _LEARNT:
            continue
        operators.add(node.op_type)
        fresh = [source for source in node.input if source and source not in seen]
        seen.update(fresh)
        waiting += fresh
    return frozenset(operators), largest


def class_columns(signature: Signature, scores: str) -> int:
    """How many classes a row had before the best were picked, the background included where it had a column.

    Walks back from the scores to their softmax or sigmoid and measures how wide that is.

    Args:
        signature: of a model that ends in finished detections.
        scores: name of its output of one score a detection.

    Returns:
        0 where the graph does not show it.
    """
    activated = _activations(signature.model.graph, scores)
    inner = {name for node in signature.model.graph.node for name in node.output}
    wanted = sorted(activated & inner)
    if not wanted:
        return 0
    values = values_inside(signature, wanted).values()
    widths = {value.shape[-1] for value in values if value.ndim >= 2} - {1}  # 1 is an objectness
    return widths.pop() if len(widths) == 1 and max(widths) <= MOST_COLUMNS else 0


def values_inside(signature: Signature, names: Iterable[str]) -> dict[str, Array]:
    """Tensors inside of a model, or its outputs, by name, on noise."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    model = onnx.ModelProto()
    model.CopyFrom(signature.model)
    have = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in have)
    feeds = {signature.picture.name: signature.noise()}
    feeds |= side_values(signature.others, signature.height, signature.width)
    return dict(zip(wanted, cpu_session(model).run(wanted, feeds), strict=True))


def _activations(graph: onnx.GraphProto, output: str) -> set[str]:
    """Outputs of the softmax or sigmoid operators that an output's values come from, at any depth."""
    makers: dict[str, onnx.NodeProto] = {}
    aliases: dict[str, list[str]] = defaultdict(list)
    _index(graph, makers, aliases)
    found: set[str] = set()
    waiting, seen = [output], {output}
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is not None and node.op_type in ("Softmax", "Sigmoid"):
            found.add(node.output[0])
            continue
        fresh = [source for source in (*aliases[name], *_sources(node, name)) if source not in seen]
        seen.update(fresh)
        waiting += fresh
    return found


def _sources(node: onnx.NodeProto | None, name: str) -> list[str]:
    """The inputs whose values, not positions or conditions, an operator hands on."""
    if node is None:
        return []
    inputs = list(node.input)
    if node.op_type == "TopK":
        return inputs[:1] if name == node.output[0] else []
    if node.op_type in _FIRST_INPUT:
        return inputs[:1]
    if node.op_type in _ALL_INPUTS:
        return inputs
    if node.op_type == "Where":
        return inputs[1:]
    return [inputs[0], inputs[2]] if node.op_type.startswith("Scatter") else []


def _index(graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto], aliases: dict[str, list[str]]) -> None:
    """Who makes what, in a graph and those within; and names for one value on both sides of their borders."""
    for node in graph.node:
        makers.update(dict.fromkeys(node.output, node))
        for attribute in node.attribute:
            if attribute.type != onnx.AttributeProto.GRAPH:
                continue
            inner = attribute.g
            _index(inner, makers, aliases)
            # A loop's body is also given its turn, and gives back whether to go on and every turn's rows.
            given, got = list(inner.input), list(inner.output)
            if node.op_type == "Loop":
                given, got = given[2:], got[1:]
            for value, outer in zip(given, node.input[2 if node.op_type == "Loop" else 0 :], strict=False):
                aliases[value.name].append(outer)
            for outer, value in zip(node.output, got, strict=False):
                aliases[outer].append(value.name)
            if node.op_type == "Loop":
                for value, again in zip(given, got, strict=False):
                    aliases[value.name].append(again.name)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant":
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            value: onnx.TensorProto = attribute.t
            return value
        if attribute.name in ("value_float", "value_floats"):
            return numpy_helper.from_array(np.array(attribute.floats or [attribute.f], np.float32))
    return None
