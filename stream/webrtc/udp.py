"""Many UDP packets by one system call where the kernel has it: UDP GSO (udp(7), ``UDP_SEGMENT``, Linux 4.18).

A picture is five to sixty packets of one size, and entering the kernel for each costs more than encrypting
it. Where it is not there, or fails, packets go one by one. Knows nothing of RTP or ICE.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_SOL_UDP, _UDP_SEGMENT = 17, 103
_MOST_SEGMENTS = 64  # the kernel's UDP_MAX_SEGMENTS

Address = tuple[str, int]


class Batches:
    """Sends for one viewer; ``works`` is False from the first time that the kernel refuses a batch."""

    def __init__(self) -> None:
        self.works = sys.platform == "linux"

    def send(self, transport: Any, packets: Sequence[bytes], address: Address) -> None:
        """Send packets in order through asyncio's UDP transport, or whatever has its ``sendto``."""
        info = getattr(transport, "get_extra_info", None)  # a TURN connection has none
        through = info("socket") if info is not None and self.works else None
        for batch in _batches(packets):
            if through is not None and not self._sent(through, batch, address):
                through = None  # what is queued from now on must not be overtaken
            if through is None:
                for packet in batch:
                    transport.sendto(packet, address)

    def _sent(self, through: Any, batch: list[bytes], address: Address) -> bool:
        # asyncio's own object of the socket cannot do this; ours must not close the socket at its end.
        ours = socket.socket(through.family, through.type, 0, fileno=through.fileno())
        try:
            how = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", len(batch[0])))] if len(batch) > 1 else []
            ours.sendmsg(batch, how, 0, address)
        except BlockingIOError:
            return False  # full: the transport queues them, and says so
        except OSError:
            self.works = False
            return False
        finally:
            ours.detach()
        return True


def _batches(packets: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Runs of one size, of which the last may be shorter: the kernel cuts by bytes."""
    batch: list[bytes] = []
    for packet in packets:
        if batch and (
            len(packet) > len(batch[0]) or len(batch[-1]) < len(batch[0]) or len(batch) == _MOST_SEGMENTS
        ):
            yield batch
            batch = []
        batch.append(packet)
    if batch:
        yield batch
