"""int8 of a network: 8-bit weights and activations, by onnxruntime's quantizer, calibrated on pictures.

QuantizeLinear and DequantizeLinear around each operator (ONNX's QDQ form), as every runtime fuses it:
signed weights with a scale for each output channel, unsigned activations with one scale a tensor (Krishnamoorthi,
arXiv 1806.08342). A tensor's range is what its least and greatest values are over the pictures, each as mean
and one standard deviation: their extremes let one odd picture coarsen all others (YOLOX-nano loses 0.002
to 0.005 AP by it), their means cut too much (sure scores of a
``lookout-yolox`` on EfficientNet-Lite0 change by 0.08 instead of 0.04).

Left in float32: all that is not the network proper (``export.network``); the last layer on every way, which
says boxes or scores; whatever takes or makes a tensor that one 8-bit scale does not fit, by measurement
(``MOST_ERROR``); and as many more of the first and last layers as the caller asks for. Made for CPUs that
multiply bytes without saturating (VNNI, AMX, Arm's dot product): older x86 may add other errors than those
measured where it was made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

from export.graph import sorted_nodes
from export.network import Network, activations, channel_error, float_tensors, network_of
from export.reference import Pixels

MOST_ERROR = 0.25
"""A tensor that 8 bits change by more (``channel_error``) stays float32.

Measured: 0.42 to 0.50 for what the first convolution of YOLOX-nano makes, whose loudest channel reaches 118
and most others 5; all others of it, and all of a ``lookout-yolox``'s, are at 0.16 or below. With that one in 8 bits
YOLOX-nano falls from 0.329 AP to 0.13-0.23.
"""

ERROR_PICTURES = 8
"""Enough to tell a tensor that does not fit."""

_OPERATORS = [
    "Conv",
    "ConvTranspose",
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Sigmoid",
    "Relu",
    "Clip",
    "LeakyRelu",
    "Concat",
    "Split",
    "Slice",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Resize",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
]
"""Those for which onnxruntime has 8-bit kernels."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What pictures showed of a network's tensors."""

    model: onnx.ModelProto  # prepared, see export.network
    network: Network
    ranges: dict[str, tuple[float, float]]
    errors: dict[str, float]
    """``channel_error`` of each tensor in 8 bits."""


def calibrate(model: onnx.ModelProto, images: Sequence[Pixels], shown: Iterable[Pixels]) -> Calibration:
    """Run a prepared model over pictures.

    Args:
        model: as ``export.network.prepared`` gives it.
        images: uint8 (H, W, 3), letterboxed.
        shown: the same, as an iterator that shows progress.
    """
    network = network_of(model.graph)
    names = float_tensors(model.graph, network.nodes)
    extremes = [
        [(float(values[name].min()), float(values[name].max())) for name in names]
        for values in activations(model, names, shown)
    ]
    low, high = np.moveaxis(np.array(extremes), 2, 0)  # each (pictures, tensors)
    low, high = low.mean(axis=0) - low.std(axis=0), high.mean(axis=0) + high.std(axis=0)
    ranges = {name: (float(low[at]), float(high[at])) for at, name in enumerate(names)}
    step = -(-len(images) // ERROR_PICTURES)
    errors = [
        [channel_error(values[name], in_8_bits(values[name], *ranges[name])) for name in names]
        for values in activations(model, names, images[::step])
    ]
    means = np.mean(errors, axis=0).tolist()
    return Calibration(model, network, ranges, dict(zip(names, means, strict=True)))


def in_8_bits(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.float32]:
    """Values rounded to the 256 steps between low and high (0 among them), and cut there."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    steps = np.clip(np.rint(values.astype(np.float32) / np.float32(scale)) + zero, 0, 255)
    rounded: npt.NDArray[np.float32] = ((steps - zero) * scale).astype(np.float32)
    return rounded


def quantized(calibration: Calibration, nodes: list[str]) -> onnx.ModelProto:
    """The model with these nodes in 8 bits."""
    pixels = _pixels(calibration.model.graph, calibration.network)
    ranges = dict(calibration.ranges)
    if pixels is not None:  # bytes keep the scale they come with
        ranges[pixels.name] = ((0 - pixels.zero) * pixels.scale, (255 - pixels.zero) * pixels.scale)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(calibration.model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=_OPERATORS,
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False, "MatMulConstBOnly": True},
    )
    with _quiet():
        quantizer.quantize_model()
    model: onnx.ModelProto = quantizer.model.model
    if pixels is not None:
        _take_bytes(model.graph, pixels)
    _tidy(model.graph)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's notes on single channels, which it gives to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def quantizable(calibration: Calibration, first: int, last: int) -> list[str]:
    """The nodes that go to 8 bits, by name.

    Args:
        calibration: of the model.
        first: so many of the first layers stay float32, with what lies between them.
        last: and so many layers on every way to the end, with what follows them.
    """
    network = calibration.network
    ends, layers = network.to_end, set(network.layers)
    kept = {name for name in network.nodes if ends[name] < last or (ends[name] == last and name in layers)}
    bad = {name for name, error in calibration.errors.items() if error > MOST_ERROR}
    start = network.nodes.index(network.layers[first]) if first else 0
    kept |= set(network.nodes[:start])
    kept |= {node.name for node in calibration.model.graph.node if bad & {*node.input, *node.output}}
    return [name for name in network.nodes if name not in kept]


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A tensor that is ``(bytes - zero) * scale``: pixels, cast and normalised alike on all channels."""

    name: str
    source: str
    zero: int
    scale: float


def _pixels(graph: onnx.GraphProto, network: Network) -> _Bytes | None:
    """What enters the network, if it is bytes that all had the same done to them."""
    if len(network.inputs) != 1:
        return None
    (name,) = network.inputs
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    factor, offset, source = 1.0, 0.0, name  # name = source * factor + offset
    while (node := makers.get(source)) is not None and node.op_type in ("Sub", "Add", "Mul", "Div"):
        values = constants.get(node.input[1])
        if values is None or values.dtype != np.float32 or np.ptp(values) != 0:
            return None
        value = float(values.flat[0])
        if node.op_type in ("Mul", "Div"):
            factor *= value if node.op_type == "Mul" else 1 / value
        else:
            offset += factor * (value if node.op_type == "Add" else -value)
        source = node.input[0]
    if node is None or node.op_type != "Cast" or factor <= 0:
        return None
    zero = -offset / factor
    if node.input[0] not in _byte_tensors(graph) or abs(zero - round(zero)) > 1e-4 or not 0 <= zero <= 255:
        return None
    return _Bytes(name, node.input[0], round(zero), factor)


def _byte_tensors(graph: onnx.GraphProto) -> set[str]:
    known = [*graph.value_info, *graph.input]
    return {value.name for value in known if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}


def _take_bytes(graph: onnx.GraphProto, pixels: _Bytes) -> None:
    """Read 8-bit pixels where they come from, instead of making them float32 and back: the same numbers."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] != pixels.name:
            continue
        zero = int(numpy_helper.to_array(constants[node.input[2]]))
        if zero != pixels.zero:
            return
        constants[node.input[1]].CopyFrom(
            numpy_helper.from_array(np.array(pixels.scale, np.float32), node.input[1])
        )
        node.CopyFrom(helper.make_node("Identity", [pixels.source], list(node.output), name=node.name))


def _tidy(graph: onnx.GraphProto) -> None:
    """Each node behind those that it needs, where the quantizer put some at the end; none that nothing needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(sorted_nodes(graph)):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
