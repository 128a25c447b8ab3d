"""R-CNN: what is cut out, the ridge regression by hand, and a fit of a handful of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.coco import load_coco
from models.errors import DataError
from models.lineage import rcnn
from models.lineage.proposal_cache import ProposalCache
from models.lineage.proposals import ProposalRule
from models.lineage.rcnn import Rcnn, RcnnConfig
from models.lineage.rcnn_fitting import fit_rcnn, ridge
from models.validate import ValidationSet, load_validation, validate
from tests.models.conftest import SHAPES, draw_shapes
from tests.models.lineage.small import use_small

RULE = ProposalRule("selective-search", 25)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Rcnn:
    use_small(monkeypatch, rcnn)
    torch.manual_seed(0)
    return Rcnn(RcnnConfig(SHAPES, 96, 128, str(RULE), crop=64, context=16)).eval()


def test_a_crop_has_context_and_the_mean_beyond_the_picture(untrained: Rcnn) -> None:
    """A box of 32x32 at its own scale: 16 pixels of context are 16 pixels of the picture."""
    column = torch.arange(128.0).expand(1, 3, 96, 128)
    (crop,) = untrained.warped(column, torch.tensor([[40.0, 32, 72, 64]]), torch.tensor([0]))
    torch.testing.assert_close(crop[0, 10, 1:-1], torch.arange(25.0, 87), atol=1e-4, rtol=0)
    (wide,) = untrained.warped(column, torch.tensor([[32.0, 32, 96, 64]]), torch.tensor([0]))
    torch.testing.assert_close(wide[0, 10, 1:-1], torch.arange(2.5, 126, 2)[:62], atol=1e-4, rtol=0)
    (edge,) = untrained.warped(column + 5, torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([0]))
    assert not edge[:, :14].any()
    assert not edge[:, :, :14].any()
    assert edge[:, 17:, 17:].all()


def test_ridge_by_hand() -> None:
    """One feature that is -1, 0 or 1, and what is wanted is 5 + 3 times it: 6 / (2 + strength)."""
    features = torch.tensor([[-1.0], [0], [1]])
    weights, offsets = ridge(features, 5 + 3 * features, 0.0)
    assert (weights.item(), offsets.item()) == pytest.approx((3, 5))
    weights, offsets = ridge(features, 5 + 3 * features, 4.0)
    assert (weights.item(), offsets.item()) == pytest.approx((1, 5))


def test_ridge_of_fewer_examples_than_features_is_the_same() -> None:
    torch.manual_seed(0)
    features, wanted = torch.randn(30, 80), torch.randn(30, 4)
    weights, offsets = ridge(features, wanted, 2.0)
    x, y = (features - features.mean(0)).double(), (wanted - wanted.mean(0)).double()
    expected = torch.linalg.solve(x.T @ x + 2 * torch.eye(80).double(), x.T @ y).T.float()
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(offsets, wanted.mean(0) - expected @ features.mean(0))


def test_boxes_are_bettered_from_what_is_where_in_the_crop(untrained: Rcnn) -> None:
    """Turned left for right, a picture has the same average, and another map."""
    images = torch.arange(128.0).expand(1, 3, 96, 128)
    box = torch.tensor([[[32.0, 16, 96, 80]]])
    seen, turned = (untrained.features(each, box) for each in (images, images.flip(3)))
    cells = untrained.backbone.pool_size**2
    assert seen.map.shape == (1, cells * untrained.backbone.trunk_channels)
    assert (seen.map - turned.map).abs().max() > 0.1


def test_of_a_large_map_cells_are_merged() -> None:
    """ResNet's has 14x14 cells, for each of which there would be a weight."""
    model = Rcnn(RcnnConfig(SHAPES, 96, 128, str(RULE), backbone="resnet18", crop=64, context=8)).eval()
    with torch.no_grad():
        seen = model.features(torch.rand(1, 3, 96, 128), torch.tensor([[[32.0, 16, 96, 80]]]))
    assert seen.map.shape == (1, 7 * 7 * 256)
    assert model.ways.shape == (2, 4, 7 * 7 * 256)


def test_untrained_boxes_stay_and_padding_scores_nothing(untrained: Rcnn) -> None:
    images = torch.zeros(1, 3, 96, 128)
    proposals = torch.tensor([[[10.0, 20, 50, 70], [0, 0, 0, 0], [60, 0, 128, 40]]])
    boxes, scores = untrained.decode(images, proposals)
    assert scores.shape == (1, 6, 2)
    assert (scores[0].amax(1) > 0).sum() == 4
    for box in proposals[0, [0, 2]]:
        assert ((boxes[0] - box).abs() < 1e-3).all(1).sum() == 2, "as either class"
    with pytest.raises(ValueError, match="was given none"):
        untrained.decode(images)
    with pytest.raises(ValueError, match="less than half of crop"):
        Rcnn(RcnnConfig(SHAPES, crop=64, context=32))


def test_a_picture_without_proposals_has_no_boxes(untrained: Rcnn) -> None:
    maps = torch.zeros(0, untrained.ways.shape[2])
    assert untrained.bettered(maps, torch.zeros(0, 4)).shape == (0, len(SHAPES), 4)


@pytest.mark.slow
def test_it_fits_a_handful_of_pictures(tmp_path: Path) -> None:
    shapes = draw_shapes(tmp_path / "shapes", 6)
    examples = ProposalCache(tmp_path / "kept", RULE, 96, 128).add_to(
        load_coco(shapes, shapes.parent, SHAPES)
    )
    model = Rcnn(RcnnConfig(SHAPES, 96, 128, str(RULE), crop=64, context=8, steps=2, ridge=10.0))
    model.start_from_imagenet()
    said: list[str] = []
    fit_rcnn(model, examples, 0, said.append)
    print("\n".join(said))
    read = load_validation(shapes, shapes.parent, SHAPES)
    metrics, _ = validate(model.eval(), ValidationSet(examples, read.truth, SHAPES), torch.device("cpu"))
    print(metrics)
    assert metrics.AP50 > 0.7
    assert model.ways.abs().max() > 0


def test_without_objects_there_is_nothing_to_learn(untrained: Rcnn, shapes: Path) -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        fit_rcnn(untrained, [], 0, print)
