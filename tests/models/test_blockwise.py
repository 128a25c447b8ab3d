"""A network whose blocks learn alone, each from what its teacher's gives."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from models.augment import Augmentation
from models.backbones.efficientnet_lite0 import EfficientNetLite0
from models.blockwise import misfit, walk
from models.checkpoint import save_checkpoint
from models.errors import RecipeError
from models.grid_detector import GridDetector
from models.loader import EpochSamples, epoch_batches
from models.megvii_yolox import MegviiYolox, MegviiYoloxConfig
from models.recipe import load_recipe
from models.trainer import Trainer, build, network, step
from models.training_data import training_data
from models.yolox import Yolox, YoloxConfig
from tests.models.conftest import SHAPES

HEIGHT, WIDTH = 64, 96


def _nano() -> MegviiYolox:
    return MegviiYolox(MegviiYoloxConfig(SHAPES, HEIGHT, WIDTH, "nano")).eval()


def _recipe(folder: Path, shapes: Path, teacher: Path, model: str, alone: int) -> Path:
    path = folder / "student.yaml"
    path.write_text(f"""
name: student
names: [square, disc]
model: {{{model}, input_height: {HEIGHT}, input_width: {WIDTH}}}
distillation: {{teacher: {teacher}, blocks: 1.0, alone_epochs: {alone}}}
data:
  train: [{{annotations: {shapes}, images: {shapes.parent}, repeat: 8}}]
  in_memory: true
augmentation: {{flip: 0.5, mosaic: 0, crop: 0, shrink: 0, plain_epochs: 0}}
schedule: {{epochs: 2, batch: 8, learning_rate: 0.01, backbone_rate: 1.0, ema_decay: 0.9}}
device: cpu
precision: float32
workers: 0
threads: 1
runs: {folder / "runs"}
""")
    return path


def _trainer(recipe_path: Path) -> tuple[Trainer, EpochSamples]:
    recipe = load_recipe(recipe_path)
    examples, _ = training_data(recipe)
    part = recipe.augmentation
    samples = EpochSamples(examples, HEIGHT, WIDTH, Augmentation(flip=0.5), part.sizes, 0, 0)
    return build(recipe, network(recipe)), samples


@pytest.mark.parametrize("model", [_nano(), Yolox(YoloxConfig(SHAPES, HEIGHT, WIDTH, 13, 16)).eval()])
def test_blocks_in_a_chain_are_the_detector(model: GridDetector) -> None:
    images = model.normalise(torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8))
    with torch.no_grad():
        whole = walk(model, images)
        assert model.predict(whole.maps).equal(model(images))
    strides = [HEIGHT // each.shape[2] for each in whole.backbone]
    assert strides[-3:] == [8, 16, 32]
    assert [each.shape[2:] for each in whole.maps] == [each.shape[2:] for each in whole.backbone[-3:]]
    assert len(whole.linear) == len(model.ends())


def test_ends_are_the_maps_before_their_activation() -> None:
    model = _nano()
    with torch.no_grad():
        whole = walk(model, torch.rand(2, 3, HEIGHT, WIDTH) * 255)
        again = walk(model, torch.rand(2, 3, HEIGHT, WIDTH) * 255)
    assert len(whole.linear) == len(again.linear) == 7, "hooks are gone after each walk"
    for linear, map_ in zip(whole.linear, (*whole.backbone, *whole.maps), strict=True):
        assert functional.silu(linear).equal(map_)


def test_a_block_is_handed_what_is_given() -> None:
    """Two networks that differ in their first block alone give the same from the second on."""
    torch.manual_seed(0)
    teacher = _nano()
    student = copy.deepcopy(teacher)
    torch.nn.init.normal_(student.backbone.backbone.dark2[0].pconv.conv.weight)  # type: ignore[union-attr,arg-type]
    images = torch.rand(2, 3, HEIGHT, WIDTH) * 255
    with torch.no_grad():
        wanted = walk(teacher, images)
        alone, together = walk(student, images, wanted), walk(student, images)
    off = [misfit([a], [b]).item() for a, b in zip(alone.linear, wanted.linear, strict=True)]
    assert off[0] > 0.1
    assert off[1:] == [0.0] * 6
    assert all(misfit([a], [b]) > 0 for a, b in zip(together.linear, wanted.linear, strict=True))


def test_misfit_is_a_part_of_each_channels_variance() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(4, 3, 8, 8) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    mean = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert misfit([wanted], [wanted]) == 0
    left = misfit([mean], [wanted]).item()
    assert 0.5 < left < 0.7, "who gives the mean fits nothing; the least of three channels hardly counts"
    assert misfit([wanted, mean], [wanted, wanted]).item() == pytest.approx(left)


def test_blocks_learn_alone_and_then_together(tmp_path: Path, shapes: Path) -> None:
    """What blocks lack falls, over both kinds of epochs; the other losses are there in both."""
    torch.manual_seed(1)
    teacher = tmp_path / "teacher.pt"
    save_checkpoint(teacher, _nano(), 1, None)
    trainer, samples = _trainer(_recipe(tmp_path, shapes, teacher, "family: yolox, size: nano", 1))
    assert trainer.teacher is not None
    fits = []
    for epoch in (0, 1):
        trainer.epoch = epoch
        for batch in epoch_batches(replace(samples, epoch=epoch), 8, 0):
            losses = step(trainer, [batch], 1.0)
            fits.append(losses["blocks"])
    assert fits[7] < 0.7 * fits[0]
    assert {"box", "objectness", "class", "taught", "blocks"} == set(losses)


def test_blocks_need_the_teachers_channels(tmp_path: Path, shapes: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    save_checkpoint(teacher, _nano(), 1, None)
    recipe = load_recipe(_recipe(tmp_path, shapes, teacher, "family: yolox, size: tiny", 1))
    with pytest.raises(RecipeError, match=r"gives \[32, 64, 128, 256, .* leave distillation\.blocks out"):
        build(recipe, network(recipe))
    with pytest.raises(
        RecipeError, match=r"a lookout-yolox does not learn by blocks; remove distillation\.blocks"
    ):
        load_recipe(_recipe(tmp_path, shapes, teacher, "backbone_blocks: 12", 1))


def test_a_backbone_by_stride_is_the_backbone() -> None:
    backbone = EfficientNetLite0(12).eval()
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        x = backbone.stem(images)
        for block in backbone.blocks:
            x = block(x)
        assert x.equal(backbone(images)[2])
