"""The hub: one encoder for all, only while watched; keyframes when needed; a slow viewer hurts nobody."""

from __future__ import annotations

import asyncio
import threading
import time

import av
import numpy as np
import pytest

from stream.encode import EncodedUnit
from stream.frames import Frame, Tracks
from stream.webrtc import hub as hub_module
from stream.webrtc.viewer import QUEUE_UNITS, Viewer
from tests.stream.test_encode import Decoder, flat
from tests.stream.watching import (
    Collector,
    Draw,
    encoder_threads,
    frame,
    make_hub,
    show,
    until,
)


async def test_nobody_watching_nothing_is_drawn_or_encoded() -> None:
    draw = Draw()
    hub = make_hub(draw)
    for index in range(50):
        hub.show(frame(index), Tracks.empty())
    await asyncio.sleep(0.1)
    assert (draw.threads, hub.units, hub.encoder_starts, encoder_threads()) == ([], 0, 0, [])


async def test_two_viewers_share_one_encoder_that_ends_with_the_last() -> None:
    draw = Draw()
    hub = make_hub(draw)
    first, second = Collector(), Collector()
    hub.join(first)
    await show(hub, 0, 10, first)
    hub.join(second)
    await show(hub, 10, 30, first)
    assert encoder_threads() == ["encode-door"]
    assert hub.encoder_starts == 1
    assert set(draw.threads) == {"encode-door"}, "nothing is drawn on the caller's thread"
    assert first.units[0].keyframe
    assert second.units[0].keyframe
    assert set(second.units) <= set(first.units), "the very same units"
    assert second.indices()[-1] == 39
    hub.leave(first)
    assert encoder_threads() == ["encode-door"]
    hub.leave(second)
    hub.leave(second)
    await until(lambda: not encoder_threads())
    hub.join(first)
    await show(hub, 40, 2, first)
    assert hub.encoder_starts == 2
    hub.close()
    await until(lambda: not encoder_threads())


async def test_every_picture_shown_arrives_as_itself_in_its_time() -> None:
    hub, viewer = make_hub(lossless=True), Collector()
    hub.join(viewer)
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 40))
    frames = [frame(index, float(time_s)) for index, time_s in enumerate(times)]
    await asyncio.to_thread(lambda: [hub.show(f, Tracks.empty()) for f in frames])
    await until(lambda: len(viewer.units) == 40)
    assert viewer.indices() == list(range(40))
    stamps = np.array([unit.timestamp for unit in viewer.units])
    assert np.abs((stamps - stamps[0]) / 90_000 - (times - times[0])).max() < 1e-4
    assert [unit.captured_at for unit in viewer.units] == [f.captured_at for f in frames]
    assert (hub.dropped, hub.units) == (0, 40)
    hub.close()


async def test_a_clock_set_anew_does_not_turn_back_the_timestamps() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    for time_s in (1000.0, 1000.04, 0.0, 0.04, 50_000.0, 50_000.04, 50_000.04):
        received = len(viewer.units)
        hub.show(frame(received, time_s), Tracks.empty())
        await until(lambda received=received: len(viewer.units) > received)
    steps = np.diff([unit.timestamp for unit in viewer.units])
    assert (steps > 0).all()
    assert steps.max() < 90_000 * 5
    hub.close()


async def test_a_join_gets_the_last_picture_of_a_slow_camera_at_once() -> None:
    hub = make_hub()
    hub.show(frame(7, age_s=2.0), Tracks.empty())
    first, second = Collector(), Collector()
    hub.join(first)
    await until(lambda: first.units, 1.0)
    await asyncio.sleep(2 * hub_module.JOIN_GAP_S)
    assert len(first.units) == 1, "a picture is repeated for a keyframe only"
    hub.join(second)
    await until(lambda: second.units, 1.0)
    assert second.units[0].keyframe
    assert first.indices() == [7, 7]
    assert second.indices() == [7]
    assert first.units[1].timestamp > first.units[0].timestamp
    assert [unit.repeat for unit in first.units] == [False, True]
    assert hub.dropped == 0
    await show(hub, 8, 1, first)
    assert first.units[-1].timestamp > first.units[1].timestamp
    hub.close()


async def test_a_repeated_picture_does_not_age_what_is_published() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    await show(hub, 0, 1, viewer)
    fresh_s = hub.publish_age_s
    await asyncio.sleep(0.5)
    hub.request_keyframe()
    await until(lambda: len(viewer.units) == 2)
    assert viewer.units[1].repeat
    assert hub.publish_age_s == fresh_s
    await show(hub, 1, 1, viewer)
    assert not viewer.units[2].repeat
    assert hub.publish_age_s != fresh_s
    hub.close()


