from __future__ import annotations

import pytest
import torch

from models.grid import STRIDES, decode_boxes, grid
from models.postprocess import detections
from models.yolox import Yolox, YoloxConfig

CONFIG = YoloxConfig(("a", "b", "c"), input_height=96, input_width=160, backbone_blocks=12, width=16)


@pytest.fixture(scope="module")
def model() -> Yolox:
    torch.manual_seed(0)
    return Yolox(CONFIG).eval()


@torch.no_grad()
def test_one_prediction_a_cell(model: Yolox) -> None:
    images = torch.randint(0, 256, (2, 96, 160, 3), dtype=torch.uint8)
    boxes, scores = model.decode(model.normalise(images))
    cells = sum((96 // stride) * (160 // stride) for stride in STRIDES)
    assert boxes.shape == (2, cells, 4)
    assert scores.shape == (2, cells, 3)
    assert bool((scores >= 0).all() and (scores <= 1).all())
    assert bool((boxes[..., 2:] > boxes[..., :2]).all())


@torch.no_grad()
def test_normalise_is_the_backbones_arithmetic(model: Yolox) -> None:
    images = torch.randint(0, 256, (1, 4, 6, 3), dtype=torch.uint8)
    normalised = model.normalise(images)
    assert normalised.shape == (1, 3, 4, 6)
    expected = (images[0, 1, 2, 0].double() - 127) / 128
    assert normalised[0, 0, 1, 2].item() == pytest.approx(expected.item(), abs=1e-6)


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(model: Yolox) -> None:
    images = model.normalise(torch.randint(0, 256, (3, 96, 160, 3), dtype=torch.uint8))
    together, alone = model(images), model(images[1:2])
    difference = (together[1] - alone[0]).abs()
    print(f"max {difference.max():.2e} mean {difference.mean():.2e}")
    assert difference.max() < 1e-3


def test_grid_and_decoding_by_hand() -> None:
    where = grid(32, 64, torch.device("cpu"))
    assert len(where.cells) == 4 * 8 + 2 * 4 + 2
    row_1_column_2, coarse = 8 + 2, 4 * 8 + 2 * 4 + 1
    assert where.centres[row_1_column_2].tolist() == [20, 12]
    assert where.centres[coarse].tolist() == [48, 16]
    raw = torch.zeros(1, len(where.cells), 8)
    raw[0, coarse, :4] = torch.tensor([0.25, 0.5, 0.0, -0.6931472])
    assert decode_boxes(raw, where)[0, coarse].tolist() == pytest.approx([24, 8, 56, 24])


def test_detections_are_sorted_suppressed_and_limited() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]])
    scores = torch.tensor([[0.5, 0.0], [0.9, 0.3], [0.2, 0.7]])
    found = detections(boxes, scores, 0.1)
    assert found[1].tolist() == pytest.approx([0.9, 0.7, 0.3, 0.2])
    assert found[2].tolist() == [0, 1, 1, 0]
    assert found[0][0].tolist() == [0, 0, 10, 9]
    assert len(detections(boxes, scores, 0.1, limit=2)[1]) == 2
    assert len(detections(boxes, scores, 0.95)[1]) == 0
