"""SSD before its boxes are decoded (Liu et al., arXiv 1512.02325).

Signature: box encodings float32 (1, N, 4), class scores float32 (1, N, 1 + C) with the background first,
and N anchors: an output that is the same for every picture, or given by the user. Encodings are offsets
of the centre in sizes of the anchor times 10, and logarithms of sizes in those of the anchor times 5
(Caffe's variances 0.1 and 0.2 and TensorFlow's scale factors 10 and 5 are the same numbers):

    TensorFlow's object detection API    ty, tx, th, tw, anchors y first, scores by sigmoid
    Caffe, PyTorch                       tx, ty, tw, th, anchors x first, scores by softmax

The anchors show which (``export.anchors``); whether scores are past their sigmoid or softmax is
measured. Pixels are taken as the order's usual project has them: (x - 127.5) / 127.5 for TensorFlow's,
(x - 127) / 128 for pytorch-ssd's, RGB, stretched.

Anchors in pixels, y first, are EfficientDet's or RetinaNet's, which scale nothing: not read here.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import onnx

from export.anchors import Anchors, are_corners, make_out
from export.families.score_range import Activation, activation, in_unit_range
from export.graph import parse, with_constants
from export.pixels import Array, PixelRule
from export.reading import Candidates, Outputs, Reading
from export.signature import AdaptError, Signature, Tensor

NEEDED = (
    "SSD's box encodings (1, N, 4), class scores (1, N, 1 + classes) with the background first, and its "
    "anchors as an output (N, 4) or by --anchors FILE.npy"
)

TENSORFLOW = PixelRule(mean=(127.5,) * 3, std=(127.5,) * 3, resize="stretch")
PYTORCH = PixelRule(mean=(127.0,) * 3, std=(128.0,) * 3, resize="stretch")

_CENTRE, _SIZE = 0.1, 0.2
_FEWEST_WITHOUT_ANCHORS = 1000
_SCORES = re.compile(r"score|class|conf|cls", re.IGNORECASE)
_NO_ANCHORS = "its anchors are not in the file; give them with --anchors FILE.npy (or .csv)"

Floats = npt.NDArray[np.float32]


def readings(signature: Signature) -> list[Reading]:
    """The ways to read an SSD: two where its anchors do not tell x from y, one in doubt without any."""
    rows = {tensor.name: _rows(signature.sample[tensor.name]) for tensor in signature.outputs}
    if not 2 <= len(rows) <= 3 or len({len(value) for value in rows.values()}) != 1:
        return []
    fixed = _same_for_every_picture(signature, rows) if len(rows) == 3 else None
    found = _paired([tensor for tensor in signature.outputs if tensor.name != fixed], rows)
    if found is None or (fixed is None and len(rows) == 3):
        return []
    encodings, scores = found
    if len(encodings.shape) != 3 or len(scores.shape) != 3 or are_corners(rows[encodings.name]):
        return []
    count = len(rows[encodings.name])
    given = given_anchors(signature, count)
    if given is None and fixed is None:
        sure = activation(rows[scores.name]) != "sigmoid" or _is_tensorflow(signature)
        family, pixels = ("tf-ssd", TENSORFLOW) if _is_tensorflow(signature) else ("ssd", PYTORCH)
        missing = without_anchors(signature, family, encodings, scores, pixels)
        return [missing] if sure and count >= _FEWEST_WITHOUT_ANCHORS else []
    origin = "given" if given is not None else f"from output {fixed}"
    values = given if given is not None else rows[fixed or ""]
    ways = make_out(values.astype(np.float32), signature.height, signature.width)
    return [
        _reading(signature, encodings, scores, anchors, origin)
        for anchors in ways
        if not (anchors.y_first and anchors.in_pixels)
    ]


def _rows(value: Array) -> Array:
    """(N, columns) of (1, N, columns) or (N, columns); no rows of anything else."""
    squeezed = value.reshape(value.shape[1:]) if value.ndim == 3 and len(value) == 1 else value
    return squeezed if squeezed.ndim == 2 else np.empty((0, 0), np.float32)


def _same_for_every_picture(signature: Signature, rows: dict[str, Array]) -> str | None:
    """The name of the one output (N, 4) that does not depend on the picture."""
    if not any(value.shape[1:] == (4,) for value in rows.values()):
        return None
    shape = {
        "chw": (3, signature.height, signature.width),
        "nchw": (1, 3, signature.height, signature.width),
        "nhwc": (1, signature.height, signature.width, 3),
    }[signature.layout]
    again = signature.run(np.zeros(shape, signature.picture.kind))
    same = [
        name
        for name, value in rows.items()
        if value.shape[1] == 4 and np.array_equal(_rows(again[name]), value)
    ]
    return same[0] if len(same) == 1 else None


def _paired(tensors: list[Tensor], rows: dict[str, Array]) -> tuple[Tensor, Tensor] | None:
    """Encodings and scores: the former have four columns, the latter two or more.

    With three classes both have four: names or what is past a sigmoid or softmax tell.
    """
    if len(tensors) != 2:
        return None
    one, other = tensors
    fours = [rows[tensor.name].shape[1] == 4 for tensor in tensors]
    if all(fours):
        shown = [bool(_SCORES.search(tensor.name)) for tensor in tensors]
        if shown[0] == shown[1]:
            shown = [in_unit_range(rows[tensor.name]) for tensor in tensors]
        pair = (one, other) if shown[1] else (other, one)
        return pair if shown[0] != shown[1] else None
    if not any(fours):
        return None
    pair = (one, other) if fours[0] else (other, one)
    return pair if rows[pair[1].name].shape[1] >= 2 else None


def without_anchors(
    signature: Signature, family: str, encodings: Tensor, scores: Tensor, pixels: PixelRule
) -> Reading:
    """A reading that only says what is missing, where the rest looks like an SSD."""

    def decoder(opset: int) -> onnx.ModelProto:
        raise AdaptError(f"{signature.path}: {_NO_ANCHORS}")

    def decode(outputs: Outputs) -> Candidates:
        raise AdaptError(f"{signature.path}: {_NO_ANCHORS}")

    return Reading(
        family=family,
        said="SSD's raw outputs",
        classes=scores.shape[2] - 1,
        pixels=pixels,
        wires={encodings.name: "encodings", scores.name: "scores"},
        decoder=decoder,
        decode=decode,
        nms=True,
        doubt=_NO_ANCHORS,
    )


def given_anchors(signature: Signature, count: int) -> Array | None:
    """The user's anchors, if there are any, as many as the model has boxes."""
    if signature.anchors is not None and len(signature.anchors) != count:
        raise AdaptError(
            f"{signature.path}: --anchors gives {len(signature.anchors)} anchors, the model has {count} boxes"
        )
    return signature.anchors


