"""YOLOX's raw grid output (Ge et al., arXiv 2107.08430).

Signature: one input float32 (B, 3, H, W) and one output float32 (B, N, 5 + C) where N is one row a
cell of the grids of strides 8, 16 and 32, and where the graph builds each grid's columns as

    4 box columns straight from a convolution | sigmoid(objectness) | sigmoid(C class columns)

The last condition tells it from families of the same shape whose boxes are already decoded, such
as YOLOX exported with ``--decode_in_inference``, or YOLOv6. Pixels are BGR 0-255, as in YOLOX
0.1.1 and later; nothing in a file tells the older ImageNet-normalised ones, so it is said aloud.

Knows nothing of NMS or of lookout's own models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from export.graph import parse, with_constants
from export.pixels import PixelRule
from export.reading import Candidates, Reading
from export.signature import Signature

STRIDES = (8, 16, 32)
SAID = "YOLOX raw grid output, of YOLOX 0.1.1 or later"
NEEDED = (
    "YOLOX raw grid output (one input float32 (1, 3, H, W) of fixed H and W, multiples of 32; one output "
    "float32 (1, N, 5 + classes), boxes not decoded, objectness and classes after their sigmoid)"
)

Floats = npt.NDArray[np.float32]

_LAYOUT_ONLY = {"Concat", "Transpose", "Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze"}


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a YOLOX with a raw grid output."""
    height, width = signature.height, signature.width
    if len(signature.outputs) != 1 or signature.layout != "nchw" or height % 32 or width % 32:
        return []
    (output,) = signature.outputs
    corners, _ = grid(height, width)
    if len(output.shape) != 3 or output.shape[1] != len(corners) or output.shape[2] < 6:
        return []
    classes = output.shape[2] - 5
    if _head_columns(signature.model) != _expected_columns(classes):
        return []
    return [
        Reading(
            family="yolox",
            said=SAID,
            classes=classes,
            pixels=PixelRule(color="bgr"),
            wires={output.name: "rows"},
            decoder=lambda opset: _decoder(height, width, classes, opset),
            decode=lambda outputs: decode(outputs[output.name][0].astype(np.float32), height, width),
            nms=True,
        )
    ]


def grid(input_height: int, input_width: int) -> tuple[Floats, Floats]:
    """Cell corners float32 (N, 2) x, y in cells, and strides float32 (N, 1) in pixels, row by row."""
    corners, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: input_height // stride, : input_width // stride]
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def decode(rows: Floats, input_height: int, input_width: int) -> Candidates:
    """The reference for the graph's decoder, in NumPy, one picture and one cell row at a time.

    Args:
        rows: float32 (N, 5 + C), the model's own output for one picture.
    """
    boxes = np.empty((len(rows), 4), np.float64)
    index = 0
    for stride in STRIDES:
        for cell_y in range(input_height // stride):
            for cell_x in range(input_width // stride):
                x, y, log_width, log_height = rows[index, :4].astype(np.float64)
                half_width, half_height = np.exp(log_width) * stride / 2, np.exp(log_height) * stride / 2
                centre_x, centre_y = (x + cell_x) * stride, (y + cell_y) * stride
                boxes[index] = (
                    centre_x - half_width,
                    centre_y - half_height,
                    centre_x + half_width,
                    centre_y + half_height,
                )
                index += 1
    return Candidates(boxes.astype(np.float32), rows[:, 4:5] * rows[:, 5:])


def _decoder(input_height: int, input_width: int, classes: int, opset: int) -> onnx.ModelProto:
    corners, strides = grid(input_height, input_width)
    count = len(corners)
    model = parse(
        f"""
        yolox_decode (float[B, {count}, {5 + classes}] rows, float[{count}, 2] corners, float[{count}, 1] strides)
            => (float[B, {count}, 4] boxes, float[B, {count}, {classes}] class_scores)
        {{
            split = Constant <value_ints = [2, 2, 1, {classes}]> ()
            offsets, log_sizes, objectness, class_given_object = Split <axis = 2> (rows, split)
            half = Constant <value_float = 0.5> ()
            cells = Add (offsets, corners)
            centres = Mul (cells, strides)
            sizes_in_cells = Exp (log_sizes)
            half_strides = Mul (strides, half)
            half_sizes = Mul (sizes_in_cells, half_strides)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            boxes = Concat <axis = 2> (top_left, bottom_right)
            class_scores = Mul (objectness, class_given_object)
        }}
        """,
        opset,
    )
    return with_constants(model, {"corners": corners, "strides": strides})


def _expected_columns(classes: int) -> list[tuple[str, int]]:
    return [("Conv", 4), ("Sigmoid", 1), ("Sigmoid", classes)] * len(STRIDES)


def _head_columns(model: onnx.ModelProto) -> list[tuple[str, int]]:
    """The operators that make the output's columns, left to right, each with its number of channels.

    Walks back from the output through operators that only move data.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    columns: list[tuple[str, int]] = []

    def walk(tensor: str) -> None:
        node = makers.get(tensor)
        if node is None:
            return
        if node.op_type in _LAYOUT_ONLY:
            for name in node.input if node.op_type == "Concat" else node.input[:1]:
                walk(name)
            return
        conv = makers.get(node.input[0]) if node.op_type == "Sigmoid" else node
        is_conv = conv is not None and conv.op_type == "Conv" and conv.input[1] in weights
        columns.append((node.op_type, weights[conv.input[1]][0] if conv is not None and is_conv else -1))

    walk(model.graph.output[0].name)
    return columns
