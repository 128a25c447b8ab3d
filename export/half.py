"""float16 of a network, by the converter that comes with onnxruntime.

The network proper (``export.network``) is cut out, converted, and put back between two casts, so that pixels
and boxes on either side are never rounded: half precision counts pixels beyond 512 by halves. Operators
within it that lose by it stay float32 (``_FLOAT32``).
"""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from export.graph import sorted_nodes
from export.network import Network, network_of

_FLOAT32 = (
    "Softmax",
    "Exp",
    "Log",
    "Pow",
    "ReduceSum",
    "ReduceMean",
    "LayerNormalization",
    "GridSample",
    "Resize",
)
"""Besides the converter's own: sums of many terms, and what runs over half precision's range of 65504."""


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its network in float16.

    Args:
        model: as ``export.network.prepared`` gives it.
    """
    network = network_of(model.graph)
    converted = convert_float_to_float16(
        _cut_out(model, network),
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT32],
    )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inside = set(network.nodes)
    outside = [node for node in copy.graph.node if node.name not in inside]
    needed = {name for node in outside for name in node.input}
    weights = [tensor for tensor in copy.graph.initializer if tensor.name in needed]
    nodes = [*outside, *converted.graph.node]
    del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend([*weights, *converted.graph.initializer])
    ordered = sorted_nodes(copy.graph)
    del copy.graph.node[:]
    copy.graph.node.extend(ordered)
    return copy


def _cut_out(model: onnx.ModelProto, network: Network) -> onnx.ModelProto:
    """The network alone, as a model; its weights under names of their own."""
    inside = set(network.nodes)
    known = {
        value.name: value for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]
    }
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    nodes = [node for node in model.graph.node if node.name in inside]
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes:
        mine = graph.node.add()
        mine.CopyFrom(node)
        mine.input[:] = [f"half/{name}" if name in weights else name for name in node.input]
    for name in dict.fromkeys(name for node in nodes for name in node.input if name in weights):
        tensor = graph.initializer.add()
        tensor.CopyFrom(weights[name])
        tensor.name = f"half/{name}"
    graph.input.extend(known[name] for name in network.inputs)
    graph.output.extend(known[name] for name in network.outputs)
    made = {name for node in nodes for name in node.output} - set(network.outputs)
    graph.value_info.extend(value for name, value in known.items() if name in made)
    return part
