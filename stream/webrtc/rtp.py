"""``RtpStream``: the RTP side of one viewer: headers, extensions, history, retransmission (RTX).

Payloads come ready-made and are shared between viewers; only headers are a viewer's own. Knows
nothing of encryption, sockets or aiortc.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

from stream.encode import EncodedUnit

ABS_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

# Packets kept for retransmission: over two seconds at 2 Mbit/s. Only headers cost memory a viewer.
HISTORY_PACKETS = 512
# What goes out at once; a keyframe is several bursts, so that no small buffer on the way overflows.
BURST_PACKETS = 16
# A path that cannot carry the stream must not be given it several times over. What was sent earns half as
# much for sending again; what is saved up covers an outage of over a second.
RESEND_SHARE = 0.5
MOST_RESEND_CREDIT = HISTORY_PACKETS * 1200
RESEND_GAP_S = 0.01

_HEADER = struct.Struct("!BBHII")
_EXTENDED, _MARKER = 0x90, 0x80
_NTP_EPOCH_S = 2_208_988_800  # from 1900 to 1970


@dataclass(frozen=True, slots=True)
class RtpFormat:
    """What was negotiated for one video stream. Extension ids are None where not negotiated."""

    ssrc: int
    payload_type: int
    mid: str
    rtx_ssrc: int
    rtx_payload_type: int | None = None
    mid_id: int | None = None
    abs_send_time_id: int | None = None
    playout_delay_id: int | None = None
    abs_capture_time_id: int | None = None


class RtpStream:
    """Numbers, stamps and remembers one viewer's packets; all of them still in the clear."""

    def __init__(self, format: RtpFormat) -> None:
        self.format = format
        self.packets = 0
        self.octets = 0
        # The lower half: a wrap soon after the start can cost SRTP receivers their roll-over counter.
        self._sequence = secrets.randbelow(1 << 15)
        self._rtx_sequence = secrets.randbelow(1 << 15)
        self._history: list[tuple[int, bytes, bytes] | None] = [None] * HISTORY_PACKETS
        self._resent_at = [-inf] * HISTORY_PACKETS
        self._resend_credit = float(MOST_RESEND_CREDIT)
        self._keyframe: int | None = None  # number of the newest one's first packet
        self._fixed = _fixed_extensions(format)
        length = len(self._fixed)
        length += 4 if format.abs_send_time_id is not None else 0
        length += 9 if format.abs_capture_time_id is not None else 0
        self._padding = b"\0" * (-length % 4)
        self._words = (length + len(self._padding)) // 4

    def packetised(self, unit: EncodedUnit, now: Callable[[], float], captured_at: float) -> Iterator[bytes]:
        """The RTP packets of one unit, in order, made as they are taken.

        Args:
            unit: what is sent.
            now: the time, in seconds since 1970; asked once a burst.
            captured_at: when the picture was taken, likewise.
        """
        timestamp = unit.timestamp & 0xFFFFFFFF
        if unit.keyframe:
            self._keyframe = self._sequence
            self._resend_credit = max(self._resend_credit, unit.size)
        last = len(unit.payloads) - 1
        extensions = b""
        for number, payload in enumerate(unit.payloads):
            if number % BURST_PACKETS == 0:
                extensions = self._extensions(now(), captured_at)
            sequence = self._sequence
            header = self._header(
                self.format.payload_type, number == last, sequence, timestamp, self.format.ssrc
            )
            header += extensions
            self._history[sequence % HISTORY_PACKETS] = (sequence, header, payload)
            self._resent_at[sequence % HISTORY_PACKETS] = -inf
            self._sequence = (sequence + 1) & 0xFFFF
            self.packets += 1
            self.octets += len(payload)
            self._resend_credit += RESEND_SHARE * len(payload)
            yield header + payload

    def retransmission(self, sequence: int, now: float) -> bytes | None:
        """The packet of that number once more, as RTX (RFC 4588) if negotiated; None if forgotten.

        Empty where it was sent again just now (``now`` is monotonic), or too much was. What a keyframe has
        followed is of little use any more, so it must leave half of the credit for what has not.
        """
        is_old = self._keyframe is not None and 0 < (self._keyframe - sequence) & 0xFFFF < 0x8000
        place = sequence % HISTORY_PACKETS
        kept = self._history[place]
        if kept is None or kept[0] != sequence:
            return b"" if is_old else None
        _, header, payload = kept
        self._resend_credit = min(self._resend_credit, MOST_RESEND_CREDIT)
        needed = len(payload) + (MOST_RESEND_CREDIT / 2 if is_old else 0)
        if now - self._resent_at[place] < RESEND_GAP_S or self._resend_credit < needed:
            return b""
        self._resent_at[place] = now
        self._resend_credit -= len(payload)
        if self.format.rtx_payload_type is None:
            return header + payload
        first, second, _, timestamp, _ = _HEADER.unpack_from(header)
        rtx = _HEADER.pack(
            first,
            (second & _MARKER) | self.format.rtx_payload_type,
            self._rtx_sequence,
            timestamp,
            self.format.rtx_ssrc,
        )
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        return rtx + header[_HEADER.size :] + sequence.to_bytes(2, "big") + payload

    def forget(self) -> None:
        """Nothing will be sent again: let go of what was kept for it."""
        self._history = [None] * HISTORY_PACKETS

    def _header(self, payload_type: int, marker: bool, sequence: int, timestamp: int, ssrc: int) -> bytes:
        first = _EXTENDED if self._words else 0x80
        return _HEADER.pack(first, payload_type | (_MARKER if marker else 0), sequence, timestamp, ssrc)

    def _extensions(self, unix_s: float, captured_at: float) -> bytes:
        """RFC 8285 one-byte header extensions; those that change come last."""
        if not self._words:
            return b""
        head = b"\xbe\xde" + self._words.to_bytes(2, "big") + self._fixed
        if self.format.abs_send_time_id is not None:
            head += bytes((self.format.abs_send_time_id << 4 | 2,))
            head += (ntp_time(unix_s) >> 14 & 0xFFFFFF).to_bytes(3, "big")
        if self.format.abs_capture_time_id is not None:
            head += bytes((self.format.abs_capture_time_id << 4 | 7,))
            head += ntp_time(captured_at).to_bytes(8, "big")
        return head + self._padding


def ntp_time(unix_s: float) -> int:
    """Seconds since 1970 as a 64-bit NTP timestamp (32.32)."""
    return int((unix_s + _NTP_EPOCH_S) * (1 << 32))


def _fixed_extensions(format: RtpFormat) -> bytes:
    """Those whose values never change."""
    fixed = b""
    if format.mid_id is not None:
        mid = format.mid.encode()
        fixed += bytes((format.mid_id << 4 | len(mid) - 1,)) + mid
    if format.playout_delay_id is not None:
        fixed += bytes((format.playout_delay_id << 4 | 2, 0, 0, 0))  # min = max = 0: show it at once
    return fixed
