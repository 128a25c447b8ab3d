"""What a moving camera does to tracks: known movements over a real picture, and a real clip seen through a window."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream.bench import tracker as bench
from stream.bench.worlds import Moment
from stream.frames import Detections
from stream.planes import views
from stream.tracking import Tracker, View
from stream.tracking.camera_motion import CameraMotion

WIDTH, HEIGHT = 480, 400
NOTHING = np.zeros((0, 4))


@pytest.fixture(scope="module")
def street(shared: Path) -> list[np.ndarray]:
    """The luma of 150 pictures, 768x576, of a camera that stands still."""
    with av.open(str(shared / "data" / "clips" / "vtest.avi")) as clip:
        frames = zip(range(150), clip.decode(video=0), strict=False)
        return [views(frame.reformat(format="yuv420p"))[0].copy() for _, frame in frames]


@pytest.mark.parametrize(
    ("turn_deg", "growth", "shift"),
    [(0, 1.0, (9, -5)), (0, 1.0, (60, 0)), (0, 1.04, (0, 0)), (3, 1.0, (4, 2)), (-2, 0.97, (-12, 6))],
)
def test_a_known_movement_is_found(
    street: list[np.ndarray], turn_deg: float, growth: float, shift: tuple[int, int]
) -> None:
    picture = street[0]
    height, width = picture.shape
    real = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, growth)
    real[:, 2] += shift
    camera = CameraMotion()
    assert camera.look(picture, NOTHING) is None, "there is nothing to compare with yet"
    found = camera.look(cv2.warpAffine(picture, real, (width, height)), NOTHING)
    assert found is not None
    corners = np.array([[0.0, 0, width, width], [0, height, 0, height], [1, 1, 1, 1]])
    off = np.abs(found @ corners - real @ corners).max()
    print(f"{off:.2f} px off at the corners")
    assert off < 2.0


def test_people_who_walk_move_no_camera(street: list[np.ndarray]) -> None:
    camera = CameraMotion()
    assert all(camera.look(picture, NOTHING) is None for picture in street)


def test_large_pictures_and_another_size(street: list[np.ndarray]) -> None:
    large = [cv2.resize(picture, (2304, 1728)) for picture in (street[0], np.roll(street[0], 10, axis=1))]
    camera = CameraMotion()
    assert camera.look(large[0], NOTHING) is None
    found = camera.look(large[1], NOTHING)
    assert found is not None
    np.testing.assert_allclose(found, [[1, 0, 30], [0, 1, 0]], atol=1.5)
    assert camera.look(street[1], NOTHING) is None, "of another size nothing can be told"
    assert camera.look(np.zeros((9, 16), np.uint8), NOTHING) is None


def test_nothing_to_hold_on_to_is_no_movement(street: list[np.ndarray]) -> None:
    camera = CameraMotion()
    camera.look(np.zeros_like(street[0]), NOTHING)
    assert camera.look(np.full_like(street[0], 200), NOTHING) is None, "the light went on"
    assert camera.look(street[0], NOTHING) is None, "another scene"
    camera.look(street[0], NOTHING)
    everywhere = np.array([[0.0, 0, 768, 576]])
    assert camera.look(np.roll(street[0], 10, axis=1), everywhere) is None


def panned(case: bench.Case, street: list[np.ndarray]) -> tuple[bench.Case, list[np.ndarray]]:
    """As a camera sees it that looks to and fro, at up to 290 pixels a second."""
    moments, pictures = [], []
    for moment, picture in zip(case.moments, street, strict=False):
        x = int((768 - WIDTH) / 2 * (1 + np.sin(2 * moment.time_s)))
        y = int((576 - HEIGHT) / 2 * (1 + np.cos(1.4 * moment.time_s)))
        window = np.array([x, y, x + WIDTH, y + HEIGHT])
        seen, real = (
            np.minimum(np.maximum(boxes, np.tile(window[:2], 2)), np.tile(window[2:], 2))
            for boxes in (moment.detections.boxes, moment.boxes)
        )
        found, there = (
            (part[:, 2:] - part[:, :2]).prod(1) > 0.5 * (boxes[:, 2:] - boxes[:, :2]).prod(1)
            for part, boxes in ((seen, moment.detections.boxes), (real, moment.boxes))
        )
        corner = np.tile(window[:2], 2)
        detections = Detections(
            (seen - corner)[found].astype(np.float32),
            moment.detections.scores[found],
            moment.detections.classes[found],
        )
        moments.append(Moment(moment.time_s, detections, moment.ids[there], (real - corner)[there]))
        pictures.append(np.ascontiguousarray(picture[y : y + HEIGHT, x : x + WIDTH]))
    return bench.Case("panned", WIDTH, HEIGHT, case.fps, moments), pictures


def test_tracks_survive_a_camera_that_looks_around(shared: Path, street: list[np.ndarray]) -> None:
    pytest.importorskip("trackeval", reason="needs TrackEval: pip install --no-deps trackeval")
    folder = shared / "data" / "mot" / "PETS09-S2L1"
    case, pictures = panned(bench.read_case(folder, folder / "yolox_nano_det.txt", 1), street)
    scores = {}
    for what in ("blind", "seeing"):
        tracker, found = Tracker(), []
        for moment, picture in zip(case.moments, pictures, strict=True):
            view = View(WIDTH, HEIGHT, picture if what == "seeing" else None)
            tracks = tracker.update(moment.detections, moment.time_s, view)
            found.append(
                (tracks.ids[~tracks.coasting].tolist(), tracks.boxes[~tracks.coasting].astype(float))
            )
        scores[what] = bench.score(case, found)
    print(scores)
    assert scores["seeing"]["MOTA"] > 60 > 20 > scores["blind"]["MOTA"]
    assert scores["seeing"]["IDSW"] < scores["blind"]["IDSW"] / 3
