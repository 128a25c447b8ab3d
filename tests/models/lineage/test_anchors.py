from __future__ import annotations

import torch

from models.lineage.anchors import anchors, cell_anchors


def test_three_shapes_of_one_area() -> None:
    """128 / sqrt(0.5) is 181.02, 128 * sqrt(0.5) is 90.51; their halves are rounded."""
    found = cell_anchors((128,), (0.5, 1.0, 2.0))
    assert found.tolist() == [[-91, -45, 91, 45], [-64, -64, 64, 64], [-45, -91, 45, 91]]


def test_sizes_change_fastest() -> None:
    found = cell_anchors((16, 32), (1.0, 4.0))
    assert found.tolist() == [[-8, -8, 8, 8], [-16, -16, 16, 16], [-4, -16, 4, 16], [-8, -32, 8, 32]]


def test_every_cell_has_them_around_itself() -> None:
    around = torch.tensor([[-8.0, -4, 8, 4], [-1, -1, 1, 1]])
    found = anchors(around, 2, 3, (16, 32), 0.5)
    assert found.shape == (12, 4)
    assert found[0].tolist() == [16 - 8, 8 - 4, 16 + 8, 8 + 4]
    assert found[3].tolist() == [48 - 1, 8 - 1, 48 + 1, 8 + 1]  # the second anchor one cell to the right
    assert found[6].tolist() == [16 - 8, 24 - 4, 16 + 8, 24 + 4]  # one cell down
    assert anchors(around, 1, 1, (16, 32), 0.0)[0].tolist() == [-8, -4, 8, 4]
