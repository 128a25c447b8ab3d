"""The camera's own packets: the very slices, each with its tracks, and nobody who encodes."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import h264_depayload

from stream import barcode
from stream.camera import Camera
from stream.config import CameraConfig, EncoderConfig
from stream.encode import EncodedUnit
from stream.errors import SignallingError
from stream.frames import AccessUnit, Detections, Tracks
from stream.h264 import IDR, SPS, Profile, unit_types
from stream.sources import SourceOptions, open_source
from stream.sources.tap import Tap
from stream.tracking import TrackerParameters
from stream.webrtc import ladder as ladder_module
from stream.webrtc.hub import Hub
from stream.webrtc.ladder import Ladder
from stream.webrtc.rendition import SOURCE
from stream.webrtc.sei import TRACKS_UUID
from stream.webrtc.source_hub import UNITS_IN_FLIGHT, SourceHub
from stream.webrtc.whep import WhepService
from tests.rtsp_server import RtspServer, missing
from tests.stream.clips import RATE, bare, clip, recorded, slices
from tests.stream.test_encode import Decoder, planes_of
from tests.stream.watching import Collector, Draw, encoder_threads, frame, until
from tests.stream.whep_app import OFFER

needs_gstreamer = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@contextmanager
def playing(source: object, **settings: object) -> Iterator[Camera]:
    """A camera called ``door`` that runs; nobody detects."""
    config = CameraConfig(source=str(source), **settings)
    camera = Camera("door", config, EncoderConfig(), lambda: None)
    camera.start()
    try:
        yield camera
    finally:
        camera.request_stop()
        camera.join(5)


async def shown(camera: Camera) -> None:
    await until(lambda: camera.status().state == "live", 10)


def whole(unit: EncodedUnit) -> bytes:
    return b"".join(map(h264_depayload, unit.payloads))


def number(unit: EncodedUnit, decoder: Decoder) -> int | None:
    return barcode.read(np.ascontiguousarray(planes_of(decoder.decode(unit))[0]))


async def test_the_very_slices_go_out_at_their_own_speed_and_nobody_encodes(tmp_path: Path) -> None:
    path = clip(tmp_path / "high.mp4", profile="High", options={"bf": "0", "preset": "fast"})
    pictures = recorded(path)
    with playing(path) as camera:
        await shown(camera)
        hub, viewer = camera.source_hub(), Collector()
        hub.join(viewer)
        await until(lambda: hub.units > 20)
        assert hub.profile == Profile.HIGH
        assert not encoder_threads()
        encoded = camera.status().encoded
        await until(lambda: hub.units > 60)
        status = camera.status()
        assert status.encoded == encoded, "no picture is encoded once the camera's own keyframe came"
        assert (status.forwarded, status.viewers) == (hub.units, 1)
        hub.leave(viewer)
        await until(lambda: not hub.wanted)
    units = viewer.units[-50:]
    assert viewer.units[0].keyframe
    places = [pictures.index(slices(whole(unit))) for unit in units]
    assert all((later - earlier) % len(pictures) == 1 for earlier, later in pairwise(places))
    keys = [unit for unit in units if unit.keyframe]
    assert 2 <= len(keys) <= 5
    assert all({IDR, SPS} <= unit_types(whole(unit)) for unit in keys), "each can be joined at"
    assert {later.timestamp - earlier.timestamp for earlier, later in pairwise(units)} <= {2999, 3000, 3001}
    played_s = units[-1].captured_at - units[0].captured_at
    assert played_s == pytest.approx(49 / RATE, abs=0.1), "neither demuxed at once nor late"


async def test_every_picture_decodes_from_the_first_on(tmp_path: Path) -> None:
    """Also where the parameter sets change, from the encoder's that fills in to the camera's."""
    path = clip(tmp_path / "main.mp4", profile="Main", options={"bf": "0"}, keyframe_every=30)
    with playing(path) as camera:
        await shown(camera)
        hub, viewer = camera.source_hub(), Collector()
        began = time.monotonic()
        hub.join(viewer)
        await until(lambda: viewer.units)
        assert time.monotonic() - began < 0.5, "it need not wait for the camera's keyframe"
        await until(lambda: hub.units > 10)
    numbers = viewer.indices()
    assert None not in numbers
    assert numbers[0] is not None
    bridged = len(numbers) - hub.units
    assert bridged > 0
    assert numbers[bridged] is not None
    assert numbers[bridged] % 30 == 0, "it went over to the camera's own at its keyframe"
    assert all((later - earlier) % 90 <= 2 for earlier, later in pairwise(numbers) if later is not None)
    stamps = [unit.timestamp for unit in viewer.units]
    assert all(0 < later - earlier < 9000 for earlier, later in pairwise(stamps))


async def test_tracks_are_of_the_pictures_own_time(tmp_path: Path) -> None:
    """A box that moves with the clip's time, seen in every fifth picture alone, lies right in all of them."""
    path = clip(tmp_path / "base.mp4", frames=300)
    with playing(path, loop=False) as camera:

        def detect() -> None:
            while (frame := camera.pending.get(5)) is not None:
                if frame.index % 5 == 0:
                    left = 10 + 20 * frame.time_s
                    boxes = np.array([[left, 60, left + 60, 140]], np.float32)
                    sure = np.array([0.95], np.float32)
                    camera.detected(frame, Detections(boxes, sure, np.zeros(1, int)), TrackerParameters())

        thread = threading.Thread(target=detect)
        thread.start()
        await shown(camera)
        hub, viewer = camera.source_hub(), Collector()
        hub.join(viewer)
        await until(lambda: hub.units > 50)
        camera.request_stop()
        thread.join()
    decoder, off = Decoder("h264"), []
    for unit in viewer.units:
        picture = decoder.decode(unit)
        index = barcode.read(np.ascontiguousarray(planes_of(picture)[0]))
        ours = [bytes(data)[16:] for data in picture.side_data if bytes(data)[:16] == TRACKS_UUID.bytes]
        assert index is not None
        assert len(ours) == 1
        *_, count = struct.unpack_from(">BHHIH", ours[0])
        if index > 30:  # by then it is sure and its speed known
            assert count == 1
            off.append(struct.unpack_from(">f", ours[0], 11 + 10)[0] - (10 + 20 * index / RATE))
    print(f"{len(off)} boxes, at most {np.abs(off).max():.2f} pixels off")
    assert len(off) > 25
    assert np.abs(off).max() < 0.6, "a picture sooner or later is 0.67"


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("b.mp4", {"profile": None, "options": {"bf": "2", "preset": "fast"}}, "has B-frames"),
        (
            "hevc.mp4",
            {"codec": "libx265", "profile": None, "options": {"x265-params": "log-level=none"}},
            "stream is HEVC",
        ),
        ("interlaced.mp4", {"profile": None, "options": {"bf": "0", "x264-params": "tff=1"}}, "interlaced"),
        ("422.mp4", {"profile": None, "pixels": "yuv422p", "options": {"bf": "0"}}, "is High 4:2:2"),
    ],
)
async def test_what_browsers_cannot_show_is_refused_in_words(
    tmp_path: Path, name: str, settings: dict[str, object], words: str
) -> None:
    with playing(clip(tmp_path / name, frames=30, **settings)) as camera:
        await shown(camera)
        await until(lambda: camera.status().decoded > 4)
        service = WhepService(lambda camera_id: camera, 4, loopback_only=True)
        with pytest.raises(SignallingError, match=words) as refused:
            await service.join("door", OFFER, source=True)
        assert refused.value.status == 406
        assert "leave out rendition=source" in str(refused.value)
        await service.close()


