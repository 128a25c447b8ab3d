"""Detectors of Generalized Focal Loss (Li et al., arXiv 2006.04388): NanoDet, NanoDet-Plus and PicoDet.

Every cell of the grids of strides 8, 16, 32 and perhaps 64 (a grid covers the input: its sides are
rounded up) has C class scores, and for each side of its box, left, top, right, bottom, a distribution
over 0..R strides, as logits: the distance from the cell's centre is its expectation. Surfaces:

    picodet       class scores (1, n, C) and distributions (1, n, 4 * (R + 1)) of each of 4 strides, in
                  any order, or as maps (1, C, h, w); centres in the middle of cells (+0.5)
    nanodet       the same of 3 strides (NanoDet 0.x), or both side by side, (1, N, C + 4 * (R + 1)),
                  N of 3 strides (NanoDet 1.0); centres in the middle of cells (+0.5)
    nanodet-plus  side by side, N of 4 strides; centres in the top left corners of cells (+0)

Both projects made models of other strides too, which names may show: Paddle's and NanoDet's exporters
name outputs in their own ways. Whether scores are past their sigmoid, and where classes end and
distributions begin, is measured. A file does not say how pixels are prepared: NanoDet takes BGR and
PicoDet RGB by the mean and deviation of ImageNet.

YOLOv8's and PP-YOLOE's heads have such distributions of 16 or 17 values and other pixels: not read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from export.families.score_range import in_unit_range
from export.graph import parse, with_constants
from export.names import names_in
from export.pixels import IMAGENET, Array, PixelRule
from export.reading import Candidates, Outputs, Reading
from export.signature import Signature, Tensor

NEEDED = (
    "NanoDet's or PicoDet's class scores and box distributions (of each stride (1, n, classes) and "
    "(1, n, 4 * bins), or as one output (1, N, classes + 4 * bins))"
)

NANODET = PixelRule(color="bgr", mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))

_THREE = (8, 16, 32)
_FOUR = (8, 16, 32, 64)
_USUAL_BINS = 8
_MOST_BINS = 15  # of 16 on, it is another family's
_PADDLE = re.compile(r"\.tmp_\d+$|save_infer_model|^p2o\.")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Level:
    """One stride's outputs; the same one twice where both are side by side in it."""

    scores: Tensor
    distributions: Tensor


