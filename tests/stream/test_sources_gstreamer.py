"""What GStreamer alone does: choosing decoders, falling back, copying pictures, handing on packets, leaking nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stream.errors import CodecUnsupported, DeviceUnavailable, SourceBroken, SourceUnauthorised, UsageError
from stream.frames import AccessUnit, Frame
from stream.h264 import IDR, SPS, Profile, unit_types
from stream.planes import as_yuv420p, views
from stream.sources import Source, SourceOptions, demo_clip, open_source
from stream.sources.discover import list_sources
from tests.rtsp_server import RtspServer, missing
from tests.stream.clips import clip, recorded, slices

if missing() is not None:
    pytest.skip(str(missing()), allow_module_level=True)

from stream.sources import gstreamer, gstreamer_graph
from stream.sources.clock import Ending
from stream.sources.gstreamer import GStreamerSource, Layout
from stream.sources.gstreamer_graph import Gst

LOSSLESS = SourceOptions(backend="gstreamer", pace="lossless")


def all_of(source: Source) -> list[Frame]:
    frames = list(iter(source.read, None))
    source.close()
    return frames


@contextmanager
def ranked(**ranks: int) -> Iterator[None]:
    """GStreamer with other ranks for some of its decoders."""
    features = [Gst.Registry.get().lookup_feature(name) for name in ranks]
    before = [feature.get_rank() for feature in features]
    for feature, rank in zip(features, ranks.values(), strict=True):
        feature.set_rank(rank)
    try:
        yield
    finally:
        for feature, rank in zip(features, before, strict=True):
            feature.set_rank(rank)


# ---- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", ["", "colorprim=bt709:transfer=bt709:colormatrix=bt709:fullrange=on"])
def test_pictures_and_their_colours_are_those_of_pyav(tmp_path: Path, tags: str) -> None:
    path = clip(
        tmp_path / "c.mp4", frames=20, options={"bf": "0", "preset": "ultrafast", "x264-params": tags}
    )
    ours, theirs = (
        all_of(open_source(str(path), SourceOptions(backend=backend, pace="lossless")))
        for backend in ("gstreamer", "pyav")
    )
    assert len(ours) == len(theirs) == 20
    for one, other in zip(ours, theirs, strict=True):
        assert (one.picture.format.name, one.picture.width) == ("yuv420p", 320)
        np.testing.assert_array_equal(
            one.picture.to_ndarray(format="yuv420p"), as_yuv420p(other.picture).to_ndarray(format="yuv420p")
        )
    if tags:
        assert (ours[0].picture.color_range, ours[0].picture.colorspace) == (2, 1)
        assert (theirs[0].picture.color_range, theirs[0].picture.colorspace) == (2, 1)
    times = [frame.time_s for frame in ours]
    np.testing.assert_allclose(times, [frame.time_s for frame in theirs], atol=2e-3)


@pytest.mark.parametrize("size", ["640,height=360", "322,height=182", "321,height=181", "16,height=16"])
def test_packed_chroma_is_taken_apart(size: str) -> None:
    """NV12 is what hardware decodes to; GStreamer's own conversion to I420 says what the copy must be."""
    planes = {}
    for kind in ("NV12", "I420"):
        line = (
            f"videotestsrc pattern=gamut num-buffers=1 ! video/x-raw,format=NV12,width={size} ! videoconvert "
            f"! video/x-raw,format={kind} ! appsink name=sink sync=false"
        )
        pipeline = Gst.parse_launch(line)
        pipeline.set_state(Gst.State.PLAYING)
        sample = pipeline.get_by_name("sink").try_pull_sample(5 * Gst.SECOND)
        layout = Layout()
        layout.take(sample.get_caps())
        planes[kind] = views(layout.picture(sample.get_buffer()))
        pipeline.set_state(Gst.State.NULL)
    for taken, converted in zip(planes["NV12"], planes["I420"], strict=True):
        assert taken.std() > 5
        np.testing.assert_array_equal(taken, converted)


# ---- decoders -------------------------------------------------------------------------------------


def test_a_decoder_that_gives_no_picture_makes_way_for_the_next(tmp_path: Path) -> None:
    """openh264 takes interlaced H.264 and then shows nothing of it."""
    plain = clip(tmp_path / "plain.mp4", frames=10)
    fields = clip(
        tmp_path / "fields.mp4", frames=10, profile=None, options={"bf": "0", "x264-params": "tff=1"}
    )
    with ranked(openh264dec=int(Gst.Rank.PRIMARY) + 1):
        chosen = open_source(str(plain), LOSSLESS)
        assert "openh264dec in software" in str(chosen.info)
        assert len(all_of(chosen)) == 10
        instead = open_source(str(fields), LOSSLESS)
        assert "avdec_h264" in instead.info.reason
        assert len(all_of(instead)) == 10