@pytest.mark.parametrize("overwrites", [True, False])
async def test_a_keyframe_made_while_a_picture_is_shown_does_not_turn_back_time(overwrites: bool) -> None:
    """The loop has read the newest picture; before it wakes the encoder with it a newer one is shown."""
    free = threading.Event()

    def draw(picture: av.VideoFrame, tracks: Tracks) -> av.VideoFrame:
        assert free.wait(5)
        return picture

    hub, viewer = make_hub(draw), Collector()
    hub.join(viewer)
    hub.show(frame(0), Tracks.empty())
    run, read = hub._run, hub._newest
    assert run is not None
    if overwrites:  # the newer one still waits while picture 0 is drawn
        await until(lambda: run.inbox._item is None)
    else:  # it was taken
        free.set()
        await until(lambda: len(viewer.units) == 1)
    hub.show(frame(1), Tracks.empty())
    if not overwrites:
        await until(lambda: len(viewer.units) == 2)
    run.need_keyframe(hub_module.JOIN_GAP_S, read)
    free.set()
    await until(lambda: len(viewer.units) == (2 if overwrites else 3))
    await asyncio.sleep(2 * hub_module.JOIN_GAP_S)
    await show(hub, 2, 1, viewer)
    indices = viewer.indices()
    assert [index for index, unit in zip(indices, viewer.units, strict=True) if not unit.repeat] == [0, 1, 2]
    assert indices == sorted(indices)  # type: ignore[type-var]
    assert hub.dropped == 0
    hub.close()


async def test_a_picture_of_long_ago_greets_nobody() -> None:
    hub, viewer = make_hub(), Collector()
    hub.show(frame(1, age_s=hub_module.STALE_S + 1), Tracks.empty())
    hub.join(viewer)
    await asyncio.sleep(0.3)
    assert not viewer.units
    await show(hub, 2, 1, viewer)
    assert viewer.indices() == [2]
    hub.close()


async def test_keyframe_requests_are_merged_and_rate_limited() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    await show(hub, 0, 3, viewer)
    before = hub.keyframes
    started_at = time.monotonic()
    index = 3
    while time.monotonic() - started_at < 1.5:
        for _ in range(20):
            hub.request_keyframe()
        await show(hub, index, 1, viewer)
        index += 1
        await asyncio.sleep(0.02)
    made = hub.keyframes - before
    print(f"{20 * (index - 3)} requests in 1.5 s: {made} keyframes")
    assert 2 <= made <= 1.5 / hub_module.REPAIR_GAP_S + 1
    hub.close()


async def test_a_request_is_met_although_no_new_picture_comes() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    await show(hub, 0, 2, viewer)
    hub.request_keyframe()
    await until(lambda: len(viewer.units) == 3, hub_module.REPAIR_GAP_S + 0.5)
    assert viewer.units[2].keyframe
    hub.close()


async def test_a_viewer_that_takes_nothing_disturbs_nobody() -> None:
    hub, quick, stuck = make_hub(), Collector(), Viewer()
    hub.join(quick)
    hub.join(stuck)
    await show(hub, 0, 60, quick)
    indices = quick.indices()
    assert indices[-1] == 59
    assert sorted(set(indices)) == list(range(60)), "every picture, perhaps one of them twice for a keyframe"
    waiting: list[EncodedUnit] = []
    while (unit := stuck.take()) is not None:
        waiting.append(unit)
    assert len(waiting) <= QUEUE_UNITS
    assert stuck.dropped > 40
    recovered = Collector()
    recovered.units = waiting
    stuck.wake = lambda: recovered.units.extend(iter(stuck.take, None))
    await asyncio.sleep(hub_module.REPAIR_GAP_S)
    await show(hub, 60, 10, quick)
    assert recovered.units[0].keyframe, "it starts again with a keyframe"
    assert recovered.indices()[-1] == 69, "and decodes from there without a gap"
    hub.close()


async def test_a_loop_that_hangs_drops_pictures_before_they_are_encoded() -> None:
    """What was encoded stays an unbroken chain, and nothing piles up."""
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    await show(hub, 0, 5, viewer)
    for index in range(5, 65):
        hub.show(frame(index), Tracks.empty())
        time.sleep(0.005)  # on the loop's thread: it hangs
    await until(lambda: viewer.units[-1].timestamp - viewer.units[0].timestamp >= 64 * 3000)
    indices = viewer.indices()
    assert indices[-1] == 64
    assert indices == sorted(set(indices) - {None})  # type: ignore[type-var]
    assert len(viewer.units) <= 5 + hub_module.UNITS_IN_FLIGHT + 2
    assert hub.dropped == 65 - len(viewer.units)
    hub.close()


