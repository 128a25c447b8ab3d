"""A real RTSP camera for tests and benchmarks: GStreamer's RTSP server, in a process of its own.

It plays a clip, or lookout's barcode pattern, endlessly as a live camera on 127.0.0.1. A clip is
encoded once at the start, without B-frames and with a keyframe every second, and its access units are
then sent again and again with growing timestamps. The barcode pattern (``--clip synthetic:...``) is
encoded as it is sent: frame ``n`` is made at monotonic time ``epoch + n / rate``. With ``--as-is`` the
clip is an AVI of H.264 in Annex B without B-frames (``record`` makes one), and is sent as it is, so that the
server starts at once.

    python tests/rtsp_server.py --clip FILE [--port 0] [--user U --password P] [--codec h264|h265|mjpeg]

It prints one line of JSON, ``{"port": …, "epoch": …}``, once it listens. Paths: ``/camera``, and
``/audio``, which has sound alone. A line on standard input tells it what to do: ``hold`` sending (what follows
comes later by as long), ``go`` on, and ``count``, answered by ``{"sent": …}``, the frames sent since its start.

It needs GStreamer with its RTSP server and PyGObject (``missing`` says what is not there).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the server's own process, which is started as a script

import av  # noqa: E402
from av import VideoFrame  # noqa: E402

from stream.errors import LookoutError  # noqa: E402

Codec = Literal["h264", "h265", "mjpeg"]

_ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "scenecut=0"}),
    "h265": ("libx265", {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"}),
    "mjpeg": ("mjpeg", {"qmin": "4", "qmax": "4"}),
}
_PIPELINES = {
    "h264": "appsrc name=source caps=video/x-h264,stream-format=byte-stream,alignment=au{rate} "
    "! h264parse ! rtph264pay name=pay0 pt=96",
    "h265": "appsrc name=source caps=video/x-h265,stream-format=byte-stream,alignment=au{rate} "
    "! h265parse ! rtph265pay name=pay0 pt=96",
    "mjpeg": "appsrc name=source caps=image/jpeg{rate} ! jpegparse ! rtpjpegpay name=pay0 pt=26",
}
_AUDIO = "( audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8 )"


def missing() -> str | None:
    """What keeps the server from running here, or None."""
    try:
        _gstreamer()
    except (ImportError, ValueError) as reason:
        return f"needs GStreamer's RTSP server and PyGObject: {reason}"
    return None


class RtspServer:
    """The server as a context manager; it runs until ``stop`` or the end of the ``with`` block.

    Args:
        clip: a video file, or ``synthetic:WIDTHxHEIGHT@FPS``.
        as_is: the clip is one of ``record``, and is not encoded again.
        user, password: asked of every client where given, by digest authentication, or basic.
    """

    def __init__(
        self,
        clip: Path | str,
        *,
        user: str | None = None,
        password: str | None = None,
        codec: Codec = "h264",
        basic: bool = False,
        as_is: bool = False,
        port: int = 0,
    ) -> None:
        self.port = port
        self.epoch = 0.0  # monotonic seconds of frame 0
        self._login = f"{quote(user)}:{quote(password or '', safe='')}@" if user is not None else ""
        self._arguments = ["--clip", str(clip), "--codec", codec]
        if user is not None and password is not None:
            self._arguments += ["--user", user, "--password", password]
        if basic:
            self._arguments.append("--basic")
        if as_is:
            self._arguments.append("--as-is")
        self._process: subprocess.Popen[str] | None = None
        self._start()

    @property
    def url(self) -> str:
        """The camera's address, with its credentials."""
        return f"rtsp://{self._login}127.0.0.1:{self.port}/camera"

    def url_of(self, path: str, login: str = "") -> str:
        """Another path, with other credentials (``user:password``) or none."""
        return f"rtsp://{login and login + '@'}127.0.0.1:{self.port}/{path}"

    def stop(self) -> None:
        """Kill the camera: its connections break at once."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def restart(self) -> None:
        """Come back on the same port."""
        self.stop()
        self._start()

    def freeze(self) -> None:
        """Stop sending without closing anything, as a hung camera does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def hold(self) -> None:
        """Send nothing until ``go``, on connections that stand."""
        self._tell("hold")

    def go(self) -> None:
        self._tell("go")

    def sent(self) -> int:
        """Frames that were sent since the start; exact while it is held."""
        self._tell("count")
        assert self._process is not None
        assert self._process.stdout is not None
        return int(json.loads(self._process.stdout.readline())["sent"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _tell(self, what: str) -> None:
        assert self._process is not None, "it was stopped"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def _start(self) -> None:
        command = [sys.executable, __file__, "--port", str(self.port), "--until-eof", *self._arguments]
        # In a group of its own: Ctrl-C is for whoever started it, who then stops it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, process_group=0
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"the RTSP server did not start: {' '.join(command)}")
        said = json.loads(line)
        self.port, self.epoch = said["port"], said["epoch"]


def record(clip: Path | str, path: Path, *, width: int, height: int, rate: int, most: int = 100) -> Path:
    """Encode the first ``most`` pictures of a clip for ``as_is``, at another size and rate; returns ``path``."""
    from stream.sources import SourceOptions, open_source

    source = open_source(str(clip), SourceOptions(pace="lossless", loop=False))
    with closing(source), av.open(str(path), "w", format="avi") as file:
        stream = file.add_stream("libx264", rate=rate, options=_ENCODERS["h264"][1])
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", rate
        stream.bit_rate = 600_000
        for index, frame in enumerate(itertools.islice(iter(source.read, None), most)):
            picture = frame.picture.reformat(width, height, "yuv420p")
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, rate), 0
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return path


