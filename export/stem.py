"""A first convolution of stride 2 on three channels, as one of stride 1 on the twelve of 2x2 blocks: the same sums.

Three channels are too few for 8-bit kernels, which gather them byte by byte: at 416x320 the stem of
EfficientNet-Lite0 took 1.0 ms, in this form 0.5, and a whole int8 detector 9.7 instead of 10.6. Pixels are moved while
they are bytes. In float32 nothing is gained by it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.graph import static_shape

_PADS = [[1, 1, 1, 1], [0, 0, 1, 1]]
_ELEMENTWISE = {"Cast", "Sub", "Add", "Mul", "Div"}


def with_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its stem on 2x2 blocks, or as it is where it has no such stem.

    Args:
        model: prepared, see ``export.network``; changed.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type == "Conv" and _is_stem(node, constants):
            chain = _chain_from_bytes(graph, node.input[0], constants, users)
            if chain:
                _rewrite(graph, node, chain, constants)
                del graph.value_info[:]
                return onnx.shape_inference.infer_shapes(model, data_prop=True)
    return model


def block_kernel(kernel: npt.NDArray[np.float32], before: int) -> npt.NDArray[np.float32]:
    """A kernel (O, C, 3, 3) of stride 2 as one (O, 4 C, 2, 2) of stride 1.

    Channels are as ONNX's SpaceToDepth has them: row in the block, column in the block, channel. Two blocks
    hold four rows, of which the first or the last gets weight 0.

    Args:
        kernel: of the original.
        before: its padding at the top and at the left, 0 or 1; at the other ends it is 1.
    """
    outputs, channels = kernel.shape[:2]
    wide = np.zeros((outputs, channels, 4, 4), np.float32)
    wide[:, :, before : before + 3, before : before + 3] = kernel
    # (output, channel, block row, row in it, block column, column in it)
    blocks = wide.reshape(outputs, channels, 2, 2, 2, 2)
    return np.ascontiguousarray(blocks.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, 4 * channels, 2, 2))


def _is_stem(conv: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    said = {attribute.name: helper.get_attribute_value(attribute) for attribute in conv.attribute}
    kernel = constants.get(conv.input[1])
    return (
        kernel is not None
        and list(kernel.dims[1:]) == [3, 3, 3]
        and said.get("group", 1) == 1
        and list(said.get("strides", [])) == [2, 2]
        and list(said.get("pads", [])) in _PADS
        and list(said.get("dilations", [1, 1])) == [1, 1]
    )


def _chain_from_bytes(
    graph: onnx.GraphProto,
    name: str,
    constants: dict[str, onnx.TensorProto],
    users: dict[str, list[onnx.NodeProto]],
) -> list[onnx.NodeProto]:
    """The nodes from bytes (B, 3, H, W), H and W even, to that tensor; none where others lie between."""
    makers = {output: node for node in graph.node for output in node.output}
    known = {value.name: value for value in [*graph.value_info, *graph.input]}
    chain: list[onnx.NodeProto] = []
    while (node := makers.get(name)) is not None and node.op_type in _ELEMENTWISE and len(users[name]) == 1:
        scalars = all(item in constants and np.prod(constants[item].dims) == 1 for item in node.input[1:])
        if not scalars:
            return []
        chain.insert(0, node)
        name = node.input[0]
    value = known.get(name)
    if value is None or not chain or value.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return []
    shape = static_shape(value)
    even = len(shape) == 4 and shape[1] == 3 and min(shape[2:]) > 0 and not shape[2] % 2 and not shape[3] % 2
    return chain if even and len(users[name]) == 1 else []


def _rewrite(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    chain: list[onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
) -> None:
    blocks, kernel = f"{conv.name}/blocks", f"{conv.name}/block_kernel"
    before = next(attribute.ints[0] for attribute in conv.attribute if attribute.name == "pads")
    weights = block_kernel(numpy_helper.to_array(constants[conv.input[1]]), before)
    graph.initializer.append(numpy_helper.from_array(weights, kernel))
    fold = helper.make_node("SpaceToDepth", [chain[0].input[0]], [blocks], name=blocks, blocksize=2)
    chain[0].input[0] = blocks
    conv.input[1] = kernel
    del conv.attribute[:]
    pads = [before, before, 1 - before, 1 - before]
    shape = {"kernel_shape": [2, 2], "strides": [1, 1], "pads": pads}
    conv.attribute.extend(helper.make_attribute(key, value) for key, value in shape.items())
    at = next(index for index, node in enumerate(graph.node) if node.name == chain[0].name)
    graph.node.insert(at, fold)
