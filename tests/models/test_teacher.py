"""A student learns what its teacher sees, from pictures without annotations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from models.annotations import unlabelled
from models.boxes import paired_iou
from models.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from models.errors import DataError, RecipeError
from models.grid import decode_boxes, grid
from models.losses import taught_loss
from models.recipe import load_recipe
from models.target import Taught
from models.teacher import Imitation
from models.train import train
from models.trainer import build, network
from models.yolox import Yolox, YoloxConfig
from tests.models.conftest import SHAPES

HEIGHT, WIDTH = 64, 96


def _recipe(folder: Path, name: str, source: str, validation: Path, epochs: int, more: str = "") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"""
name: {name}
names: [square, disc]
model: {{input_height: {HEIGHT}, input_width: {WIDTH}, backbone_blocks: 12, width: 16}}
data:
  train: [{{{source}, repeat: 8}}]
  validation: {{annotations: {validation}, images: {validation.parent}}}
augmentation: {{flip: 0.5, mosaic: 0, crop: 0, shrink: 0, plain_epochs: 0}}
schedule: {{epochs: {epochs}, batch: 4, learning_rate: 0.01, ema_decay: 0.9, frozen_blocks: 6, validate_every: 9}}
{more}
device: cpu
precision: float32
workers: 0
threads: 1
runs: {folder / "runs"}
""")
    return path


def test_the_loss_is_least_where_the_student_says_what_the_teacher_says() -> None:
    torch.manual_seed(0)
    where = grid(32, 64, torch.device("cpu"))
    cells = len(where.cells)
    boxes = decode_boxes(torch.randn(2, cells, 7) * 0.3, where)
    scores = torch.rand(2, cells, 2) * 0.8 + 0.1
    lessons = [Taught(*each) for each in zip(boxes, scores, strict=True)]
    raw = torch.zeros(2, cells, 7, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        taught_loss(raw, decode_boxes(raw, where), lessons).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    said = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()
    torch.testing.assert_close(said, scores, atol=0.02, rtol=0)
    assert paired_iou(decode_boxes(raw, where), boxes).min() > 0.8


def test_imitation_asks_for_the_same_maps_at_any_scale() -> None:
    torch.manual_seed(0)
    wanted = [torch.randn(2, 6, 5, 7), torch.randn(2, 4, 3, 4)]
    imitation = Imitation([6, 4], [6, 4], [0.5, 0.5])
    with torch.no_grad():
        for layer, channels in zip(imitation, (6, 4), strict=True):
            layer.weight.copy_(torch.eye(channels)[..., None, None])  # type: ignore[union-attr,operator]
        assert imitation(wanted, wanted) < 1e-4
        assert imitation([3 * each + 1 for each in wanted], wanted) < 1e-4
        assert abs(imitation([-each for each in wanted], wanted) - 2) < 1e-3
        assert abs(imitation([torch.randn_like(each) for each in wanted], wanted) - 1) < 0.2
    own = [torch.randn(2, 8, 5, 7), torch.randn(2, 8, 3, 4)]
    imitation = Imitation([8, 8], [6, 4], [0.5, 0.5])
    optimiser = torch.optim.Adam(imitation.parameters(), 0.05)
    seen = []
    for _ in range(60):
        loss = imitation(own, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    assert seen[-1] < 0.75 * seen[0]


def test_what_imitates_learns_and_is_kept(tmp_path: Path, shapes: Path) -> None:
    """The convolutions beside the student are in ``last.pt``, so that a resumed training has them."""
    teacher = tmp_path / "teacher.pt"
    save_checkpoint(teacher, Yolox(YoloxConfig(SHAPES, HEIGHT, WIDTH, 12, 24)), 1, None)
    source = f"annotations: {shapes}, images: {shapes.parent}"
    more = f"distillation: {{teacher: {teacher}, imitation: 2, hints: 1}}"
    path = _recipe(tmp_path, "student", source, shapes, 1, more)
    train(path)
    content = read_checkpoint(tmp_path / "runs" / "student" / "last.pt")
    recipe = load_recipe(path)
    trainer = build(recipe, network(recipe))
    assert trainer.imitation is not None
    assert len(trainer.imitation) == 6, "what is predicted from, and the backbone's"
    begun = {name: value.clone() for name, value in trainer.imitation.state_dict().items()}
    trainer.restore(content)
    kept = content["training"]["imitation"]
    for name, value in trainer.imitation.state_dict().items():
        assert value.equal(kept[name])
        assert not value.equal(begun[name])
    assert not any(name.startswith("imitation") for name in content["weights"])


@pytest.mark.slow
def test_pictures_without_annotations_teach_through_a_teacher(tmp_path: Path, shapes: Path) -> None:
    source = f"annotations: {shapes}, images: {shapes.parent}"
    teacher = train(_recipe(tmp_path, "teacher", source, shapes, 6))
    more = f"distillation: {{teacher: {teacher}, weight: 2}}"
    student = train(_recipe(tmp_path, "student", f"images: {shapes.parent}", shapes, 6, more))
    best = [load_checkpoint(each)[1].ap50 for each in (teacher, student)]
    print(best)
    assert best[0] is not None
    assert best[1] is not None
    assert best[1] > 0.8 * best[0] > 0.5


def test_pictures_of_a_folder_are_known_to_be_nothing(shapes: Path) -> None:
    file = unlabelled(shapes.parent, SHAPES)
    assert len(file.pictures) == 8
    assert {(each.width, each.height) for each in file.pictures} == {(128, 96)}
    assert all(each.crowd and each.box == (0, 0, 128, 96) for each in file.annotations)
    broken = shapes.parent / "0.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=re.escape(f"{broken}: not a readable picture")):
        unlabelled(shapes.parent, SHAPES)
    with pytest.raises(DataError, match="has no pictures"):
        unlabelled(shapes.parent / "none", SHAPES)


def test_a_teacher_must_know_the_classes(tmp_path: Path, shapes: Path) -> None:
    path = tmp_path / "teacher.pt"
    save_checkpoint(path, Yolox(YoloxConfig(("disc",), HEIGHT, WIDTH, 12, 16)), 1, None)
    more = f"distillation: {{teacher: {path}}}"
    recipe = load_recipe(_recipe(tmp_path, "student", f"images: {shapes.parent}", shapes, 1, more))
    with pytest.raises(RecipeError, match=r"teacher\.pt does not know square, only disc"):
        build(recipe, network(recipe))


def test_somebody_must_teach(tmp_path: Path, shapes: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"pictures without annotations; add them, or a distillation\.teacher"
    ):
        load_recipe(_recipe(tmp_path, "student", f"images: {shapes.parent}", shapes, 1))