def test_b_frames_that_no_header_tells_of_are_seen(tmp_path: Path) -> None:
    """The stream is opened as one from a camera is: without a look ahead."""
    mixed = clip(tmp_path / "mixed.mp4", profile="Main", options={"bf": "2", "preset": "fast"})
    given = []
    with av.open(str(bare(tmp_path / "mixed.h264", mixed)), options={"probesize": "32"}) as container:
        tap = Tap(container.streams.video[0])
        assert tap.forwards == Profile.MAIN
        for packet in container.demux(video=0):
            tap.mark(packet)
            given += [tap.unit(picture, 0.0, 0.0) for picture in packet.decode()]
    assert "has B-frames" in str(tap.forwards)
    assert len([unit for unit in given if unit is not None]) < 5, "no more once it is known"


def test_parameter_sets_told_once_go_before_each_keyframe(tmp_path: Path) -> None:
    path = clip(tmp_path / "plain.mp4", profile="Main", options={"bf": "0"})
    units = taken(bare(tmp_path / "plain.h264", path))
    assert [slices(unit.data) for unit in units] == recorded(path)
    assert [unit.keyframe for unit in units] == [index % 15 == 0 for index in range(90)]
    assert all({IDR, SPS} <= unit_types(unit.data) for unit in units if unit.keyframe)


