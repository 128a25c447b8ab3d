"""``Graph``: the GStreamer elements of one source, from its address to its pictures.

    rtspsrc | urisourcebin | v4l2src -> parsebin -> [parser -> tee] -> decoder -> videoconvert -> appsink
                                                             └─> valve -> appsink of an H.264 stream's access units

What comes after the source is put together as the stream shows what it is. The decoder is chosen here rather
than by decodebin3, to know its name, and to try the next one when it fails. videoconvert hands on untouched what
is 4:2:0 already. GStreamer's own threads call back here, so nothing here may raise: faults are kept for the
reader. It knows nothing of frames, clocks or reconnecting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from stream.errors import DeviceUnavailable, redact
from stream.sources.base import SourceOptions
from stream.sources.faults import GSTREAMER_REMEDY
from stream.sources.gstreamer_faults import unsupported
from stream.sources.gstreamer_library import Gst, GstApp, GstVideo
from stream.sources.gstreamer_units import MOST_UNITS, Units

__all__ = [
    "DecoderFailed",
    "Graph",
    "Gst",
    "GstApp",
    "GstVideo",
    "Origin",
    "comes_from",
    "decoders",
    "hardware_decoders",
    "is_hardware",
    "missing_elements",
    "origin_of",
]

CODECS = {
    "video/x-h264": "h264",
    "video/x-h265": "hevc",
    "image/jpeg": "mjpeg",
    "video/x-raw": "rawvideo",
}
_PARSERS = {"video/x-h264": "h264parse", "video/x-h265": "h265parse"}
_DECODER = (
    Gst.ELEMENT_FACTORY_TYPE_DECODER
    | Gst.ELEMENT_FACTORY_TYPE_MEDIA_VIDEO
    | Gst.ELEMENT_FACTORY_TYPE_MEDIA_IMAGE
)
_NEEDED = (
    *("rtspsrc", "urisourcebin", "v4l2src", "parsebin", "rtph264depay", "rtph265depay", "rtpjpegdepay"),
    *("h264parse", "h265parse", "jpegparse", "avdec_h264", "avdec_h265", "jpegdec"),
    *("tee", "valve", "queue", "videoconvert", "appsink"),
)
_PICTURES = "video/x-raw,format=(string){I420,NV12}"
_UDP_LATENCY_MS = 50
MOST_BACKLOG_S = 4.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where pictures come from, as GStreamer takes it.

    Args:
        kind: of source element: RTSP's own, a V4L2 device's, or what fits the URI.
        address: a device's path, or a URI without its credentials.
        name: the same for people, redacted.
        user, password: the credentials.
        sender_paces: pictures come when a camera makes them; otherwise they are there to be fetched.
    """

    kind: Literal["rtsp", "device", "uri"]
    address: str
    name: str
    user: str = ""
    password: str = ""
    sender_paces: bool = True


def origin_of(kind: Literal["network", "device", "file"], address: str) -> Origin:
    """What ``address``, a URL or a path, is to GStreamer."""
    if kind == "device":
        return Origin("device", address, address)
    if kind == "file":
        return Origin("uri", Path(address).absolute().as_uri(), address, sender_paces=False)
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    location, question, query = rest.partition("?")
    login, _, place = location.rpartition("@")  # the last: a password may hold @ and /
    user, _, password = login.partition(":")
    return Origin(
        "rtsp" if scheme in ("rtsp", "rtsps") else "uri",
        f"{scheme}://{place}{question}{query}",
        redact(address),
        unquote(user),
        unquote(password),
        sender_paces=scheme not in ("http", "https"),
    )


class DecoderFailed(Exception):
    """A decoder took the stream and then failed, by itself."""

    def __init__(self, decoder: str) -> None:
        self.decoder = decoder


