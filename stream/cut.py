"""A contract graph cut in two: the network, for a GPU, and suppression, for the CPU.

onnxruntime's NonMaxSuppression on CUDA runs class by class and picture by picture, each with a wait for the
device: 80 classes and 8 pictures took 44 ms there. What it works on is small, the best few hundred boxes of a
picture, and its result is ragged; without it every shape in the network is known beforehand, so that a run of it
can be captured as one CUDA graph. Knows nothing of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper, shape_inference

_SUPPRESSION = "NonMaxSuppression"


def cut(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The network, from ``images`` to what suppression works on, and the rest, from there to the outputs.

    Returns:
        None where there is no suppression to be cut off, or the shape of what would pass between the two
        is not known but for its batch.
    """
    graph = shape_inference.infer_shapes(model).graph
    rest = _rest_of(graph)
    if not rest:
        return None
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    weights = {tensor.name for tensor in graph.initializer}
    crossing = _crossing(graph, rest, {*constants, *weights})
    values = {value.name: value for value in graph.value_info}
    passed = [values[name] for name in crossing if name in values]
    if len(passed) < len(crossing) or not all(_is_known(value) for value in passed):
        return None
    network = [node for index, node in enumerate(graph.node) if index not in rest]
    suppression = [node for index, node in enumerate(graph.node) if index in rest]
    used = {name for node in suppression for name in node.input}
    suppression = [node for name, node in constants.items() if name in used] + suppression
    return (
        _model(model, "network", network, graph.input, passed),
        _model(model, "suppression", suppression, passed, graph.output),
    )


def _rest_of(graph: onnx.GraphProto) -> set[int]:
    """The indices of what comes after suppression, itself included, and of what only serves these."""
    tainted: set[str] = set()
    rest: set[int] = set()
    for index, node in enumerate(graph.node):  # in order: what is used was made before
        if node.op_type == _SUPPRESSION or tainted & set(node.input):
            rest.add(index)
            tainted |= set(node.output)
    fixed = {tensor.name for tensor in graph.initializer}
    fixed |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    outputs = {value.name for value in graph.output}
    for index, node in reversed([*enumerate(graph.node)]):
        if index in rest or node.op_type == "Constant":
            continue
        users = [user for user, other in enumerate(graph.node) if set(node.output) & set(other.input)]
        given = {name for used in rest for name in graph.node[used].input} | fixed | {""}
        serves = bool(users) and rest.issuperset(users) and not outputs & set(node.output)
        if serves and given.issuperset(node.input):  # nothing more has to pass between the two for it
            rest.add(index)
    return rest


def _crossing(graph: onnx.GraphProto, rest: set[int], fixed: set[str]) -> list[str]:
    """The names of what the rest needs and the network makes, in order."""
    made = {name for index in rest for name in graph.node[index].output}
    needed = [name for index in sorted(rest) for name in graph.node[index].input]
    return [name for name in dict.fromkeys(needed) if name and name not in made | fixed]


def _is_known(value: onnx.ValueInfoProto) -> bool:
    """Whether its type and every side but the first are known."""
    tensor = value.type.tensor_type
    return tensor.elem_type != 0 and all(side.dim_value > 0 for side in [*tensor.shape.dim][1:])


def _model(
    whole: onnx.ModelProto,
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    used = {each for node in nodes for each in node.input}
    weights = [tensor for tensor in whole.graph.initializer if tensor.name in used]
    graph = helper.make_graph(nodes, name, [*inputs], [*outputs], weights)
    return helper.make_model(
        graph,
        ir_version=whole.ir_version,
        opset_imports=[*whole.opset_import],
        functions=[*whole.functions],
    )
