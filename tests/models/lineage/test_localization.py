from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models.lineage.localization import BOX_WEIGHT, Localization, LocalizationConfig, match
from models.target import Target

NONE = torch.zeros(0, 4)
HEIGHT, WIDTH = 96, 128


def _model(**changes: object) -> Localization:
    values: dict[str, object] = {
        "names": ("a", "b"),
        "input_height": HEIGHT,
        "input_width": WIDTH,
        "hidden": 16,
    }
    torch.manual_seed(0)
    return Localization(LocalizationConfig(**{**values, **changes})).eval()  # type: ignore[arg-type]


def _says(model: Localization, logits: list[list[float]], corners: list[list[float]]) -> None:
    """Let the outputs be these of every picture: K x (C + 1) logits, then K (x C) boxes."""
    for head, bias in ((model.classifier, logits), (model.box_head, corners)):
        last = head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        last.bias.data.copy_(torch.tensor(bias).flatten())


def _target(boxes: list[list[float]], classes: list[int], ignored: Tensor = NONE) -> Target:
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.tensor(classes).long(), ignored, NONE, NONE)


def test_hungarian_matching_is_the_least_sum_not_the_least_entries() -> None:
    cost = torch.tensor([[1.0, 2.0], [2.0, 9.0], [7.0, 7.0]])
    found = match(cost)
    assert dict(zip(found.outputs.tolist(), found.targets.tolist(), strict=True)) == {0: 1, 1: 0}
    assert len(match(torch.zeros(3, 0)).outputs) == 0
    assert len(match(torch.zeros(2, 5)).outputs) == 2


