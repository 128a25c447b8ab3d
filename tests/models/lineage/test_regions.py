from __future__ import annotations

import torch

from models.lineage.regions import match_anchors, match_regions, sample
from models.target import Target


def target(*boxes: tuple[float, float, float, float], ignored: tuple[float, ...] = ()) -> Target:
    none = torch.zeros(0, 4)
    return Target(
        boxes=torch.tensor(boxes).view(-1, 4),
        classes=torch.arange(len(boxes)),
        ignored=torch.tensor(ignored).view(-1, 4),
        partial=none,
        proposals=none,
    )


TEN_BY_TEN = (0.0, 0.0, 10.0, 10.0)


def test_anchors_by_hand() -> None:
    """IoU with the first object 0.8, 0.5, 0.2; with the second 0.4 at best, which is that object's only anchor."""
    anchors = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 2], [100, 0, 110, 4]])
    found = match_anchors(anchors, target(TEN_BY_TEN, (100.0, 0.0, 110.0, 10.0)))
    assert found.tolist() == [0, -2, -1, 1]


def test_an_object_that_no_anchor_touches_chooses_none() -> None:
    found = match_anchors(torch.tensor([[0.0, 0, 10, 10]]), target((50.0, 50.0, 60.0, 60.0)))
    assert found.tolist() == [-1]


def test_a_picture_too_small_for_any_anchor_has_none_to_learn_from() -> None:
    assert match_anchors(torch.zeros(0, 4), target(TEN_BY_TEN)).shape == (0,)


def test_equally_near_anchors_are_all_chosen() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 5], [0, 5, 10, 10]])
    assert match_anchors(anchors, target(TEN_BY_TEN)).tolist() == [0, 0]


def test_regions_by_hand() -> None:
    regions = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 4], [0, 0, 10, 0.5], [40, 40, 50, 50]])
    assert match_regions(regions, target(TEN_BY_TEN)).tolist() == [0, -1, -1, -1]
    assert match_regions(regions, target(TEN_BY_TEN), low=0.1).tolist() == [0, -1, -2, -2]


def test_what_is_half_ignored_is_no_background() -> None:
    boxes = torch.tensor([[40.0, 0, 50, 10], [36, 0, 46, 10], [34, 0, 44, 10]])  # 1, 0.6 and 0.4 of it
    for match in (match_anchors, match_regions):
        assert match(boxes, target(TEN_BY_TEN, ignored=(40.0, 0.0, 80.0, 50.0))).tolist() == [-2, -2, -1]
        assert match(boxes, target(ignored=(40.0, 0.0, 80.0, 50.0))).tolist() == [-2, -2, -1]
    inside = torch.tensor([[0.0, 0, 10, 10]])
    assert match_anchors(inside, target(TEN_BY_TEN, ignored=(0.0, 0.0, 50.0, 50.0))).tolist() == [0]


def test_samples_are_filled_up_with_background() -> None:
    torch.manual_seed(0)
    matches = torch.tensor([-1] * 300 + [-2] * 50 + [0, 1, 1])
    few = sample(matches, 256, 0.5)
    assert sorted(few.objects.tolist()) == [350, 351, 352]
    assert few.matched.tolist() == matches[few.objects].tolist()
    assert len(few.background) == 253
    assert set(few.background.tolist()) <= set(range(300))
    assert len(set(few.background.tolist())) == 253
    many = sample(torch.arange(400) % 2 - 1, 128, 0.25)
    assert (len(many.objects), len(many.background)) == (32, 96)
    assert len(sample(torch.tensor([-2, -2]), 128, 0.25).rows) == 0