# ---- below: the server's own process -----------------------------------------------------------


def _gstreamer() -> tuple[Any, Any, Any, Any]:
    """GLib, Gst, GstRtsp and GstRtspServer, or ImportError or ValueError."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    return GLib, Gst, GstRtsp, GstRtspServer


class Camera:
    """Endless access units: a list that is repeated, or pictures encoded one by one; and how many were sent."""

    def __init__(self, clip: str, codec: Codec, *, as_is: bool) -> None:
        self._codec = codec
        self._clip = clip
        self._recorded: list[bytes] = []
        self.live = clip.startswith("synthetic:")
        self.rate = self._read_as_is() if as_is else self._encode_or_wait()
        self.sent = 0
        self.going = threading.Event()
        self.going.set()

    def _read_as_is(self) -> Fraction:
        with av.open(self._clip) as file:
            self._recorded = [bytes(packet) for packet in file.demux(video=0) if packet.size]
            rate = file.streams.video[0].average_rate
        assert rate is not None, f"{self._clip} says no frame rate; expected a clip of record()"
        return rate

    def _encode_or_wait(self) -> Fraction:
        from stream.sources import SourceOptions, open_source

        with closing(open_source(self._clip, SourceOptions(pace="lossless"))) as source:
            rate = Fraction(source.info.frame_rate or 25.0).limit_denominator(1001)
            if not self.live:
                pictures = (frame.picture for frame in iter(source.read, None))
                self._recorded = list(_encode(pictures, self._codec, rate))
        return rate

    def units(self, first: int) -> Iterator[bytes]:
        """Access units from a keyframe on; those of the pattern start at frame ``first``."""
        if not self.live:
            return itertools.cycle(self._recorded)
        return _encode(self._pattern(first), self._codec, self.rate)

    def _pattern(self, first: int) -> Iterator[VideoFrame]:
        from stream.sources import SourceOptions
        from stream.sources.synthetic import SyntheticSource

        source = SyntheticSource(self._clip, SourceOptions(pace="lossless"))
        return (source.picture(index) for index in itertools.count(first))


def _encode(pictures: Iterator[VideoFrame], codec: Codec, rate: Fraction) -> Iterator[bytes]:
    """Access units without B-frames or delay, a keyframe every second; Annex B or JPEG."""
    name, options = _ENCODERS[codec]
    encoder: Any = None
    for index, picture in enumerate(pictures):
        if encoder is None:
            encoder = av.CodecContext.create(name, "w")
            encoder.width, encoder.height = picture.width // 2 * 2, picture.height // 2 * 2
            encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            encoder.time_base, encoder.framerate = 1 / rate, rate
            encoder.bit_rate, encoder.gop_size = 2_000_000, max(1, round(rate))
            encoder.options = options
        copy = picture.reformat(encoder.width, encoder.height, encoder.pix_fmt)
        copy.pts, copy.time_base, copy.pict_type = index, encoder.time_base, 0
        for packet in encoder.encode(copy):
            yield bytes(packet)
    if encoder is not None:
        for packet in encoder.encode(None):
            yield bytes(packet)


def _feed(source: Any, camera: Camera, epoch: float, gst: Any) -> None:
    """Push access units into ``source`` (appsrc), each when it is due, until it is shut."""
    first = int((time.monotonic() - epoch) * float(camera.rate)) + 1
    step_ns = int(gst.SECOND / camera.rate)
    start_ns = source.get_clock().get_time() - source.get_base_time()
    start, held_s = time.monotonic(), 0.0
    for number, unit in enumerate(camera.units(first)):
        due = (
            epoch + float((first + number) / camera.rate)
            if camera.live
            else start + float(number / camera.rate)
        )
        time.sleep(max(0.0, due + held_s - time.monotonic()))
        held_at = time.monotonic()
        if not camera.going.is_set():
            camera.going.wait()
            held_s += time.monotonic() - held_at
        buffer = gst.Buffer.new_wrapped(unit)
        buffer.pts = buffer.dts = start_ns + number * step_ns + int(held_s * gst.SECOND)
        buffer.duration = step_ns
        if source.emit("push-buffer", buffer) != gst.FlowReturn.OK:
            return
        camera.sent += 1


def _on_configure(camera: Camera, epoch: float, gst: Any) -> Callable[..., None]:
    def configure(_factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name("source")
        for name, value in (("is-live", True), ("format", gst.Format.TIME), ("max-bytes", 2_000_000)):
            source.set_property(name, value)
        begun = threading.Event()

        def need_data(_source: Any, _size: int) -> None:  # first when the pipeline runs and has a clock
            if not begun.is_set():
                begun.set()
                threading.Thread(target=_feed, args=(source, camera, epoch, gst), daemon=True).start()

        source.connect("need-data", need_data)

    return configure


def _require_login(server: Any, factories: list[Any], arguments: argparse.Namespace) -> None:
    _, _, gst_rtsp, gst_server = _gstreamer()
    token = gst_server.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = gst_server.RTSPAuth()
    if arguments.basic:
        auth.add_basic(gst_server.RTSPAuth.make_basic(arguments.user, arguments.password), token)
    else:
        auth.set_supported_methods(gst_rtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(arguments.user, arguments.password, token)
    server.set_auth(auth)
    for factory in factories:
        permissions = gst_server.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)


def _obey(camera: Camera) -> None:
    """Do what standard input says, and end with the test that started this, however that ended."""
    for line in sys.stdin:
        if line == "hold\n":
            camera.going.clear()
        elif line == "go\n":
            camera.going.set()
        elif line == "count\n":
            print(json.dumps({"sent": camera.sent}), flush=True)
    os._exit(0)


def _factory(launch: str) -> Any:
    factory = _gstreamer()[3].RTSPMediaFactory()
    factory.set_launch(launch)
    factory.set_shared(True)
    factory.set_latency(0)
    return factory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", required=True, help="a video file, or synthetic:WIDTHxHEIGHT@FPS")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--basic", action="store_true", help="basic instead of digest authentication")
    parser.add_argument("--codec", choices=list(_ENCODERS), default="h264")
    parser.add_argument("--as-is", action="store_true", help="the clip's own access units, of an AVI")
    parser.add_argument("--until-eof", action="store_true", help="obey standard input, and end when it does")
    arguments = parser.parse_args()
    glib, gst, _, gst_server = _gstreamer()
    try:
        camera = Camera(arguments.clip, arguments.codec, as_is=arguments.as_is)
    except LookoutError as error:
        sys.exit(str(error))
    if arguments.until_eof:
        threading.Thread(target=_obey, args=(camera,), daemon=True).start()
    epoch = time.monotonic()
    rate = f",framerate={camera.rate.numerator}/{camera.rate.denominator}"
    picture = _factory(f"( {_PIPELINES[arguments.codec].format(rate=rate)} )")
    picture.connect("media-configure", _on_configure(camera, epoch, gst))
    sound = _factory(_AUDIO)
    server = gst_server.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(arguments.port))
    if arguments.user is not None:
        _require_login(server, [picture, sound], arguments)
    server.get_mount_points().add_factory("/camera", picture)
    server.get_mount_points().add_factory("/audio", sound)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on port {arguments.port}")
    print(json.dumps({"port": server.get_bound_port(), "epoch": epoch}), flush=True)
    glib.MainLoop().run()


if __name__ == "__main__":
    main()