def taken(path: Path) -> list[AccessUnit]:
    """All that a file's source hands on."""
    units: list[AccessUnit] = []
    source = open_source(str(path), SourceOptions(pace="lossless"))
    source.listener = units.append
    while source.read() is not None:
        pass
    source.close()
    return units


async def test_who_lost_a_picture_is_helped_at_once_and_comes_back(tmp_path: Path) -> None:
    units = taken(clip(tmp_path / "base.mp4"))
    bridge = Hub("door", replace(SOURCE, source=False), Draw(), bitrate=500_000)
    hub, viewer, other = SourceHub("door", bridge, Profile.BASELINE), Collector(), Collector()
    hub.join(viewer)
    hub.join(other)

    async def play(first: int, count: int) -> None:
        for index in range(first, first + count):
            have = len(viewer.units)
            hub.forward(units[index], Tracks.empty())
            bridge.show(frame(index), Tracks.empty())
            await until(lambda have=have: len(viewer.units) > have)

    await play(10, 7)
    assert (hub.viewers, bridge.viewers) == (2, 0)
    asked = len(viewer.units)
    viewer.request_keyframe()
    viewer.request_keyframe()
    await play(17, 3)
    assert (hub.viewers, bridge.viewers) == (1, 1)
    assert viewer.units[asked].keyframe
    assert slices(whole(viewer.units[asked])) not in [slices(unit.data) for unit in units]
    await play(20, 20)
    assert (hub.viewers, bridge.viewers) == (2, 0)
    assert [slices(whole(unit)) for unit in viewer.units[-10:]] == [
        slices(unit.data) for unit in units[30:40]
    ]
    assert None not in viewer.indices()
    stamps = [unit.timestamp for unit in viewer.units]
    assert all(later > earlier for earlier, later in pairwise(stamps))
    assert [slices(whole(unit)) for unit in other.units[-25:]] == [slices(unit.data) for unit in units[15:40]]
    hub.leave(viewer)
    hub.leave(other)
    await until(lambda: not encoder_threads())


async def test_a_loop_that_hangs_leaves_no_broken_picture_and_no_pile(tmp_path: Path) -> None:
    units = taken(clip(tmp_path / "base.mp4"))
    bridge = Hub("door", replace(SOURCE, source=False), Draw(), bitrate=500_000)
    hub, viewer = SourceHub("door", bridge, Profile.BASELINE), Collector()
    hub.join(viewer)
    for unit in units[: UNITS_IN_FLIGHT + 20]:  # and the loop, which is this very thread, gives out nothing
        hub.forward(unit, Tracks.empty())
    assert hub.dropped == 20
    await asyncio.sleep(0)
    assert len(viewer.units) == UNITS_IN_FLIGHT
    bridge.show(frame(0), Tracks.empty())
    hub.forward(units[UNITS_IN_FLIGHT + 20], Tracks.empty())
    await until(lambda: len(viewer.units) > UNITS_IN_FLIGHT)
    assert bridge.viewers == 1, "what came then needed what was dropped"
    for unit in units[UNITS_IN_FLIGHT + 21 : 65]:
        hub.forward(unit, Tracks.empty())
        await asyncio.sleep(0)
    assert hub.viewers == 1
    assert [slices(whole(unit)) for unit in viewer.units[-5:]] == [slices(unit.data) for unit in units[60:65]]
    hub.close()
    await until(lambda: viewer.end_reason is not None)
    assert viewer.end_reason == "the camera was closed"
    with pytest.raises(RuntimeError):
        hub.join(viewer)
    bridge.close()


async def test_a_hub_that_is_closed_while_it_repairs_strands_nobody(tmp_path: Path) -> None:
    units = taken(clip(tmp_path / "base.mp4"))
    bridge = Hub("door", replace(SOURCE, source=False), Draw(), bitrate=500_000)
    hub = SourceHub("door", bridge, Profile.BASELINE)

    class Late(Collector):
        def move(self) -> None:
            super().move()
            if hub.viewers == 0 and self.units:  # it was taken out, to join anew
                closing = threading.Thread(target=hub.close)
                closing.start()
                closing.join()

    viewer = Late()
    hub.join(viewer)
    for unit in units[:3]:
        hub.forward(unit, Tracks.empty())
    await until(lambda: len(viewer.units) == 3)
    viewer.request_keyframe()
    await until(lambda: viewer.end_reason == "the camera was closed")
    bridge.close()


