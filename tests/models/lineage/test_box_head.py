from __future__ import annotations

import math

import pytest
import torch

from models.lineage.box_head import BoxPredictor, Wanted, head_losses, refined, wanted
from models.lineage.regions import Sample
from models.target import Target


def test_wanted_by_hand() -> None:
    none = torch.zeros(0, 4)
    target = Target(torch.tensor([[5.0, 5, 25, 45]]), torch.tensor([2]), none, none, none)
    sample = Sample(torch.tensor([7]), torch.tensor([0]), torch.tensor([9]))
    found = wanted(torch.tensor([[0.0, 0, 10, 20], [0, 0, 1, 1]]), sample, target)
    assert found.classes.tolist() == [3, 0]
    assert found.deltas[0].tolist() == pytest.approx([10, 7.5, 5 * math.log(2), 5 * math.log(2)])
    assert found.deltas[1].tolist() == [0, 0, 0, 0]


def test_losses_by_hand() -> None:
    """Two regions: an object whose deltas are off by 3 and 0.5, and background that is believed in by half."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    deltas = torch.zeros(2, 2, 4)
    deltas[0, 1] = torch.tensor([3.0, 0.5, 0, 0])
    deltas[1] = 100.0
    losses = head_losses(logits, deltas, [Wanted(torch.tensor([1, 0]), torch.zeros(2, 4))])
    assert losses["class"].item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert losses["box"].item() == pytest.approx((2.5 + 0.125) / 2)  # |3| - 1/2 and 0.5^2 / 2


def test_losses_without_objects_are_numbers() -> None:
    nothing = head_losses(
        torch.zeros(0, 2),
        torch.zeros(0, 2, 4),
        [Wanted(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))],
    )
    assert nothing["class"].item() == 0
    assert nothing["box"].item() == 0


def test_one_class_keeps_every_region() -> None:
    proposals = torch.tensor([[[0.0, 0, 20, 10], [0, 0, 0, 0]]])
    deltas = torch.zeros(2, 2, 4)
    deltas[:, 1, 0] = 5.0  # half a width to the right
    boxes, scores = refined(torch.tensor([[0.0, math.log(3)], [0.0, 9.0]]), deltas, proposals, 100, 25)
    assert boxes[0, 0].tolist() == [10, 0, 25, 10]
    assert scores[0, :, 0].tolist() == pytest.approx([0.75, 0])


def test_several_classes_have_boxes_of_their_own() -> None:
    proposals = torch.tensor([[[0.0, 0, 20, 10]]])
    deltas = torch.zeros(1, 3, 4)
    deltas[0, 1, 0], deltas[0, 2, 1] = 5.0, 5.0
    boxes, scores = refined(torch.tensor([[0.0, 0.0, math.log(2)]]), deltas, proposals, 100, 100)
    assert boxes[0].tolist() == [[0, 5, 20, 15], [10, 0, 30, 10]]
    assert scores[0].flatten().tolist() == pytest.approx([0, 0.5, 0.25, 0])


def test_predictor_gives_every_class_a_box() -> None:
    logits, deltas = BoxPredictor(16, 3)(torch.zeros(5, 16))
    assert logits.shape == (5, 4)
    assert deltas.shape == (5, 4, 4)
