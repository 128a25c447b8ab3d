from __future__ import annotations

import pytest
import torch

from models.boxes import covered, cxcywh_to_xyxy, nms, paired_giou, paired_iou, pairwise_iou


def test_overlaps_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 2, 2]])
    second = torch.tensor([[2.0, 2, 6, 6], [0, 0, 2, 2], [4, 0, 6, 2]])
    assert paired_iou(first, second).tolist() == pytest.approx([4 / 28, 1.0, 0.0], abs=1e-6)
    # hulls: 6x6 holding a union of 28; the box itself; 6x2 holding a union of 8
    expected = [4 / 28 - (36 - 28) / 36, 1.0, -(12 - 8) / 12]
    assert paired_giou(first, second).tolist() == pytest.approx(expected, abs=1e-6)


def test_pairwise_is_paired_for_every_pair() -> None:
    corners = torch.rand(7, 2, generator=torch.Generator().manual_seed(0)) * 10
    boxes = torch.cat([corners, corners + 3], 1)
    matrix = pairwise_iou(boxes[:4], boxes[4:])
    for row in range(4):
        for column in range(3):
            assert matrix[row, column] == paired_iou(boxes[row], boxes[4 + column])
    assert pairwise_iou(boxes[:0], boxes).shape == (0, 7)


def test_what_lies_in_another_box() -> None:
    ignored = torch.tensor([[50.0, 0, 70, 20]])
    boxes = torch.tensor([[40.0, 0, 70, 20], [40, 0, 62, 40], [0, 0, 9, 9], [55, 5, 55, 9]])
    assert covered(boxes, ignored)[:, 0].tolist() == pytest.approx([2 / 3, 240 / 880, 0, 0])
    assert covered(boxes, ignored[:0]).shape == (4, 0)


def test_centres_become_corners() -> None:
    assert cxcywh_to_xyxy(torch.tensor([[3.0, 6, 4, 8]])).tolist() == [[1, 2, 5, 10]]


def test_nms_keeps_the_best_of_each_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 0, 40, 10]])
    scores = torch.tensor([0.6, 0.9, 0.8, 0.1])
    classes = torch.tensor([0, 0, 1, 0])
    assert nms(boxes, scores, classes, 0.5).tolist() == [1, 2, 3]
    assert nms(boxes, scores, classes, 0.9).tolist() == [1, 2, 0, 3]  # IoU of 0 and 1 is 9/11


def test_nms_lets_a_dropped_box_drop_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), 0.4)
    assert kept.tolist() == [0, 2]  # 1 overlaps both, and is gone before it could drop 2


def test_nms_of_nothing() -> None:
    kept = nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64