async def test_a_slow_network_goes_from_the_cameras_own_to_what_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(ladder_module, "monotonic", lambda: now)
    with playing(
        clip(tmp_path / "high.mp4", profile="High", options={"bf": "0", "preset": "fast"})
    ) as camera:
        await shown(camera)
        viewer = Collector()
        ladder = Ladder(camera, SOURCE, viewer)
        ladder.join()
        hub = camera.source_hub()

        lost_packets = packets = 0

        async def report(lost: float, seconds: int) -> None:
            nonlocal now, lost_packets, packets
            for _ in range(seconds):
                now += 1
                lost_packets, packets = lost_packets + round(100 * lost), packets + 100
                ladder.report(lost_packets, packets, None)
                ladder.look_after()
                await asyncio.sleep(0)

        await until(lambda: hub.units > 3)
        assert (ladder.rendition, ladder.profile) == (SOURCE, Profile.HIGH)
        await report(0.5, 4)
        assert ladder.rendition.codec == "h264"
        assert not ladder.rendition.source
        units = len(viewer.units)
        await until(lambda: len(viewer.units) > units + 3)
        assert not hub.wanted
        while ladder.rendition != SOURCE and now < 2000:
            await report(0.0, 1)
        units = hub.units
        await until(lambda: hub.units > units + 3)
        ladder.leave()
        assert not hub.wanted
    assert None not in viewer.indices()
    stamps = [unit.timestamp for unit in viewer.units]
    assert all(later > earlier for earlier, later in pairwise(stamps))


async def test_no_pictures_yet_is_try_again(tmp_path: Path) -> None:
    with playing(tmp_path / "nothing.mp4") as camera:
        await until(lambda: camera.status().state == "reconnecting")
        with pytest.raises(SignallingError, match="no pictures") as refused:
            camera.source_hub()
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)


async def test_the_payload_type_is_one_that_decodes_it(tmp_path: Path) -> None:
    without_high = OFFER.replace("profile-level-id=64001f", "profile-level-id=42e01f")
    with playing(clip(tmp_path / "high.mp4", profile="High", options={"bf": "0"})) as camera:
        await shown(camera)
        service = WhepService(lambda camera_id: camera, 4, loopback_only=True)
        with pytest.raises(SignallingError, match="profile high") as refused:
            await service.join("door", without_high, source=True)
        assert refused.value.status == 406
        _, high = await service.join("door", OFFER, source=True)
        _, any_of_them = await service.join("door", OFFER, boxes="data")
        await service.close()
    first = "m=video 9 UDP/TLS/RTP/SAVPF "
    assert [line.split()[3] for line in high.splitlines() if line.startswith("m=video")] == ["116"], first
    assert "a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f" in high
    assert [line.split()[3] for line in any_of_them.splitlines() if line.startswith("m=video")] == ["108"]


@needs_gstreamer
@pytest.mark.parametrize("backend", ["pyav", "gstreamer"])
async def test_a_camera_that_comes_back_goes_on_and_one_that_changed_ends_its_viewers(backend: str) -> None:
    with (
        RtspServer("synthetic:320x180@30") as server,
        playing(server.url, backend=backend, max_backoff_s=0.5) as camera,
    ):
        await shown(camera)
        hub, viewer = camera.source_hub(), Collector()
        hub.join(viewer)
        await until(lambda: hub.units > 10)
        before = len(viewer.units)
        server.stop()
        await until(lambda: camera.status().state == "reconnecting", 8)
        with pytest.raises(SignallingError, match="no pictures"):
            camera.source_hub()
        server.restart()
        units = hub.units
        await until(lambda: hub.units > units + 10, 8)
        assert viewer.end_reason is None
        numbers = viewer.indices()
        assert None not in numbers, "each picture decodes, also the first after the pause"
        assert len(numbers) > before
        stamps = [unit.timestamp for unit in viewer.units]
        ahead = [later - earlier for earlier, later in pairwise(stamps)]
        assert min(ahead) > 0
        server.stop()
        with RtspServer("synthetic:320x180@30", codec="h265", port=server.port):
            await until(lambda: viewer.end_reason is not None, 10)
    assert viewer.end_reason is not None
    assert "HEVC" in viewer.end_reason
    assert not hub.wanted
