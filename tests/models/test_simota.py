"""Assignments that can be worked out by hand, on a 4x4 grid of stride 8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.boxes import paired_iou
from models.simota import Assignment, assign

STRIDE = 8.0
CENTRES = torch.tensor([[x * 8 + 4.0, y * 8 + 4.0] for y in range(4) for x in range(4)])


def _assign(
    boxes: Tensor,
    targets: list[list[float]],
    classes: list[int],
    scores: Tensor,
    pictures: Tensor | None = None,
) -> Assignment:
    """Of one picture (boxes (N, 4)), or of those that ``pictures`` says (boxes (B, N, 4))."""
    strides = torch.full((len(CENTRES), 1), STRIDE)
    if pictures is None:
        boxes, scores, pictures = boxes[None], scores[None], torch.zeros(len(targets), dtype=torch.int64)
    truth = torch.tensor(targets)
    ious = paired_iou(truth[:, None], boxes[pictures])
    return assign(ious, scores, CENTRES, strides, truth, torch.tensor(classes), pictures)


def test_k_is_the_summed_overlap_and_the_best_are_taken() -> None:
    target = [0.0, 0, 32, 32]
    boxes = torch.zeros(16, 4)  # no overlap, unless said
    boxes[5] = torch.tensor([0.0, 0, 32, 32])  # IoU 1
    boxes[6] = torch.tensor([0.0, 0, 32, 24])  # IoU 0.75
    boxes[9] = torch.tensor([0.0, 0, 32, 16])  # IoU 0.5
    found = _assign(boxes, [target], [0], torch.full((16, 2), 0.25))
    assert found.predictions.tolist() == [5, 6]  # 1 + 0.75 + 0.5 = 2.25, so k is 2
    assert found.targets.tolist() == [0, 0]
    assert found.ious.tolist() == pytest.approx([1, 0.75])


def test_every_box_gets_one_even_without_overlap() -> None:
    found = _assign(torch.zeros(16, 4), [[8.0, 8, 16, 16]], [0], torch.full((16, 2), 0.25))
    assert len(found.predictions) == 1


def test_the_better_class_wins_at_equal_overlap() -> None:
    boxes = torch.zeros(16, 4)
    boxes[5] = boxes[6] = torch.tensor([8.0, 8, 24, 12])  # IoU 0.25 with the target: k is 1
    scores = torch.full((16, 2), 0.01)
    scores[5], scores[6] = torch.tensor([0.01, 0.81]), torch.tensor([0.81, 0.01])
    target = [[8.0, 8, 24, 24]]
    assert _assign(boxes, target, [0], scores).predictions.tolist() == [6]
    assert _assign(boxes, target, [1], scores).predictions.tolist() == [5]


def test_a_contested_prediction_goes_to_the_cheaper_box() -> None:
    boxes = torch.zeros(16, 4)
    boxes[5] = torch.tensor([8.0, 8, 24, 24])
    near, exact = [8.0, 8, 24, 22], [8.0, 8, 24, 24]
    found = _assign(boxes, [near, exact], [0, 0], torch.full((16, 2), 0.25))
    assert found.targets[found.predictions == 5].tolist() == [1]
    assert len(set(found.predictions.tolist())) == len(found.predictions)


def test_cells_far_from_the_box_are_never_taken() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4]]).repeat(16, 1)  # every prediction fits perfectly
    found = _assign(boxes, [[0.0, 0, 4, 4]], [0], torch.full((16, 2), 0.25))
    offsets = (CENTRES[found.predictions] - 2).abs().amax(1)
    assert len(found.predictions) == 9  # 3x3 cells lie within 2.5 strides of (2, 2); top overlaps sum to 9
    assert bool((offsets < 2.5 * STRIDE).all())


def test_equal_boxes_share_no_prediction() -> None:
    boxes = torch.tensor([[8.0, 8, 24, 24]]).repeat(16, 1)
    found = _assign(boxes, [[8.0, 8, 24, 24]] * 2, [0, 0], torch.full((16, 2), 0.25))
    assert len(set(found.predictions.tolist())) == len(found.predictions) > 0


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((3, 16, 2), generator=generator) * 20
    boxes = torch.cat([corners, corners + 4 + torch.rand((3, 16, 2), generator=generator) * 16], -1)
    scores = torch.rand((3, 16, 2), generator=generator)
    targets = [[2.0, 2, 14, 20], [4.0, 1, 16, 22], [10.0, 8, 30, 30], [0.0, 0, 31, 31], [1.0, 1, 30, 31]]
    classes, pictures = [0, 1, 1, 0, 1], torch.tensor([0, 0, 2, 2, 2])
    whole = _assign(boxes, targets, classes, scores, pictures)
    found = set(zip(whole.targets.tolist(), whole.predictions.tolist(), strict=True))
    alone = set()
    for picture in (0, 2):
        own = (pictures == picture).nonzero().squeeze(1).tolist()
        one = _assign(boxes[picture], [targets[n] for n in own], [classes[n] for n in own], scores[picture])
        alone |= {(own[t], p) for t, p in zip(one.targets.tolist(), one.predictions.tolist(), strict=True)}
    assert found == alone
    assert {t for t, _ in found} == {0, 1, 2, 3, 4}