def test_auto_takes_gstreamer_and_pyav_for_what_gstreamer_cannot_decode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auto = SourceOptions(backend="auto", pace="lossless")
    with RtspServer("synthetic:320x180@30", codec="h265") as server:
        monkeypatch.setattr("stream.sources._DECODER_NODES", ("/dev/null",))  # as if there were one
        if not gstreamer_graph.hardware_decoders():
            source = open_source(server.url, auto)
            assert str(source.info).startswith("pyav (GStreamer knows no decoder in hardware here), hevc")
            source.close()
            # As if it had one, that of another codec.
            monkeypatch.setattr(gstreamer_graph, "hardware_decoders", lambda: ["other"])
        source = open_source(server.url, auto)
        assert str(source.info).startswith("gstreamer (decoded by avdec_h265 in software), hevc 320x180")
        source.close()
        with ranked(avdec_h265=0, libde265dec=0):
            with pytest.raises(CodecUnsupported, match="no decoder here") as caught:
                open_source(server.url, LOSSLESS)
            source = open_source(server.url, auto)
        assert source.info.backend == "pyav"
        assert source.info.reason == str(caught.value).removeprefix(f"{server.url}: ")
        assert source.read() is not None
        source.close()


def test_without_gstreamer_auto_says_so_and_takes_pyav() -> None:
    """In a process that cannot import gi."""
    program = """if True:
        import sys
        sys.modules["gi"] = None
        import stream.sources
        from stream.errors import DeviceUnavailable
        from stream.sources import SourceOptions, open_source
        stream.sources._DECODER_NODES = ("/dev/null",)  # as if there were one
        try:
            open_source(sys.argv[1], SourceOptions(backend="gstreamer"))
        except DeviceUnavailable as missing:
            print(missing)
        print(open_source(sys.argv[1]).info)
    """
    with RtspServer("synthetic:320x180@30") as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url], capture_output=True, text=True, timeout=60
        )
    fault, info = done.stdout.splitlines()
    assert "apt install" in fault
    assert 'pip install "PyGObject<3.52"' in fault
    assert info.startswith("pyav (no GStreamer here")