@dataclass(frozen=True, slots=True)
class Head:
    """How a model's outputs are laid out, once put side by side: rows float32 (N, C + 4 * bins)."""

    height: int
    width: int
    strides: tuple[int, ...]
    classes: int
    bins: int
    offset: float  # of a cell's centre from its corner, in strides
    activated: bool  # scores are past their sigmoid

    @property
    def columns(self) -> int:
        return self.classes + 4 * self.bins


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a NanoDet or PicoDet."""
    if len(signature.outputs) == 1:
        return _side_by_side(signature)
    return _by_stride(signature)


def _side_by_side(signature: Signature) -> list[Reading]:
    (output,) = signature.outputs
    for strides in (_THREE, _FOUR):
        if len(output.shape) != 3 or output.shape[1] != sum(_cells(signature, strides)):
            continue
        split = _split(signature.sample[output.name][0])
        sure = split is not None
        classes = split if split is not None else output.shape[2] - 4 * _USUAL_BINS
        if classes < 1 or (not sure and strides == _THREE):
            return []
        head = Head(
            height=signature.height,
            width=signature.width,
            strides=strides,
            classes=classes,
            bins=(output.shape[2] - classes) // 4,
            offset=0.5 if strides == _THREE else 0.0,
            activated=sure,
        )
        doubt = "" if sure else "its scores are not past their sigmoid, so nothing shows where classes end"
        family = "nanodet" if strides == _THREE else "nanodet-plus"
        return [_reading(signature, family, head, [_Level(output, output)], doubt)]
    return []


def _split(rows: Array) -> int | None:
    """The number of leading columns that are scores past their sigmoid, where the rest are distributions."""
    unit = [in_unit_range(rows[:, column]) for column in range(rows.shape[1])]
    classes = unit.index(False) if False in unit else len(unit)
    bins, rest = divmod(len(unit) - classes, 4)
    return classes if classes and not rest and 2 <= bins <= _MOST_BINS else None


def _by_stride(signature: Signature) -> list[Reading]:
    for strides in (_THREE, _FOUR):
        cells = _cells(signature, strides)
        rows = {tensor.name: _rows_of(tensor) for tensor in signature.outputs}
        by_cells = [[tensor for tensor in signature.outputs if rows[tensor.name] == n] for n in cells]
        if len(rows) != 2 * len(cells) or any(len(pair) != 2 for pair in by_cells):
            continue
        levels, activated = _paired(by_cells, signature.sample)
        widths = {(_columns_of(level.scores), _columns_of(level.distributions)) for level in levels}
        if len(widths) != 1:
            return []
        ((classes, columns),) = widths
        bins, rest = divmod(columns, 4)
        if rest or not 2 <= bins <= _MOST_BINS:
            return []
        head = Head(signature.height, signature.width, strides, classes, bins, 0.5, activated)
        return [_reading(signature, _family(signature, strides), head, levels, "")]
    return []


def _paired(pairs: list[list[Tensor]], sample: Mapping[str, Array]) -> tuple[list[_Level], bool]:
    """The levels, and whether scores are past their sigmoid; no levels where nothing tells them apart."""
    levels = []
    for one, other in pairs:
        if in_unit_range(sample[one.name]) != in_unit_range(sample[other.name]):
            levels.append(_Level(one, other) if in_unit_range(sample[one.name]) else _Level(other, one))
    if len(levels) == len(pairs):
        return levels, True
    if levels:
        return [], False
    for one, other in pairs:  # logits: told apart by the usual number of bins
        usual = [_columns_of(tensor) == 4 * _USUAL_BINS for tensor in (one, other)]
        if usual[0] != usual[1]:
            levels.append(_Level(one, other) if usual[1] else _Level(other, one))
    return (levels, False) if len(levels) == len(pairs) else ([], False)


def _family(signature: Signature, strides: tuple[int, ...]) -> str:
    names = [tensor.name for tensor in signature.outputs]
    if any("_stride_" in name for name in names):
        return "nanodet"
    if any(_PADDLE.search(name) for name in names) or strides == _FOUR:
        return "picodet"
    return "nanodet"


def _cells(signature: Signature, strides: tuple[int, ...]) -> list[int]:
    return [-(-signature.height // stride) * -(-signature.width // stride) for stride in strides]


def _rows_of(tensor: Tensor) -> int:
    if len(tensor.shape) == 3:
        return tensor.shape[1]
    return tensor.shape[2] * tensor.shape[3] if len(tensor.shape) == 4 else -1


def _columns_of(tensor: Tensor) -> int:
    return tensor.shape[2] if len(tensor.shape) == 3 else tensor.shape[1]


def _names(signature: Signature, classes: int) -> tuple[str, ...] | None:
    """Names in the file: as in others, or one a line under RapidAI's key."""
    lines = signature.metadata.get("character", "").split()
    return names_in(signature.metadata) or (tuple(lines) if len(lines) == classes else None)


def _reading(signature: Signature, family: str, head: Head, levels: list[_Level], doubt: str) -> Reading:
    wires = {}
    for index, level in enumerate(levels):
        wires[level.scores.name] = f"scores{index}"
        wires[level.distributions.name] = f"distributions{index}"
    together = levels[0].scores is levels[0].distributions
    if together:
        wires = {levels[0].scores.name: "rows"}
    project = {"picodet": "PicoDet", "nanodet": "NanoDet", "nanodet-plus": "NanoDet-Plus"}[family]
    sigmoid = "past their sigmoid" if head.activated else "given their sigmoid"
    rules = {
        "picodet": IMAGENET.changed(resize="stretch"),
        "nanodet": NANODET,
        "nanodet-plus": NANODET.changed(resize="stretch"),
    }
    return Reading(
        family=family,
        said=(
            f"{project} class scores ({sigmoid}) and box distributions of {head.bins} bins, strides "
            f"{', '.join(map(str, head.strides))}, centres {head.offset:g} cells from corners"
        ),
        classes=head.classes,
        pixels=rules[family],
        wires=wires,
        decoder=lambda opset: _decoder(head, None if together else levels, opset),
        decode=lambda outputs: decode(_side_by_side_rows(outputs, levels), head),
        nms=True,
        names=_names(signature, head.classes),
        doubt=doubt,
    )


