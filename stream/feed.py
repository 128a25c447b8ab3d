"""``Feed``: messages for one WebSocket, the newest few. Knows nothing of what they say."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

log = logging.getLogger(__name__)

# For the last word to who may not be reading.
CLOSE_TIMEOUT_S = 1.0
LONGEST_REASON = 123  # bytes, RFC 6455 section 5.5
GOING_AWAY, UNSUPPORTED_DATA = 1001, 1003  # RFC 6455 section 7.4.1


class Feed:
    """Lives on the event loop. Who does not read in time loses the oldest of ``most`` messages.

    ``dropped`` counts what a WebSocket was too slow for.
    """

    def __init__(self, most: int) -> None:
        self.dropped = 0
        self._waiting: deque[bytes | str] = deque(maxlen=most)
        self._wake = asyncio.Event()
        self._over: asyncio.Future[str] | None = None  # of the WebSocket that is served

    def put(self, message: bytes | str) -> None:
        """Send this next. Without a WebSocket the newest are kept for the one to come."""
        if self._over is not None and len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
        self._waiting.append(message)
        self._wake.set()

    def close(self, reason: str) -> None:
        """End the WebSocket that is served, if any."""
        if self._over is not None and not self._over.done():
            self._over.set_result(reason.encode()[:LONGEST_REASON].decode(errors="ignore"))

    async def serve(self, websocket: WebSocket) -> None:
        """Send until the client goes, another WebSocket comes in its place, or the feed is closed."""
        self.close("another WebSocket has come for this session")
        over = self._over = asyncio.get_running_loop().create_future()
        await websocket.accept()
        sending = asyncio.create_task(self._send(websocket), name="feed-send")
        listening = asyncio.create_task(websocket.receive(), name="feed-listen")
        try:
            await asyncio.wait((over, sending, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, listening):
                task.cancel()
            results = await asyncio.gather(sending, listening, return_exceptions=True)
            if self._over is over:
                self._over = None
            if self.dropped:
                log.info("a WebSocket was too slow for %d messages", self.dropped)
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
                message = self._waiting.popleft()
                if isinstance(message, bytes):
                    await websocket.send_bytes(message)
                else:
                    await websocket.send_text(message)
