"""``BoxFeed``: the tracks of the pictures that one viewer is sent, on a WebSocket of its session.

For codecs that cannot carry them, and browsers whose pages cannot look into frames. One binary message a
picture, big endian: its RTP timestamp (u32, as in the headers of its packets), then its record
(``stream/webrtc/sei.py``). What the viewer was not sent is not announced. Knows nothing of hubs or aiortc.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from stream.encode import EncodedUnit

log = logging.getLogger(__name__)

# Who does not read in time loses the oldest: their pictures are long gone from the screen.
FEED_UNITS = 8
# For the last word to who may not be reading.
CLOSE_TIMEOUT_S = 1.0
LONGEST_REASON = 123  # bytes, RFC 6455 section 5.5
GOING_AWAY, UNSUPPORTED_DATA = 1001, 1003  # RFC 6455 section 7.4.1


class BoxFeed:
    """One session's; lives on the event loop. ``dropped`` counts what a WebSocket was too slow for."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: deque[tuple[int, bytes]] = deque(maxlen=FEED_UNITS)  # timestamp, record
        self._wake = asyncio.Event()
        self._over: asyncio.Future[str] | None = None  # of the WebSocket that is served

    def announce(self, unit: EncodedUnit) -> None:
        """The viewer is being sent this unit. Without a WebSocket the newest are kept for the one to come."""
        if self._over is not None and len(self._waiting) == FEED_UNITS:
            self.dropped += 1
        self._waiting.append((unit.timestamp & 0xFFFFFFFF, unit.record))
        self._wake.set()

    def close(self, reason: str) -> None:
        """End the WebSocket that is served, if any."""
        if self._over is not None and not self._over.done():
            self._over.set_result(reason.encode()[:LONGEST_REASON].decode(errors="ignore"))

    async def serve(self, websocket: WebSocket) -> None:
        """Announce until the client goes, another WebSocket comes in its place, or the session is over."""
        self.close("another WebSocket has come for this session")
        over = self._over = asyncio.get_running_loop().create_future()
        await websocket.accept()
        sending = asyncio.create_task(self._send(websocket), name="boxes-send")
        listening = asyncio.create_task(websocket.receive(), name="boxes-listen")
        try:
            await asyncio.wait((over, sending, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, listening):
                task.cancel()
            results = await asyncio.gather(sending, listening, return_exceptions=True)
            if self._over is over:
                self._over = None
            if self.dropped:
                log.info("a WebSocket was too slow for the boxes of %d pictures", self.dropped)
        for fault in results:
            if isinstance(fault, Exception) and not isinstance(fault, WebSocketDisconnect):
                raise fault
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # it may be gone, or not be reading
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if over.done():
                    await websocket.close(GOING_AWAY, over.result())
                else:
                    await websocket.close(UNSUPPORTED_DATA, "nothing is expected from you here")

    async def _send(self, websocket: WebSocket) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                timestamp, record = self._waiting.popleft()
                await websocket.send_bytes(timestamp.to_bytes(4, "big") + record)
