from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import RecipeError
from models.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
name: mine
names: [person, car]
data:
  train:
    - {annotations: a.json, images: pictures}
schedule: {epochs: 3}
"""


def _load(folder: Path, text: str) -> None:
    path = folder / "recipe.yaml"
    path.write_text(text)
    load_recipe(path)


def test_the_recipes_that_ship_are_valid() -> None:
    recipes = sorted((ROOT / "configs" / "train").rglob("*.yaml"))
    assert recipes
    for path in recipes:
        assert load_recipe(path).name == path.stem


def test_a_short_recipe_is_enough(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(GOOD)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.folder == Path("runs/mine")
    assert recipe.names == ("person", "car")
    assert recipe.data.train[0].labelled == "all"


def test_the_warm_up_fits_into_a_short_training(tmp_path: Path) -> None:
    for epochs, expected in ((1, 0.5), (2, 1.0), (30, 1.0)):
        (tmp_path / "recipe.yaml").write_text(GOOD.replace("epochs: 3", f"epochs: {epochs}"))
        assert load_recipe(tmp_path / "recipe.yaml").schedule.warmup_epochs == expected


def test_the_newcomers_recipe_explains_every_line() -> None:
    path = ROOT / "configs" / "train" / "own-data.yaml"
    recipe = load_recipe(path)
    assert recipe.data.validation is not None
    assert recipe.data.train[0].labelled == "all"
    values = [line for line in path.read_text().splitlines() if line.strip() and not line.endswith(":")]
    assert [line for line in values if "#" not in line] == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("epochs: 3", "epocks: 3", r"schedule\.epocks: unknown key"),
        ("epochs: 3", "epochs: many", r"schedule\.epochs: .*valid integer.* not 'many'"),
        ("epochs: 3", "epochs: 0", r"schedule\.epochs: .*greater than or equal to 1.* not 0"),
        (
            "epochs: 3",
            "epochs: 1, warmup_epochs: 1.0",
            r"schedule: Value error, warmup_epochs 1\.0 must be less than epochs 1$",
        ),
        (
            "schedule:",
            "  validation: {annotations: v.json, images: v, labelled: partial, repeat: 7}\nschedule:",
            r"data\.validation\.labelled: unknown key; .* data\.validation\.repeat: unknown key",
        ),
        ("epochs: 3", "epochs: many", r"^[^;]*not 'many'$"),
        ("images: pictures", "image: pictures", r"data\.train\.0\.images: is missing"),
        ("images: pictures", "images: p, labelled: some", r"data\.train\.0\.labelled: .*'all' or 'partial'"),
        ("name: mine", "name: ../mine", r"name: .*pattern.* not '\.\./mine'"),
        ("[person, car]", "[person, person]", r"names has the same class twice"),
        ("[person, car]", "person", r"names: .*valid tuple"),
        (
            "name: mine",
            "name: mine\nmodel: {input_width: 400}",
            r"model\.input_width: .*multiple of 32, not 400",
        ),
        (
            "name: mine",
            "name: mine\naugmentation: {sizes: [1.5, 0.5]}",
            r"augmentation: Value error, sizes are 1\.5 and 0\.5, expected the smaller one first$",
        ),
        (
            "name: mine",
            "name: mine\nmodel: {family: yolo-v1}\naugmentation: {sizes: [0.5, 1.5]}",
            r"a yolo-v1 has one input size; remove augmentation\.sizes$",
        ),
        (
            "name: mine",
            "name: mine\ndistillation: {teacher: t.pt, alone: [1, 2]}",
            r"distillation: .*alone is for blocks that learn; add blocks: 1\.0$",
        ),
        (
            "name: mine",
            "name: mine\ndistillation: {teacher: t.pt, alone: [4, 5], blocks: 1.0, hints: 1.0}",
            r"distillation: .*imitate nothing else; remove imitation and hints, or alone$",
        ),
        (
            "name: mine",
            "name: mine\ndistillation: {teacher: t.pt, alone: [3, 2], blocks: 1.0}",
            r"distillation: .*alone is \[3, 2\], expected the smaller one first$",
        ),
        (
            "name: mine",
            "name: mine\nmodel: {family: yolo-v1}\ndistillation: {teacher: t.pt}",
            r"a yolo-v1 has no cells to be taught in; remove distillation$",
        ),
        (
            "images: pictures}",
            "images: pictures, labelled: partial}\nmodel: {family: yolo-v1}",
            r"a yolo-v1 cannot learn from pictures that are labelled: partial; .* lookout label --add-to$",
        ),
        (
            "epochs: 3}",
            "epochs: 3, accumulate: 2}\nmodel: {family: faster-rcnn, training: alternating}",
            r"schedule\.accumulate: would have both losses in every step; .* training: alternating$",
        ),
    ],
)
def test_mistakes_are_named_by_their_path(tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        _load(tmp_path, GOOD.replace(before, after))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_keys_of_a_network_are_those_of_its_family(tmp_path: Path) -> None:
    network = "name: mine\nmodel: {family: yolo-v1, rows: 5, columns: 6}"
    (tmp_path / "recipe.yaml").write_text(GOOD.replace("name: mine", network))
    part = load_recipe(tmp_path / "recipe.yaml").model
    assert part.family == "yolo-v1"
    assert part.config()["rows"] == 5
    for wrong, message in (
        ("{family: yolo-v1, backbone_blocks: 13}", r"model\.backbone_blocks: unknown key"),
        ("{family: yolo-v1, rows: 0}", r"model\.rows: .* not 0"),
        ("{family: yolo-v9}", r"model\.family: is 'yolo-v9', expected .*'yolo-v1'"),
    ):
        with pytest.raises(RecipeError, match=message):
            _load(tmp_path, GOOD.replace("name: mine", f"name: mine\nmodel: {wrong}"))


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="not YAML"):
        _load(tmp_path, "name: [unclosed")
    with pytest.raises(RecipeError, match="expected keys such as name"):
        _load(tmp_path, "just words")
