"""Encoded pictures -> RTP payloads: H.264 (RFC 6184, packetization-mode 1) and VP8 (RFC 7741).

Pure byte work, done once a picture for all viewers. Knows nothing of RTP headers, encoders or aiortc.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.h264 import split_annex_b

# 12 bytes of RTP, up to 24 of extensions, 16 of SRTP tag, 8 of UDP and 40 of IPv6 stay below 1,300:
# a path with the smallest IPv6 MTU plus one tunnel still carries a packet whole.
MAX_PAYLOAD = 1200

_SLICES = range(1, 6)
_STAP_A = 24
_FU_A = 28


def packetise_h264(stream: bytes, sei: bytes = b"") -> tuple[bytes, ...]:
    """One access unit -> payloads: small NAL units share a STAP-A, large ones are cut into FU-As.

    Args:
        stream: Annex-B.
        sei: a NAL unit to go before the first slice, where H.264 7.4.1.2.3 wants it.
    """
    payloads: list[bytes] = []
    small: list[bytes] = []
    for unit in _with_sei(split_annex_b(stream), sei):
        if small and _stap_size([*small, unit]) > MAX_PAYLOAD:
            payloads.append(_aggregate(small))
            small = []
        if len(unit) > MAX_PAYLOAD:
            payloads.extend(_fragment(unit))
        elif _stap_size([unit]) > MAX_PAYLOAD:
            payloads.append(unit)
        else:
            small.append(unit)
    if small:
        payloads.append(_aggregate(small))
    return tuple(payloads)


def packetise_vp8(frame: bytes, picture_id: int) -> tuple[bytes, ...]:
    """One VP8 frame -> payloads, each with a descriptor that carries the 15-bit picture id."""
    identity = (0x8000 | (picture_id & 0x7FFF)).to_bytes(2, "big")
    pieces = _cut(frame, MAX_PAYLOAD - 4)
    return tuple(
        bytes((0x90 if number == 0 else 0x80, 0x80)) + identity + piece for number, piece in enumerate(pieces)
    )


def _with_sei(units: Iterator[bytes], sei: bytes) -> Iterator[bytes]:
    for unit in units:
        if sei and unit[0] & 0x1F in _SLICES:
            yield sei
            sei = b""
        yield unit


def _stap_size(units: list[bytes]) -> int:
    return 1 + sum(2 + len(unit) for unit in units)


def _aggregate(units: list[bytes]) -> bytes:
    if len(units) == 1:
        return units[0]
    importance = max(unit[0] & 0x60 for unit in units)
    return bytes((importance | _STAP_A,)) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _fragment(unit: bytes) -> Iterator[bytes]:
    indicator, kind = (unit[0] & 0xE0) | _FU_A, unit[0] & 0x1F
    pieces = _cut(unit[1:], MAX_PAYLOAD - 2)
    for number, piece in enumerate(pieces):
        first, last = number == 0, number == len(pieces) - 1
        yield bytes((indicator, kind | (0x80 if first else 0) | (0x40 if last else 0))) + piece


def _cut(data: bytes, limit: int) -> list[bytes]:
    """``data`` in pieces of nearly equal size, so that no packet is a runt."""
    count = -(-len(data) // limit)
    size = -(-len(data) // count) if count else limit
    return [data[start : start + size] for start in range(0, len(data), size)]