def test_what_throws_in_cpp_is_still_caught_beside_gstreamer() -> None:
    """In a process whose first import is ours: loaded the other way round, the first exception ends it."""
    program = """if True:
        import stream.sources.gstreamer
        import cv2, numpy, onnxruntime
        try:
            onnxruntime.InferenceSession(b"no model")
        except Exception:
            print("caught")
        try:
            cv2.cvtColor(numpy.zeros((3, 3)), 999)
        except cv2.error:
            print("caught")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "caught\ncaught\n"), done.stderr


def test_auto_asks_a_camera_that_says_no_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sources._DECODER_NODES", ("/dev/null",))
    monkeypatch.setattr(gstreamer_graph, "hardware_decoders", lambda: ["as if there were one"])
    answer = b'RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
    callers = 0

    def refuse(server: socket.socket) -> None:
        nonlocal callers
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            callers += 1
            with caller:
                caller.recv(4096)
                caller.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse, args=(server,))
        thread.start()
        with pytest.raises(SourceUnauthorised):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert callers == 1


# ---- packets --------------------------------------------------------------------------------------


def test_the_very_slices_are_handed_on_each_at_its_pictures_time(tmp_path: Path) -> None:
    path = clip(tmp_path / "high.mp4", profile="High", options={"bf": "0", "preset": "fast"})
    source = GStreamerSource("file", str(path), LOSSLESS, Ending())  # whose listener comes before the first
    units: list[AccessUnit] = []
    source.listener = units.append
    frames = all_of(source)
    assert source.forwards == Profile.HIGH
    assert [slices(unit.data) for unit in units] == recorded(path)
    assert [unit.keyframe for unit in units] == [index % 15 == 0 for index in range(90)]
    assert all({IDR, SPS} <= unit_types(unit.data) for unit in units if unit.keyframe)
    assert [unit.time_s for unit in units] == [frame.time_s for frame in frames]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profile": None, "options": {"bf": "2", "preset": "fast"}}, "has B-frames"),
        ({"codec": "libx265", "profile": None, "options": {"x265-params": "log-level=none"}}, "is HEVC"),
        ({"profile": None, "options": {"bf": "0", "x264-params": "tff=1"}}, "interlaced"),
        ({"profile": None, "pixels": "yuv422p", "options": {"bf": "0"}}, "is High 4:2:2"),
    ],
)
def test_what_browsers_cannot_show_is_not_handed_on(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    source = open_source(str(clip(tmp_path / "x.mp4", frames=20, **settings)), LOSSLESS)  # type: ignore[arg-type]
    units: list[AccessUnit] = []
    source.listener = units.append
    assert len(all_of(source)) == 20
    assert words in str(source.forwards)
    assert not units


def test_a_listener_that_comes_late_gets_every_unit_from_then_on() -> None:
    """Past the first 50 units, when those of a stream without a listener are left where they are."""
    with RtspServer("synthetic:320x180@30") as server:
        source = open_source(server.url, LOSSLESS)
        for _ in range(60):
            source.read()
        units: list[AccessUnit] = []
        source.listener = units.append
        frames = [source.read() for _ in range(40)]
        source.close()
    assert len(units) >= 30
    gaps = [later.time_s - earlier.time_s for earlier, later in pairwise(units)]
    assert max(gaps) < 1.5 / 30
    assert {unit.time_s for unit in units[:-8]} <= {frame.time_s for frame in frames if frame is not None}


# ---- the rest -------------------------------------------------------------------------------------


def test_files_that_would_need_more_than_playing_are_refused() -> None:
    for options in (
        SourceOptions(backend="gstreamer", loop=True),
        SourceOptions(backend="gstreamer", start_s=1.0),
        SourceOptions(backend="gstreamer", hwaccel="cuda"),
    ):
        with pytest.raises(UsageError, match="backend pyav"):
            open_source(str(demo_clip()), options)


def test_a_backlog_ends_the_source_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a decoder that a real element before it slows down."""
    choose = gstreamer_graph.Graph._working_decoder

    def slowed(graph: gstreamer_graph.Graph, caps: Gst.Caps) -> Gst.Element:
        decoder, brake = choose(graph, caps), graph._make("identity", sleep_time=100_000)
        brake.link(decoder)
        brake.sync_state_with_parent()
        return brake

    monkeypatch.setattr(gstreamer_graph.Graph, "_working_decoder", slowed)
    monkeypatch.setattr(gstreamer, "MOST_BACKLOG_S", 0.5)
    with RtspServer("synthetic:320x180@30") as server:
        source = open_source(server.url, SourceOptions(backend="gstreamer"))
        with pytest.raises(SourceBroken, match=r"0.5 s behind the camera"):
            all_of(source)
        source.close()


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("rtmp://user:s3cr3t@127.0.0.1:9/x", "rtmp://HOST/APP/STREAM"),
        ("srt://user:s3cr3t@127.0.0.1:9", "use backend pyav"),
    ],
)
def test_an_address_that_gstreamer_cannot_take_is_its_own_fault(address: str, remedy: str) -> None:
    with pytest.raises(DeviceUnavailable, match=remedy) as caught:
        open_source(address, SourceOptions(backend="gstreamer"))
    assert "s3cr3t" not in str(caught.value)


def test_many_openings_leave_no_thread_and_no_file_open() -> None:
    """Also that of a camera that is frozen when it is closed."""

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    def open_and_close() -> None:
        source = open_source(server.url, SourceOptions(backend="gstreamer"))
        assert source.read() is not None
        source.close()

    def settled(least: tuple[int, int]) -> bool:
        return all(now <= before for now, before in zip(held(), least, strict=True))

    with RtspServer("synthetic:320x180@30") as server:
        for _ in range(3):  # what GStreamer and GLib keep for good
            open_and_close()
        time.sleep(1.0)
        before = held()
        for _ in range(30):
            open_and_close()
        eventually(lambda: settled(before))
        frozen = open_source(server.url, SourceOptions(backend="gstreamer"))
        frozen.read()
        server.freeze()
        began = time.monotonic()
        frozen.close()
        assert time.monotonic() - began < 1
        del frozen
        eventually(lambda: settled(before))
        server.thaw()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_this_machine_offers_names_what_is_missing_and_what_is_hardware() -> None:
    def detail() -> str:
        return next(offer for offer in list_sources() if offer.name == "gstreamer").detail

    assert "decoders in hardware: " in detail()
    registry = Gst.Registry.get()
    parser = registry.lookup_feature("jpegparse")
    registry.remove_feature(parser)
    try:
        assert "without jpegparse; on Debian: apt install" in detail()
    finally:
        registry.add_feature(parser)