class Graph:
    """The elements of a source. ``sink`` gives pictures, I420 or NV12, in ordinary memory.

    Args:
        avoid: decoders, by name, that have failed at this stream.

    Raises:
        DeviceUnavailable: GStreamer lacks what is needed.
    """

    def __init__(self, origin: Origin, options: SourceOptions, avoid: frozenset[str]) -> None:
        self.units: Units | None = None
        self.codec = ""
        self.decoder: Gst.Element | None = None
        self.fault: Exception | None = None
        self._origin = origin
        self._options = options
        self._avoid = avoid
        self._parts = 0
        self._queue: Gst.Element | None = None
        self._handlers: list[tuple[Gst.Element, int]] = []
        self._pipeline = Gst.Pipeline()
        self.bus = self._pipeline.get_bus()
        self._convert = self._make("videoconvert")
        self.sink = self._sink(_PICTURES, max_buffers=4 if options.pace == "lossless" else 1)
        self.sink.set_property("drop", options.pace != "lossless" and origin.sender_paces)
        self._convert.link(self.sink)
        self.source = self._source()

    def play(self) -> None:
        self._pipeline.set_state(Gst.State.PLAYING)

    def pace(self, sender_paces: bool) -> None:
        """From the first picture on: give out pictures as they come, or when they are due in what has an end.

        Before that nothing is left out, so that a file does not run ahead.
        """
        pace = self._options.pace
        self.sink.set_property("sync", pace == "realtime" and not sender_paces and self.has_duration)
        self.sink.set_property("drop", pace != "lossless")

    @property
    def has_duration(self) -> bool:
        known, duration_ns = self._pipeline.query_duration(Gst.Format.TIME)
        return bool(known and duration_ns > 0)

    @property
    def decoder_name(self) -> str:
        """GStreamer's name of it; empty for pictures that come as they are."""
        return self.decoder.get_factory().get_name() if self.decoder is not None else ""

    @property
    def in_hardware(self) -> bool:
        return self.decoder is not None and is_hardware(self.decoder.get_factory())

    @property
    def rendered(self) -> int:
        """Pictures that came to ``sink``, also those it left out."""
        return int(self.sink.get_property("stats").get_uint64("rendered").value)

    @property
    def backlog_s(self) -> float:
        """What a camera has sent and nobody has decoded yet, seconds."""
        return self._queue.get_property("current-level-time") / Gst.SECOND if self._queue is not None else 0.0

    @property
    def is_one_stream(self) -> bool:
        """Whether all there is comes through one ``parsebin``, so that its word counts for everything."""
        return self._parts == 1

    def close(self) -> None:
        """Stop everything and give it back. May take as long as a camera's driver likes."""
        self._pipeline.set_state(Gst.State.NULL)
        for element, handler in self._handlers:
            element.disconnect(handler)
        self._handlers.clear()
        self.bus.set_flushing(True)

    # Making elements

    def _make(self, kind: str, **properties: object) -> Gst.Element:
        element = Gst.ElementFactory.make(kind)
        if element is None:
            raise DeviceUnavailable(f"{self._origin.name}: GStreamer here has no {kind}; {GSTREAMER_REMEDY}")
        for name, value in properties.items():
            element.set_property(name.replace("_", "-"), value)
        self._pipeline.add(element)
        return element

    def _sink(self, caps: str, max_buffers: int) -> Gst.Element:
        return self._make("appsink", caps=Gst.Caps.from_string(caps), max_buffers=max_buffers, sync=False)

    def _connect(self, element: Gst.Element, signal: str, function: Any) -> None:
        self._handlers.append((element, element.connect(signal, function)))

    def _source(self) -> Gst.Element:
        origin = self._origin
        if origin.address.startswith("srt:"):  # it was seen to: libsrt throws, and libunwind cannot catch
            raise DeviceUnavailable(
                f"{origin.name}: SRT through GStreamer can end the whole process when a stream ends; use backend pyav"
            )
        if origin.kind == "device":
            source = self._make("v4l2src", device=origin.address)
            self._take_apart(source.get_static_pad("src"))
            return source
        if origin.kind == "rtsp":
            source = self._rtsp()
        else:
            source = self._make("urisourcebin", uri=origin.address)
            self._connect(source, "source-setup", self._on_source)
        self._connect(source, "pad-added", lambda _source, pad: self._take_apart(pad))
        return source

    def _rtsp(self) -> Gst.Element:
        options, udp = self._options, self._options.transport == "udp"
        latency_ms = options.latency_ms
        source = self._make(
            "rtspsrc",
            location=self._origin.address,
            protocols="udp" if udp else "tcp+tls" if self._origin.address.startswith("rtsps") else "tcp",
            latency=latency_ms if latency_ms is not None else _UDP_LATENCY_MS if udp else 0,
            buffer_mode="none",  # time stamps are the camera's, not when each packet came
            tcp_timeout=round(options.open_timeout_s * 1e6),
            timeout=round((options.stall_s + 1) * 1e6),  # later than its reader's own
            tls_validation_flags=0,  # cameras sign for themselves; PyAV does not ask either
        )
        _set_login(source, self._origin)
        self._connect(source, "select-stream", _is_video)
        return source

    def _on_source(self, _bin: Gst.Element, source: Gst.Element) -> None:
        """What urisourcebin found for the URI. Certificates: as above."""
        _set_login(source, self._origin)
        settings = {"retries": 0, "ssl-strict": False, "tls-validation-flags": 0}
        for name, value in settings.items():
            if source.find_property(name) is not None:
                source.set_property(name, value)

    # Putting the rest together, called by GStreamer's threads

    def _take_apart(self, pad: Gst.Pad) -> None:
        self._parts += 1
        parser = self._make("parsebin")
        self._connect(parser, "pad-added", self._on_stream)
        parser.sync_state_with_parent()
        pad.link(parser.get_static_pad("sink"))

    def _on_stream(self, _parser: Gst.Element, pad: Gst.Pad) -> None:
        caps = pad.get_current_caps() or pad.query_caps(None)
        kind = caps.get_structure(0).get_name()
        if self.codec or kind.partition("/")[0] not in ("video", "image"):
            ignored = self._make("fakesink", sync=False)
            ignored.set_property("async", False)
            ignored.sync_state_with_parent()
            pad.link(ignored.get_static_pad("sink"))
            return
        self.codec = CODECS.get(kind) or kind.partition("/")[2].removeprefix("x-")
        try:
            following = self._decode(kind, caps)
            pad.link(self._queued(following) if self._origin.sender_paces else following)
        except Exception as fault:  # raised again by the reader
            self.fault = fault

    def _queued(self, following: Gst.Pad) -> Gst.Pad:
        """A queue before ``following``. Without it the backlog of a slow decoder piles up where nobody can see it."""
        full_ns = round((MOST_BACKLOG_S + 1) * Gst.SECOND)
        self._queue = self._make("queue", max_size_time=full_ns, max_size_buffers=0, max_size_bytes=0)
        self._queue.get_static_pad("src").link(following)
        self._queue.sync_state_with_parent()
        return self._queue.get_static_pad("sink")

    def _decode(self, kind: str, caps: Gst.Caps) -> Gst.Pad:
        """Everything between a parsed stream and ``videoconvert``; where to link the stream to."""
        if kind == "video/x-raw":
            return self._convert.get_static_pad("sink")
        if kind not in _PARSERS:
            return self._working_decoder(caps).get_static_pad("sink")
        stream, caps = caps, Gst.Caps.from_string(f"{kind},stream-format=byte-stream,alignment=au")
        # Parsed once more, to have a form that every decoder takes, with its parameter sets in each keyframe.
        chain = [self._make(_PARSERS[kind], config_interval=-1), self._make("capsfilter", caps=caps)]
        if kind == "video/x-h264":
            tee = self._make("tee")
            self.units = Units(self._make("valve"), self._sink(str(caps.to_string()), MOST_UNITS))
            tee.link(self.units.valve)  # before the decoder: a unit comes before its picture
            chain.append(tee)
        decoder = self._working_decoder(_with_size(caps, stream))
        for element, following in zip(chain, [*chain[1:], decoder], strict=True):
            element.link(following)
        for element in reversed(chain):
            element.sync_state_with_parent()
        return chain[0].get_static_pad("sink")

    def _working_decoder(self, caps: Gst.Caps) -> Gst.Element:
        """The first that gets as far as READY, which is where hardware is opened, linked to what follows.

        Raises:
            CodecUnsupported: there is none.
        """
        for factory in decoders(caps):
            if factory.get_name() in self._avoid:
                continue
            decoder = self._make(factory.get_name())
            if decoder.find_property("max-errors") is not None:
                decoder.set_property("max-errors", -1)  # one bad packet after another is what cameras send
            ready = decoder.set_state(Gst.State.READY) != Gst.StateChangeReturn.FAILURE
            if ready and decoder.link(self._convert):
                self.decoder = decoder
                decoder.sync_state_with_parent()
                return decoder
            decoder.set_state(Gst.State.NULL)
            self._pipeline.remove(decoder)
        raise unsupported(self._origin.name, self.codec, sorted(self._avoid))


