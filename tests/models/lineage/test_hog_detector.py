"""Fitted to a handful of pictures, it finds what is in them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from models.checkpoint import load_checkpoint
from models.errors import DataError, RecipeError
from models.lineage.cutting import CONTEXT, cut
from models.lineage.hog_detector import HogConfig, HogDetector
from models.lineage.pyramid import Level, Pyramid, Windows, levels_of, object_boxes
from models.recipe import load_recipe
from models.train import train
from tests.models.conftest import draw_shapes

CONFIG = HogConfig(
    names=("square", "disc"),
    input_height=96,
    input_width=128,
    window_height=48,
    window_width=48,
    margin=8,
    largest_scale=1.5,
    scales_per_octave=3,
    cost=0.1,
    pictures=8,
    negatives=5,
    rounds=1,
)


def _recipe(folder: Path, shapes: Path, model: str = "") -> Path:
    values = {key: value for key, value in dataclasses.asdict(CONFIG).items() if key != "names"}
    path = folder / "hog.yaml"
    path.write_text(f"""
name: hog
names: [square, disc]
model: {json.dumps({"family": "hog-svm", **values})[:-1]} {model} }}
data:
  train: [{{annotations: {shapes}, images: {shapes.parent}}}]
  validation: {{annotations: {shapes}, images: {shapes.parent}}}
schedule: {{epochs: 1}}
device: cpu
threads: 1
runs: {folder / "runs"}
""")
    return path


@pytest.mark.slow
def test_it_learns_a_handful_of_pictures(
    tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = train(_recipe(tmp_path, shapes))
    said = capsys.readouterr().out
    print(said)
    model, meta = load_checkpoint(best)
    assert (meta.family, meta.epoch) == ("hog-svm", 1)
    assert meta.ap50 is not None
    assert meta.ap50 > 0.8
    assert "square, random negatives: " in said
    assert "disc, mining round 1: " in said
    assert f"lookout export {best} --out hog.onnx" in said
    again, _ = load_checkpoint(train(_recipe(tmp_path, shapes)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), f"{name} is not decided by the seed"


def test_what_is_fitted_is_kept_before_it_is_measured(tmp_path: Path, shapes: Path) -> None:
    held_out = draw_shapes(tmp_path / "held_out", 1)
    picture = next(held_out.parent.glob("*.png"))
    picture.write_bytes(picture.read_bytes()[:100])
    recipe = _recipe(tmp_path, shapes)
    before, after = recipe.read_text().split("validation:")
    recipe.write_text(f"{before}validation:{after.replace(str(shapes.parent), str(held_out.parent))}")
    with pytest.raises(DataError, match=picture.name):
        train(recipe)
    assert load_checkpoint(tmp_path / "runs/hog/best.pt")[1].ap50 is None


def test_ignored_and_annotated_areas_are_not_mined(tmp_path: Path) -> None:
    """With the whole picture ignored but for nothing, there is no negative to be had."""
    shapes = draw_shapes(tmp_path / "crowded", 2)
    document = json.loads(shapes.read_text())
    for image in (1, 2):
        document["annotations"].append(
            {"id": 10 + image, "image_id": image, "category_id": 1, "bbox": [0, 0, 128, 96], "iscrowd": 1}
        )
    shapes.write_text(json.dumps(document))
    with pytest.raises(DataError, match="no picture has a window without it"):
        train(_recipe(tmp_path, shapes))


def test_objects_that_are_too_small_are_named(tmp_path: Path, shapes: Path) -> None:
    document = json.loads(shapes.read_text())
    for annotation in document["annotations"]:
        annotation["bbox"][2:] = [6, 6]
    shapes.write_text(json.dumps(document))
    with pytest.raises(DataError, match="square: no box of it is at least 14 pixels high"):
        train(_recipe(tmp_path, shapes))


def test_a_recipe_names_what_is_wrong(tmp_path: Path, shapes: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.stride: unknown key"):
        load_recipe(_recipe(tmp_path, shapes, ", stride: 8"))
    text = _recipe(tmp_path, shapes).read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("hog-svm", "hog"))
    with pytest.raises(RecipeError, match=r"model\.family: is 'hog', expected .*'hog-svm'"):
        load_recipe(other)


def test_a_cut_out_object_is_in_the_middle() -> None:
    image = np.full((100, 100, 3), 50, np.uint8)
    cv2.rectangle(image, (40, 20), (59, 59), (200, 200, 200), -1)  # 20 x 40 pixels
    window = cut(torch.from_numpy(image), [40.0, 20, 60, 60], 128, 64, 24)  # the object becomes 80 high
    assert window.shape == (128 + 2 * CONTEXT, 64 + 2 * CONTEXT, 3)
    bright = (window[CONTEXT:-CONTEXT, CONTEXT:-CONTEXT, 0] > 125).nonzero()
    assert bright.amin(0).tolist() == [24, 12]
    assert bright.amax(0).tolist() == [103, 51]


def test_levels_are_resized_as_torch_does() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 96, 128) * 255
    pyramid = Pyramid(levels_of(96, 128, 2.0, 3, 48, 48), 96, 128)
    assert [level.height for level in pyramid.levels] == [192, 152, 121, 96, 76, 60, 48, 38, 30, 24, 19]
    assert pyramid.halvings == [0] * 7 + [1] * 3 + [2]
    halved = [pictures, functional.avg_pool2d(pictures, 2), functional.avg_pool2d(pictures, 4)]
    for level, n, resized in zip(pyramid.levels, pyramid.halvings, pyramid.resized(pictures), strict=True):
        size = (level.height, level.width)
        expected = functional.interpolate(halved[n], size, mode="bilinear", align_corners=False)
        assert (resized - expected).abs().max() < 0.01


def test_windows_by_hand() -> None:
    levels = levels_of(96, 128, 2.0, 1, 128, 64)
    assert [(level.height, level.width) for level in levels] == [(192, 256), (96, 128)]
    windows = Windows.over([Level(96, 128, 0.5, 0.5)], 64, 32, 8)
    assert windows.places == ((9, 17),)  # (96 + 32 - 64) / 8 + 1, (128 + 32 - 32) / 8 + 1
    assert windows.place(17 + 3) == (0, 1, 3)
    boxes = object_boxes(windows.axes, torch.tensor(0.5))
    # Its window's corner is at (24 - 16, 8 - 16) in the level, its object 48 high and 24 wide in the middle.
    assert boxes[17 + 3].tolist() == [2 * (8 + 4), 2 * (-8 + 8), 2 * (8 + 28), 2 * (-8 + 56)]


@torch.no_grad()
def test_candidates_are_the_contracts() -> None:
    model = HogDetector(CONFIG).eval()
    torch.manual_seed(0)
    model.filters.normal_()
    images = model.normalise(torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8))
    boxes, scores = model.decode(images)
    assert boxes.shape == (2, len(model.windows.axes), 4)
    assert scores.shape == (2, len(model.windows.axes), 2)
    assert bool(((scores >= 0) & (scores <= 1)).all())
    alone = model.decode(images[1:])[1]
    assert (scores[1] - alone[0]).abs().max() < 1e-5
    row = 900  # by hand: the window's own blocks, as a crop has them
    level, top, left = model.windows.place(row)
    maps = model.pyramid(images)
    blocks = maps[level][1, :, top : top + 5, left : left + 5]
    assert torch.allclose((blocks * model.filters[1]).sum().sigmoid(), scores[1, row, 1], atol=1e-5)