def decode(rows: Floats, head: Head) -> Candidates:
    """The reference for the graph's decoder, in NumPy: one picture, one cell and one side at a time.

    Args:
        rows: float32 (N, C + 4 * bins).
        head: what they are.
    """
    boxes = np.empty((len(rows), 4), np.float64)
    index = 0
    for stride in head.strides:
        for cell_y in range(-(-head.height // stride)):
            for cell_x in range(-(-head.width // stride)):
                centre_x, centre_y = (cell_x + head.offset) * stride, (cell_y + head.offset) * stride
                logits = rows[index, head.classes :].astype(np.float64).reshape(4, head.bins)
                weights = np.exp(logits - logits.max(axis=1, keepdims=True))
                left, top, right, bottom = (
                    stride * float(side @ np.arange(head.bins)) / float(side.sum()) for side in weights
                )
                boxes[index] = centre_x - left, centre_y - top, centre_x + right, centre_y + bottom
                index += 1
    scores = rows[:, : head.classes].astype(np.float64)
    if not head.activated:
        scores = 1 / (1 + np.exp(-scores))
    return Candidates(boxes.astype(np.float32), scores.astype(np.float32))


def _side_by_side_rows(outputs: Outputs, levels: list[_Level]) -> Floats:
    """A model's outputs for one picture as rows float32 (N, C + 4 * bins)."""

    def as_rows(tensor: Tensor) -> Floats:
        value: Floats = outputs[tensor.name].astype(np.float32)[0]
        if value.ndim == 3:
            value = value.reshape(len(value), -1).T
        return value

    if levels[0].scores is levels[0].distributions:
        return as_rows(levels[0].scores).astype(np.float32)
    pairs = [
        np.concatenate([as_rows(level.scores), as_rows(level.distributions)], axis=1) for level in levels
    ]
    return np.concatenate(pairs).astype(np.float32)


def _decoder(head: Head, levels: list[_Level] | None, opset: int) -> onnx.ModelProto:
    """From ``rows``, or from each level's outputs where there are ``levels``."""
    centres, strides = _grid(head)
    count = len(centres)
    inputs, joined = f"float[B, {count}, {head.columns}] rows", ""
    if levels is not None:
        inputs, joined = _joining(head, levels)
    model = parse(
        f"""
        gfl_decode ({inputs}, float[{count}, 2] centres, float[{count}, 1] strides, float[{head.bins}] bins)
            => (float[B, {count}, 4] boxes, float[B, {count}, {head.classes}] class_scores)
        {{
            {joined}
            split = Constant <value_ints = [{head.classes}, {4 * head.bins}]> ()
            scores, flat_logits = Split <axis = 2> (rows, split)
            by_side = Constant <value_ints = [0, 0, 4, {head.bins}]> ()
            logits = Reshape (flat_logits, by_side)
            probabilities = Softmax <axis = 3> (logits)
            distances_in_cells = MatMul (probabilities, bins)
            distances = Mul (distances_in_cells, strides)
            two_corners = Constant <value_ints = [2, 2]> ()
            before, after = Split <axis = 2> (distances, two_corners)
            top_left = Sub (centres, before)
            bottom_right = Add (centres, after)
            boxes = Concat <axis = 2> (top_left, bottom_right)
            class_scores = {"Identity" if head.activated else "Sigmoid"} (scores)
        }}
        """,
        opset,
    )
    bins = np.arange(head.bins, dtype=np.float32)
    return with_constants(model, {"centres": centres, "strides": strides, "bins": bins})


def _joining(head: Head, levels: list[_Level]) -> tuple[str, str]:
    """The decoder's inputs for outputs of each level, and the nodes that put them side by side."""
    inputs, nodes = [], []
    for index, level in enumerate(levels):
        for kind, tensor in (("scores", level.scores), ("distributions", level.distributions)):
            shape = ", ".join(map(str, tensor.shape[1:]))
            inputs.append(f"float[B, {shape}] {kind}{index}")
            if len(tensor.shape) == 3:
                nodes.append(f"{kind}_rows{index} = Identity ({kind}{index})")
                continue
            nodes.append(f"{kind}_last{index} = Transpose <perm = [0, 2, 3, 1]> ({kind}{index})")
            flat = f"[0, {_rows_of(tensor)}, {_columns_of(tensor)}]"
            nodes.append(f"{kind}_flat{index} = Constant <value_ints = {flat}> ()")
            nodes.append(f"{kind}_rows{index} = Reshape ({kind}_last{index}, {kind}_flat{index})")
        nodes.append(f"both{index} = Concat <axis = 2> (scores_rows{index}, distributions_rows{index})")
    nodes.append(f"rows = Concat <axis = 1> ({', '.join(f'both{index}' for index in range(len(levels)))})")
    return ", ".join(inputs), "\n".join(nodes)


def _grid(head: Head) -> tuple[Floats, Floats]:
    """Cell centres float32 (N, 2) x, y and strides float32 (N, 1), both in pixels, row by row."""
    centres, strides = [], []
    for stride in head.strides:
        y, x = np.mgrid[: -(-head.height // stride), : -(-head.width // stride)]
        centres.append((np.stack([x.ravel(), y.ravel()], axis=1) + head.offset) * stride)
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)
