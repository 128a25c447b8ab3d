from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.grid import grid
from models.losses import detection_loss
from models.target import Target, Taught

WHERE = grid(32, 32, torch.device("cpu"))  # 16 + 4 + 1 cells
CELLS = 21
CLASSES = 2
NONE = torch.zeros(0, 4)


def _raw(objectness: float) -> Tensor:
    raw = torch.zeros(1, CELLS, 5 + CLASSES)
    raw[..., 4] = objectness
    return raw


def _target(boxes: Tensor = NONE, ignored: Tensor = NONE, partial: Tensor = NONE) -> Target:
    return Target(boxes, torch.zeros(len(boxes), dtype=torch.int64), ignored, partial, NONE)


def test_an_empty_picture_is_all_background() -> None:
    losses = detection_loss(_raw(0.0), WHERE, [_target()])
    assert losses.objectness.item() == pytest.approx(CELLS * math.log(2), rel=1e-5)
    assert losses.box.item() == 0
    assert losses.class_.item() == 0


def test_ignored_cells_do_not_count() -> None:
    left_half = torch.tensor([[0.0, 0, 15, 32]])  # 8 cells of stride 8, 2 of stride 16; 16,16 is outside
    losses = detection_loss(_raw(0.0), WHERE, [_target(ignored=left_half)])
    assert losses.objectness.item() == pytest.approx((CELLS - 10) * math.log(2), rel=1e-5)


def test_partial_areas_forgive_what_the_model_believes_in() -> None:
    everywhere = torch.tensor([[0.0, 0, 32, 32]])
    believed = detection_loss(_raw(2.0), WHERE, [_target(partial=everywhere)])
    assert believed.objectness.item() == 0
    doubted = detection_loss(_raw(-2.0), WHERE, [_target(partial=everywhere)])
    assert doubted.objectness.item() == pytest.approx(CELLS * math.log1p(math.exp(-2)), rel=1e-5)


def test_partial_areas_forgive_what_a_teacher_sees() -> None:
    everywhere = torch.tensor([[0.0, 0, 32, 32]])
    scores = torch.zeros(CELLS, CLASSES)
    scores[3:7, 1] = 0.4
    target = replace(_target(partial=everywhere), taught=Taught(torch.zeros(CELLS, 4), scores))
    losses = detection_loss(_raw(-2.0), WHERE, [target])
    assert losses.objectness.item() == pytest.approx((CELLS - 4) * math.log1p(math.exp(-2)), rel=1e-5)
    losses = detection_loss(_raw(-2.0), WHERE, [replace(target, partial=NONE)])
    assert losses.objectness.item() == pytest.approx(CELLS * math.log1p(math.exp(-2)), rel=1e-5)


def test_partial_areas_do_not_forgive_copies_of_annotated_boxes() -> None:
    everywhere = torch.tensor([[0.0, 0, 32, 32]])
    box = torch.tensor([[0.0, 8, 16, 24]])
    raw = _raw(2.0)
    raw[0, :, 2:4] = -9  # tiny boxes everywhere but in two cells
    raw[0, 5, :4] = torch.tensor([0.0, 1.0, math.log(2), math.log(2)])  # the box itself
    raw[0, 6, :4] = torch.tensor([-1.0, 1.0, math.log(1.2), math.log(1.2)])  # IoU 0.36: k stays 1
    losses = detection_loss(raw, WHERE, [_target(boxes=box, partial=everywhere)])
    matched, copy = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert losses.objectness.item() == pytest.approx(matched + copy, rel=1e-4)
    raw[0, 6, :2] = torch.tensor([1.0, 1.0])  # the same box elsewhere could be another object
    losses = detection_loss(raw, WHERE, [_target(boxes=box, partial=everywhere)])
    assert losses.objectness.item() == pytest.approx(matched, rel=1e-4)


def test_a_matched_prediction_by_hand() -> None:
    box = torch.tensor([[4.0, 4, 20, 20]])
    raw = _raw(-9.0)
    raw[0, :, 2:4] = -9  # tiny boxes everywhere but in one cell
    raw[0, 5] = torch.tensor([0.5, 0.5, math.log(2), math.log(1), 3.0, 1.0, -1.0])  # 4..20 x 8..16
    losses = detection_loss(raw, WHERE, [_target(boxes=box)])
    iou = 0.5  # half of the box, inside it: GIoU equals IoU
    assert losses.box.item() == pytest.approx(1 - iou, rel=1e-3)
    bce = math.log1p(math.exp(-1)) * iou + math.log1p(math.exp(1)) * (1 - iou) + math.log1p(math.exp(-1))
    assert losses.class_.item() == pytest.approx(bce, rel=1e-3)
    background = (CELLS - 1) * math.log1p(math.exp(-9))
    assert losses.objectness.item() == pytest.approx(math.log1p(math.exp(-3)) + background, rel=1e-3)


def test_gradients_reach_every_prediction_head() -> None:
    raw = _raw(0.0).requires_grad_()
    detection_loss(raw, WHERE, [_target(boxes=torch.tensor([[12.0, 12, 30, 30]]))]).total.backward()
    assert raw.grad is not None
    assert bool((raw.grad.abs().sum((0, 1)) > 0).all())
