"""Latent training: placements by hand, and what is learnt from a handful of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.boxes import pairwise_iou
from models.checkpoint import load_checkpoint
from models.coco import load_coco
from models.lineage.cutting import cut
from models.lineage.dpm import Dpm, DpmConfig
from models.lineage.dpm_fitting import (
    Picture,
    View,
    least_weights,
    mined,
    place_parts,
    placed_objects,
    placement,
    take,
)
from models.lineage.dpm_objects import objects_of
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
    picture = Picture.of(model, load_coco(shapes, shapes.parent, SHAPES)[0])
    view = View.of(model, picture)
    scores = [view.of_component(group) for group in range(4)]
    size = len(least_weights(model)) // 2
    for class_ in range(2):
        groups = (2 * class_, 2 * class_ + 1)
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
                for group in groups
            ]
        )
        for group in groups:
            for row in (0, 40, 77, int(scores[group].argmax())):
                level, top, left = model.windows.place(row)
                seen = placement(model, view.responses[level], 0, top, left, group)
                blank = seen.features.view(2, size).abs().sum(1) == 0
                assert blank.tolist() == [group != groups[0], group != groups[1]], "one component sees it"
                assert float(weights @ seen.features) == pytest.approx(float(scores[group][row]), abs=1e-4)
        take(model, class_, Svm(weights, 0.25, torch.zeros(0), 0.0, 0.0))
    again = View.of(model, picture)
    for group in range(4):  # what was taken apart is put together again
        assert torch.allclose(again.of_component(group), scores[group] + 0.25, atol=1e-4)


@torch.no_grad()
def test_what_is_mined_is_background_that_scores(model: Dpm, shapes: Path) -> None:
    example = next(e for e in load_coco(shapes, shapes.parent, SHAPES) if e.classes[0] == 1)
    view = View.of(model, Picture.of(model, example))
    scores = torch.stack([view.of_component(group) for group in (2, 3)])
    found = mined(model, view, 1)
    assert 0 < len(found) <= CONFIG.negatives
    for row, group in found:
        assert scores[:, row].argmax() == group - 2
        assert scores[:, row].max() > -1
        assert pairwise_iou(model.boxes()[row, None], view.scene.boxes).max() < 0.3
    every = mined(model, view, 1, seed=0)
    assert {group for _, group in every} == {2, 3}
    assert len(every) > 2


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
    """Every object, and its mirror image, in the window near its middle that its component scores most."""
    examples = load_coco(shapes, shapes.parent, SHAPES)
    for class_, objects in enumerate(objects_of(model, examples)):
        features = placed_objects(model, objects, class_)
        count = sum(int((example.classes == class_).sum()) for example in examples)
        assert len(features) == len(objects.near) == 2 * count
        assert objects.near[:, 4, 4].all()
        assert not objects.near[:, 0].any()  # half a root's height off
        responses = model.on_level(objects.coarse, objects.blocks)
        scores = model.scores(responses)
        for number in (0, count - 1, count):
            component = int(objects.components[number])
            its = torch.where(objects.near[number], scores[number, 2 * class_ + component], -torch.inf)
            top, left = divmod(int(its.argmax()), its.shape[1])
            again = placement(model, responses, number, top, left, 2 * class_ + component)
            assert torch.equal(features[number], again.features)


@torch.no_grad()
def test_a_cut_out_object_is_seen_as_in_its_picture(model: Dpm) -> None:
    """An object of the root's size in the input has the blocks that the pyramid has there, for roots and parts."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))
    maps = model.pyramid(model.normalise(image[None]))
    assert [model.pyramid.levels[level].height for level in (0, 2)] == [192, 96]
    for times, step, number in ((1, 4, 2), (2, 8, 0)):
        cutout = cut(image, [40, 32, 72, 64], 48 * times, 48 * times, 8 * times)
        own = model.pyramid.hog(model.normalise(cutout[None]), step)[0]
        # It begins 16 pixels before the window, which is 8 (or 16) before the object; the level 16 before 0.
        y, x = (32 - 8) * times // step, (40 - 8) * times // step
        inner = own[:, 4:-4, 4:-4]  # beyond are gradients at the cut-out's edge
        there = maps[number][0, :, y + 4 :, x + 4 :][:, : inner.shape[1], : inner.shape[2]]
        assert torch.allclose(inner, there, atol=0.05 if times == 2 else 1e-5)  # rounded to whole numbers


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
    assert bool((model.costs[:, 2:] >= 0.1).all())
    assert bool((model.geometry.flatten(2).sum(2) == 1).all())
