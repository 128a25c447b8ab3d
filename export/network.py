"""The network proper of a contract graph: its layers with weights and what lies between them.

A node belongs to it if a layer with weights comes at or before it and another at or after it. What
prepares the pixels has no such layer before it, and box decoding and suppression have none after them,
so both stay outside in every graph, whatever its nodes are called. Knows nothing of precisions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from export.artifact import Precision
from export.cpu import cpu_session
from export.graph import static_shape
from export.reference import Pixels

WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Network:
    """Nodes by name, in topological order, and the tensors that enter and leave (weights aside)."""

    nodes: tuple[str, ...]
    layers: tuple[str, ...]
    """Those with weights."""
    to_end: Mapping[str, int]
    """Of each node: how many layers lie from it, itself included, to the end on the longest way."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with constants folded, batch norms in their convolutions, shapes inferred, names unique.

    By onnxruntime's basic optimizations, which stay within ONNX's operators. Names of tensors stay.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="lookout-") as folder:
        path = Path(folder, "prepared.onnx")
        options.optimized_model_filepath = str(path)
        given = with_single_opsets(model).SerializeToString()
        onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        copy = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    used = {node.domain for part in graphs(copy.graph) for node in part.node} | {""}
    imports = [entry for entry in copy.opset_import if entry.domain in used]
    del copy.opset_import[:]
    copy.opset_import.extend(imports)
    taken: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}#{index}"
        taken.add(node.name)
    return copy


def with_single_opsets(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that imports each domain once; joining graphs leaves several entries."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    versions = {
        "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in copy.opset_import
    }
    del copy.opset_import[:]
    copy.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())
    return copy


def network_of(graph: onnx.GraphProto) -> Network:
    """The network of a graph whose nodes have unique names; without nodes where no layer has weights."""
    constants = {tensor.name for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    layers = {node.name for node in graph.node if _has_weights(node, constants)}
    after_one: set[str] = set()
    for node in graph.node:
        sources = {makers[name].name for name in node.input if name in makers}
        if node.name in layers or sources & after_one:
            after_one.add(node.name)
    to_end: dict[str, int] = {}
    for node in reversed(graph.node):
        beyond = [to_end[user.name] for name in node.output for user in users.get(name, [])]
        to_end[node.name] = max(beyond, default=0) + (node.name in layers)
    inside = [node for node in graph.node if node.name in after_one and to_end[node.name]]
    names = {node.name for node in inside}
    made = {name for node in inside for name in node.output}
    entering = {name: None for node in inside for name in node.input if name and name not in made | constants}
    ends = {value.name for value in graph.output}
    leaving = [
        name
        for node in inside
        for name in node.output
        if name in ends or any(user.name not in names for user in users.get(name, []))
    ]
    return Network(
        nodes=tuple(node.name for node in inside),
        layers=tuple(node.name for node in inside if node.name in layers),
        to_end={node.name: to_end[node.name] for node in inside},
        inputs=tuple(entering),
        outputs=tuple(leaving),
    )


def precision_of(model: onnx.ModelProto) -> Precision:
    """That of most layers' weights, whoever made the file."""
    kinds = [kind for part in graphs(model.graph) for kind in _weight_kinds(part)]
    kind = max(set(kinds), key=kinds.count) if kinds else TensorProto.FLOAT
    if kind in (TensorProto.INT8, TensorProto.UINT8):
        return "int8"
    return "fp16" if kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16) else "fp32"


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that lie in attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def float_tensors(graph: onnx.GraphProto, nodes: Iterable[str]) -> list[str]:
    """Float tensors that these nodes take and make, weights aside, in topological order."""
    wanted = set(nodes)
    constants = {tensor.name for tensor in graph.initializer}
    known = [*graph.value_info, *graph.input, *graph.output]
    floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    found = {
        name: None
        for node in graph.node
        if node.name in wanted
        for name in [*node.input, *node.output]
        if name in floats and name not in constants
    }
    return list(found)


def activations(
    model: onnx.ModelProto, names: Sequence[str], images: Iterable[Pixels]
) -> Iterator[dict[str, Array]]:
    """Tensors inside a graph, by name, for one picture after the other.

    Args:
        model: takes uint8 (B, H, W, 3) or, the body of a loop, (H, W, 3).
        names: of the tensors.
        images: uint8 (H, W, 3), letterboxed.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    ends = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in ends)
    session = cpu_session(shown, as_written=True)
    (picture,) = shown.graph.input
    batched = len(static_shape(picture)) == 4
    for image in images:
        values = session.run(list(names), {picture.name: image[None] if batched else image})
        yield dict(zip(names, values, strict=True))


def channel_error(expected: Array, got: Array) -> float:
    """How far a tensor is off, 0 to 1: root of the mean over its channels of squared error over energy.

    Each channel counts alike, however faint, and for no more than 1: what an 8-bit scale made for one
    loud channel does to all others is seen. Channels are axis 1 of four, and the last of others.
    """
    exact, other = (value.astype(np.float64) for value in (expected, got))
    axis = 1 if exact.ndim == 4 else exact.ndim - 1
    others = tuple(index for index in range(exact.ndim) if index != axis)
    energy = np.square(exact).sum(axis=others)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.square(other - exact).sum(axis=others)
    error[~np.isfinite(error)] = np.inf  # half precision ends at 65504
    if not energy.any():
        return float(error.any())
    audible = energy > 0
    return float(np.sqrt(np.minimum(1.0, error[audible] / energy[audible]).mean()))


def _has_weights(node: onnx.NodeProto, constants: set[str]) -> bool:
    return node.op_type in WEIGHTED and any(name in constants for name in node.input[:2])


def _weight_kinds(graph: onnx.GraphProto) -> Iterator[int]:
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    made_of = {
        node.output[0]: node for node in graph.node if node.op_type in ("DequantizeLinear", "Identity")
    }
    for node in graph.node:
        if node.op_type == "QLinearConv" or node.op_type == "QLinearMatMul":
            yield int(TensorProto.INT8)
        if node.op_type in WEIGHTED:
            for name in node.input[:2]:
                source = made_of[name].input[0] if name in made_of else name
                if source in kinds:
                    yield kinds[source]
