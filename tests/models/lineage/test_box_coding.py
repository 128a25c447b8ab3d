from __future__ import annotations

import math

import pytest
import torch

from models.lineage.box_coding import NORMALISED, PLAIN, clip, decode, encode


def test_by_hand() -> None:
    """From 10x20 around (5, 10) to 20x40 around (15, 25): one width right, 3/4 of a height down, twice as large."""
    reference, box = torch.tensor([0.0, 0, 10, 20]), torch.tensor([5.0, 5, 25, 45])
    ways = [1, 0.75, math.log(2), math.log(2)]
    assert encode(box, reference).tolist() == pytest.approx(ways)
    assert encode(box, reference, NORMALISED).tolist() == pytest.approx(
        [10, 7.5, 5 * math.log(2), 5 * math.log(2)]
    )


@pytest.mark.parametrize("weights", [PLAIN, NORMALISED])
def test_decoding_undoes_encoding(weights: tuple[float, float, float, float]) -> None:
    torch.manual_seed(0)
    corners = torch.rand(2, 50, 2) * 300
    boxes, references = torch.cat([corners, corners + 1 + 100 * torch.rand(2, 50, 2)], 2)
    back = decode(encode(boxes, references, weights), references, weights)
    torch.testing.assert_close(back, boxes, atol=1e-3, rtol=0)


def test_growth_is_limited() -> None:
    found = decode(torch.tensor([0.0, 0, 100, -100]), torch.tensor([0.0, 0, 16, 16]))
    assert found.tolist() == pytest.approx([8 - 500, 8, 8 + 500, 8])


def test_clipping() -> None:
    found = clip(torch.tensor([[-5.0, 10, 50, 400], [500, 500, 600, 600]]), height=300, width=40)
    assert found.tolist() == [[0, 10, 40, 300], [40, 300, 40, 300]]
