from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from models.augment import Augmentation, augmented, letterboxed
from models.coco import Example, load_coco
from models.letterbox import Letterbox
from models.mixing import Objects, mixed, pasted
from models.sample import Sample
from tests.models.conftest import SHAPES, draw_shapes

HARD = Augmentation(flip=0.5, mosaic=0.5, crop=0.5, shrink=0.5)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Large pictures with one red square each."""
    annotations = draw_shapes(tmp_path_factory.mktemp("squares"), 16, 640, 480)
    return [
        example for example in load_coco(annotations, annotations.parent, SHAPES) if example.classes[0] == 0
    ]


def _red(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    pixels = image.astype(np.int32)
    return (pixels[..., 0] > 180) & (pixels[..., 1] < 80)


def test_without_augmentation_a_sample_is_the_letterboxed_picture(squares: list[Example]) -> None:
    rng = np.random.default_rng(0)
    sample = augmented(squares, 0, 192, 256, Augmentation(), rng)
    box = Letterbox.fit(640, 480, 256, 192)
    assert np.array_equal(sample.image, box.apply(squares[0].read()))
    assert np.array_equal(sample.boxes, box.to_input(squares[0].boxes))
    assert np.array_equal(letterboxed(squares[0], 192, 256).image, sample.image)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_their_pixels(squares: list[Example], seed: int) -> None:
    sample = augmented(squares, seed % len(squares), 320, 416, HARD, np.random.default_rng(seed))
    left_over = _red(sample.image)
    for x1, y1, x2, y2 in np.concatenate([sample.boxes, sample.ignored]):
        inside = left_over[int(y1 + 0.5) : int(y2 + 0.5), int(x1 + 0.5) : int(x2 + 0.5)]
        assert inside.size < 60 or inside.mean() > 0.8
        left_over[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = False
    assert left_over.sum() == 0  # every red pixel belongs to a box, kept or ignored


def test_boxes_stay_inside_the_input_and_classes_stay_with_them(squares: list[Example]) -> None:
    for seed in range(12):
        sample = augmented(squares, 0, 192, 256, HARD, np.random.default_rng(seed))
        assert len(sample.boxes) == len(sample.classes)
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= [256, 192, 256, 192]).all()


def test_the_same_generator_gives_the_same_sample(squares: list[Example]) -> None:
    colour = Augmentation(flip=0.5, mosaic=0.5, crop=0.5, shrink=0.5, hue=0.1, saturation=0.5, brightness=0.5)

    def sample(seed: int) -> Sample:
        return augmented(squares, 0, 192, 256, colour, np.random.default_rng(seed))

    assert np.array_equal(sample(3).image, sample(3).image)
    assert not np.array_equal(sample(3).image, sample(4).image)


def test_partial_pictures_mark_their_area(squares: list[Example], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((100, 200, 3), np.uint8))
    none = np.zeros((0, 4), np.float32)
    example = Example(1, tmp_path / "p.png", 200, 100, none, np.zeros(0, np.int64), none, partial=True)
    sample = letterboxed(example, 192, 256)
    assert sample.partial.tolist() == [[0, 0, 256, 128]]
    assert letterboxed(squares[0], 192, 256).partial.shape == (0, 4)


def test_recolouring_reaches_pixels_within_bounds(squares: list[Example]) -> None:
    plain = augmented(squares, 0, 192, 256, Augmentation(), np.random.default_rng(0)).image
    brightness = Augmentation(brightness=0.4)
    other = augmented(squares, 0, 192, 256, brightness, np.random.default_rng(0)).image
    ratio = other.max(-1).astype(float).mean() / plain.max(-1).astype(float).mean()
    assert 0.59 < ratio < 1.41
    assert abs(ratio - 1) > 0.02


def test_a_pasted_object_is_where_its_box_is(squares: list[Example]) -> None:
    none = np.zeros((0, 4), np.float32)
    gray = Sample(np.full((192, 256, 3), 100, np.uint8), none, np.zeros(0, np.int64), none, none, none)
    for seed in range(12):
        sample = pasted(gray, Objects.of(squares), np.random.default_rng(seed))
        assert sample.classes.tolist() == [0]
        (x1, y1, x2, y2), red = sample.boxes[0], _red(sample.image)
        assert (gray.image == 100).all()
        assert red[int(y1 + 0.5) : int(y2 + 0.5), int(x1 + 0.5) : int(x2 + 0.5)].mean() > 0.8
        red[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = False
        assert red.sum() == 0


def test_rare_classes_are_pasted_as_often(squares: list[Example]) -> None:
    """One of seven pictures shows another class, and one has an object too small to be shown."""
    small = np.array([[10, 10, 15, 15]], np.float32)
    examples = [
        replace(squares[0], classes=np.array([5])),
        replace(squares[1], boxes=small, classes=np.array([7])),
        *[squares[1]] * 5,
    ]
    objects = Objects.of(examples)
    rng = np.random.default_rng(0)
    drawn = Counter(int(example.classes[row]) for example, row in (objects.draw(rng) for _ in range(400)))
    assert set(drawn) == {0, 5}
    assert 160 < drawn[5] < 240
    nothing = Objects.of([replace(examples[1], classes=np.array([0]))])
    plain = augmented(squares, 0, 192, 256, Augmentation(), rng)
    assert pasted(plain, nothing, rng) is plain


def test_what_a_pasted_object_hides_is_neither_right_nor_wrong(squares: list[Example]) -> None:
    under = augmented(squares, 0, 192, 256, Augmentation(), np.random.default_rng(0))
    hidden = 0
    for seed in range(40):
        sample = pasted(under, Objects.of(squares), np.random.default_rng(seed))
        assert len(sample.boxes) + len(sample.ignored) == len(under.boxes) + 1
        hidden += len(sample.ignored)
    assert 0 < hidden < 20


def test_pictures_seen_through_each_other_have_the_objects_of_both(squares: list[Example]) -> None:
    first, second = (letterboxed(example, 192, 256) for example in squares[:2])
    sample = mixed(first, second, 0.5)
    assert np.array_equal(sample.boxes, np.concatenate([first.boxes, second.boxes]))
    assert np.array_equal(sample.classes, [0, 0])
    mean = (first.image.astype(float) + second.image) / 2
    assert np.abs(sample.image - mean).max() <= 0.5
    both = augmented(squares, 0, 192, 256, Augmentation(mixup=1.0, paste=1.0), np.random.default_rng(1))
    assert len(both.boxes) == 3
