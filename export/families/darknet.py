"""Raw grids of anchors: Darknet's YOLOv3, YOLOv4, their tiny forms, and PyTorch's YOLOv5 and YOLOv7.

Surface: two (tiny) or three outputs, or four with P6, one a stride, in any order, each with the
columns tx, ty, tw, th, objectness, C classes for each of A = 3 anchors of a cell, laid out as one of

    (B, A (5 + C), h, w) | (B, h, w, A (5 + C)) | (B, h, w, A, 5 + C) | (B, A, h, w, 5 + C)

In pixels, with s the sigmoid, S the stride, k the family's ``scale_x_y`` (1 in YOLOv3):

    centre = (k s(txy) - (k - 1) / 2 + cell) S      size = exp(twh) anchor      score = s(objectness) s(class)

(YOLOv3: arXiv 1804.02767; scale_x_y and anchors: the published .cfg files of YOLOv4, arXiv 2004.10934.)
YOLOv5 and YOLOv7, the last layout, have k = 2 and size = (2 s(twh))^2 anchor. Whether objectness and
classes are past their sigmoid (the onnx/models zoo's YOLOv4) is measured. All take RGB 0-1.

The graph tells YOLOv4 by its Mish and its way down again after going up, tiny YOLOv4 by convolutions
of stride 2 where tiny YOLOv3 has only pooling. Tiny models' published weights were trained with the
anchors 1, 2, 3 on the finer grid, YOLOv3's later .cfg has 0, 1, 2: where the file is not COCO's, which
of the two is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from export.families.darknet_kinds import ANCHORS, Kind, Sizes, kinds_of
from export.families.score_range import in_unit_range
from export.families.ultralytics import refuse_masks, refuse_other_tasks
from export.graph import parse, with_constants
from export.names import names_in
from export.pixels import UNIT, Array
from export.reading import Candidates, Outputs, Reading
from export.signature import Signature, Tensor

NEEDED = (
    "Darknet grids (YOLOv3, YOLOv4, tiny: two or three outputs float (1, 3 (5 + classes), h, w), (1, h, w, 3 (5 + "
    "classes)), (1, h, w, 3, 5 + classes) or, YOLOv5 and v7, (1, 3, h, w, 5 + classes), one a stride, boxes raw)"
)

_STRIDES = {2: (16, 32), 3: (8, 16, 32), 4: (8, 16, 32, 64)}

Layout = Literal["channels", "last", "cells", "planes"]


@dataclass(frozen=True, slots=True)
class Grid:
    """One output: its place in the picture and its layout."""

    name: str
    stride: int
    rows: int
    columns: int
    layout: Layout
    classes: int


@dataclass(frozen=True, slots=True)
class Grids:
    """All outputs, finest first, read as one kind."""

    grids: tuple[Grid, ...]
    kind: Kind
    is_scored: bool  # objectness and classes are past their sigmoid

    def anchors(self, level: int) -> Sizes:
        return self.kind.anchors[ANCHORS * level : ANCHORS * (level + 1)]


def readings(signature: Signature) -> list[Reading]:
    """Every kind whose number of strides and layout fit; the graph tells which are doubtful.

    Raises:
        AdaptError: a model of that surface for another task than detection.
    """
    grids = _grids(signature)
    if not grids:
        return []
    refuse_other_tasks(signature)
    refuse_masks(signature)
    columns = [_rows(signature.sample[grid.name], grid) for grid in grids]
    everything = np.concatenate(columns)
    if in_unit_range(everything[:, 0:2]) or not np.isfinite(everything).all():
        return []  # not raw: past a sigmoid of the centres too, or decoded relative to the picture
    is_scored = in_unit_range(everything[:, 4:])
    return [
        _reading(signature, Grids(grids, kind, is_scored), doubt)
        for kind, doubt in kinds_of(
            signature, len(grids), grids[0].classes, grids[0].layout == "planes", is_scored
        )
    ]


def decode(outputs: Outputs, grids: Grids) -> Candidates:
    """The reference for the graph's decoder, one picture, cell rows as in the picture.

    Args:
        outputs: each grid's own output by name, float32.
        grids: how they lie.
    """
    boxes, scores = [], []
    for level, grid in enumerate(grids.grids):
        rows = _rows(outputs[grid.name], grid).reshape(grid.rows, grid.columns, ANCHORS, -1)
        scale = grids.kind.scales[level]
        cell_y, cell_x = np.mgrid[: grid.rows, : grid.columns]
        for anchor, (anchor_width, anchor_height) in enumerate(grids.anchors(level)):
            x, y, width, height, *rest = np.moveaxis(rows[:, :, anchor].astype(np.float64), -1, 0)
            centre_x = (scale * _sigmoid(x) - (scale - 1) / 2 + cell_x) * grid.stride
            centre_y = (scale * _sigmoid(y) - (scale - 1) / 2 + cell_y) * grid.stride
            if grids.kind.is_squared:
                half_width = (2 * _sigmoid(width)) ** 2 * anchor_width / 2
                half_height = (2 * _sigmoid(height)) ** 2 * anchor_height / 2
            else:
                half_width, half_height = np.exp(width) * anchor_width / 2, np.exp(height) * anchor_height / 2
            corners = [centre_x - half_width, centre_y - half_height]
            corners += [centre_x + half_width, centre_y + half_height]
            likely = np.stack(rest, axis=-1)
            likely = likely if grids.is_scored else _sigmoid(likely)
            boxes.append(np.stack(corners, axis=-1).reshape(-1, 4))
            scores.append((likely[..., :1] * likely[..., 1:]).reshape(-1, grid.classes))
    return Candidates(np.concatenate(boxes).astype(np.float32), np.concatenate(scores).astype(np.float32))


def _grids(signature: Signature) -> tuple[Grid, ...]:
    """The outputs as grids, finest first; none where they are not all grids of this surface."""
    strides = _STRIDES.get(len(signature.outputs), ())
    if not strides or signature.height % strides[-1] or signature.width % strides[-1]:
        return ()
    found: list[Grid] = []
    for stride in strides:
        rows, columns = signature.height // stride, signature.width // stride
        fitting = [_grid(output, stride, rows, columns) for output in signature.outputs]
        found += [grid for grid in fitting if grid is not None]
    is_one_each = [grid.stride for grid in found] == list(strides)
    is_alike = len({(grid.layout, grid.classes) for grid in found}) == 1
    is_all = len({grid.name for grid in found}) == len(signature.outputs)
    return tuple(found) if is_one_each and is_alike and is_all else ()


def _grid(output: Tensor, stride: int, rows: int, columns: int) -> Grid | None:
    shape = output.shape
    if not output.kind.startswith("float") or len(shape) not in (4, 5) or shape[0] != 1:
        return None
    layouts: dict[Layout, tuple[tuple[int, ...], int]] = {
        "channels": (shape[2:], shape[1]),
        "last": (shape[1:3], shape[3]),
    }
    if len(shape) == 5:
        layouts = {
            "cells": (shape[1:3], shape[3] * shape[4] if shape[3] == ANCHORS else 0),
            "planes": (shape[2:4], shape[1] * shape[4] if shape[1] == ANCHORS else 0),
        }
    for layout, (cells, channels) in layouts.items():
        if cells == (rows, columns) and channels % ANCHORS == 0 and channels >= ANCHORS * 6:
            return Grid(output.name, stride, rows, columns, layout, channels // ANCHORS - 5)
    return None


def _reading(signature: Signature, grids: Grids, doubt: str) -> Reading:
    classes = grids.grids[0].classes
    names = names_in(signature.metadata)
    past = ", scores past their sigmoid" if grids.is_scored else ""
    return Reading(
        family=grids.kind.family,
        said=f"{grids.kind.said}{past} (pixels taken as RGB 0-1, anchors as published)",
        classes=classes,
        pixels=UNIT,
        wires={grid.name: f"grid{grid.stride}" for grid in grids.grids},
        decoder=lambda opset: _decoder(grids, opset),
        decode=lambda outputs: decode(outputs, grids),
        nms=True,
        names=names if names is not None and len(names) == classes else None,
        doubt=doubt,
    )


def _rows(output: Array, grid: Grid) -> npt.NDArray[np.float32]:
    """An output of one picture as (h w A, 5 + C): cell by cell, anchor by anchor."""
    columns = 5 + grid.classes
    given: npt.NDArray[np.float32] = output[0].astype(np.float32)
    if grid.layout == "channels":
        given = given.reshape(ANCHORS, columns, grid.rows, grid.columns).transpose(2, 3, 0, 1)
    if grid.layout == "planes":
        given = given.transpose(1, 2, 0, 3)
    return given.reshape(-1, columns)


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return result


def _decoder(grids: Grids, opset: int) -> onnx.ModelProto:
    classes = grids.grids[0].classes
    inputs = ", ".join(f"float[{_shape(grid)}] grid{grid.stride}" for grid in grids.grids)
    names = ", ".join(f"rows{grid.stride}" for grid in grids.grids)
    count = sum(grid.rows * grid.columns * ANCHORS for grid in grids.grids)
    score = "Identity" if grids.is_scored else "Sigmoid"
    model = parse(
        f"""
        darknet ({inputs}, float[N, 2] offsets, float[N, 1] scaled_strides, float[N, 2] half_anchors)
            => (float[B, {count}, 4] boxes, float[B, {count}, {classes}] class_scores)
        {{
            {"".join(_flattened(grid) for grid in grids.grids)}
            rows = Concat <axis = 1> ({names})
            split = Constant <value_ints = [2, 2, 1, {classes}]> ()
            txy, twh, raw_objectness, raw_classes = Split <axis = 2> (rows, split)
            within = Sigmoid (txy)
            within_scaled = Mul (within, scaled_strides)
            centres = Add (within_scaled, offsets)
            {_sizes(grids.kind.is_squared)}
            half_sizes = Mul (sizes, half_anchors)
            top_left = Sub (centres, half_sizes)
            bottom_right = Add (centres, half_sizes)
            boxes = Concat <axis = 2> (top_left, bottom_right)
            objectness = {score} (raw_objectness)
            class_given_object = {score} (raw_classes)
            class_scores = Mul (objectness, class_given_object)
        }}
        """,
        opset,
    )
    return with_constants(model, _constants(grids))


def _sizes(is_squared: bool) -> str:
    if not is_squared:
        return "sizes = Exp (twh)"
    return """
            share = Sigmoid (twh)
            doubled = Add (share, share)
            sizes = Mul (doubled, doubled)"""


def _shape(grid: Grid) -> str:
    columns = 5 + grid.classes
    return {
        "channels": f"B, {ANCHORS * columns}, {grid.rows}, {grid.columns}",
        "last": f"B, {grid.rows}, {grid.columns}, {ANCHORS * columns}",
        "cells": f"B, {grid.rows}, {grid.columns}, {ANCHORS}, {columns}",
        "planes": f"B, {ANCHORS}, {grid.rows}, {grid.columns}, {columns}",
    }[grid.layout]


def _flattened(grid: Grid) -> str:
    """Nodes from ``grid<stride>`` to ``rows<stride>`` (B, h w A, 5 + C)."""
    stride, columns = grid.stride, 5 + grid.classes
    name, nodes = f"grid{stride}", ""
    if grid.layout == "channels":
        nodes += f"""
            apart{stride} = Constant <value_ints = [0, {ANCHORS}, {columns}, {grid.rows}, {grid.columns}]> ()
            planes{stride} = Reshape (grid{stride}, apart{stride})
            cells{stride} = Transpose <perm = [0, 3, 4, 1, 2]> (planes{stride})"""
        name = f"cells{stride}"
    if grid.layout == "planes":
        nodes += f"cells{stride} = Transpose <perm = [0, 2, 3, 1, 4]> (grid{stride})"
        name = f"cells{stride}"
    return f"""{nodes}
            flat{stride} = Constant <value_ints = [0, {grid.rows * grid.columns * ANCHORS}, {columns}]> ()
            rows{stride} = Reshape ({name}, flat{stride})"""


def _constants(grids: Grids) -> Mapping[str, npt.NDArray[np.float32]]:
    offsets, scaled, halves = [], [], []
    for level, grid in enumerate(grids.grids):
        scale = grids.kind.scales[level]
        y, x = np.mgrid[: grid.rows, : grid.columns]
        cells = np.stack([x.ravel(), y.ravel()], axis=1).repeat(ANCHORS, axis=0)
        offsets.append((cells - (scale - 1) / 2) * grid.stride)
        scaled.append(np.full((len(cells), 1), scale * grid.stride))
        halves.append(np.tile(np.array(grids.anchors(level)) / 2, (grid.rows * grid.columns, 1)))
    parts = {"offsets": offsets, "scaled_strides": scaled, "half_anchors": halves}
    return {name: np.concatenate(part).astype(np.float32) for name, part in parts.items()}
