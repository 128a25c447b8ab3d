"""Which renditions there are, how large and at what bit rate, and that a viewer's place among them moves."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.frames import Tracks
from stream.webrtc import ladder as ladder_module
from stream.webrtc.congestion import (
    CONGESTED_FOR_S,
    FAILED_WITHIN_S,
    FIRST_PATIENCE_S,
    LONGEST_PATIENCE_S,
    Congestion,
)
from stream.webrtc.hub import Hub
from stream.webrtc.ladder import Ladder
from stream.webrtc.rendition import Rendition, lower, offered
from tests.stream.test_encode import Decoder
from tests.stream.watching import HEIGHT, WIDTH, Collector, frame, show, until

HEIGHTS = (1080, 720, 360, 180)


@pytest.mark.parametrize(
    ("wanted", "picture", "given"),
    [
        (None, 720, None),
        (100, 720, 180),
        (180, 720, 180),
        (181, 720, 360),
        (500, 720, None),
        (500, 1080, 720),
        (2000, 720, None),
        (500, None, 720),
        (200, 180, None),
    ],
)
def test_the_least_height_that_is_enough(wanted: int | None, picture: int | None, given: int | None) -> None:
    asked = Rendition("vp8", "drawn", wanted)
    assert offered(asked, HEIGHTS, picture) == Rendition("vp8", "drawn", given)
    assert offered(asked, (), picture).height is None


def test_down_the_ladder() -> None:
    steps, rendition = [], lower(Rendition("h264", "data"), HEIGHTS, 1080)
    while rendition is not None:
        steps.append(rendition)
        rendition = lower(rendition, HEIGHTS, 1080)
    assert steps == [Rendition("h264", "data", height) for height in (720, 360, 180)]
    assert lower(Rendition("h264"), HEIGHTS, 180) is None
    assert lower(Rendition("h264"), HEIGHTS, None) is None, "nothing is known of the picture yet"


@given(st.integers(2, 4000), st.integers(2, 4000), st.sampled_from([None, *HEIGHTS]))
def test_a_shrunk_picture_has_the_same_shape(width: int, height: int, wanted: int | None) -> None:
    rendition = Rendition("h264", height=wanted)
    shrunk_width, shrunk_height = rendition.size(width, height)
    if wanted is None or height <= wanted:
        assert (shrunk_width, shrunk_height) == (width, height)
        assert rendition.bitrate(1000, width, height) == 1000
    else:
        assert shrunk_height == wanted
        assert shrunk_width % 2 == 0
        assert abs(shrunk_width - width * wanted / height) <= 1 or shrunk_width == 2
        assert rendition.bitrate(1_000_000, width, height) <= 1_000_000 or shrunk_width == 2


async def test_pictures_and_their_tracks_are_shrunk_together() -> None:
    drawn: list[tuple[int, int, np.ndarray]] = []

    def draw(picture, tracks):
        drawn.append((picture.width, picture.height, tracks.boxes))
        return picture

    hub = Hub("door", Rendition("h264", height=HEIGHT // 2), draw, bitrate=1_000_000)
    boxes = np.array([[10, 20, 110, 120]], np.float32)
    one = np.ones(1, np.float32)
    tracks = Tracks(boxes, one, np.zeros(1, np.int64), np.ones(1, np.int64), one, np.zeros(1, bool))
    viewer = Collector()
    hub.join(viewer)
    shown = frame(0)
    hub.show(shown, tracks)
    await until(lambda: viewer.units)
    decoded = Decoder("h264").decode(viewer.units[0])
    assert (decoded.width, decoded.height) == (WIDTH // 2, HEIGHT // 2)
    assert drawn[0][:2] == (WIDTH // 2, HEIGHT // 2)
    np.testing.assert_allclose(drawn[0][2], boxes / 2)
    assert (shown.picture.width, shown.picture.height) == (WIDTH, HEIGHT), "the camera's own is left alone"
    assert hub.bitrate == round(1_000_000 * 0.25**0.75)
    hub.close()


class Receiver:
    """Reports four times a second, of 50 packets each: more often than tells anything, as a browser does."""

    def __init__(self, congestion: Congestion) -> None:
        self.now = 0.0
        self._congestion = congestion
        self._lost, self._highest = 0, (1 << 32) - 100  # wraps
        self._report(0, None)

    def second(self, lost: float, round_trip_s: float | None = None) -> None:
        """A second in which that share is lost, all of it at the beginning."""
        self._report(round(4 * 50 * lost), round_trip_s)
        for _ in range(3):
            self._report(0, round_trip_s)

    def _report(self, lost: int, round_trip_s: float | None) -> None:
        self.now += 0.25
        self._lost += lost
        self._highest = (self._highest + 50) & 0xFFFFFFFF
        self._congestion.report(self.now, self._lost, self._highest, round_trip_s)


def test_congestion_is_told_of_once_it_lasts() -> None:
    congestion = Congestion(0.0)
    receiver = Receiver(congestion)
    congestion.estimate(0.4)
    receiver.second(0.2)
    assert congestion.must_lower(receiver.now) is None
    receiver.second(0.0)
    assert congestion.must_lower(receiver.now) is None, "one bad second is no congestion"
    receiver.second(0.3)
    receiver.second(0.3)
    assert congestion.must_lower(receiver.now) == pytest.approx(0.4), "what the receiver thinks possible"
    assert congestion.must_lower(receiver.now) is None, "told once"
    receiver.second(0.3)
    receiver.second(0.3)
    assert congestion.must_lower(receiver.now) is None, (
        "what was sent before is not held against what is sent now"
    )


def test_a_queue_on_the_way_is_congestion_and_a_long_way_is_not() -> None:
    congestion = Congestion(0.0)
    receiver = Receiver(congestion)
    for _ in range(10):
        receiver.second(0.0, 0.4)
        assert congestion.must_lower(receiver.now) is None
    for _ in range(2):
        receiver.second(0.0, 0.8)
    assert congestion.must_lower(receiver.now) == 1.0


def test_more_is_tried_ever_less_often_while_it_fails() -> None:
    congestion = Congestion(0.0)
    receiver, waits = Receiver(congestion), []
    for _ in range(7):
        began = receiver.now
        while not congestion.may_raise(receiver.now):
            receiver.second(0.0)
        waits.append(round(receiver.now - began))
        while congestion.must_lower(receiver.now) is None:
            receiver.second(0.5)
    assert waits[0] == FIRST_PATIENCE_S
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(LONGEST_PATIENCE_S, abs=1)
    assert FAILED_WITHIN_S > CONGESTED_FOR_S


class Camera:
    """Three renditions of one synthetic camera."""

    def __init__(self) -> None:
        self.hubs: dict[Rendition, Hub] = {}

    def hub(self, rendition: Rendition) -> Hub:
        if rendition not in self.hubs:
            self.hubs[rendition] = Hub("door", rendition, lambda picture, tracks: picture, bitrate=1_000_000)
        return self.hubs[rendition]

    def lower(self, rendition: Rendition) -> Rendition | None:
        return lower(rendition, (120, 90), HEIGHT)

    def show(self, index: int) -> None:
        shown = frame(index)
        for hub in list(self.hubs.values()):
            hub.show(shown, Tracks.empty())


@pytest.mark.slow
async def test_a_viewer_goes_down_and_comes_back_with_one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(ladder_module, "monotonic", lambda: now)
    camera, viewer = Camera(), Collector()
    ladder = Ladder(camera, Rendition("h264"), viewer)
    ladder.join()
    sizes: list[int] = []
    counted = [0, 0]  # packets lost, and the highest number
    decoder = Decoder("h264")

    async def play(count: int, lost: float) -> None:
        nonlocal now
        for _ in range(count):
            have = len(viewer.units)
            camera.show(have)
            if viewer.keyframes_only:
                viewer.request_keyframe()
                await asyncio.sleep(0.5)
            await until(lambda have=have: len(viewer.units) > have)
            sizes.append(decoder.decode(viewer.units[have]).height)
            now += 0.5
            counted[0] += round(100 * lost)
            counted[1] += 100
            ladder.report(*counted, None)
            ladder.look_after()

    await play(4, 0.0)
    await play(5, 0.5)  # half of it gets through: 90 lines take 0.35 of the bits, 120 lines 0.54
    assert sizes[-1] == 90
    await play(9, 0.5)
    assert viewer.keyframes_only
    units = len(viewer.units)
    await play(2, 0.0)
    assert all(unit.keyframe for unit in viewer.units[units:])
    while ladder.rendition != Rendition("h264") and len(sizes) < 200:
        await play(1, 0.0)
    await play(2, 0.0)
    assert [height for before, height in pairwise(sizes) if height != before] == [90, 120, 180]
    stamps = [unit.timestamp for unit in viewer.units]
    assert all(0 < later - earlier < 90_000 for earlier, later in pairwise(stamps))
    assert sum(hub.viewers for hub in camera.hubs.values()) == 1
    ladder.leave()
    assert sum(hub.viewers for hub in camera.hubs.values()) == 0
    await until(lambda: not [hub for hub in camera.hubs.values() if hub._run])


async def test_everything_again_begins_with_a_keyframe() -> None:
    camera, viewer = Camera(), Collector()
    hub = camera.hub(Rendition("h264"))
    hub.join(viewer)
    await show(hub, 0, 2, viewer)
    viewer.only_keyframes(True)
    for index in range(2, 5):
        hub.show(frame(index), Tracks.empty())
        await asyncio.sleep(0.03)
    viewer.only_keyframes(False)
    began = time.monotonic()
    while len(viewer.units) < 4 and time.monotonic() < began + 3:
        hub.show(frame(len(viewer.units) + 10), Tracks.empty())
        await asyncio.sleep(0.03)
    assert [unit.keyframe for unit in viewer.units[:4]] == [True, False, True, False]
    hub.close()
