from __future__ import annotations

import pytest
import torch

from models.boxes import nms
from models.lineage.suppression import suppress


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_equals_the_reference(threshold: float) -> None:
    torch.manual_seed(0)
    corners = torch.rand(2, 700, 2) * 60  # crowded: chains of overlaps across several blocks
    boxes = torch.cat([corners, corners + 5 + 25 * torch.rand(2, 700, 2)], 2)
    scores = torch.rand(2, 700)
    kept = suppress(boxes, scores, threshold, 700)
    few = suppress(boxes, scores, threshold, 10)
    for picture in range(2):
        reference = nms(boxes[picture], scores[picture], torch.zeros(700, dtype=torch.int64), threshold)
        assert kept[picture].nonzero()[:, 0].tolist() == sorted(reference.tolist())
        assert few[picture].nonzero()[:, 0].tolist() == sorted(reference[:10].tolist())
    print("kept", kept.sum(1).tolist())


def test_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 6], [20, 0, 30, 10]]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    # 0 drops 1 (IoU 0.8); 2 overlaps 1 by 0.75, but only kept boxes count, and 0 by 0.6.
    assert suppress(boxes, scores, 0.7, 4).tolist() == [[True, False, True, True]]
    assert suppress(boxes, scores, 0.5, 4).tolist() == [[True, False, False, True]]
    assert suppress(boxes, scores, 0.7, 2).tolist() == [[True, False, True, False]]
    assert suppress(boxes[:, :0], scores[:, :0], 0.7, 2).shape == (1, 0)
