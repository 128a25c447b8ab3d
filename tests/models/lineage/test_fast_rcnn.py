"""Fast R-CNN: its losses by hand, one batch by heart, a training from a recipe, and cheaper layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from models.augment import letterboxed
from models.boxes import pairwise_iou
from models.checkpoint import load_checkpoint, save_checkpoint
from models.coco import load_coco
from models.errors import RecipeError
from models.families import FAMILIES
from models.lineage import fast_rcnn
from models.lineage.fast_rcnn import FastRcnn, FastRcnnConfig, without_doubles
from models.lineage.proposal_cache import ProposalCache
from models.lineage.proposals import ProposalRule
from models.recipe import load_recipe
from models.target import Target
from models.train import train
from models.validate import load_validation, validate
from tests.models.conftest import SHAPES
from tests.models.lineage.small import use_small

NOWHERE = torch.zeros(0, 4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> FastRcnn:
    """A detector of two classes on that backbone, 96x128."""
    use_small(monkeypatch, fast_rcnn)
    torch.manual_seed(0)
    model = FastRcnn(FastRcnnConfig(SHAPES, 96, 128, "selective-search:8", rois=8))
    with torch.no_grad():
        model.predictor.cls_score.weight.mul_(50)
        model.predictor.bbox_pred.weight.mul_(100)
    return model.eval()


def test_losses_by_hand(small: FastRcnn) -> None:
    """An untrained predictor that says nothing, two objects in eight regions: the object itself and one 0.8 of it."""
    for parameter in small.predictor.parameters():
        nn.init.zeros_(parameter)
    near = [[0, 0, 40, 32]]  # IoU 0.8: its centre is 4 of 32 too high, and 40 is 1.25 times 32
    beside = [[20, 0, 60, 40]] * 6  # IoU 1/3
    far = [[80, 40, 120, 80]] * 20  # IoU 0 is no hard example
    ignored = [[0, 20, 40, 60]] * 20  # IoU 1/3, but in a crowd
    target = Target(
        boxes=torch.tensor([[0.0, 0, 40, 40]]),
        classes=torch.tensor([1]),
        ignored=torch.tensor([[0.0, 36, 40, 96], [0, 20, 40, 60]]),
        partial=NOWHERE,
        proposals=torch.tensor(near + beside + far + ignored, dtype=torch.float32),
    )
    losses = small.losses(torch.zeros(1, 3, 96, 128), [target])
    assert losses["class"].item() == pytest.approx(math.log(3), abs=1e-6)
    way, growth = 10 * 4 / 32, 5 * math.log(40 / 32)
    assert losses["box"].item() == pytest.approx(((way - 0.5) + (growth - 0.5)) / 8, abs=1e-6)


def test_a_picture_without_objects_teaches_background(small: FastRcnn) -> None:
    proposals = torch.tensor([[0.0, 0, 40, 32], [10, 10, 50, 60]])
    nothing = torch.zeros(0, dtype=torch.int64)
    target = Target(NOWHERE, nothing, NOWHERE, NOWHERE, proposals)
    losses = small.losses(torch.zeros(1, 3, 96, 128), [target])
    logits, _ = small._judge(
        small.backbone.trunk(torch.zeros(1, 3, 96, 128)), proposals, nothing.new_zeros(2)
    )
    assert losses["class"].item() == pytest.approx(-logits.log_softmax(1)[:, 0].mean().item(), rel=1e-5)
    assert losses["box"].item() == 0
    empty = Target(NOWHERE, nothing, NOWHERE, NOWHERE, NOWHERE)
    losses = small.losses(torch.zeros(2, 3, 96, 128), [empty, empty])
    assert sum(losses.values()).item() == 0  # type: ignore[union-attr]


def test_regions_belong_to_their_pictures_and_padding_scores_nothing(small: FastRcnn) -> None:
    torch.manual_seed(1)
    images = torch.randn(2, 3, 96, 128)
    proposals = torch.tensor([[[0.0, 0, 40, 32], [30, 10, 90, 60]], [[8, 8, 64, 90], [0, 0, 0, 0]]])
    boxes, scores = small.decode(images, proposals)
    assert boxes.shape == (2, 4, 4)  # two regions as either class
    assert scores.shape == (2, 4, 2)
    for picture in range(2):
        alone_boxes, alone_scores = small.decode(
            images[picture : picture + 1], proposals[picture : picture + 1]
        )
        torch.testing.assert_close(alone_boxes[0], boxes[picture])
        torch.testing.assert_close(alone_scores[0], scores[picture])
    assert (scores[1] > 0).sum() == 2, "what is padding is no object of either class"
    with pytest.raises(ValueError, match="was given none"):
        small.decode(images)


def test_of_proposals_that_pool_the_same_cells_the_first_counts() -> None:
    proposals = torch.tensor(
        [[[0.0, 0, 40, 39], [7, 7.5, 44, 47], [8, 0, 40, 39], [0, 0, 40, 39]], [[0.0, 0, 0, 0]] * 4]
    )
    kept = without_doubles(proposals, 16)  # in cells 0 0 3 2, 0 0 3 3, 1 0 3 2 and the first again
    assert kept[0].any(1).tolist() == [True, True, True, False]
    torch.testing.assert_close(kept[0, :3], proposals[0, :3])
    assert not kept[1].any()


def test_truncated_layers(small: FastRcnn, tmp_path: Path) -> None:
    torch.manual_seed(1)
    images, proposals = torch.randn(1, 3, 96, 128), torch.tensor([[[0.0, 0, 40, 32], [30, 10, 90, 60]]])
    _, wanted = small.decode(images, proposals)
    whole = small.truncated((16, 12))
    torch.testing.assert_close(whole.decode(images, proposals)[1], wanted, atol=1e-5, rtol=1e-4)
    cut = small.truncated((8, 4))
    differs = (cut.decode(images, proposals)[1] - wanted).abs().max().item()
    print(f"scores differ by up to {differs}")
    assert 1e-5 < differs < 0.5
    save_checkpoint(tmp_path / "cut.pt", cut, 1, None)
    again, _ = load_checkpoint(tmp_path / "cut.pt")
    torch.testing.assert_close(again.decode(images, proposals), cut.decode(images, proposals))
    with pytest.raises(ValueError, match="has 2 fully connected layers, not 1"):
        small.truncated((8,))


@pytest.mark.slow
def test_it_learns_a_batch_by_heart(shapes: Path, tmp_path: Path) -> None:
    rule = ProposalRule("selective-search", 40)
    examples = ProposalCache(tmp_path / "kept", rule, 96, 128).add_to(
        load_coco(shapes, shapes.parent, SHAPES)[:2]
    )
    samples = [letterboxed(example, 96, 128) for example in examples]
    torch.manual_seed(0)
    model = FastRcnn(FastRcnnConfig(SHAPES, 96, 128, str(rule), rois=16))
    model.start_from_imagenet()
    images = model.normalise(torch.stack([torch.from_numpy(sample.image) for sample in samples]))
    targets = [
        Target(*map(torch.from_numpy, (each.boxes, each.classes, each.ignored, each.partial, each.proposals)))
        for each in samples
    ]
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    history = []
    for _ in range(25):
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        history.append(loss.item())
    print([round(loss, 3) for loss in history[::4]])
    assert sum(history[-3:]) < sum(history[:3]) / 4
    with torch.no_grad():
        for picture, target in enumerate(targets):
            boxes, scores = model.eval().decode(images[picture : picture + 1], target.proposals[None])
            row, class_ = divmod(int(scores[0].argmax()), len(SHAPES))
            overlap = pairwise_iou(boxes[0, row : row + 1], target.boxes).item()
            print(f"score {scores.max():.3f}, IoU {overlap:.2f}")
            assert class_ == target.classes.item()
            assert scores.max() > 0.8
            assert overlap > 0.7


def _recipe(folder: Path, shapes: Path, model: str, proposals: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"""
name: judged
names: [square, disc]
model: {{input_height: 96, input_width: 128{model}}}
data:
  train: [{{annotations: {shapes}, images: {shapes.parent}}}]
  validation: {{annotations: {shapes}, images: {shapes.parent}}}
  {proposals}
