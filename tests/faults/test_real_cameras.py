"""What real cameras send, through the whole path from the socket or file to the camera's clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stream import barcode
from stream.errors import CodecUnsupported
from stream.frames import Frame
from stream.planes import views
from stream.sources import SourceOptions, open_source
from stream.sources.synthetic import SyntheticSource
from tests.faults.connected import connected, is_live, until, wait_for
from tests.faults.scripted_camera import HZ, SOUND, VIDEO, Coded, Line, coded, scripted
from tests.stream.clips import clip

B_FRAMES = {"preset": "veryfast", "x264-params": "bframes=3:b-adapt=0:scenecut=0:rc-lookahead=5"}


def number(frame: Frame) -> int | None:
    return barcode.read(np.ascontiguousarray(views(frame.picture)[0]))


def numbers(frames: list[Frame]) -> list[int | None]:
    return [number(frame) for frame in frames]


def steps_of(frames: list[Frame]) -> np.ndarray:
    """Seconds between them, but the first: FFmpeg gives the first picture no time where a camera sends no RTP-Info."""
    return np.diff([frame.time_s for frame in frames])[1:]


def grows(frames: list[Frame], longest_s: float) -> None:
    """Time and index go on, whatever the camera's own clock does."""
    steps = [later.time_s - earlier.time_s for earlier, later in pairwise(frames)]
    assert all(0 < step <= longest_s for step in steps), max(steps)
    assert all(later.index > earlier.index for earlier, later in pairwise(frames))


def played(play: Callable[[Line], None], frames: int, **settings: object) -> list[Frame]:
    """The first pictures of a camera that plays so, which must come over one connection."""

    def then_silence(line: Line) -> None:
        play(line)
        line.silence(10)

    with scripted(then_silence) as url, connected(url, **settings) as (door, kept):
        wait_for(lambda: len(kept.frames) >= frames, f"{frames} pictures")
        assert door.reconnects == 0
        return kept.frames[:frames]


# ---- pictures -----------------------------------------------------------------------------------


def test_b_frames_come_in_the_order_in_which_they_are_shown() -> None:
    pictures = coded(60, options=B_FRAMES)
    assert [picture.index for picture in pictures] != list(range(60)), "they are not sent in that order"
    frames = played(lambda line: line.play(pictures), 45)
    seen = numbers(frames)
    assert seen == list(range(seen[0] or 0, (seen[0] or 0) + 45))
    np.testing.assert_allclose(steps_of(frames), 1 / 30, atol=2e-3)


def test_who_joins_in_the_middle_sees_nothing_until_the_next_keyframe_and_then_everything() -> None:
    pictures = coded(60, keyframe_every=30)[10:]
    assert not pictures[0].keyframe
    frames = played(lambda line: line.play(pictures), 25)
    assert numbers(frames) == list(range(30, 55))


def test_size_and_rate_may_change_while_it_plays() -> None:
    small, large = coded(30), coded(30, "640x360", rate=15, first=15)

    def play(line: Line) -> None:
        line.play(small)
        line.play(large, rate=15)

    frames = played(play, 50)
    sizes = [(frame.picture.width, frame.picture.height) for frame in frames]
    assert sizes == [(320, 180)] * 30 + [(640, 360)] * 20
    np.testing.assert_allclose(steps_of(frames[:30]), 1 / 30, atol=2e-3)
    np.testing.assert_allclose(steps_of(frames[29:]), 1 / 15, atol=2e-3)


def test_damaged_packets_are_counted_and_the_picture_heals_with_the_next_keyframe() -> None:
    pictures = coded(75)
    chance = np.random.default_rng(3)

    def damaged(picture: Coded) -> Coded:
        if not 20 <= picture.index < 30:
            return picture
        noise = chance.integers(128, 256, len(picture.data) - 5, np.uint8).tobytes()
        return Coded(picture.data[:5] + noise, picture.keyframe, picture.index)

    with (
        scripted(lambda line: line.play(list(map(damaged, pictures)))) as url,
        connected(url) as (door, kept),
    ):
        wait_for(lambda: kept.frames and number(kept.frames[-1]) == 70, "the pictures after the damage")
        assert door.bad_packets >= 5
        assert door.reconnects == 0
        seen = numbers(kept.frames)
    assert seen[:20] == list(range(20))
    assert seen[seen.index(30) :][:40] == list(range(30, 70))
    grows(kept.frames, 0.5)


# ---- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ticks",
    [
        pytest.param(lambda at: at + 2**32 - HZ, id="wraps"),
        pytest.param(lambda at: at + (at >= HZ) * 3600 * HZ, id="jumps ahead"),
        pytest.param(lambda at: at + 7200 * HZ - (at >= HZ) * 3600 * HZ, id="jumps back"),
        pytest.param(lambda at: 2 * HZ - at // 2, id="runs backwards"),
        pytest.param(lambda at: 12345, id="stands still"),
    ],
)
def test_a_camera_whose_clock_goes_mad(ticks: Callable[[int], int]) -> None:
    pictures = coded(45)
    frames = played(lambda line: line.play(pictures, ticks=ticks), 40)
    assert numbers(frames) == list(range(40))
    grows(frames, 0.1)