def missing_elements() -> list[str]:
    """Those of the elements that every source, or a usual camera's, needs and this machine has not."""
    return [kind for kind in _NEEDED if Gst.ElementFactory.find(kind) is None]


def hardware_decoders() -> list[str]:
    """Names of the video decoders in hardware; whether one works shows when it is used."""
    known = Gst.ElementFactory.list_get_elements(_DECODER, Gst.Rank.MARGINAL)
    return sorted(factory.get_name() for factory in known if is_hardware(factory))


def decoders(caps: Gst.Caps) -> list[Gst.ElementFactory]:
    """Those that take these caps: hardware first, then as GStreamer ranks them.

    GST_PLUGIN_FEATURE_RANK in the environment changes ranks; NONE leaves one out.
    """
    known = Gst.ElementFactory.list_get_elements(_DECODER, Gst.Rank.MARGINAL)
    fitting = Gst.ElementFactory.list_filter(known, caps, Gst.PadDirection.SINK, False)
    return sorted(fitting, key=lambda factory: (not is_hardware(factory), -factory.get_rank()))


def _with_size(caps: Gst.Caps, stream: Gst.Caps) -> Gst.Caps:
    """``caps`` with what of a stream's own decides whether hardware decodes it."""
    known, told = caps.copy(), stream.get_structure(0)
    profile = told.get_string("profile")
    if profile is not None:
        known.set_value("profile", profile)
    for field in ("width", "height"):
        single, pixels = told.get_int(field)
        if single:
            known.set_value(field, pixels)
    return known


def comes_from(message: Gst.Message, element: Gst.Element) -> bool:
    """Whether a message is an element's own, or that of something inside it."""
    return bool(message.src == element or message.src.has_as_ancestor(element))


def is_hardware(factory: Gst.ElementFactory) -> bool:
    return "Hardware" in factory.get_metadata("klass").split("/")


def _is_video(_source: Gst.Element, _number: int, caps: Gst.Caps) -> bool:
    return bool(caps.get_structure(0).get_string("media") == "video")


def _set_login(element: Gst.Element, origin: Origin) -> None:
    for user, password in (("user-id", "user-pw"), ("username", "password")):
        if origin.user and element.find_property(user) is not None:
            element.set_property(user, origin.user)
            element.set_property(password, origin.password)
