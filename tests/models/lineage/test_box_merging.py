from __future__ import annotations

import pytest
import torch

from models.lineage.box_merging import match_scores, merge, merged_detections


def test_match_scores_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [4, 3, 14, 13], [0, 0, 20, 10]])
    scores = match_scores(boxes)
    assert scores[0, 1].item() == pytest.approx(0)
    # centres (4, 3) apart are 5 pixels, half a side; 6 x 7 pixels are shared of 100
    assert scores[0, 2].item() == pytest.approx(5 / 10 + 1 - 42 / 100)
    # areas 100 and 200, of which 100 shared: centres 5 apart, the mean area 150
    assert scores[0, 3].item() == pytest.approx(5 / 150**0.5 + 1 - 100 / 150)
    assert bool((scores == scores.T).all())


def test_merging_by_hand() -> None:
    """The pair that matches best comes first; then its average is compared anew."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [5, 0, 15, 10], [50, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.25, 0.75, 0.9])
    # 0-1: 0.2 + 0.2; 1-2: 0.3 + 0.3; 0-2: 0.5 + 0.5. Merged, 0-1 lies at 1, and 4 from 2: 0.4 + 0.4.
    found, summed = merge(boxes, scores, threshold=0.4001)
    assert found.tolist() == [[50, 50, 60, 60], [1, 0, 11, 10], [5, 0, 15, 10]]
    assert summed.tolist() == pytest.approx([0.9, 0.75, 0.75])
    found, summed = merge(boxes, scores, threshold=0.8001)
    assert found.tolist() == [[3, 0, 13, 10], [50, 50, 60, 60]]
    assert summed.tolist() == pytest.approx([1.5, 0.9])
    assert boxes[0].tolist() == [0, 0, 10, 10], "what was given is not written to"


def test_merging_little() -> None:
    for count in (0, 1):
        boxes, scores = torch.rand(count, 4), torch.rand(count)
        found, summed = merge(boxes, scores)
        assert found.tolist() == boxes.tolist()
        assert summed.tolist() == scores.tolist()
    found, summed = merge(torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3]]), torch.tensor([0.5, 0.5]), 2.0)
    assert len(found) <= 2, "boxes without area end nowhere else"


def test_it_is_the_greedy_order_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    low = torch.rand(40, 2) * 60
    boxes, scores = torch.cat([low, low + 20 + 20 * torch.rand(40, 2)], 1), torch.rand(40)
    plain = [(box, score) for box, score in zip(boxes, scores, strict=True)]
    while len(plain) > 1:
        apart = match_scores(torch.stack([box for box, _ in plain])).fill_diagonal_(torch.inf)
        first, second = divmod(int(apart.argmin()), len(plain))
        if apart.min() > 0.6:
            break
        merged = (plain[first][0] + plain[second][0]) / 2, plain[first][1] + plain[second][1]
        plain = [one for place, one in enumerate(plain) if place not in (first, second)] + [merged]
    plain.sort(key=lambda one: -one[1])
    found, summed = merge(boxes, scores, 0.6)
    assert 1 < len(found) < 40
    assert (found - torch.stack([box for box, _ in plain])).abs().max() < 1e-4
    assert summed.tolist() == pytest.approx([score.item() for _, score in plain], abs=1e-5)


def test_classes_do_not_mix_and_weak_windows_say_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 12, 10]])
    class_scores = torch.tensor([[0.6, 0.3], [0.5, 0.02], [0.04, 0.9]])
    found, scores, classes = merged_detections(boxes, class_scores, 0.1)
    assert scores.tolist() == pytest.approx([1.2, 1.1])
    assert classes.tolist() == [1, 0]
    assert found.tolist() == [[0, 0, 11, 10], [0, 0, 10, 10]]
    assert len(merged_detections(boxes, class_scores, 0.95)[1]) == 0
    assert merged_detections(boxes, class_scores, 0.1, limit=1)[1].tolist() == pytest.approx([0.9, 0.6])
