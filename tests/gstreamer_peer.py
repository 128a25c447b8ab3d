"""A WHEP viewer made of GStreamer's webrtcbin, in a process of its own.

It receives H.264, decodes it and reads the barcode of every picture.

    python tests/gstreamer_peer.py URL PICTURES

It ends after so many pictures and prints one line of JSON: ``{"indices": [...], "seconds": ...}``, the
barcodes (null where illegible) and the time from the offer to the first picture. What goes wrong it says on
standard error, and ends with 1.

It needs GStreamer's webrtcbin, libnice's plugin and PyGObject (``missing`` says what is not there).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the viewer's own process, which is started as a script

import numpy as np  # noqa: E402

from stream import barcode  # noqa: E402

ELEMENTS = ("webrtcbin", "nicesrc", "dtlsdec", "srtpdec", "rtph264depay", "h264parse", "avdec_h264")
CAPS = (
    "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,"
    "packetization-mode=(string)1,profile-level-id=(string)42e01f"
)
DECODE = (
    "rtph264depay ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=GRAY8 "
    "! appsink name=pictures emit-signals=true sync=false max-buffers=4"
)
TIMEOUT_S = 30


def missing() -> str | None:
    """What keeps the viewer from running here, or None."""
    try:
        _, gst, *_ = _gstreamer()
    except (ImportError, ValueError) as reason:
        return f"needs GStreamer's webrtcbin and PyGObject: {reason}"
    absent = [name for name in ELEMENTS if gst.ElementFactory.find(name) is None]
    return f"needs the GStreamer elements {', '.join(absent)}" if absent else None


def watch(url: str, pictures: int) -> dict[str, Any]:
    """Watch a WHEP endpoint from a new process until so many pictures have come; see above."""
    command = [sys.executable, __file__, url, str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=2 * TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


# ---- below: the viewer's own process -----------------------------------------------------------


def _gstreamer() -> tuple[Any, Any, Any, Any]:
    """GLib, Gst, GstSdp and GstWebRTC, or ImportError or ValueError."""
    import gi

    for name in ("Gst", "GstApp", "GstSdp", "GstWebRTC"):
        gi.require_version(name, "1.0")
    from gi.repository import GLib, Gst, GstApp, GstSdp, GstWebRTC  # noqa: F401

    Gst.init(None)
    return GLib, Gst, GstSdp, GstWebRTC


class Viewer:
    """One connection. Its callbacks come on GStreamer's threads."""

    def __init__(self, url: str, pictures: int) -> None:
        self.glib, self.gst, self.sdp, self.webrtc = _gstreamer()
        self.loop = self.glib.MainLoop()
        self.fault = f"{pictures} pictures did not come within {TIMEOUT_S} s"
        self.indices: list[int | None] = []
        self.first_at = self.offered_at = 0.0
        self._url, self._wanted = url, pictures
        self._pipeline = self.gst.Pipeline.new()
        self._peer = self.gst.ElementFactory.make("webrtcbin")
        self._peer.set_property("bundle-policy", self.webrtc.WebRTCBundlePolicy.MAX_BUNDLE)
        self._peer.set_property("latency", 0)
        self._pipeline.add(self._peer)
        self._peer.connect("pad-added", self._on_pad)
        self._peer.connect("notify::ice-gathering-state", self._on_gathering)
        bus = self._pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self._end(str(message.parse_error())))

    def run(self) -> None:
        """Until there are pictures enough, or something is wrong (``fault``)."""
        self.glib.timeout_add_seconds(TIMEOUT_S, self.loop.quit)
        self._pipeline.set_state(self.gst.State.PLAYING)
        receive = self.webrtc.WebRTCRTPTransceiverDirection.RECVONLY
        self._peer.emit("add-transceiver", receive, self.gst.Caps.from_string(CAPS))
        self._peer.emit("create-offer", None, self.gst.Promise.new_with_change_func(self._on_offer))
        self.loop.run()
        self._pipeline.set_state(self.gst.State.NULL)

    def _end(self, fault: str = "") -> None:
        self.fault = fault
        self.loop.quit()

    def _on_offer(self, promise: Any) -> None:
        reply = promise.get_reply()  # owns the offer
        offer = reply.get_value("offer")
        self._peer.emit("set-local-description", offer, self.gst.Promise.new())

    def _on_gathering(self, *_: Any) -> None:
        if self._peer.get_property("ice-gathering-state") == self.webrtc.WebRTCICEGatheringState.COMPLETE:
            self.glib.idle_add(self._join)

    def _join(self) -> None:
        offer = self._peer.get_property("local-description").sdp.as_text()
        self.offered_at = time.monotonic()
        request = urllib.request.Request(self._url, offer.encode(), {"Content-Type": "application/sdp"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                text = response.read().decode()
        except OSError as error:
            return self._end(f"POST: {error}")
        answer = self.webrtc.WebRTCSessionDescription.new(
            self.webrtc.WebRTCSDPType.ANSWER, self.sdp.SDPMessage.new_from_text(text)[1]
        )
        self._peer.emit("set-remote-description", answer, self.gst.Promise.new())
        return None

    def _on_pad(self, _: Any, pad: Any) -> None:
        decode = self.gst.parse_bin_from_description(DECODE, True)
        decode.get_by_name("pictures").connect("new-sample", self._on_picture)
        self._pipeline.add(decode)
        decode.sync_state_with_parent()
        pad.link(decode.get_static_pad("sink"))

    def _on_picture(self, sink: Any) -> Any:
        sample = sink.emit("pull-sample")
        shape = sample.get_caps().get_structure(0)
        width, height = shape.get_value("width"), shape.get_value("height")
        data = sample.get_buffer().extract_dup(0, sample.get_buffer().get_size())
        rows = np.frombuffer(data, np.uint8).reshape(height, -1)  # a row is padded to four bytes
        self.first_at = self.first_at or time.monotonic()
        self.indices.append(barcode.read(rows[:, :width]))
        if len(self.indices) >= self._wanted:
            self._end()
        return self.gst.FlowReturn.OK


def main() -> None:
    viewer = Viewer(sys.argv[1], int(sys.argv[2]))
    viewer.run()
    if viewer.fault:
        sys.exit(viewer.fault)
    print(json.dumps({"indices": viewer.indices, "seconds": viewer.first_at - viewer.offered_at}))


if __name__ == "__main__":
    main()
