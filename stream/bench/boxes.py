"""Whether the boxes that a browser draws are those of the frame that it shows.

Every picture of a synthetic camera carries its number twice: as a barcode in its pixels, and as the id of
the one track that goes along as data. Chromium decodes, and for each picture that it presents the
barcode is held against the track that the page has drawn over it. Server side: the real hub, encoder and
WHEP service; in the browser: the page's own player and overlay.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from stream.bench.chromium import chromium, wait_for, watching_page
from stream.bench.drain import OneHub
from stream.bench.drain import wait_for as wait_until
from stream.encode import CLOCK_HZ, Codec
from stream.frames import Tracks
from stream.server import WEB
from stream.sources.base import SourceOptions
from stream.sources.synthetic import SyntheticSource
from stream.webrtc.hub import Hub
from stream.webrtc.rendition import Rendition
from stream.webrtc.whep import WhepService

SOURCE = "synthetic:1280x720@30"
BITRATE = 2_000_000
_TICKS = CLOCK_HZ // 30  # of one picture

_PAGE = """<!doctype html><title>boxes</title><video muted autoplay playsinline></video><canvas></canvas>
<script type="module" src="script.js"></script>"""

# matched: of each presented picture [barcode or null, id of the track drawn over it or null, RTP timestamp, id of
# the track drawn a little later or null]
_SCRIPT = """
import { Overlay } from "./web/boxes.js";
import { WhepPlayer } from "./web/whep.js";
const video = document.querySelector("video");
const overlay = new Overlay(video, document.querySelector("canvas"));
const LATER_MS = 15; // about one refresh of the screen, and less than a picture lasts
window.matched = [];
const look = (now, frame) => {
  video.requestVideoFrameCallback(look);
  const { videoWidth, videoHeight } = video;
  const drawn = () => overlay.shown?.tracks[0]?.id ?? null;
  const entry = [lookout.read(video, videoWidth, videoHeight), drawn(), frame.rtpTimestamp, null];
  matched.push(entry);
  setTimeout(() => (entry[3] = drawn()), LATER_MS);
};
video.requestVideoFrameCallback(look);
new WhepPlayer(
  "whep/synthetic?boxes=data",
  (stream) => (video.srcObject = stream),
  () => {},
  (receiver) => overlay.attach(receiver),
  (answer) => overlay.answered(answer),
).start();
"""


_NO_TRANSFORM = "delete window.RTCRtpScriptTransform"
_NO_H264 = """
const all = RTCRtpReceiver.getCapabilities.bind(RTCRtpReceiver);
RTCRtpReceiver.getCapabilities = (kind) => {
  const { codecs, ...rest } = all(kind);
  return { ...rest, codecs: codecs.filter(({ mimeType }) => mimeType !== "video/H264") };
};
"""


def run(seconds: float = 70.0, codec: Codec = "h264", transform: bool = True) -> dict[str, Any]:
    """Watch for ``seconds``: 2,000 pictures take 67. Without ``transform`` the page cannot look into frames."""
    with chromium() as browser, app(codec) as url:
        page = watching_page(browser)
        if not transform:
            page.add_init_script(_NO_TRANSFORM)
        if codec != "h264":
            page.add_init_script(_NO_H264)
        page.goto(url)
        wait_for(page, "window.matched?.length > 5")
        page.evaluate("matched.length = 0")
        page.wait_for_timeout(1000 * seconds)
        return figures(page.evaluate("matched"))


def figures(matched: Sequence[Any]) -> dict[str, Any]:
    """How many pictures had which boxes; ``matched`` is the page's."""
    starts = Counter(
        (rtp - barcode * _TICKS) % 2**32 for barcode, _, rtp, _ in matched if barcode is not None
    )
    start = starts.most_common(1)[0][0]
    kinds = Counter(
        _kind(barcode, track, later, (rtp - start) % 2**32 // _TICKS)
        for barcode, track, rtp, later in matched
    )
    return {"source": SOURCE, "pictures": len(matched), **{kind: kinds[kind] for kind in _KINDS}}


_KINDS = ("right", "late", "picture_ahead", "wrong", "without_boxes", "illegible")


def _kind(barcode: int | None, track: int | None, later: int | None, announced: int) -> str:
    """Of one presented picture; ``announced`` is the frame that the browser says it presents.

    A busy browser may already hold the next picture when it announces one (``picture_ahead``): the box is
    that of the frame announced, and lies for one refresh over the frame after it. A WebSocket's message may be
    read just after its picture was presented (``late``).
    """
    if barcode is None:
        return "illegible"
    if track is None:
        return "late" if later == barcode else "without_boxes"
    if track == barcode:
        return "right"
    return "picture_ahead" if track == announced and barcode > announced else "wrong"


@contextmanager
def app(codec: Codec) -> Iterator[str]:
    """A camera whose tracks bear the numbers of their frames, and the address of a page that shows it.

    The page's browser must offer ``codec``, and no other of ours that is preferred to it.
    """
    shown = OneHub("synthetic", BITRATE, Rendition(codec, "data"))
    hub = shown.only
    service = WhepService(lambda camera_id: shown, max_viewers=1, loopback_only=True)
    api = FastAPI()
    api.include_router(service.router)
    api.mount("/web", StaticFiles(directory=WEB))
    api.add_api_route("/", lambda: HTMLResponse(_PAGE))
    api.add_api_route("/script.js", lambda: Response(_SCRIPT, media_type="text/javascript"))
    server = uvicorn.Server(uvicorn.Config(api, log_config=None, access_log=False, ws="websockets-sansio"))
    stop = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        threads = [
            threading.Thread(target=lambda: asyncio.run(_serve(server, service, listener)), name="serve"),
            threading.Thread(target=_feed, args=(hub, stop), name="camera"),
        ]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            server.should_exit = True
            for thread in threads:
                thread.join()


async def _serve(server: uvicorn.Server, service: WhepService, listener: socket.socket) -> None:
    await server.serve([listener])
    await service.close()


def _feed(hub: Hub, stop: threading.Event) -> None:
    """Show frame after frame, each with one track whose id is the frame's number."""
    source = SyntheticSource(SOURCE, SourceOptions(), stop)
    while (frame := source.read()) is not None:
        left = 40.0 + frame.index % 800
        hub.show(
            frame,
            Tracks(
                boxes=np.array([[left, 200, left + 200, 600]], np.float32),
                scores=np.array([0.9], np.float32),
                classes=np.zeros(1, np.int64),
                ids=np.array([frame.index], np.int64),
                ages_s=np.array([frame.time_s], np.float32),
                coasting=np.zeros(1, np.bool_),
            ),
        )
