"""The gate of an export: a file has to find more than the one it is to replace."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from export.accuracy import Annotated
from export.adapt import Wishes
from export.artifact import load, read_spec
from export.convert import export_model
from export.gate import Gate, GateError, gate_on, gate_on_held_out
from export.parity import placed, run_file
from export.pictures import parity_pictures
from models.split import hold_out
from models.training_data import training_data
from stream.cli import main
from tests.models.conftest import SHAPES, draw_shapes


@pytest.fixture
def annotated(adapted: Path, tmp_path: Path) -> Annotated:
    """Pictures whose objects are what ``adapted`` is surest of."""
    spec = read_spec(load(adapted), "adapted")
    images, boxes = [], []
    for number, picture in enumerate(parity_pictures(None)[:6], start=1):
        small = placed(picture, spec)
        cv2.imwrite(str(tmp_path / f"{number}.png"), small[:, :, ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 128})
        (found,) = run_file(adapted, small[None], 1)
        for rank in range(3):
            x1, y1, x2, y2 = np.clip(found.boxes[rank], 0, 128).tolist()
            box = {"id": len(boxes) + 1, "image_id": number, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            boxes.append({**box, "category_id": int(found.classes[rank]) + 1})
    categories = [{"id": index, "name": name} for index, name in enumerate("abc", 1)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return Annotated(path, tmp_path)


def test_the_better_file_is_written_with_its_figures(
    stranger: Path, annotated: Annotated, tmp_path: Path
) -> None:
    """The same network with its classes mixed up is worse at all of them."""
    worse, better = tmp_path / "worse.onnx", tmp_path / "better.onnx"
    export_model(stranger, worse, wishes=Wishes(names=("b", "c", "a")), say=lambda line: None)
    said: list[str] = []
    names = Wishes(names=("a", "b", "c"))
    spec = export_model(stranger, better, wishes=names, gate=gate_on(worse, annotated, 0.1), say=said.append)
    print(said[-2])
    assert said[-2].startswith("better")
    assert spec.gate["AP50"] > spec.gate["current_AP50"] + 0.1
    assert spec.gate["pictures"] == 6
    assert read_spec(load(better), "better").gate == spec.gate
    before = better.read_bytes()
    for gate, out, message in (
        (
            gate_on(better, annotated, 0.0),
            better,
            r"not written: AP50 \d\.\d{3}, .* on 6 pictures .* expected higher",
        ),
        (gate_on(worse, annotated, 0.99), tmp_path / "new.onnx", r"expected at least 0\.99 higher"),
    ):
        with pytest.raises(GateError, match=message):
            export_model(stranger, out, wishes=names, gate=gate, say=said.append)
    assert better.read_bytes() == before
    assert not (tmp_path / "new.onnx").exists()
    assert not list(tmp_path.glob(".*partial*"))


def test_nothing_in_common_is_told(
    stranger: Path, adapted: Path, annotated: Annotated, tmp_path: Path
) -> None:
    wishes = Wishes(names=("x", "y", "z"))
    with pytest.raises(GateError, match=r"has no class in common with .*adapted\.onnx"):
        export_model(
            stranger, tmp_path / "new.onnx", wishes=wishes, gate=gate_on(adapted, annotated, 0.0), say=print
        )


def test_held_out_are_exactly_the_pictures_that_the_training_was_measured_by(tmp_path: Path) -> None:
    shapes = draw_shapes(tmp_path / "shapes", 40)
    recipe = tmp_path / "recipe.yaml"
    text = f"""
name: mine
names: [square, disc]
data: {{train: [{{annotations: {shapes}, images: {shapes.parent}}}], hold_out: 0.3}}
schedule: {{epochs: 1}}
"""
    recipe.write_text(text)
    gate: Gate = gate_on_held_out(tmp_path / "current.onnx", tmp_path / "best.pt", 0.02)
    from models.coco import read_coco
    from models.recipe import load_recipe

    _, held = hold_out(read_coco(shapes, SHAPES), 0.3)
    learned, _ = training_data(load_recipe(recipe))
    paths = {example.path for example in gate.truth.examples}
    assert paths == {shapes.parent / picture.file_name for picture in held.pictures}
    assert not paths & {example.path for example in learned}
    assert (gate.names, gate.margin) == (SHAPES, 0.02)
    recipe.write_text(text.replace(", hold_out: 0.3", ""))
    with pytest.raises(
        GateError, match=r"neither data\.hold_out nor data\.validation; name annotated pictures"
    ):
        gate_on_held_out(tmp_path / "current.onnx", tmp_path / "best.pt", 0.0)
    with pytest.raises(GateError, match=r"has no recipe\.yaml beside it"):
        gate_on_held_out(tmp_path / "current.onnx", shapes.parent / "best.pt", 0.0)


@pytest.mark.usefixtures("log_kept")
def test_the_command_says_what_is_missing(
    adapted: Path, stranger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["--on", "truth.json"], "--on and --by say more of --beats"),
        (["--beats", str(adapted), "--on", "truth.json"], "expected --images DIR with it"),
        (["--beats", str(adapted), "--by", "2"], "expected from 0 to below 1"),
        (["--beats", str(adapted)], "nobody knows what"),
    ):
        assert main(["export", str(stranger), "--out", str(tmp_path / "new.onnx"), *options]) == 2
        assert message in capsys.readouterr().err