augmentation: {{flip: 0.5, mosaic: 0.5, crop: 0.2, shrink: 0.2, plain_epochs: 0}}
schedule: {{epochs: 2, batch: 4, learning_rate: 0.001, ema_decay: 0.5}}
device: cpu
precision: float32
workers: 0
runs: {folder / "runs"}
""")
    return path


@pytest.mark.slow
def test_a_training_from_a_recipe(tmp_path: Path, shapes: Path) -> None:
    proposals = "proposals: {method: edge-boxes, count: 25}"
    best = train(_recipe(tmp_path, shapes, ", family: fast-rcnn, rois: 16", proposals))
    assert len(list((tmp_path / "runs" / "judged" / "proposals").glob("*.npz"))) == 8
    model, meta = load_checkpoint(best)
    assert isinstance(model, FastRcnn)
    assert (meta.family, model.config.proposals) == ("fast-rcnn", "edge-boxes:25")
    data = load_validation(shapes, shapes.parent, SHAPES)
    blind, _ = validate(model, data, torch.device("cpu"))
    assert blind.AP50 == 0, "nothing is proposed where nobody was asked to"


@pytest.mark.parametrize("name", ["fast-rcnn", "rcnn"])
def test_recipes_that_ship_are_valid(name: str) -> None:
    recipe = load_recipe(Path(__file__).parents[3] / "configs" / "train" / "lineage" / f"{name}.yaml")
    assert (recipe.name, recipe.model.family) == (name, name)
    model = FAMILIES[name].build(recipe.network())
    assert model.takes_proposals


def test_proposals_belong_to_families_that_take_them(tmp_path: Path, shapes: Path) -> None:
    wanted = "proposals: {method: selective-search, count: 300}"
    assert load_recipe(_recipe(tmp_path, shapes, ", family: fast-rcnn", wanted)).network()["proposals"] == (
        "selective-search:300"
    )
    with pytest.raises(RecipeError, match=r"recipe: .*a fast-rcnn judges proposals; add data\.proposals"):
        load_recipe(_recipe(tmp_path, shapes, ", family: fast-rcnn", ""))
    with pytest.raises(RecipeError, match=r"finds its own boxes; remove data\.proposals"):
        load_recipe(_recipe(tmp_path, shapes, "", wanted))
    with pytest.raises(RecipeError, match=r"model\.pooling: .*not 'mean'"):
        load_recipe(_recipe(tmp_path, shapes, ", family: fast-rcnn, pooling: mean", wanted))
    with pytest.raises(RecipeError, match=r"data\.proposals\.method: "):
        load_recipe(_recipe(tmp_path, shapes, ", family: fast-rcnn", "proposals: {method: none, count: 3}"))
    with pytest.raises(RecipeError, match=r"model\.family: is 'fast', expected "):
        load_recipe(_recipe(tmp_path, shapes, ", family: fast", wanted))
