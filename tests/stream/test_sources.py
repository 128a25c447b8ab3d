"""Files, the demo and the synthetic camera: every picture, in time, and each bad file its one message."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av import VideoFrame

from stream import barcode
from stream.errors import (
    DeviceUnavailable,
    LookoutError,
    NoVideo,
    SourceBroken,
    SourceNotFound,
    UsageError,
)
from stream.frames import Frame
from stream.gpu import driver_fault
from stream.sources import Source, SourceOptions, demo_clip, open_source
from stream.sources.discover import list_sources
from stream.sources.pyav import PyavSource

LOSSLESS = SourceOptions(pace="lossless")


def frames_of(source: Source) -> Iterator[Frame]:
    return iter(source.read, None)


def pictures(width: int, height: int, count: int, pix_fmt: str = "yuv420p") -> Iterator[VideoFrame]:
    random = np.random.default_rng(width)
    for index in range(count):
        picture = np.full((height, width, 3), 255, np.uint8)  # white, with something moving in it
        picture[height // 2 :, index : index + width // 2] = random.integers(0, 255, 3, np.uint8)
        yield VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt)


def encode(
    path: Path, width: int, height: int, count: int = 25, codec: str = "libx264", pix_fmt: str = "yuv420p"
) -> Path:
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.gop_size = 10
        for picture in pictures(width, height, count, pix_fmt):
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


# ---- what plays ---------------------------------------------------------------------------------


def test_a_file_gives_every_picture_with_its_own_time(bikes: Path) -> None:
    source = open_source(str(bikes), LOSSLESS)
    frames = list(frames_of(source))
    assert (source.info.width, source.info.height, source.info.codec) == (640, 272, "h264")
    assert source.info.frame_rate == 25
    assert not source.info.live
    assert [frame.index for frame in frames] == list(range(250))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(250) / 25, atol=1e-6)
    assert {frame.picture.format.name for frame in frames} == {"yuv420p"}
    source.close()
    source.close()
    assert source.read() is None


def test_file_urls_and_paths_with_colons(bikes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "12:30 a clip.mp4"
    copy.write_bytes(bikes.read_bytes())
    for url in (str(copy), f"file://{str(copy).replace(' ', '%20')}"):
        source = open_source(url, LOSSLESS)
        assert source.read() is not None
        source.close()


def test_a_loop_keeps_time_and_index_growing(tmp_path: Path) -> None:
    clip = encode(tmp_path / "clip.mp4", 320, 240, 25)
    source = open_source(str(clip), SourceOptions(loop=True, pace="lossless"))
    frames = [source.read() for _ in range(80)]
    source.close()
    times = [frame.time_s for frame in frames if frame is not None]
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
    assert [frame.index for frame in frames if frame is not None] == list(range(80))


def test_the_demo_is_an_endless_live_camera() -> None:
    source = open_source("demo")
    started = time.monotonic()
    frames = [source.read() for _ in range(11)]
    took_s = time.monotonic() - started
    source.close()
    assert source.info.live
    assert demo_clip().is_file()
    assert all(frame is not None for frame in frames)
    assert 0.38 <= took_s < 2, "10 intervals of 40 ms"


def test_the_demo_ends_where_nothing_may_be_lost() -> None:
    source = open_source("demo", LOSSLESS)
    assert sum(1 for _ in frames_of(source)) == 250
    source.close()


def test_a_reader_that_stalled_gets_no_burst(bikes: Path) -> None:
    source = open_source(str(bikes))
    for _ in range(3):
        source.read()
    time.sleep(0.6)
    started = time.monotonic()
    for _ in range(11):
        source.read()
    source.close()
    assert time.monotonic() - started > 0.25, "0.4 s of film, less the 0.1 s that may be made up for"


def test_close_from_another_thread_ends_a_waiting_read(tmp_path: Path) -> None:
    clip = tmp_path / "slow.mp4"
    with av.open(str(clip), "w") as out:
        stream: Any = out.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1)
        for index, picture in enumerate(pictures(320, 240, 3)):
            picture.pts, picture.time_base = index * 8, Fraction(1, 1)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    source = open_source(str(clip))
    assert source.read() is not None
    threading.Timer(0.2, source.close).start()
    started = time.monotonic()
    assert source.read() is None
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(("width", "height"), [(853, 481), (129, 97), (321, 240)])
def test_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    clip = encode(tmp_path / "odd.mkv", width, height, 5, "ffv1")
    source = open_source(str(clip), LOSSLESS)
    frames = list(frames_of(source))
    assert (source.info.width, source.info.height) == (width, height)
    assert [(frame.picture.width, frame.picture.height) for frame in frames] == [(width, height)] * 5
    source.close()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [
        ("mjpeg", "yuvj422p", "clip.avi"),
        ("mjpeg", "yuvj420p", "clip.avi"),
        ("ffv1", "yuv444p", "clip.mkv"),
        ("ffv1", "yuv420p10le", "clip.mkv"),
        ("ffv1", "bgr0", "clip.mkv"),
        ("rawvideo", "nv12", "clip.nut"),
        ("rawvideo", "gray", "clip.nut"),
    ],
)
def test_other_pixel_formats_become_420_and_white_stays_white(
    tmp_path: Path, codec: str, pix_fmt: str, name: str
) -> None:
    clip = encode(tmp_path / name, 320, 240, 3, codec, pix_fmt)
    source = open_source(str(clip), LOSSLESS)
    frame = source.read()
    source.close()
    assert frame is not None
    assert frame.picture.format.name in ("yuv420p", "yuvj420p")
    rgb = frame.picture.to_ndarray(format="rgb24")
    assert rgb[:100].mean() > 250


def test_the_size_may_change_midway(tmp_path: Path) -> None:
    whole = tmp_path / "changing.h264"
    parts = [
        encode(tmp_path / f"{width}.h264", width, height, 20) for width, height in ((640, 480), (320, 240))
    ]
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = open_source(str(whole), LOSSLESS)
    frames = list(frames_of(source))
    source.close()
    sizes = [(frame.picture.width, frame.picture.height) for frame in frames]
    assert sizes == [(640, 480)] * 20 + [(320, 240)] * 20
    assert np.all(np.diff([frame.time_s for frame in frames]) > 0)


# ---- what does not ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes"])
def test_a_file_that_is_not_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("not a video\n" * 100)
    with pytest.raises(NoVideo, match=r"not a video|no video"):
        open_source(str(path))


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    with pytest.raises(NoVideo, match=r"empty \(0 bytes\)"):
        open_source(str(path))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
    with pytest.raises(NoVideo, match="there is only audio"):
        open_source(str(path))


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NoVideo, match="folder"):
        open_source(str(tmp_path))
    with pytest.raises(SourceNotFound, match="no such file"):
        open_source(str(tmp_path / "none.mp4"))
    with pytest.raises(SourceNotFound, match="no such camera"):
        open_source("987")


@pytest.mark.parametrize(
    "url", ["demmo", "foo://u:secret@host/x", "synthetic", "synthetic:1x1@30", "synthetic:640x360"]
)
def test_what_is_no_source_at_all_says_what_is(url: str) -> None:
    with pytest.raises(UsageError, match="expected") as caught:
        open_source(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_published_is_for_the_live_app_alone() -> None:
    with pytest.raises(UsageError, match="only lookout watch can take"):
        open_source("whip")


def test_a_protocol_that_this_ffmpeg_lacks() -> None:
    try:
        av.open("srt://127.0.0.1:9", timeout=1)
    except av.error.ProtocolNotFoundError:
        with pytest.raises(DeviceUnavailable, match="no support"):
            open_source("srt://127.0.0.1:9")
    except av.FFmpegError:
        pytest.skip("this FFmpeg has SRT")


def test_a_truncated_file_without_its_index_is_refused(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", 320, 240).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[:200])
    with pytest.raises(NoVideo):
        open_source(str(path))


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_a_truncated_file_plays_as_far_as_it_goes(tmp_path: Path, suffix: str) -> None:
    path = encode(tmp_path / f"cut.{suffix}", 320, 240, 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    source = open_source(str(path), LOSSLESS)
    played = sum(1 for _ in frames_of(source))
    source.close()
    assert 10 <= played < 50


def damage(path: Path, first: int, last: int) -> None:
    """Overwrite the packets ``first`` to ``last`` (not included) with noise."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place, size in places[first:last]:
        assert place is not None
        data[place : place + size] = random.integers(128, 256, size, np.uint8).tobytes()
    path.write_bytes(data)


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / "damaged.mp4", 320, 240, 60)
    damage(path, 20, 40)
    source = open_source(str(path), LOSSLESS)
    frames = list(frames_of(source))
    assert isinstance(source, PyavSource)
    assert source.bad_packets == 20
    assert len(frames) >= 35
    assert np.all(np.diff([frame.time_s for frame in frames]) > 0)
    source.close()
    assert capfd.readouterr().err == "", "FFmpeg's own messages stay out of the terminal"


