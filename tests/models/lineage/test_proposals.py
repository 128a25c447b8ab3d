"""Proposals of pictures in which it is plain what should be proposed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from models.coco import Example, load_coco
from models.errors import DataError
from models.letterbox import Letterbox
from models.lineage.proposal_cache import ProposalCache
from models.lineage.proposals import Method, ProposalRule, edge_map, propose
from models.lineage.recall import overlap
from tests.models.conftest import SHAPES

Pixels = npt.NDArray[np.uint8]

METHODS: tuple[Method, ...] = ("selective-search", "edge-boxes")
OBJECTS = np.array([[20, 30, 60, 110], [100, 16, 180, 64]], np.float32)


def two_rectangles() -> Pixels:
    """160 high, 200 wide, with a little noise, so that it is not all the same."""
    picture = np.random.default_rng(0).integers(90, 100, (160, 200, 3), dtype=np.uint8)
    for (left, top, right, bottom), colour in zip(
        OBJECTS.astype(int), ((200, 30, 30), (20, 40, 220)), strict=True
    ):
        picture[top:bottom, left:right] = colour
    return picture


@pytest.mark.parametrize("method", METHODS)
def test_objects_are_proposed_and_the_same_every_time(method: Method) -> None:
    picture = two_rectangles()
    before = picture.copy()
    boxes = propose(picture, method, 100)
    assert boxes.shape == (100, 4)
    assert boxes.dtype == np.float32
    best = overlap(OBJECTS, boxes).max(1)
    print(f"{method}: nearest IoUs {best}")
    assert (best > 0.8).all()
    real = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    assert (real >= 0).all()
    assert (real <= (200, 160, 200, 160)).all()
    assert not boxes[len(real) :].any(), "padding is zero, and comes last"
    np.testing.assert_array_equal(propose(picture, method, 100), boxes)
    np.testing.assert_array_equal(propose(picture, method, 10), boxes[:10])
    np.testing.assert_array_equal(picture, before)


def test_edge_boxes_lie_on_the_contour() -> None:
    """OpenCV's are counted from 1; here the first window around the object is off by less than a pixel on average."""
    (best,) = overlap(OBJECTS[:1], propose(two_rectangles(), "edge-boxes", 300)).argmax(1)
    nearest = propose(two_rectangles(), "edge-boxes", 300)[best]
    print(nearest)
    assert abs(float((nearest - OBJECTS[0]).mean())) < 1.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (7, 100), (8, 8), (64, 48)])
def test_pictures_without_anything(method: Method, size: tuple[int, int]) -> None:
    boxes = propose(np.full((*size, 3), 128, np.uint8), method, 5)
    assert boxes.shape == (5, 4)
    assert (boxes[:, 2:] <= size[::-1]).all()
    assert np.isfinite(boxes).all()


def test_edges_are_thin_and_across_is_right() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 30:, 1] = 250  # an edge in green alone, between columns 29 and 30
    strength, across = edge_map(picture)
    row = strength[20]
    assert set(np.flatnonzero(row > 0.05)) <= {29, 30}
    assert row[29:31].max() > 0.4
    assert np.minimum(across[20, 29], np.pi - across[20, 29]) < 0.01, "from left to right"
    _, down = edge_map(picture.transpose(1, 0, 2))
    assert down[29, 20] == pytest.approx(np.pi / 2, abs=0.01)


def test_a_rule_is_what_it_was_written_as() -> None:
    assert str(ProposalRule.parse("edge-boxes:7")) == "edge-boxes:7"
    for wrong in ("edge-boxes", "edge-boxes:0", "edge-boxes:-1", "edge-boxes:x", "none:5", ""):
        with pytest.raises(ValueError, match="expected METHOD:COUNT"):
            ProposalRule.parse(wrong)


def test_nothing_is_proposed_in_the_padding() -> None:
    picture = two_rectangles()
    letterbox = Letterbox.fit(200, 160, 256, 128)
    boxes = ProposalRule("selective-search", 50).inside(letterbox.apply(picture), letterbox)
    assert (boxes[:, 2] <= letterbox.content_width).all()
    assert boxes[:, 2].max() > letterbox.content_width - 2


# the cache


def cache(folder: Path, rule: str = "selective-search:20") -> ProposalCache:
    return ProposalCache(folder / "kept", ProposalRule.parse(rule), 96, 128)


@pytest.fixture
def examples(shapes: Path) -> list[Example]:
    return load_coco(shapes, shapes.parent, SHAPES)[:3]


def test_what_was_found_is_kept(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache(tmp_path).add_to([*examples, examples[0]])
    assert len(first) == 4
    assert first[3].proposals is first[0].proposals
    letterbox = Letterbox.fit(128, 96, 128, 96)
    wanted = ProposalRule("selective-search", 20).inside(letterbox.apply(examples[0].read()), letterbox)
    np.testing.assert_array_equal(first[0].proposals, wanted[wanted[:, 2] > 0])
    monkeypatch.setattr(Example, "read", lambda self: pytest.fail("it was there already"))
    for again, before in zip(cache(tmp_path).add_to(examples), first, strict=False):
        np.testing.assert_array_equal(again.proposals, before.proposals)


def test_several_processes_find_the_same(examples: list[Example], tmp_path: Path) -> None:
    alone = cache(tmp_path / "one").add_to(examples)
    together = cache(tmp_path / "two").add_to(examples, processes=2)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.proposals, other.proposals)
    assert len(list((tmp_path / "two" / "kept").iterdir())) == 3, "and nothing unfinished"


def test_another_picture_rule_or_damage_is_found_anew(examples: list[Example], tmp_path: Path) -> None:
    before = cache(tmp_path).add_to(examples[:1])
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    (again,) = cache(tmp_path).add_to(examples[:1])
    np.testing.assert_array_equal(again.proposals, before[0].proposals)
    cache(tmp_path, "edge-boxes:20").add_to(examples[:1])
    assert len(list((tmp_path / "kept").iterdir())) == 2
    path = examples[0].path
    assert cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    os.utime(path, ns=(1, 1))
    cache(tmp_path).add_to(examples[:1])
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_what_cannot_be_read_or_kept_is_one_line(examples: list[Example], tmp_path: Path) -> None:
    examples[1].path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="not a readable picture"):
        cache(tmp_path).add_to(examples, processes=2)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot keep proposals there"):
        replace(cache(tmp_path), folder=tmp_path / "file" / "kept").add_to(examples[:1])
