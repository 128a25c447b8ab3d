"""YOLO's loss against numbers computed by hand, and a batch that it learns by heart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.errors import RecipeError
from models.lineage.yolo_v1 import Cells, YoloV1, YoloV1Config, corners, yolo_loss
from models.recipe import Recipe
from models.target import Target
from models.trainer import network

NONE = torch.zeros(0, 4)
ROWS, COLUMNS = 2, 2  # of an input of 100 x 100: cells of 50 x 50


def _cells() -> Cells:
    """Four cells of two boxes and two classes that say nothing: everything is 0."""
    return Cells(torch.zeros(1, 4, 2, 4), torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))


def _target(boxes: Tensor = NONE, classes: tuple[int, ...] = (), ignored: Tensor = NONE) -> Target:
    return Target(boxes, torch.tensor(classes, dtype=torch.int64), ignored, NONE, NONE)


def _loss(cells: Cells, target: Target) -> dict[str, float]:
    losses = yolo_loss(cells, [target], ROWS, COLUMNS, 100, 100)
    return {name: value.item() for name, value in losses.items()}


def test_one_object_by_hand() -> None:
    """A box of 40 x 20 with its centre (70, 20): cell 1, at (0.4, 0.4) of it."""
    cells = _cells()
    cells.boxes[0, 1, 0] = torch.tensor([0.4, 0.4, math.sqrt(0.4), math.sqrt(0.1)])  # half of it: IoU 1/2
    cells.boxes[0, 1, 1] = torch.tensor([0.9, 0.4, math.sqrt(0.1), math.sqrt(0.1)])  # beside it
    cells.confidences[0] = torch.tensor([[0.1, 0.2], [0.3, 0.6], [0.0, 0.0], [0.0, 0.5]])
    cells.classes[0, 1] = torch.tensor([0.3, 0.6])
    cells.classes[0, 0] = torch.tensor([9.0, 9.0])  # without an object nobody minds
    losses = _loss(cells, _target(torch.tensor([[50.0, 10, 90, 30]]), (1,)))
    assert losses["centre"] == pytest.approx(0, abs=1e-9)
    assert losses["size"] == pytest.approx(5 * (math.sqrt(0.2) - math.sqrt(0.1)) ** 2, rel=1e-4)
    assert losses["confidence"] == pytest.approx((0.3 - 0.5) ** 2, rel=1e-4)
    assert losses["no_object"] == pytest.approx(0.5 * (0.01 + 0.04 + 0.36 + 0.25), rel=1e-4)
    assert losses["class"] == pytest.approx(0.3**2 + 0.4**2, rel=1e-4)


def test_the_centre_is_counted_in_cells() -> None:
    cells = _cells()
    cells.boxes[0, 1, :] = torch.tensor([0.5, 0.1, math.sqrt(0.4), math.sqrt(0.2)])
    losses = _loss(cells, _target(torch.tensor([[50.0, 10, 90, 30]]), (0,)))
    assert losses["centre"] == pytest.approx(5 * (0.1**2 + 0.3**2), rel=1e-4)


def test_where_no_box_overlaps_the_nearest_is_responsible() -> None:
    cells = _cells()
    cells.boxes[0, 3, 0] = torch.tensor([-5.0, -5, 0.1, 0.1])
    cells.boxes[0, 3, 1] = torch.tensor([-1.0, -1, 0.1, 0.1])
    cells.confidences[0, 3, 1] = 1.0
    losses = _loss(cells, _target(torch.tensor([[60.0, 60, 90, 90]]), (0,)))  # centre (0.5, 0.5) of its cell
    assert losses["centre"] == pytest.approx(5 * 2 * 1.5**2, rel=1e-4)
    assert losses["confidence"] == pytest.approx(1, rel=1e-4)  # wanted: its IoU, 0
    assert losses["no_object"] == 0


def test_a_cell_learns_the_largest_of_its_objects() -> None:
    cells = _cells()
    cells.classes[0, 0] = torch.tensor([0.0, 1.0])
    boxes = torch.tensor([[20.0, 20, 30, 30], [0.0, 0, 60, 60]])
    assert _loss(cells, _target(boxes, (0, 1)))["class"] == 0
    assert _loss(cells, _target(boxes.flip(0), (1, 0)))["class"] == 0


def test_a_centre_on_the_border_is_in_the_last_cell() -> None:
    cells = _cells()
    cells.confidences[0, 3] = 1.0
    edge = torch.tensor([[99.0, 99, 101, 101]])  # its centre is (100, 100), one past the grid
    assert _loss(cells, _target(edge, (0,)))["no_object"] == pytest.approx(0.5)  # the other box of cell 3


def test_ignored_places_want_nothing() -> None:
    cells = _cells()
    cells.confidences[0] = 1.0
    assert _loss(cells, _target())["no_object"] == pytest.approx(0.5 * 8)
    left = torch.tensor([[0.0, 0, 40, 100]])  # over the middles of cells 0 and 2
    assert _loss(cells, _target(ignored=left))["no_object"] == pytest.approx(0.5 * 4)
    small = torch.tensor([[52.0, 2, 58, 8]])  # in cell 1, far from its middle
    assert _loss(cells, _target(ignored=small))["no_object"] == pytest.approx(0.5 * 6)


def test_the_loss_is_a_mean_over_pictures() -> None:
    cells = _cells()
    cells.confidences[0] = 1.0
    twice = Cells(
        *(part.repeat(2, *[1] * (part.ndim - 1)) for part in (cells.boxes, cells.confidences, cells.classes))
    )
    losses = yolo_loss(twice, [_target(), _target()], ROWS, COLUMNS, 100, 100)
    assert losses["no_object"].item() == pytest.approx(0.5 * 8)


def test_corners_by_hand() -> None:
    boxes = torch.zeros(1, 6, 1, 4)  # two rows of three
    boxes[0, 4, 0] = torch.tensor([0.5, 0.5, 0.5, 0.6])  # row 1, column 1
    assert corners(boxes, 2, 3)[0, 4, 0].tolist() == pytest.approx([0.375, 0.57, 0.625, 0.93])


@pytest.mark.parametrize("head", ["connected", "convolutional"])
def test_two_pictures_are_learned_by_heart(head: str) -> None:
    torch.manual_seed(0)
    config = YoloV1Config(("a", "b"), 64, 96, rows=2, columns=3, width=24, hidden=64, head=head)  # type: ignore[arg-type]
    model = YoloV1(config)
    model.start_from_imagenet()
    model.backbone.eval()
    model.head.eval()  # without dropout: what is learned by heart must be seen whole
    images = torch.full((2, 64, 96, 3), 114, dtype=torch.uint8)
    images[0, 8:40, 16:48] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    images[1, 20:60, 40:90] = torch.tensor([0, 0, 255], dtype=torch.uint8)
    truth = [torch.tensor([[16.0, 8, 48, 40]]), torch.tensor([[40.0, 20, 90, 60]])]
    targets = [_target(box, (number,)) for number, box in enumerate(truth)]
    with torch.no_grad():
        features = model.backbone.trunk(model.normalise(images))
    model.backbone.trunk = lambda _: features  # type: ignore[method-assign]
    parameters = [*model.extra.parameters(), *model.head.parameters()]
    optimiser = torch.optim.Adam(parameters, 3e-3)
    first = last = math.inf
    for step in range(150):
        loss = torch.stack(list(model.losses(torch.zeros(2, 3, 64, 96), targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
        if last < 0.003:
            break
    print(f"{head}: loss {first:.3f} to {last:.5f}")
    assert last < 0.01 < first
    with torch.no_grad():
        boxes, scores = model.decode(torch.zeros(2, 3, 64, 96))
    assert boxes.shape == (2, 12, 4)
    for picture in range(2):
        best = int(scores[picture].max(1).values.argmax())
        assert scores[picture, best].argmax() == picture
        assert scores[picture, best].max() > 0.8
        assert (boxes[picture, best] - truth[picture][0]).abs().max() < 5


def test_a_convolutional_head_has_the_grid_of_its_stride() -> None:
    with pytest.raises(ValueError, match="here 2 and 3"):
        YoloV1(YoloV1Config(("a",), 64, 96, rows=3, columns=3, head="convolutional"))


def test_a_recipe_for_a_network_that_cannot_be() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "wrong",
            "names": ["a"],
            "data": {"train": [{"annotations": "a.json", "images": "a"}]},
            "schedule": {"epochs": 2},
            "model": {"family": "yolo-v1", "head": "convolutional", "pretrained": False},
        }
    )
    with pytest.raises(RecipeError, match="model: rows and columns are 7 and 9; a convolutional head"):
        network(recipe)