def _is_tensorflow(signature: Signature) -> bool:
    names = [tensor.name for tensor in signature.outputs]
    return any("box_encodings" in name or "class_predictions" in name for name in names)


def _reading(
    signature: Signature, encodings: Tensor, scores: Tensor, anchors: Anchors, origin: str
) -> Reading:
    done = activation(_rows(signature.sample[scores.name]))
    usual: Activation = "sigmoid" if anchors.y_first else "softmax"
    wanted = usual if done == "none" else done
    pixels = TENSORFLOW if anchors.y_first else PYTORCH
    if signature.picture.kind == "uint8":
        pixels = PixelRule(resize="stretch")
    state = f"past their {done}" if done != "none" else f"given their {wanted}"
    doubt = (
        "scores that are no distribution, x before y, could be a RetinaNet's, without a background"
        if wanted == "sigmoid" and not anchors.y_first
        else ""
    )
    return Reading(
        family="tf-ssd" if anchors.y_first else "ssd",
        said=(
            f"SSD's raw outputs ({'ty, tx, th, tw' if anchors.y_first else 'tx, ty, tw, th'} with variances "
            f"{_CENTRE} and {_SIZE}, anchors {origin}, scores {state}, class 0 taken as background)"
        ),
        classes=scores.shape[2] - 1,
        pixels=pixels,
        wires={encodings.name: "encodings", scores.name: "scores"},
        decoder=lambda opset: decoder(anchors, scores.shape[2], done, opset),
        decode=lambda outputs: decode(outputs[encodings.name][0], outputs[scores.name][0], anchors, done),
        nms=True,
        anchored=True,
        doubt=doubt,
    )


