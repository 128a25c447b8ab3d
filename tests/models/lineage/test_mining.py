"""What counts as background, by hand."""

from __future__ import annotations

import torch

from models.lineage.calibration import curve_of, judge
from models.lineage.mining import Cache, Scene, background, negatives

OBJECT, IGNORED = [0.0, 0, 10, 10], [50.0, 0, 70, 20]


def _scene() -> Scene:
    return Scene(
        torch.zeros(96, 96, 3, dtype=torch.uint8),
        torch.tensor([OBJECT, [20.0, 20, 30, 30]]),
        torch.tensor([0, 1]),
        torch.tensor([IGNORED]),
    )


def test_objects_of_the_class_and_ignored_areas_are_no_background() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 12],  # on the object
            [0, 0, 20, 20],  # IoU 1/4 with it: partly off
            [20, 20, 30, 30],  # another class
            [55, 5, 60, 10],  # inside what is ignored
            [40, 0, 70, 20],  # two thirds inside
            [40, 0, 62, 40],  # 12 x 20 of 22 x 40 inside
        ]
    )
    assert background(_scene(), 0, boxes).tolist() == [False, True, True, False, False, True]


def test_negatives_are_the_best_that_differ() -> None:
    boxes = torch.tensor([OBJECT, [80.0, 80, 90, 90], [80, 80, 90, 91], [30, 60, 40, 70], [0, 80, 9, 90]])
    scores = torch.tensor([5.0, 0.5, 0.6, 0.1, -2.0])
    assert negatives(_scene(), 0, boxes, scores, -1.0, 10).tolist() == [2, 3]
    assert negatives(_scene(), 0, boxes, scores, -1.0, 1).tolist() == [2]


def test_only_the_first_box_on_an_object_is_right() -> None:
    boxes = torch.tensor([OBJECT, [0.0, 0, 10, 6], [80, 80, 90, 90], [52, 2, 62, 12]])
    scores, right = judge(_scene(), 0, boxes, torch.tensor([1.0, 2.0, 0.5, 3.0]), 0.5)
    kept = sorted(zip(scores.tolist(), right.tolist(), strict=True))
    assert kept == [(0.5, False), (2.0, True)]  # one of two that overlap, and none that is ignored


def test_what_suppression_removes_is_no_mistake() -> None:
    """Two boxes that overlap each other by 0.43, both on the object."""
    boxes, scores = torch.tensor([[0.0, 0, 10, 8], [0, 4, 10, 12]]), torch.tensor([2.0, 1.0])
    assert judge(_scene(), 0, boxes, scores, 0.3).right.tolist() == [True]
    assert judge(_scene(), 0, boxes, scores, 0.5).right.tolist() == [True, False]


def test_a_curve_of_pictures_in_some_of_which_nothing_is_found() -> None:
    nothing = judge(_scene(), 0, torch.zeros(0, 4), torch.zeros(0), 0.3)
    assert len(nothing.scores) == len(nothing.right) == 0
    boxes = torch.tensor([OBJECT, [80.0, 80, 90, 90]])
    likely = curve_of([nothing, judge(_scene(), 0, boxes, torch.tensor([2.0, -2.0]), 0.3)])
    unlikely = curve_of([nothing, judge(_scene(), 0, boxes, torch.tensor([-2.0, 2.0]), 0.3)])
    assert (likely.right, likely.wrong) == (unlikely.right, unlikely.wrong) == (1, 1)
    assert likely.slope > unlikely.slope > 0, "a higher score is never less likely to be right"


def test_a_window_is_remembered_once_and_weights_carry_over() -> None:
    cache = Cache(torch.tensor([[1.0, 0.0]]))
    cache.add((0, 7), torch.tensor([-1.0, 0.0]))
    cache.add((0, 7), torch.tensor([-1.0, 0.0]))
    cache.add((1, 7), torch.tensor([-3.0, 0.0]))
    assert len(cache.negatives) == 2
    first = cache.fit(10.0, 1e-6, 0)
    cache.add((2, 0), torch.tensor([0.0, -1.0]))
    second = cache.fit(10.0, 1e-6, 0)
    assert second.loss > first.loss
    assert len(second.multipliers) == 4
