from __future__ import annotations

import math

import pytest
import torch

from models.lineage.box_coding import encode
from models.lineage.rpn import Proposed, Proposing, Rpn
from models.target import Target

PLAN = Proposing(
    sizes=((16,),), ratios=(1.0, 2.0), entering=4, count=3, entering_training=100, count_training=5
)
ANCHORS = torch.tensor(
    [[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 50, 40], [50, 20, 60, 30], [20, 20, 24, 24]]
)


def target(*boxes: tuple[float, float, float, float]) -> Target:
    none = torch.zeros(0, 4)
    classes = torch.zeros(len(boxes), dtype=torch.int64)
    return Target(torch.tensor(boxes).view(-1, 4), classes, none, none, none)


def proposed(*logits: float) -> Proposed:
    return Proposed([ANCHORS], [torch.tensor([logits])], [torch.zeros(1, len(ANCHORS), 4)])


def test_proposals_by_hand() -> None:
    """The second is a copy of the first (IoU 0.9), the third and fourth are cut off, the fifth does not enter."""
    rpn = Rpn(8, 8, PLAN).eval()
    boxes, scores = rpn.proposals(proposed(2.0, 1.0, 0.0, 3.0, -9.0), height=35, width=55)
    assert boxes[0].tolist() == [[50, 20, 55, 30], [0, 0, 10, 10], [30, 30, 50, 35]]
    assert scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (3, 2, 0)])


def test_too_few_proposals_are_filled_up() -> None:
    rpn = Rpn(8, 8, PLAN).train()
    boxes, scores = rpn.proposals(proposed(2.0, 1.0, 0.0, 3.0, -9.0), height=25, width=25)
    assert boxes[0, 2:].tolist() == [[0.0] * 4] * 3  # two lie outside this picture, one is a copy
    assert (scores[0] > 0).tolist() == [True, True, False, False, False]


def test_losses_by_hand() -> None:
    """Four anchors are background; one is an object, but not quite: it reaches a tenth too far down."""
    rpn = Rpn(8, 8, PLAN)
    said = proposed(0.0, 0.0, 0.0, 0.0, math.log(3))
    losses = rpn.losses(said, [target((20.0, 20.0, 24.0, 23.6))], height=100, width=100)
    assert losses["objectness"].item() == pytest.approx((4 * math.log(2) + math.log(4 / 3)) / 5, rel=1e-5)
    off = encode(torch.tensor([20.0, 20, 24, 23.6]), ANCHORS[4])
    assert off.tolist() == pytest.approx([0, -0.05, 0, math.log(0.9)], abs=1e-5)
    expected = sum(4.5 * value**2 if abs(value) < 1 / 9 else abs(value) - 1 / 18 for value in off.tolist())
    assert losses["proposal"].item() == pytest.approx(expected / 5, rel=1e-4)


def test_anchors_across_the_border_do_not_learn_before_pyramids() -> None:
    everything = proposed(0.0, 0.0, 0.0, 0.0, 0.0)
    inside = Rpn(8, 8, PLAN).losses(everything, [target()], height=35, width=55)
    assert inside["objectness"].item() == pytest.approx(math.log(2))
    said = proposed(0.0, 0.0, 50.0, 50.0, 0.0)  # certain of the two that cross
    assert Rpn(8, 8, PLAN).losses(said, [target()], 35, 55)["objectness"].item() == pytest.approx(math.log(2))


def test_anchors_and_predictions_are_in_one_order() -> None:
    """One cell and anchor of the map is believed in; the best proposal is that cell's anchor."""
    rpn = Rpn(1, 1, PLAN).eval()
    torch.nn.init.zeros_(rpn.head.conv[0][0].weight)
    torch.nn.init.zeros_(rpn.head.bbox_pred.weight)
    with torch.no_grad():
        rpn.head.conv[0][0].weight[0, 0, 1, 1] = 1.0
        rpn.head.cls_logits.weight.copy_(torch.tensor([0.5, 1.0]).view(2, 1, 1, 1))
    features = torch.zeros(1, 1, 3, 4)
    features[0, 0, 1, 2] = 5.0
    boxes, scores = rpn.proposals(rpn([features], 48, 64), 48, 64)
    assert scores[0, 0].item() == pytest.approx(1 / (1 + math.exp(-5)))
    # Cell (1, 2) has its middle at (40, 24); 16 / sqrt(2) is 11.3 wide, 22.6 high; its halves are rounded.
    assert boxes[0, 0].tolist() == [40 - 6, 24 - 11, 40 + 6, 24 + 11]
