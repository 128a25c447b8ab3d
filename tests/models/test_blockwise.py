"""A network whose blocks learn alone, each from what its teacher's gives."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
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


def _recipe(folder: Path, shapes: Path, teacher: Path, model: str, alone: str = "") -> Path:
    path = folder / "student.yaml"
    path.write_text(f"""
name: student
names: [square, disc]
model: {{{model}, input_height: {HEIGHT}, input_width: {WIDTH}}}
distillation: {{teacher: {teacher}, blocks: 1.0{alone}}}
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


def test_parts_are_handed_the_same_and_compute_nothing_else() -> None:
    teacher, student = _nano(), _nano()
    ran: list[nn.Module] = []
    layers = {layer for layer in student.modules() if not [*layer.children()]}
    for layer in layers:
        layer.register_forward_hook(lambda layer, _inputs, _output: ran.append(layer))
    images = torch.rand(2, 3, HEIGHT, WIDTH) * 255
    with torch.no_grad():
        wanted = walk(teacher, images)
        whole = walk(student, images, wanted)
        ran.clear()
        first = walk(student, images, wanted, range(3))
        ran_first = {*ran}
        ran.clear()
        last = walk(student, images, wanted, range(3, 5))
        as_much = walk(teacher, images, part=range(3))
    assert not ran_first & {*ran}
    assert ran_first == layers & {each for block in student.blocks()[:-1] for each in block.modules()}
    linear = [*first.linear, *last.linear]
    assert [one.equal(other) for one, other in zip(linear, whole.linear, strict=True)] == [True] * 7
    assert (len(first.linear), len(first.maps), len(last.maps)) == (3, 0, 3)
    assert all(one.equal(other) for one, other in zip(as_much.backbone, wanted.backbone[:3], strict=True))


def test_misfit_is_a_part_of_each_channels_variance() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(4, 3, 8, 8) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    mean = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert misfit([wanted], [wanted]) == 0
    left = misfit([mean], [wanted]).item()
    assert 0.5 < left < 0.7, "who gives the mean fits nothing; the least of three channels hardly counts"
    assert misfit([wanted, mean], [wanted, wanted]).item() == pytest.approx(left)


def test_parts_learn_alone_and_then_together(tmp_path: Path, shapes: Path) -> None:
    """What their blocks lack falls, and what is not theirs stays as it is."""
    torch.manual_seed(1)
    teacher = tmp_path / "teacher.pt"
    save_checkpoint(teacher, _nano(), 1, None)
    state: dict[str, torch.Tensor] = {}
    names = {"box", "objectness", "class", "taught", "blocks"}
    of_the_first = ("backbone.backbone.stem", *(f"backbone.backbone.dark{number}" for number in (2, 3, 4)))
    for alone, parts, losses in (
        ("[1, 3]", {True}, {"blocks"}),
        ("[4, 5]", {False}, names),
        ("", {True, False}, names),
    ):
        rest = f", alone: {alone}" if alone else ""
        trainer, samples = _trainer(_recipe(tmp_path, shapes, teacher, "family: yolox, size: nano", rest))
        trainer.model.load_state_dict(state or trainer.model.state_dict())
        before = copy.deepcopy(trainer.model.state_dict())
        fits = []
        for batch in epoch_batches(samples, 8, 0):
            said = step(trainer, [batch], 1.0)
            assert set(said) == losses
            fits.append(said["blocks"])
        assert fits[-1] < 0.8 * fits[0]
        state = copy.deepcopy(trainer.model.state_dict())
        changed = [name for name, value in state.items() if not value.equal(before[name])]
        assert {name.startswith(of_the_first) for name in changed} == parts


def test_blocks_need_the_teachers_channels(tmp_path: Path, shapes: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    save_checkpoint(teacher, _nano(), 1, None)
    recipe = load_recipe(_recipe(tmp_path, shapes, teacher, "family: yolox, size: tiny"))
    with pytest.raises(RecipeError, match=r"gives \[32, 64, 128, 256, .* leave distillation\.blocks out"):
        build(recipe, network(recipe))
    beyond = _recipe(tmp_path, shapes, teacher, "family: yolox, size: nano", ", alone: [4, 6]")
    with pytest.raises(RecipeError, match=r"alone: is \[4, 6\], expected two of 1 to 5: the backbone's"):
        build(load_recipe(beyond), network(load_recipe(beyond)))
    with pytest.raises(
        RecipeError, match=r"a lookout-yolox does not learn by blocks; remove distillation\.blocks"
    ):
        load_recipe(_recipe(tmp_path, shapes, teacher, "backbone_blocks: 12"))


def test_a_backbone_by_stride_is_the_backbone() -> None:
    backbone = EfficientNetLite0(12).eval()
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        x = backbone.stem(images)
        for block in backbone.blocks:
            x = block(x)
        assert x.equal(backbone(images)[2])
