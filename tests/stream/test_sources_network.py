"""Network sources against real servers: a GStreamer RTSP camera, an HTTP server, and nobody at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from stream import barcode
from stream.errors import (
    NoVideo,
    SourceBroken,
    SourceError,
    SourceNotFound,
    SourceTimeout,
    SourceUnauthorised,
    SourceUnreachable,
)
from stream.frames import Frame
from stream.sources import Source, SourceOptions
from stream.sources import open_source as open_by_any
from tests.rtsp_server import Codec, RtspServer, missing

needs_gstreamer = pytest.mark.skipif(missing() is not None, reason=str(missing()))


Open = Callable[..., Source]


@pytest.fixture(params=["pyav", pytest.param("gstreamer", marks=needs_gstreamer)])
def open_source(request: pytest.FixtureRequest) -> Open:
    """``open_source`` with one backend."""

    def open_it(
        url: str, options: SourceOptions | None = None, stop: threading.Event | None = None
    ) -> Source:
        return open_by_any(url, replace(options or SourceOptions(), backend=request.param), stop)

    return open_it


def take(source: Source, count: int) -> list[Frame]:
    frames = [source.read() for _ in range(count)]
    return [frame for frame in frames if frame is not None]


@pytest.fixture(scope="module")
def camera(ready_bikes: Path) -> Iterator[RtspServer]:
    with RtspServer(ready_bikes, as_is=True) as server:
        yield server


@pytest.fixture(scope="module")
def locked_camera(ready_bikes: Path) -> Iterator[RtspServer]:
    with RtspServer(ready_bikes, as_is=True, user="viewer", password="s3cr3t") as server:
        yield server


@pytest.fixture(scope="module")
def pattern() -> Iterator[Callable[[Codec], RtspServer]]:
    """Cameras that show the barcode pattern, one a codec."""
    cameras: dict[Codec, RtspServer] = {}
    with ExitStack() as running:

        def camera(codec: Codec) -> RtspServer:
            if codec not in cameras:
                cameras[codec] = running.enter_context(RtspServer("synthetic:640x360@30", codec=codec))
            return cameras[codec]

        yield camera


# ---- RTSP -----------------------------------------------------------------------------------------


@needs_gstreamer
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_real_clip_over_rtsp(open_source: Open, camera: RtspServer, transport: str) -> None:
    options = SourceOptions(transport="udp" if transport == "udp" else "tcp", pace="lossless")
    started = time.monotonic()
    source = open_source(camera.url, options)
    frames = take(source, 40)
    print(f"first picture over {transport} after {frames[0].captured_at - started:.3f} s")
    source.close()
    assert len(frames) == 40
    assert source.info.live
    assert (source.info.width, source.info.height, source.info.codec) == (640, 272, "h264")
    np.testing.assert_allclose(np.diff([frame.time_s for frame in frames]), 0.04, atol=2e-3)
    assert [frame.index for frame in frames] == list(range(40))
    picture = frames[-1].picture.to_ndarray(format="gray")
    assert picture.std() > 20, "a real picture, not a flat one"


@needs_gstreamer
@pytest.mark.parametrize("codec", ["h264", "h265", "mjpeg"])
def test_every_frame_from_the_first_is_whole(
    open_source: Open, pattern: Callable[[Codec], RtspServer], codec: Codec
) -> None:
    source = open_source(pattern(codec).url, SourceOptions(pace="lossless"))
    frames = take(source, 45)  # beyond a second keyframe
    source.close()
    values = [barcode.read(frame.picture.to_ndarray(format="gray")) for frame in frames]
    assert values[0] is not None
    assert values == list(range(values[0], values[0] + 45))


@needs_gstreamer
def test_a_reader_that_is_slow_gets_the_newest_picture_and_sees_the_gap(
    open_source: Open, pattern: Callable[[Codec], RtspServer]
) -> None:
    server = pattern("h264")
    source = open_source(server.url)
    take(source, 5)
    time.sleep(1.0)
    late, newest = take(source, 2)
    source.close()
    assert late.index > 20
    made_at = server.epoch + (barcode.read(newest.picture.to_ndarray(format="gray")) or 0) / 30
    assert newest.captured_at - made_at < 0.3, "not what was waiting for a second"


@needs_gstreamer
@pytest.mark.parametrize("login", ["", "viewer:wrong-s3cr3t", "nobody:s3cr3t"])
def test_unauthorised(open_source: Open, locked_camera: RtspServer, login: str) -> None:
    with pytest.raises(SourceUnauthorised) as caught:
        open_source(locked_camera.url_of("camera", login))
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__context__ is None, "FFmpeg's own message has the password in it"


@needs_gstreamer
@pytest.mark.parametrize("basic", [False, True])
def test_authorised_by_digest_and_basic_with_a_difficult_password(
    open_source: Open, ready_bikes: Path, basic: bool
) -> None:
    with RtspServer(ready_bikes, as_is=True, user="viewer", password="s3 c/r:3@t", basic=basic) as server:
        source = open_source(server.url)
        assert len(take(source, 3)) == 3
        source.close()


@needs_gstreamer
def test_a_path_that_is_not_there_and_one_with_sound_alone(open_source: Open, camera: RtspServer) -> None:
    with pytest.raises(SourceNotFound):
        open_source(camera.url_of("nothing"))
    with pytest.raises(NoVideo):
        open_source(camera.url_of("audio"))


@needs_gstreamer
def test_a_camera_that_dies_and_comes_back(open_source: Open, ready_bikes: Path) -> None:
    with RtspServer(ready_bikes, as_is=True) as server:
        source = open_source(server.url, SourceOptions(stall_s=3))
        take(source, 3)
        server.stop()
        with pytest.raises(SourceBroken):
            take(source, 500)
        source.close()
        with pytest.raises(SourceUnreachable):
            open_source(server.url)
        server.restart()
        source = open_source(server.url)
        assert len(take(source, 3)) == 3
        source.close()


@contextmanager
def frozen(camera: RtspServer) -> Iterator[None]:
    camera.freeze()
    try:
        yield
    finally:
        camera.thaw()


@needs_gstreamer
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_that_hangs_is_a_timeout(open_source: Open, camera: RtspServer, transport: str) -> None:
    options = SourceOptions(transport="udp" if transport == "udp" else "tcp", stall_s=1.0)
    source = open_source(camera.url, options)
    take(source, 3)
    with frozen(camera):
        started = time.monotonic()
        with pytest.raises(SourceTimeout, match="no picture"):
            take(source, 500)
        assert time.monotonic() - started < 3
        source.close()


@needs_gstreamer
def test_close_ends_a_read_of_a_hung_camera_at_once(open_source: Open, camera: RtspServer) -> None:
    source = open_source(camera.url)
    take(source, 3)
    with frozen(camera):
        threading.Timer(0.3, source.close).start()
        started = time.monotonic()
        while source.read() is not None:
            pass
        assert time.monotonic() - started < 1


# ---- nobody there ---------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_nobody_listens(open_source: Open, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SourceUnreachable, match="refused") as caught:
        open_source(f"{scheme}://user:s3cr3t@127.0.0.1:{port}/x/y")
    assert "s3cr3t" not in str(caught.value)


def test_an_unknown_host(open_source: Open) -> None:
    with pytest.raises(SourceUnreachable, match="unknown host"):
        open_source("rtsp://no-such-host.invalid/x")


def test_an_address_that_is_none(open_source: Open) -> None:
    for address in ("rtsp://[bad/x", "rtsp://127.0.0.1:99999/x", "http://127.0.0.1:99999/x"):
        with pytest.raises(SourceError):
            open_source(address)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_someone_who_never_answers(open_source: Open, silent: int, scheme: str) -> None:
    started = time.monotonic()
    with pytest.raises(SourceTimeout):
        open_source(f"{scheme}://127.0.0.1:{silent}/x/y", SourceOptions(open_timeout_s=0.5))
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_stop_ends_opening_at_once(open_source: Open, silent: int, scheme: str) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(SourceError):
        open_source(f"{scheme}://127.0.0.1:{silent}/x/y", SourceOptions(open_timeout_s=30), stop)
    assert time.monotonic() - started < 1.2


# ---- HTTP -----------------------------------------------------------------------------------------


class Refusing(BaseHTTPRequestHandler):
    """Answers ``/401`` with 401, and so on."""

    def do_GET(self) -> None:
        self.send_error(int(self.path[1:4]))

    def log_message(self, format: str, *args: object) -> None:
        pass


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(handler: type[BaseHTTPRequestHandler] | partial[Quiet]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def refusing() -> Iterator[str]:
    yield from serve(Refusing)


@pytest.fixture
def web(bikes: Path, tmp_path: Path) -> Iterator[str]:
    """A server of ``bikes.ts``, without ranges, so it can only be read from start to end."""
    with av.open(str(bikes)) as clip, av.open(str(tmp_path / "bikes.ts"), "w") as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    yield from serve(partial(Quiet, directory=str(tmp_path)))


@pytest.mark.parametrize(
    ("status", "fault"),
    [(401, SourceUnauthorised), (403, SourceUnauthorised), (404, SourceNotFound), (500, SourceError)],
)
def test_http_refusals(open_source: Open, refusing: str, status: int, fault: type[SourceError]) -> None:
    with pytest.raises(fault):
        open_source(f"{refusing}/{status}?token=s3cr3t")


def test_a_video_on_a_web_server_plays_like_a_file(open_source: Open, web: str) -> None:
    source = open_source(f"{web}/bikes.ts", SourceOptions(pace="lossless"))
    frames = list(iter(source.read, None))
    source.close()
    assert len(frames) == 250


def test_a_web_page_is_no_video(open_source: Open, web: str) -> None:
    with pytest.raises(NoVideo):
        open_source(f"{web}/")


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "entry",
    ["file://{0}", "{0}", "concat:{0}|{0}", "subfile,,start,0,end,99999999,,:{0}", "crypto:{0}", "file:///etc/passwd"],
)  # fmt: skip
def test_a_playlist_cannot_name_what_is_on_this_machine(
    open_source: Open, web: str, tmp_path: Path, entry: str
) -> None:
    """The clip is there, and could be read."""
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format(entry.format(tmp_path / "bikes.ts")))
    with pytest.raises((NoVideo, SourceError)):
        open_source(f"{web}/list.m3u8", SourceOptions(pace="lossless", open_timeout_s=1.0)).read()


def test_a_playlist_of_its_own_server_plays_and_the_same_of_this_machine_only_if_ffmpeg_may(
    open_source: Open, web: str, tmp_path: Path
) -> None:
    (tmp_path / "good.m3u8").write_text(PLAYLIST.format("bikes.ts"))
    source = open_source(f"{web}/good.m3u8", SourceOptions(pace="lossless"))
    assert source.read() is not None
    source.close()
    (tmp_path / "local.ffconcat").write_text(f"ffconcat version 1.0\nfile file://{tmp_path / 'bikes.ts'}\n")
    everything = {"protocol_whitelist": "file,http,tcp", "safe": "0"}
    with av.open(f"{web}/local.ffconcat", options=everything) as opened:
        assert next(opened.decode(video=0)) is not None
    with pytest.raises(SourceError):
        open_source(f"{web}/local.ffconcat", SourceOptions(pace="lossless")).read()
