"""The operators that ``models`` defines for itself, in ONNX's: what torch's exporter cannot know.

Knows nothing of detectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18

import models.lineage.fpn
import models.lineage.roi
import models.lineage.suppression  # with those before, defines the operators

op: Any = opset18  # its annotations are narrower than what it takes


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``custom_translation_table`` of ``torch.onnx.export``."""
    return {
        torch.ops.lookout.roi_align.default: _roi_align,
        torch.ops.lookout.pyramid_roi_align.default: _pyramid_roi_align,
        torch.ops.lookout.suppress.default: _suppress,
    }


def _roi_align(
    features: Any, boxes: Any, pictures: Any, size: int, scale: float, samples: int, aligned: bool
) -> Any:
    """See :func:`models.lineage.roi.roi_align`."""
    return op.RoiAlign(
        features,
        boxes,
        pictures,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        output_height=size,
        output_width=size,
        sampling_ratio=samples,
        spatial_scale=scale,
    )


def _pyramid_roi_align(
    stride_4: Any,
    stride_8: Any,
    stride_16: Any,
    stride_32: Any,
    boxes: Any,
    pictures: Any,
    levels: Any,
    size: int,
) -> Any:
    """See :func:`models.lineage.fpn.pyramid_roi_align`: level after level, then in the boxes' order again."""
    rows, found = [], []
    for level, features in enumerate((stride_4, stride_8, stride_16, stride_32)):
        here = op.Equal(levels, op.Constant(value_int=level))
        some = op.Reshape(op.NonZero(here), op.Constant(value_ints=[-1]))
        scale = 1 / models.lineage.fpn.STRIDES[level]
        rows.append(some)
        found.append(
            _roi_align(features, op.Gather(boxes, some), op.Gather(pictures, some), size, scale, 2, False)
        )
    order = op.Concat(*rows, axis=0)  # a permutation; where each box went to is its inverse
    count = op.Squeeze(op.Shape(order))
    steps = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    places = op.ScatterElements(op.Mul(order, op.Constant(value_int=0)), order, steps)
    return op.Gather(op.Concat(*found, axis=0), places)


def _suppress(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
    """See :func:`models.lineage.suppression.suppress`."""
    all_scores = op.Unsqueeze(scores, op.Constant(value_ints=[1]))
    most = op.Constant(value_ints=[limit])
    threshold = op.Constant(value_floats=[iou_threshold])
    selected = op.NonMaxSuppression(boxes, all_scores, most, threshold)  # (K, 3): picture, class, box
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.Mul(scores, op.Constant(value_float=0.0))
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(places, end=1))
    return op.Greater(op.ScatterND(nothing, places, ones), op.Constant(value_float=0.0))