def test_nothing_but_damage_ends_in_one_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "damaged.mp4", 64, 64, 150)
    damage(path, 5, 150)
    source = open_source(str(path), LOSSLESS)
    with pytest.raises(SourceBroken, match="in a row could not be decoded"):
        list(frames_of(source))
    source.close()


# ---- synthetic, and what there is -----------------------------------------------------------------


def test_the_synthetic_camera_numbers_its_frames() -> None:
    source = open_source("synthetic:640x360@50", LOSSLESS)
    for expected in range(5):
        frame = source.read()
        assert frame is not None
        gray = frame.picture.to_ndarray(format="gray")
        assert (frame.index, barcode.read(gray), frame.time_s) == (expected, expected, expected / 50)


def test_the_synthetic_camera_keeps_its_clock_and_drops_what_is_late() -> None:
    source = open_source("synthetic:320x180@50")
    first = source.read()
    time.sleep(0.3)
    second, third = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.index == 0
    assert 14 <= second.index <= 25, "0.3 s at 50 frames a second"
    assert third.index >= second.index + 1
    assert barcode.read(second.picture.to_ndarray(format="gray")) == second.index
    source.close()
    assert source.read() is None


def test_a_stop_event_ends_a_slow_synthetic_camera() -> None:
    stop = threading.Event()
    source = open_source("synthetic:320x180@0.1", stop=stop)
    source.read()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    assert source.read() is None
    assert time.monotonic() - started < 1


def test_what_this_machine_offers() -> None:
    offers = {offer.name: offer for offer in list_sources()}
    assert offers["demo"].available
    assert av.__version__ in offers["pyav"].detail
    assert offers["gstreamer"].detail


def test_every_fault_is_one_line(tmp_path: Path) -> None:
    for url in (str(tmp_path), str(tmp_path / "x.mp4"), "987", "nonsense", "foo://x"):
        with pytest.raises(LookoutError) as caught:
            open_source(url)
        assert "\n" not in str(caught.value)
        assert url in str(caught.value) or "/dev/video987" in str(caught.value)


def test_hardware_that_is_not_there_is_refused_with_the_remedy(bikes: Path) -> None:
    options = SourceOptions(hwaccel="cuda")
    if driver_fault() is None:
        with closing(open_source(str(bikes), options)) as source:
            assert source.info.backend == "pyav with cuda"
            assert source.read() is not None
        return
    with pytest.raises(DeviceUnavailable, match=r"hwaccel: cuda was asked for .* use hwaccel: none"):
        open_source(str(bikes), options)
    with pytest.raises(SourceNotFound):  # what is wrong with the file comes first where it does
        open_source("no-such-file.mp4", options)
