"""``TrackFeed``: what happens in front of a camera, as JSON on WebSockets, for programs.

One message a detected frame: every track with its state, those too that no picture shows, and who entered and left.
The detector thread publishes, the event loop sends; nothing is made while nobody listens. Knows nothing of pictures.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket

from stream.errors import SignallingError
from stream.feed import Feed
from stream.frames import Frame, TrackState, class_name
from stream.tracking import Tracker, TrackEvent

MOST_LISTENERS = 32
"""Of one camera."""
KEPT = 64
"""Messages for one who is slow."""


class TrackFeed:
    """One camera's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[Feed, asyncio.AbstractEventLoop] = {}
        self._closed: str | None = None

    def publish(self, frame: Frame, tracker: Tracker, events: Iterable[TrackEvent]) -> None:
        """Tell everybody; called by the detector thread, after the tracker's update."""
        with self._lock:
            listeners = dict(self._listeners)
        if not listeners:
            return
        message = json.dumps(self._message(frame, tracker, events), separators=(",", ":"))
        for feed, loop in listeners.items():
            _call(loop, feed.put, message)

    def close(self, reason: str) -> None:
        """Let everybody go, and nobody in any more; from any thread."""
        with self._lock:
            self._closed = reason
            listeners = dict(self._listeners)
        for feed, loop in listeners.items():
            _call(loop, feed.close, reason)

    def subscribe(self) -> Feed:
        """A feed that is told from now on; to be given back with ``leave``.

        Raises:
            SignallingError: 503, too many listen already, or the camera has been told to end.
        """
        feed = Feed(KEPT)
        with self._lock:
            if self._closed is not None:
                raise SignallingError(f"{self._closed}; try again", 503, 1)
            if len(self._listeners) >= MOST_LISTENERS:
                raise SignallingError(f"{MOST_LISTENERS} listen to this camera's tracks already", 503, 5)
            self._listeners[feed] = asyncio.get_running_loop()
        return feed

    def leave(self, feed: Feed) -> None:
        with self._lock:
            self._listeners.pop(feed, None)

    async def serve(self, websocket: WebSocket) -> None:
        """Tell this WebSocket until it goes or the camera ends.

        Raises:
            SignallingError: as ``subscribe``; the WebSocket was not accepted.
        """
        feed = self.subscribe()
        try:
            await feed.serve(websocket)
        finally:
            self.leave(feed)

    def _message(self, frame: Frame, tracker: Tracker, events: Iterable[TrackEvent]) -> dict[str, Any]:
        tracks, states = tracker.everything()
        columns = (tracks.ids, tracks.classes, tracks.scores, tracks.boxes, tracks.ages_s, states)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {
            "frame": frame.index,
            "time_s": round(frame.time_s, 3),
            "width": frame.picture.width,
            "height": frame.picture.height,
            "tracks": [
                {
                    "id": id_,
                    "class": class_name(tracks.names, class_),
                    "score": round(score, 3),
                    "box": [round(side, 1) for side in box],
                    "age_s": round(age_s, 2),
                    "state": TrackState(state).name.lower(),
                }
                for id_, class_, score, box, age_s, state in rows
            ],
            "events": [
                {
                    "event": event.kind,
                    "id": event.id,
                    "class": class_name(event.names, event.class_),
                    "time_s": round(event.time_s, 3),
                    "age_s": round(event.age_s, 2),
                    "box": [round(side, 1) for side in event.box],
                }
                for event in events
            ],
        }


def _call(loop: asyncio.AbstractEventLoop, what: Any, argument: str) -> None:
    with suppress(RuntimeError):  # the loop is closed: the app has ended, and its WebSockets with it
        loop.call_soon_threadsafe(what, argument)
