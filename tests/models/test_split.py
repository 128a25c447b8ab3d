"""Pictures held out of training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.annotated import Annotation, CocoFile, Picture
from models.errors import RecipeError
from models.recipe import Recipe, load_recipe
from models.split import hold_out, numbered_apart
from models.training_data import training_data
from tests.models.conftest import SHAPES, draw_shapes


def _file(count: int) -> CocoFile:
    pictures = tuple(Picture(10 * number, f"{number}.jpg", 100, 80) for number in range(count))
    boxes = tuple(Annotation(picture.image_id, 0, (1, 2, 3, 4), 4.0, False) for picture in pictures)
    return CocoFile(Path("some.json"), ("person",), pictures, boxes, 0, 0)


def test_names_decide_and_more_pictures_change_nothing() -> None:
    learn, measure = hold_out(_file(2000), 0.1)
    assert len(measure.pictures) == pytest.approx(200, abs=45)
    assert len(learn.pictures) + len(measure.pictures) == 2000
    for part in (learn, measure):
        assert {each.image_id for each in part.annotations} == {picture.image_id for picture in part.pictures}
    before = {picture.file_name for picture in hold_out(_file(1000), 0.1)[1].pictures}
    assert before == {each.file_name for each in measure.pictures if int(each.file_name[:-4]) < 1000}


def test_pictures_of_one_minute_stay_together() -> None:
    first, minute = 1_790_000_000_000 // 60_000 * 60_000, 60_000
    file = _file(1200)
    pictures = tuple(
        replace(each, file_name=f"shots/{first + index * minute // 6}.jpg")
        for index, each in enumerate(file.pictures)
    )
    learn, measure = hold_out(replace(file, pictures=pictures), 0.2)
    minutes = [{int(each.file_name[6:-4]) // minute for each in part.pictures} for part in (learn, measure)]
    assert minutes[0].isdisjoint(minutes[1])
    assert len(minutes[1]) == pytest.approx(40, abs=17)
    assert len(measure.pictures) == 6 * len(minutes[1])


def test_numbers_of_several_files_do_not_meet() -> None:
    first, second = numbered_apart([_file(3), _file(2)])
    assert [picture.image_id for picture in (*first.pictures, *second.pictures)] == [1, 2, 3, 4, 5]
    assert [each.image_id for each in (*first.annotations, *second.annotations)] == [1, 2, 3, 4, 5]


def _recipe(tmp_path: Path, measured_by: str) -> Path:
    one, other = (draw_shapes(tmp_path / name, 20) for name in ("one", "other"))
    path = tmp_path / "split.yaml"
    path.write_text(
        f"""
name: split
names: [square, disc]
data:
  train:
    - {{annotations: {one}, images: {one.parent}, repeat: 3}}
    - {{annotations: {other}, images: {other.parent}}}
  {measured_by}
schedule: {{epochs: 1}}
"""
    )
    return path


def test_no_picture_is_learned_from_and_measured_by(tmp_path: Path) -> None:
    recipe: Recipe = load_recipe(_recipe(tmp_path, "hold_out: 0.3"))
    examples, validation = training_data(recipe)
    assert validation is not None
    learned = {example.path for example in examples}
    measured = {example.path for example in validation.examples}
    assert len(learned) + len(measured) == 40
    assert not learned & measured
    assert {path.parent.name for path in measured} == {"one", "other"}
    assert sorted(example.image_id for example in validation.examples) == sorted(validation.truth.imgs)
    for example in validation.examples:
        truth = [row for row in validation.truth.anns.values() if row["image_id"] == example.image_id]
        assert [row["category_id"] - 1 for row in truth] == example.classes.tolist()
        np.testing.assert_allclose([row["bbox"][:2] for row in truth], example.boxes[:, :2])
    assert recipe.names == SHAPES


@pytest.mark.parametrize(
    ("measured_by", "said"),
    [
        ("hold_out: 0.9", r"data\.hold_out: .* not 0\.9"),
        ("hold_out: 0.1\n  validation: {annotations: a, images: b}", "both there; remove one"),
    ],
)
def test_a_wrong_share_is_named(tmp_path: Path, measured_by: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(_recipe(tmp_path, measured_by))