async def test_a_fault_in_drawing_ends_the_viewers_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    def draw(picture: av.VideoFrame, tracks: Tracks) -> av.VideoFrame:
        raise ZeroDivisionError("no such colour")

    hub, viewer = make_hub(draw), Collector()
    hub.join(viewer)
    hub.show(frame(0), Tracks.empty())
    await until(lambda: viewer.end_reason)
    assert viewer.end_reason == "ZeroDivisionError: no such colour"
    assert "no such colour" in caplog.text
    await until(lambda: not encoder_threads())
    assert hub.viewers == 0


async def test_a_fault_in_drawing_frees_who_waits_to_show() -> None:
    entered = threading.Event()

    def draw(picture: av.VideoFrame, tracks: Tracks) -> av.VideoFrame:
        entered.set()
        time.sleep(0.1)  # the next picture is put, and the one after it has to wait
        raise ZeroDivisionError("no such colour")

    hub, viewer = make_hub(draw, lossless=True), Collector()
    hub.join(viewer)
    camera = threading.Thread(
        target=lambda: [hub.show(frame(index), Tracks.empty()) for index in range(5)], daemon=True
    )
    camera.start()
    await until(lambda: viewer.end_reason)
    await asyncio.to_thread(camera.join, 2)
    assert entered.is_set()
    assert not camera.is_alive()


def test_a_loop_that_is_gone_frees_who_waits_to_show() -> None:
    hub = make_hub(lossless=True)
    loop = asyncio.new_event_loop()

    async def join() -> None:
        hub.join(Viewer())

    loop.run_until_complete(join())
    run, in_flight = hub._run, hub_module.UNITS_IN_FLIGHT - 1
    assert run is not None
    for index in range(in_flight):  # given to the loop, which never runs again
        hub.show(frame(index), Tracks.empty())
    deadline = time.monotonic() + 5
    while run.credit._value or run.inbox._item is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    loop.close()
    camera = threading.Thread(
        target=lambda: [hub.show(frame(in_flight + index), Tracks.empty()) for index in range(5)],
        daemon=True,
    )
    camera.start()
    camera.join(2)
    assert not camera.is_alive()


async def test_close_ends_the_viewers_and_the_thread() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    await show(hub, 0, 2, viewer)
    await asyncio.to_thread(hub.close)
    await until(lambda: viewer.end_reason == "the camera was closed")
    await until(lambda: not encoder_threads())
    with pytest.raises(RuntimeError, match="closed"):
        hub.join(Collector())


async def test_a_hub_that_is_closed_while_somebody_joins_strands_nobody() -> None:
    hub = make_hub()

    class Late(Collector):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "request_keyframe" and value == hub.request_keyframe:  # it is being joined
                closing = threading.Thread(target=hub.close)
                closing.start()
                closing.join()

    viewer = Late()
    hub.join(viewer)
    await until(lambda: viewer.end_reason == "the camera was closed")
    await until(lambda: not encoder_threads())


async def test_a_new_size_midway_goes_on_with_a_keyframe() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    await show(hub, 0, 3, viewer)
    hub.show(Frame(flat(641, 361, 80), 3, 0.1, time.monotonic()), Tracks.empty())
    await until(lambda: len(viewer.units) == 4)
    assert viewer.units[3].keyframe
    decoded = Decoder("h264").decode(viewer.units[3])
    assert (decoded.width, decoded.height) == (640, 360)
    hub.close()


async def test_the_decoders_picture_is_not_written_to() -> None:
    hub, viewer = make_hub(), Collector()
    hub.join(viewer)
    shown = frame(3)
    shown.picture.pts, shown.picture.pict_type = 1234, 2
    hub.show(shown, Tracks.empty())
    await until(lambda: viewer.units)
    assert (shown.picture.pts, shown.picture.pict_type) == (1234, 2)
    hub.close()


def test_a_held_viewer_drops_everything_and_starts_again_with_a_keyframe() -> None:
    requests: list[int] = []
    viewer = Viewer()
    viewer.request_keyframe = lambda: requests.append(1)
    key, delta = EncodedUnit((b"k",), 0, True, 0.0, 1), EncodedUnit((b"d",), 1, False, 0.0, 1)
    viewer.offer(key)
    viewer.hold(True)
    viewer.hold(True)
    viewer.offer(key)
    assert viewer.take() is None
    viewer.hold(False)
    viewer.offer(delta)
    assert viewer.take() is None
    viewer.offer(key)
    assert viewer.take() is key
    assert len(requests) == 1
    assert viewer.dropped == 3
