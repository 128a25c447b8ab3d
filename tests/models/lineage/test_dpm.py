"""Latent training: placements by hand, and what is learnt from a handful of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint
from models.coco import load_coco
from models.lineage.dpm import Dpm, DpmConfig
from models.lineage.dpm_fitting import View, place_parts, placed_objects, placement, take
from models.lineage.svm import Svm
from models.train import train
from tests.models.conftest import SHAPES, draw_shapes

CONFIG = DpmConfig(
    names=SHAPES,
    input_height=96,
    input_width=128,
    window_height=48,
    window_width=48,
    margin=8,
    parts=2,
    part_side=3,
    largest_scale=2.0,
    scales_per_octave=2,
    pictures=6,
    negatives=3,
    rounds=1,
)


@pytest.fixture
def model() -> Dpm:
    """Random filters, whose parts are dear to move."""
    torch.manual_seed(0)
    model = Dpm(CONFIG)
    model.roots.normal_().mul_(0.2)
    for group in range(CONFIG.groups):
        place_parts(model, group)
    model.biases.normal_()
    return model.eval()


@torch.no_grad()
def test_a_placement_scores_what_its_window_does(model: Dpm, shapes: Path) -> None:
    """The weights of all filters and costs, times what a placement saw: the score of the network."""
    view = View.of(model, model.scene(load_coco(shapes, shapes.parent, SHAPES)[0]))
    scores = [view.of_class(class_, 2) for class_ in range(2)]
    size = len(placement(model, view, 0, 0)) // 2
    for class_ in range(2):
        weights = torch.cat(
            [
                torch.cat(
                    [
                        model.roots[group].flatten(),
                        model.parts[2 * group : 2 * group + 2].flatten(),
                        model.costs[2 * group : 2 * group + 2].flatten() / 0.1,
                        model.biases[group, None],
                    ]
                )
                for group in (2 * class_, 2 * class_ + 1)
            ]
        )
        for row in (0, 40, 77, int(scores[class_].argmax())):
            seen = placement(model, view, class_, row)
            assert (seen.view(2, size).abs().sum(1) > 0).sum() == 1, "one component sees it"
            assert float(weights @ seen) == pytest.approx(float(scores[class_][row]), abs=1e-4)
        take(model, class_, Svm(weights, 0.25, torch.zeros(0), 0.0, 0.0))
    again = View.of(model, view.scene)
    for class_ in range(2):  # what was taken apart is put together again
        assert torch.allclose(again.of_class(class_, 2), scores[class_] + 0.25, atol=1e-4)


def test_parts_begin_where_the_root_has_weight(model: Dpm) -> None:
    model.roots[0] = -1.0
    model.roots[0, 3, 1, 2] = 2.0  # its middle is the block in row 3, column 5 at twice the resolution
    model.roots[0, 5, 4, 0] = 1.0  # row 9, column 1
    place_parts(model, 0)
    for (y, x), (row, column) in zip(model.anchors()[:2].tolist(), [(3, 5), (9, 1)], strict=True):
        assert y <= row < y + 3
        assert x <= column < x + 3


@torch.no_grad()
def test_an_object_gets_the_best_of_the_windows_on_it(model: Dpm, shapes: Path) -> None:
    from models.boxes import pairwise_iou

    example = next(e for e in load_coco(shapes, shapes.parent, SHAPES) if e.classes[0] == 1)
    view = View.of(model, model.scene(example))
    model.aspect.fill_(1.0)
    everything = torch.tensor([0.9])  # a disc is as wide as high: the second component's
    assert placed_objects(model, view, 0, everything) == []
    (seen,) = placed_objects(model, view, 1, everything)
    near = pairwise_iou(model.boxes(), view.scene.boxes)[:, 0] >= 0.5
    assert int(near.sum()) > 2
    row = int(torch.where(near, view.of_component(3), -torch.inf).argmax())
    assert torch.equal(seen, placement(model, view, 1, row, 1))
    (seen,) = placed_objects(model, view, 1, torch.tensor([1.1]))
    assert (seen.view(2, -1).abs().sum(1) > 0).tolist() == [True, False]


def test_it_learns_a_handful_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = draw_shapes(tmp_path / "six", 6)
    path = tmp_path / "dpm.yaml"
    path.write_text(f"""
name: dpm
names: [square, disc]
model:
  {{family: dpm, input_height: 96, input_width: 128, window_height: 48, window_width: 48, margin: 8, parts: 2,
    part_side: 3, components: 1, scales_per_octave: 2, negatives: 5, rounds: 2, cost: 0.1}}
data:
  train: [{{annotations: {shapes}, images: {shapes.parent}}}]
  validation: {{annotations: {shapes}, images: {shapes.parent}}}
schedule: {{epochs: 1}}
device: cpu
threads: 1
runs: {tmp_path / "runs"}
""")
    model, meta = load_checkpoint(train(path))
    print(capsys.readouterr().out)
    assert meta.family == "dpm"
    assert meta.ap50 is not None
    assert meta.ap50 > 0.8
    assert isinstance(model, Dpm)
    assert bool((model.costs[:, 2:] >= 0.01).all())
    assert bool((model.geometry.flatten(2).sum(2) == 1).all())