def test_a_transport_stream_whose_33_bits_wrap(tmp_path: Path) -> None:
    plain, wrapping = clip(tmp_path / "plain.mp4", frames=90), tmp_path / "wrapping.ts"
    with av.open(str(plain)) as film, av.open(str(wrapping), "w") as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(video=0):
            if packet.dts is None:
                continue
            scale = HZ * packet.time_base
            packet.pts, packet.dts = (round(at * scale) + 2**33 - HZ for at in (packet.pts, packet.dts))
            packet.time_base, packet.stream = Fraction(1, HZ), stream
            out.mux(packet)
    source = open_source(str(wrapping), SourceOptions(pace="lossless"))
    frames = list(iter(source.read, None))
    source.close()
    assert numbers(frames) == list(range(90))
    np.testing.assert_allclose(np.diff([frame.time_s for frame in frames]), 1 / 30, atol=2e-3)


def test_silence_shorter_than_stall_s_is_sat_out_and_longer_is_a_stall() -> None:
    pictures = coded(40)

    def play(line: Line) -> None:
        line.play(pictures[:20])
        line.silence(1)
        line.play(pictures[20:], ticks=lambda at: at + HZ)
        line.silence(10)

    with scripted(play) as url:
        with connected(url, stall_s=2) as (door, kept):
            wait_for(lambda: len(kept.frames) >= 38, "pictures after the silence")
            assert (door.reconnects, door.stalls) == (0, 0)
            assert max(np.diff([frame.time_s for frame in kept.frames])) > 0.9, "a pause stays a pause"
        with connected(url, stall_s=0.5) as (door, kept):
            until(door, lambda now: now.state == "stalled", "the stall")
            assert len(kept.frames) <= 20
            until(door, is_live, "another try")
            assert (door.reconnects, door.stalls) == (1, 1)


# ---- what there is ------------------------------------------------------------------------------


def test_a_camera_that_has_only_sound_at_first() -> None:
    pictures = coded(60)
    offers = [SOUND, SOUND, SOUND + VIDEO.format(encoding="H264")]
    with scripted(lambda line: line.play(pictures), lambda asked: offers[min(asked, 2)]) as url:
        with connected(url) as (door, _):
            silent = until(door, lambda now: now.retry_at is not None, "the first try")
            assert (silent.reason or "").startswith("no video")
            until(door, is_live, "its pictures")
            assert door.reconnects == 2


def test_a_transport_stream_over_http_that_has_only_sound_at_first(tmp_path: Path) -> None:
    sound, film = tmp_path / "sound.ts", clip(tmp_path / "film.ts", frames=30).read_bytes()
    with av.open(str(sound), "w") as out:
        stream: Any = out.add_stream("aac", rate=8000)
        for at in range(50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 8000, 1024 * at
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with serving(chain([sound.read_bytes()] * 2, iter(lambda: film, None))) as url:
        with connected(f"{url}/x.ts") as (door, kept):
            silent = until(door, lambda now: now.retry_at is not None, "the first try")
            assert (silent.reason or "").startswith("no video")
            wait_for(lambda: len(kept.frames) >= 30, "its pictures")
            assert numbers(kept.frames[:30]) == list(range(30))
            assert door.reconnects >= 2


@contextmanager
def serving(bodies: Iterator[bytes]) -> Iterator[str]:
    """A web server that gives out the next of ``bodies`` to each who asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = next(bodies)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_codec_that_nobody_here_knows(tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.mp4"
    known = clip(tmp_path / "known.mp4", frames=5).read_bytes()
    assert known.count(b"avc1") >= 1
    unknown.write_bytes(known.replace(b"avc1", b"zzzz"))
    with pytest.raises(CodecUnsupported, match=r"H\.264"):
        open_source(str(unknown))
    with scripted(lambda line: None, lambda _: VIDEO.format(encoding="X-OWN")) as url:
        with connected(url) as (door, _):
            refused = until(door, lambda now: now.retry_at is not None, "the refusal")
            assert (refused.reason or "").startswith("codec unsupported")


def test_a_4k_camera_takes_nothing_from_a_small_one(tmp_path: Path) -> None:
    large = clip(tmp_path / "large.mp4", coded_4k(), keyframe_every=4)
    pictures = coded(120, "640x480")
    with scripted(lambda line: line.play(pictures)) as url:
        with connected(large) as (_, big), connected(url) as (small, kept):
            wait_for(lambda: len(kept.frames) >= 90 and len(big.frames) >= 6, "pictures of both")
            assert (small.missed, small.bad_packets, small.reconnects) == (0, 0, 0)
    assert big.sizes[0] == (3840, 2160)
    assert numbers(kept.frames[:90]) == list(range(90))


def coded_4k() -> Iterator[Any]:
    source = SyntheticSource("synthetic:3840x2160@25", SourceOptions(pace="lossless"))
    return (source.picture(index) for index in range(4))
