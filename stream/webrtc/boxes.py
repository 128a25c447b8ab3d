"""``BoxFeed``: the tracks of the pictures that one viewer is sent, on a WebSocket of its session.

For codecs that cannot carry them, and browsers whose pages cannot look into frames. One binary message a
picture, big endian: its RTP timestamp (u32, as in the headers of its packets), then its record
(``stream/webrtc/sei.py``). What the viewer was not sent is not announced. Knows nothing of hubs or aiortc.
"""

from __future__ import annotations

from stream.encode import EncodedUnit
from stream.feed import Feed

# The pictures of what is older are long gone from the screen.
FEED_UNITS = 8


class BoxFeed(Feed):
    """One session's."""

    def __init__(self) -> None:
        super().__init__(FEED_UNITS)

    def announce(self, unit: EncodedUnit) -> None:
        """The viewer is being sent this unit."""
        self.put((unit.timestamp & 0xFFFFFFFF).to_bytes(4, "big") + unit.record)
