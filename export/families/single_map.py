"""FastestDet (dog-qiuqiu): one map for everything.

Signature: one output float32 (1, 5 + C, h, w), a cell of one stride each, with channels

    sigmoid(objectness) | tx, ty, tw, th | softmax(C class channels)

That objectness is in 0-1 and that classes sum to 1 is measured. A box has its centre at
(cell + tanh(txy)) / (w, h) and the size sigmoid(twh), relative to the input; its one class is the
likeliest, its score objectness^0.6 * class^0.4, as FastestDet's later tools have it (its first had the
plain product: the order of detections hardly differs, thresholds do). Pixels are BGR 0-1, stretched.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from export.families.score_range import activation, in_unit_range
from export.graph import parse, with_constants
from export.pixels import PixelRule
from export.reading import Candidates, Reading
from export.signature import Signature

NEEDED = "FastestDet's map (one output float32 (1, 5 + classes, h, w), classes past their softmax)"
SAID = "FastestDet's map (scores taken as objectness^0.6 * class^0.4)"
PIXELS = PixelRule(color="bgr", std=(255.0, 255.0, 255.0), resize="stretch")

_STRIDES = (8, 16, 32)
_OBJECTNESS_POWER, _CLASS_POWER = 0.6, 0.4

Floats = npt.NDArray[np.float32]


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a FastestDet."""
    if len(signature.outputs) != 1 or len(signature.outputs[0].shape) != 4:
        return []
    (output,) = signature.outputs
    height, width = signature.height, signature.width
    _, channels, rows, columns = output.shape
    if channels < 6 or not any((rows * s, columns * s) == (height, width) for s in _STRIDES):
        return []
    cells = signature.sample[output.name][0].reshape(channels, -1).T
    if not in_unit_range(cells[:, 0]) or in_unit_range(cells[:, 1:5]):
        return []
    if activation(cells[:, 5:]) != "softmax":
        return []
    return [
        Reading(
            family="fastestdet",
            said=SAID,
            classes=channels - 5,
            pixels=PIXELS,
            wires={output.name: "map"},
            decoder=lambda opset: _decoder((channels, rows, columns), height, width, opset),
            decode=lambda outputs: decode(outputs[output.name][0].astype(np.float32), height, width),
            nms=True,
        )
    ]


def decode(cells: Floats, input_height: int, input_width: int) -> Candidates:
    """The reference for the graph's decoder, in NumPy, one picture and one cell at a time.

    Args:
        cells: float32 (5 + C, h, w), the model's own output for one picture.
    """
    channels, rows, columns = cells.shape
    boxes = np.empty((rows * columns, 4), np.float64)
    scores = np.zeros((rows * columns, channels - 5), np.float64)
    for index, (y, x) in enumerate(np.ndindex(rows, columns)):
        objectness, tx, ty, tw, th = cells[:5, y, x].astype(np.float64)
        centre_x = (x + np.tanh(tx)) / columns * input_width
        centre_y = (y + np.tanh(ty)) / rows * input_height
        half_width = input_width / (1 + np.exp(-tw)) / 2
        half_height = input_height / (1 + np.exp(-th)) / 2
        boxes[index] = (
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width,
            centre_y + half_height,
        )
        likeliest = int(cells[5:, y, x].argmax())
        probability = float(cells[5 + likeliest, y, x])
        scores[index, likeliest] = objectness**_OBJECTNESS_POWER * probability**_CLASS_POWER
    return Candidates(boxes.astype(np.float32), scores.astype(np.float32))


def _decoder(shape: tuple[int, int, int], input_height: int, input_width: int, opset: int) -> onnx.ModelProto:
    channels, rows, columns = shape
    classes, count = channels - 5, rows * columns
    y, x = np.mgrid[:rows, :columns]
    corners = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    model = parse(
        f"""
        fastestdet_decode (float[B, {channels}, {rows}, {columns}] map, float[{count}, 2] corners,
            float[2] cell_size, float[2] half_input)
            => (float[B, {count}, 4] boxes, float[B, {count}, {classes}] class_scores)
        {{
            channels_last = Transpose <perm = [0, 2, 3, 1]> (map)
            flat = Constant <value_ints = [0, {count}, {channels}]> ()
            cells = Reshape (channels_last, flat)
            split = Constant <value_ints = [1, 2, 2, {classes}]> ()
            objectness, raw_offsets, raw_sizes, probabilities = Split <axis = 2> (cells, split)

            offsets = Tanh (raw_offsets)
            places = Add (offsets, corners)
            centres = Mul (places, cell_size)
            sizes = Sigmoid (raw_sizes)
            half_sizes = Mul (sizes, half_input)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            boxes = Concat <axis = 2> (top_left, bottom_right)

            objectness_power = Constant <value_float = {_OBJECTNESS_POWER}> ()
            class_power = Constant <value_float = {_CLASS_POWER}> ()
            weighed_objectness = Pow (objectness, objectness_power)
            weighed_classes = Pow (probabilities, class_power)
            all_scores = Mul (weighed_objectness, weighed_classes)
            likeliest = ArgMax <axis = 2, keepdims = 0> (probabilities)
            depth = Constant <value_int = {classes}> ()
            off_on = Constant <value_floats = [0.0, 1.0]> ()
            mask = OneHot <axis = 2> (likeliest, depth, off_on)
            class_scores = Mul (all_scores, mask)
        }}
        """,
        opset,
    )
    constants = {
        "corners": corners,
        "cell_size": np.array([input_width / columns, input_height / rows], np.float32),
        "half_input": np.array([input_width / 2, input_height / 2], np.float32),
    }
    return with_constants(model, constants)
