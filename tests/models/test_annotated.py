"""Categories that are called otherwise in a recipe: the same in every form of annotations."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.annotations import read_annotations
from models.coco import load_coco
from models.errors import DataError, RecipeError
from models.recipe import load_recipe
from models.training_data import training_data
from tests.models.conftest import SHAPES, draw_shapes
from tests.models.voc_files import write_voc


@pytest.fixture(params=["coco", "voc", "yolo"])
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Squares and discs in one picture or more: the annotations and the pictures' folder."""
    if request.param == "coco":
        path = draw_shapes(tmp_path / "shapes", 4)
        return path, path.parent
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((96, 128, 3), np.uint8))
    folder = tmp_path / "labels"
    if request.param == "voc":
        objects = [("square", (1, 1, 20, 20), 0), ("disc", (31, 31, 50, 50), 0)]
        write_voc(folder / "1.xml", "1.png", 128, 96, objects)
    else:
        folder.mkdir()
        (folder / "1.txt").write_text("0 0.2 0.2 0.1 0.1\n1 0.5 0.5 0.1 0.1\n")
        (folder / "classes.txt").write_text("square\ndisc\n")
    return folder, tmp_path


def test_categories_get_the_names_of_the_recipe(drawn: tuple[Path, Path]) -> None:
    plain = read_annotations(*drawn, SHAPES)
    both = read_annotations(*drawn, ("shape",), renamed={"square": "shape", "disc": "shape"})
    assert (both.categories, both.foreign) == (("shape",), 0)
    assert [each.box for each in both.annotations] == [each.box for each in plain.annotations]
    assert {each.class_ for each in both.annotations} == {0}
    one = read_annotations(*drawn, ("disc", "box"), renamed={"square": "box"})
    assert set(one.categories) == {"box", "disc"}
    assert [each.class_ for each in one.annotations] == [1 - each.class_ for each in plain.annotations]
    with pytest.raises(DataError, match=r"map: 'cube' is none of its categories \(square, disc\)"):
        read_annotations(*drawn, SHAPES, renamed={"cube": "square"})
    with pytest.raises(
        DataError, match=r"none of its categories \(square, disc\) is among ball; a recipe's map"
    ):
        read_annotations(*drawn, ("ball",))


def test_a_recipe_says_it_of_each_source(tmp_path: Path) -> None:
    one, other = (draw_shapes(tmp_path / name, 4) for name in ("one", "other"))
    text = f"""
name: mapped
names: [box, disc]
data:
  train:
    - {{annotations: {one}, images: {one.parent}, map: {{square: box}}}}
  validation: {{annotations: {other}, images: {other.parent}, map: {{square: box}}}}
schedule: {{epochs: 1}}
"""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    examples, validation = training_data(load_recipe(recipe))
    assert validation is not None
    for found in (examples, validation.examples):
        assert {class_ for example in found for class_ in example.classes.tolist()} == {0, 1}
    recipe.write_text(text.replace("square: box", "square: cube"))
    with pytest.raises(RecipeError, match=r"data: map \{square: cube\}: cube is not among names"):
        load_recipe(recipe)


def test_pictures_are_left_out_by_their_names(tmp_path: Path) -> None:
    annotations = draw_shapes(tmp_path / "shapes", 12)
    recipe = tmp_path / "recipe.yaml"

    def learned(pattern: str) -> list[str]:
        recipe.write_text(
            f"""
name: some
names: [square, disc]
data:
  train:
    - {{annotations: {annotations}, images: {annotations.parent}, leave_out: "{pattern}"}}
schedule: {{epochs: 1}}
"""
        )
        examples, _ = training_data(load_recipe(recipe))
        assert all(len(example.boxes) for example in examples)
        return [example.path.stem for example in examples]

    assert learned("1*") == ["2", "3", "4", "5", "6", "7", "8", "9"]
    for pattern, what in (("*", "all"), ("night_*", "none")):
        with pytest.raises(RecipeError, match=rf"leave_out: '{re.escape(pattern)}' matches {what} of 12"):
            learned(pattern)


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = draw_shapes(tmp_path / "shapes", 4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
name: some
names: [square, disc]
data:
  in_memory: true
  train:
    - {{annotations: {annotations}, images: {annotations.parent}, repeat: 3}}
schedule: {{epochs: 1}}
"""
    )
    plain = load_coco(annotations, annotations.parent, SHAPES)
    pictures = [example.read() for example in plain]
    examples, _ = training_data(load_recipe(recipe))
    for example in plain:
        example.path.unlink()
    assert len(examples) == 12
    assert len({id(example.read()) for example in examples}) == 4
    for example, picture in zip(examples, pictures * 3, strict=True):
        assert np.array_equal(example.read(), picture)
    draw_shapes(tmp_path / "shapes", 4)
    monkeypatch.setattr("models.training_data._MEMORY_SHARE", 0.0)
    with pytest.raises(
        RecipeError, match=r"data\.in_memory: 4 decoded pictures take 0\.0 GB, of which .* remove it"
    ):
        training_data(load_recipe(recipe))
