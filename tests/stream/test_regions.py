"""Regions of interest: what lies outside is not seen, what lies inside is found where it is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from av import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.detector import Detector
from stream.frames import Detections
from stream.planes import views
from stream.regions import Regions, View
from stream.sources import SourceOptions, open_source

GREY = 114


def picture_of(width: int, height: int) -> VideoFrame:
    """Each 4:2:0 sample tells where it is."""
    frame = VideoFrame(width, height, "yuv420p")
    for plane in views(frame):
        rows, columns = plane.shape
        plane[:] = (np.arange(rows)[:, None] * 7 + np.arange(columns) * 3) % 251
    return frame


@pytest.mark.parametrize(
    ("size", "polygon", "expected"),
    [
        ((640, 360), [(100, 50), (300, 50), (300, 200)], (100, 50, 200, 150)),
        ((640, 360), [(101, 51), (299, 51), (200, 199)], (100, 50, 200, 150)),
        ((641, 361), [(600, 300), (900, 300), (900, 900)], (600, 300, 41, 61)),
        ((640, 360), [(5, 5), (6, 5), (6, 6)], (4, 4, 16, 16)),
        ((640, 360), [(2000, 2000), (3000, 2000), (3000, 3000)], (624, 344, 16, 16)),
    ],
)
def test_the_part_that_is_shown(
    size: tuple[int, int], polygon: list[tuple[float, float]], expected: tuple[int, int, int, int]
) -> None:
    picture = picture_of(*size)
    view = Regions([polygon]).view(picture)
    left, top, *_ = expected
    assert (view.left, view.top, view.picture.width, view.picture.height) == expected
    for plane, whole, shift in zip(views(view.picture), views(picture), (0, 1, 1), strict=True):
        rows, columns = plane.shape
        y, x = top >> shift, left >> shift
        np.testing.assert_array_equal(plane, whole[y : y + rows, x : x + columns])


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    polygons=st.lists(
        st.lists(st.tuples(st.floats(0, 16384), st.floats(0, 16384)), min_size=3, max_size=8),
        min_size=1,
        max_size=3,
    ),
)
def test_any_polygon_gives_a_part_of_any_picture(
    width: int, height: int, polygons: list[list[tuple[float, float]]]
) -> None:
    regions = Regions(polygons)
    view = regions.view(VideoFrame(width, height, "yuv420p"))
    assert 0 <= view.left < view.left + view.picture.width <= width
    assert 0 <= view.top < view.top + view.picture.height <= height
    regions.hide(view, np.zeros((32, 32, 3), np.uint8))


def test_what_lies_in_no_polygon_is_grey() -> None:
    triangle, square = [(0, 0), (100, 0), (0, 100)], [(150, 150), (200, 150), (200, 200), (150, 200)]
    regions = Regions([triangle, square])
    view = regions.view(VideoFrame(200, 200, "yuv420p"))
    image = np.zeros((200, 200, 3), np.uint8)
    regions.hide(view, image)
    ys, xs = np.mgrid[:200, :200]
    inside = (xs + ys < 98) | ((xs >= 151) & (ys >= 151))
    outside = (xs + ys > 102) & ((xs < 149) | (ys < 149))
    assert (image[inside] == 0).all()
    assert (image[outside] == GREY).all()


def test_a_detector_sees_only_its_regions_and_names_places_of_the_whole(
    bikes: Path, detector: Detector
) -> None:
    with closing(open_source(str(bikes), SourceOptions(pace="lossless"))) as source:
        for frame in iter(source.read, None):
            picture = frame.picture
            (whole,) = detector.detect([picture], 0.4)
            if len(whole) and whole.scores[0] > 0.7:  # so that it is found again at another scale
                break
    box = whole.boxes[0]
    left, top, right, bottom = box + np.array([-40, -40, 40, 40])
    around = Regions(
        [[(max(0, left), max(0, top)), (right, max(0, top)), (right, bottom), (max(0, left), bottom)]]
    )
    elsewhere = Regions([[(0, 0), (20, 0), (20, 20), (0, 20)]])
    # In one batch with the whole picture, each with its own letterbox.
    near, everything, nothing = detector.detect([picture] * 3, 0.4, [around, None, elsewhere])
    np.testing.assert_array_equal(everything.boxes, whole.boxes)
    assert best_overlap(near, box) > 0.6
    assert (near.boxes[:, 0] >= left - 3).all()
    assert (near.boxes[:, 2] <= right + 3).all()
    assert len(nothing) == 0


def best_overlap(found: Detections, box: np.ndarray) -> float:  # type: ignore[type-arg]
    def area(corners: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.prod(np.maximum(corners[..., 2:] - corners[..., :2], 0), axis=-1)

    shared = np.concatenate(
        [np.maximum(found.boxes[:, :2], box[:2]), np.minimum(found.boxes[:, 2:], box[2:])], axis=1
    )
    overlaps = area(shared) / (area(found.boxes) + area(box) - area(shared))
    return float(overlaps.max(initial=0.0))


def test_the_whole_picture_is_not_copied() -> None:
    picture = picture_of(64, 48)
    assert Regions([[(0, 0), (64, 0), (64, 48), (0, 48)]]).view(picture).picture is picture
    assert View(picture).picture is picture
