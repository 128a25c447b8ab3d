from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.lineage.pose import (
    POINT_WEIGHT,
    SMALLEST_SIDE_PX,
    Pose,
    PoseConfig,
    crops,
    detected_joints,
    joints_of,
)
from models.target import Target

NONE = torch.zeros(0, 4)
HEIGHT, WIDTH = 96, 128


def _model(**changes: object) -> Pose:
    values: dict[str, object] = {
        "names": ("head", "foot"),
        "input_height": HEIGHT,
        "input_width": WIDTH,
        "stages": 2,
        "crop": 64,
        "hidden": 32,
    }
    torch.manual_seed(0)
    return Pose(PoseConfig(**{**values, **changes})).eval()  # type: ignore[arg-type]


def _target(points: list[tuple[int, float, float]]) -> Target:
    boxes = torch.tensor([[x - 5, y - 5, x + 5, y + 5] for _, x, y in points]).reshape(-1, 4)
    return Target(boxes, torch.tensor([joint for joint, *_ in points]).long(), NONE, NONE, NONE)


def _says(model: Pose, stage: int, values: list[float]) -> None:
    head = model.heads[stage]
    assert isinstance(head, nn.Sequential)
    last = head[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    last.bias.data.copy_(torch.tensor(values))


def test_crops_by_hand() -> None:
    """A picture whose values say where they are: column, then row."""
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(30) + 0.5, indexing="ij")
    images = torch.stack(
        [torch.stack([x, y, torch.ones(20, 30)]), torch.stack([x + 100, y, torch.ones(20, 30)])]
    )
    centres = torch.tensor([[[10.0, 8], [0, 0]], [[15, 10], [29, 5]]])
    found = crops(images, centres, torch.tensor([8.0, 4.0]), 4)
    assert found.shape == (4, 3, 4, 4)
    assert found[0, 0, 0].tolist() == pytest.approx([7, 9, 11, 13])  # 8 pixels in 4 steps, around 10
    assert found[0, 1, :, 0].tolist() == pytest.approx([5, 7, 9, 11])
    assert found[1, 2, 0].tolist() == pytest.approx([0, 0, 0, 0]), "outside the picture"
    assert found[1, 0, 3, 3].item() == pytest.approx(3)
    assert found[2, 0, 0].tolist() == pytest.approx([113.5, 114.5, 115.5, 116.5])


@torch.no_grad()
def test_refinement_by_hand() -> None:
    """The second stage moves a joint by a part of the square's side, which is the pose's diameter."""
    model = _model(stages=2, crop_part=0.5)
    _says(model, 0, [0.25, 0.25, 0.5, 0.75, 2.0, -2.0])  # (32, 24) and (64, 72): 32 and 48 apart
    _says(model, 1, [0.1, -0.2, 0.3, 0.4])
    (first, second), presence = model(torch.zeros(1, 3, HEIGHT, WIDTH))
    side = (32**2 + 48**2) ** 0.5 / 2
    assert first[0].tolist() == [[32, 24], [64, 72]]
    assert second[0, 0].tolist() == pytest.approx([32 + 0.1 * side, 24 - 0.2 * side])
    assert second[0, 1].tolist() == pytest.approx([64 + 0.3 * side, 72 + 0.4 * side])
    boxes, scores = model.decode(torch.zeros(1, 3, HEIGHT, WIDTH))
    assert boxes[0, 0].tolist() == pytest.approx(
        [*(second[0, 0] - 12).tolist(), *(second[0, 0] + 12).tolist()]
    )
    assert scores[0].flatten().tolist() == pytest.approx([0.8808, 0, 0, 0.1192], abs=1e-4)
    assert presence.shape == (1, 2)


@torch.no_grad()
def test_losses_by_hand() -> None:
    model = _model(stages=2)
    _says(model, 0, [0.25, 0.25, 0.5, 0.75, 0.0, 0.0])
    _says(model, 1, [0.0, 0.0, 0.0, 0.0])
    images = torch.zeros(2, 3, HEIGHT, WIDTH)
    targets = [_target([(0, 32, 24), (1, 64 + 12.8, 72 - 9.6)]), _target([(0, 32, 24)])]
    found = model.losses(images, targets)
    # one of three joints is off, by a tenth of the picture each way
    assert found["stage 1"].item() == pytest.approx(POINT_WEIGHT * (0.1**2 + 0.1**2) / 2 / 3, rel=1e-4)
    assert found["presence"].item() == pytest.approx(0.6931, abs=1e-4)
    perfect = [_target([(0, 32, 24), (1, 64, 72)])] * 2
    found = model.losses(images, perfect)
    assert found["stage 1"].item() == pytest.approx(0, abs=1e-9)
    assert found["stage 2"].item() == pytest.approx(0, abs=1e-9), (
        "squares are as far off as the first stage is"
    )


