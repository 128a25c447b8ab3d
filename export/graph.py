"""ONNX graphs as building blocks: written in ONNX's own text form, prefixed, joined end to end.

Knows nothing of detectors, torch or files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import compose, numpy_helper, parser, version_converter

OPSET = 18
IR_VERSION = 10


def join(first: onnx.ModelProto, second: onnx.ModelProto, wires: dict[str, str]) -> onnx.ModelProto:
    """One model of two: outputs of ``first`` feed the inputs of ``second`` that ``wires`` names; the rest end."""
    outputs = [value.name for value in second.graph.output]
    merged = compose.merge_models(first, second, io_map=list(wires.items()), outputs=outputs)
    merged.producer_name = "lookout"
    return merged


def prefixed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """A copy with every name prefixed, so that it can be joined with anything."""
    copy: onnx.ModelProto = compose.add_prefix(model, prefix)
    return copy


def with_constants(
    model: onnx.ModelProto, constants: Mapping[str, npt.NDArray[np.generic]]
) -> onnx.ModelProto:
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


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor of a graph another name, wherever it is used."""
    for value in [*graph.input, *graph.output]:
        if value.name == old:
            value.name = new
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def sorted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, each after those whose outputs it takes, otherwise in their order.

    Nodes with subgraphs must not lean on tensors of ``graph`` in them, as none here do.
    """
    makers = {output: index for index, node in enumerate(graph.node) for output in node.output if output}
    done: dict[int, onnx.NodeProto] = {}
    for start in range(len(graph.node)):
        waiting = [start]
        while waiting:
            index = waiting[-1]
            sources = [makers[name] for name in graph.node[index].input if name in makers]
            missing = [source for source in sources if source not in done]
            if index in done or not missing:
                done.setdefault(index, graph.node[index])
                waiting.pop()
            else:
                waiting += reversed(missing)
    return list(done.values())


def parse(graph: str, opset: int) -> onnx.ModelProto:
    """A model of one graph in ONNX's text form."""
    header = f'<ir_version: {IR_VERSION}, opset_import: ["": {opset}]>'
    model: onnx.ModelProto = parser.parse_model(header + re.sub(r"\s+", " ", graph))
    return model