def decode(encodings: Array, scores: Array, anchors: Anchors, done: Activation) -> Candidates:
    """The reference for the graph's decoder, in NumPy: one picture, one anchor at a time.

    Args:
        encodings: (N, 4) in the order that ``anchors`` tells.
        scores: (N, 1 + C), the background first.
        anchors: N.
        done: what was done to the scores; nothing is made up for by the order's usual activation.
    """
    boxes = np.empty((len(encodings), 4), np.float64)
    for index, encoding in enumerate(encodings.astype(np.float64)):
        ty, tx, th, tw = encoding if anchors.y_first else encoding[[1, 0, 3, 2]]
        (centre_x, centre_y), (width, height) = anchors.centres[index], anchors.sizes[index]
        x, y = centre_x + tx * _CENTRE * width, centre_y + ty * _CENTRE * height
        half_width, half_height = width * np.exp(tw * _SIZE) / 2, height * np.exp(th * _SIZE) / 2
        boxes[index] = x - half_width, y - half_height, x + half_width, y + half_height
    values = scores.astype(np.float64)
    if done == "none" and anchors.y_first:
        values = 1 / (1 + np.exp(-values))
    elif done == "none":
        weights = np.exp(values - values.max(axis=1, keepdims=True))
        values = weights / weights.sum(axis=1, keepdims=True)
    return Candidates(boxes.astype(np.float32), values[:, 1:].astype(np.float32))


def decoder(anchors: Anchors, columns: int, done: Activation, opset: int) -> onnx.ModelProto:
    """``encodings`` and ``scores``, 1 + C columns, to boxes and class scores without the background."""
    count = len(anchors.centres)
    order = "[1, 0, 3, 2]" if anchors.y_first else "[0, 1, 2, 3]"
    usual = "Sigmoid (scores)" if anchors.y_first else "Softmax <axis = 2> (scores)"
    model = parse(
        f"""
        ssd_decode (float[B, {count}, 4] encodings, float[B, {count}, {columns}] scores,
            float[{count}, 2] anchor_centres, float[{count}, 2] scaled_sizes, float[{count}, 2] half_anchors)
            => (float[B, {count}, 4] boxes, float[B, {count}, {columns - 1}] class_scores)
        {{
            axes = Constant <value_ints = {order}> ()
            x_first = Gather <axis = 2> (encodings, axes)
            split = Constant <value_ints = [2, 2]> ()
            offsets, log_sizes = Split <axis = 2> (x_first, split)
            moves = Mul (offsets, scaled_sizes)
            centres = Add (anchor_centres, moves)
            size_variance = Constant <value_float = {_SIZE}> ()
            scaled_logs = Mul (log_sizes, size_variance)
            growth = Exp (scaled_logs)
            half_sizes = Mul (growth, half_anchors)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            boxes = Concat <axis = 2> (top_left, bottom_right)

            probabilities = {usual if done == "none" else "Identity (scores)"}
            columns = Constant <value_ints = [1, {columns - 1}]> ()
            background, class_scores = Split <axis = 2> (probabilities, columns)
        }}
        """,
        opset,
    )
    constants = {
        "anchor_centres": anchors.centres,
        "scaled_sizes": anchors.sizes * np.float32(_CENTRE),
        "half_anchors": anchors.sizes / 2,
    }
    return with_constants(model, constants)