def test_nothing_annotated_teaches_that_nothing_is_there() -> None:
    model = _model(stages=3)
    found = model.losses(torch.zeros(2, 3, HEIGHT, WIDTH), [_target([]), _target([])])
    assert found["stage 1"].item() == found["stage 3"].item() == 0
    assert all(loss.isfinite() for loss in found.values())


def test_joints_are_the_centres_of_their_boxes() -> None:
    points, seen, known = joints_of([_target([(1, 7, 8), (1, 30, 30)]), _target([])], 2)
    assert points[0].tolist() == [[0, 0], [7, 8]]
    assert seen.tolist() == [[False, True], [False, False]]
    assert known.all()


def test_a_joint_that_a_crop_has_cut_is_neither_there_nor_missing() -> None:
    cut = Target(torch.tensor([[0.0, 10, 4, 20]]), torch.tensor([0]), NONE, NONE, NONE)
    hidden = Target(
        torch.tensor([[5.0, 5, 15, 15]]), torch.tensor([0]), torch.tensor([[0.0, 0, 2, 9]]), NONE, NONE
    )
    points, seen, known = joints_of([cut, hidden], 2)
    assert seen.tolist() == [[False, False], [True, False]]
    assert known.tolist() == [[False, True], [True, False]], "the ignored box may be the second joint's"
    assert points[1, 0].tolist() == [10, 10]
    model = _model(stages=1)
    _says(model, 0, [0.5, 0.5, 0.5, 0.5, 3.0, 0.0])
    found = model.losses(torch.zeros(1, 3, HEIGHT, WIDTH), [cut])
    assert found["presence"].item() == pytest.approx(0.6931, abs=1e-4), "of the second joint alone"
    assert found["stage 1"].item() == 0


def test_a_pose_without_extent_still_has_squares() -> None:
    assert _model().sides(torch.full((1, 2, 2), 40.0)).tolist() == [SMALLEST_SIDE_PX]


def test_detected_joints_by_hand() -> None:
    wanted = torch.tensor([[[0.0, 0], [30, 40]], [[10, 10], [0, 0]]])  # a diameter of 50, then of nothing
    seen = torch.tensor([[True, True], [True, False]])
    found = torch.tensor([[[10.0, 0], [30, 51]], [[10, 10], [90, 90]]])
    assert detected_joints(found, wanted, seen, 0.2).tolist() == [1.0, 0.0]
    assert detected_joints(found, wanted, seen, 0.1).tolist() == [0.5, 0.0]
    assert detected_joints(found, wanted, seen, 0.23).tolist() == [1.0, 1.0]


def _stick(head: tuple[int, int], foot: tuple[int, int]) -> Tensor:
    image = torch.full((HEIGHT, WIDTH, 3), 100, dtype=torch.uint8)
    for (x, y), colour in ((head, [250, 40, 40]), (foot, [40, 250, 40])):
        image[y - 6 : y + 6, x - 6 : x + 6] = torch.tensor(colour, dtype=torch.uint8)
    return image


def test_it_learns_one_batch_by_heart() -> None:
    model = _model()
    model.start_from_imagenet()
    places = [((30, 20), (44, 76)), ((100, 24), (84, 70))]
    images = model.normalise(torch.stack([_stick(*place) for place in places]))
    wanted = torch.tensor(places, dtype=torch.float32)
    targets = [_target([(0, *map(float, head)), (1, *map(float, foot))]) for head, foot in places]
    torch.stack(list(model.losses(images, targets).values())).sum().backward()
    for stage in model.backbone:
        stem = next(stage.parameters())
        assert stem.grad is not None, "every stage has its own network, and it learns"
    model.backbone.requires_grad_(False)  # quicker, and enough here
    optimiser = torch.optim.Adam(model.heads.parameters(), lr=0.002)
    totals = []
    for _ in range(50):
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    with torch.no_grad():
        found, _ = model(images)
    apart = [(points - wanted).abs().max().item() for points in found]
    print(f"loss {totals[0]:.3f} -> {totals[-1]:.4f}; joints within {apart} px, stage by stage")
    assert totals[-1] < totals[0] / 10
    assert apart[-1] < 5