@torch.no_grad()
def test_losses_by_hand() -> None:
    """Two outputs, one object on the right: the right one answers for it, the left one for nothing."""
    model = _model(boxes=2)
    _says(model, [[0.0, 0, 0], [0, 1, 0]], [[0.0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    target = _target([[96.0, 0, 128, 96]], [1])
    found = model.losses(torch.zeros(1, 3, HEIGHT, WIDTH), [target])
    assert found["box"].item() == pytest.approx(BOX_WEIGHT * (0.75 - 0.5) ** 2 / 2)
    right = -(1 - math.log(2 + math.e))
    assert found["class"].item() == pytest.approx(math.log(3) + right, rel=1e-5)


@torch.no_grad()
def test_an_output_learns_from_what_it_is_matched_by() -> None:
    """The left output has the object's class, the right one its place: whoever answers, the loss is no less."""
    model = _model(boxes=2)
    target = _target([[96.0, 0, 128, 96]], [1])
    for offset in (0.0, 0.1, 0.2, 0.3):
        corners = [[0.6 - offset, 0, 0.9, 1], [0.7, 0, 1, 1]]
        _says(model, [[0.0, 2, 0], [0, 0, 0]], corners)
        total = sum(part.item() for part in model.losses(torch.zeros(1, 3, HEIGHT, WIDTH), [target]).values())
        box = [
            BOX_WEIGHT * sum((a - b) ** 2 for a, b in zip(c, (0.75, 0, 1, 1), strict=True)) / 2
            for c in corners
        ]
        left, right = math.log(2 + math.exp(2)), math.log(3)  # what "nothing" costs each
        either = [box[0] + (left - 2) + right, box[1] + right + left]
        assert total == pytest.approx(min(either), rel=1e-4)


@torch.no_grad()
def test_a_box_a_class_learns_where_its_class_is() -> None:
    model = _model(boxes=1, class_specific=True)
    _says(model, [[0.0, 0, 0]], [[0.0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    images, box = torch.zeros(1, 3, HEIGHT, WIDTH), [[64.0, 0, 128, 96]]
    assert model.losses(images, [_target(box, [1])])["box"].item() == pytest.approx(0)
    assert model.losses(images, [_target(box, [0])])["box"].item() == pytest.approx(BOX_WEIGHT * 0.5 / 2)
    boxes, scores = model.decode(images)
    assert boxes[0].tolist() == [[0, 0, 64, 96], [64, 0, 128, 96]]
    assert scores[0].flatten().tolist() == pytest.approx([1 / 3, 0, 0, 1 / 3])


@torch.no_grad()
def test_an_output_on_an_ignored_area_is_not_told_that_nothing_is_there() -> None:
    model = _model(boxes=2)
    _says(model, [[0.0, 0, 0], [3, 0, 0]], [[0.0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    images = torch.zeros(1, 3, HEIGHT, WIDTH)
    right = torch.tensor([[60.0, 0, 128, 96]])
    assert model.losses(images, [_target([], [], right)])["class"].item() == pytest.approx(math.log(3))
    both = math.log(3) + math.log(2 + math.exp(3))
    assert model.losses(images, [_target([], [])])["class"].item() == pytest.approx(both, rel=1e-5)
    assert model.losses(images, [_target([], [])])["box"].item() == 0


@torch.no_grad()
def test_decoding_by_hand() -> None:
    model = _model(boxes=2)
    _says(model, [[math.log(2.0), 0, 0], [0, 0, 0]], [[0.75, 0.5, 0.25, 1.5], [-1, 0, 0.5, 0.25]])
    boxes, scores = model.decode(torch.zeros(1, 3, HEIGHT, WIDTH))
    assert boxes[0].tolist() == [[32, 48, 96, 96], [0, 0, 64, 24]], "in order, and inside the picture"
    assert scores[0, 0].tolist() == pytest.approx([0.5, 0.25])


def test_where_the_box_head_stands() -> None:
    after_conv, after_fc = _model(head="conv"), _model(head="fc")
    assert sum(isinstance(layer, nn.Linear) for layer in after_conv.box_head) == 2
    assert sum(isinstance(layer, nn.Linear) for layer in after_fc.box_head) == 1
    with pytest.raises(ValueError, match="head is 'pool', expected 'conv' or 'fc'"):
        _model(head="pool")


def _squares(places: list[tuple[int, int, int]]) -> Tensor:
    image = torch.full((HEIGHT, WIDTH, 3), 100, dtype=torch.uint8)
    for left, top, side in places:
        image[top : top + side, left : left + side] = torch.tensor([250, 40, 40], dtype=torch.uint8)
    return image


@pytest.mark.parametrize("head", ["conv", "fc"])
def test_it_learns_one_batch_by_heart(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture of two squares, one of one: the other output learns that there is nothing."""
    model = _model(names=("square",), boxes=2, head=head, hidden=64)
    model.start_from_imagenet()
    places = [[(10, 20, 30), (80, 40, 40)], [(40, 10, 50)]]
    images = model.normalise(torch.stack([_squares(each) for each in places]))
    boxes = [[[float(x), y, x + s, y + s] for x, y, s in each] for each in places]
    targets = [_target(each, [0] * len(each)) for each in boxes]
    torch.stack(list(model.losses(images, targets).values())).sum().backward()
    stem = next(model.backbone.parameters())
    assert stem.grad is not None
    assert stem.grad.abs().max() > 0, "the backbone learns, too"
    maps = model.backbone.trunk(images).detach()
    monkeypatch.setattr(model.backbone, "trunk", lambda _: maps)  # quicker, and enough here
    heads = [parameter for name, parameter in model.named_parameters() if not name.startswith("backbone.")]
    optimiser = torch.optim.Adam(heads, lr=0.001)
    totals = []
    for _ in range(120):
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    monkeypatch.undo()
    with torch.no_grad():
        found, scores = model.decode(images)
    print(f"loss {totals[0]:.3f} -> {totals[-1]:.4f}, scores {scores[..., 0].tolist()}")
    assert totals[-1] < totals[0] / 20
    for picture, wanted in enumerate(boxes):
        sure = found[picture][scores[picture, :, 0] > 0.5]
        assert len(sure) == len(wanted)
        for box in wanted:
            assert (sure - torch.tensor(box)).abs().amax(1).min() < 5
