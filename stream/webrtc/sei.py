"""Tracks as numbers: a record, and the SEI message that carries it inside its own H.264 access unit.

The record goes beside the pictures of any codec (``stream/webrtc/boxes.py``). The message is that of ITU-T
H.264 D.1.7, user data unregistered: a UUID that says whose data it is, then the record. A player that does
not know the UUID ignores it. Big endian:

    version u8 = 2 | width u16 | height u16 | classes u32 | count u16 | then each track:
    id u32 | class u16 | score u8 (of 255) | flags u8 (1: coasting) | age u16 (tenths of a second)
    | x1, y1, x2, y2 float32, in pixels of width x height, the picture that was encoded

``classes`` tells in whose classes the tracks count (``classes_key`` in ``/api/app``), as models may be exchanged.

Knows nothing of encoders, viewers or pages; ``stream/web/tracks.js`` reads it.
"""

from __future__ import annotations

import re
import struct
from uuid import UUID

import numpy as np

from stream.frames import Tracks, names_key

TRACKS_UUID = UUID("7d2c1f0a-5b1e-4c7e-9a86-3f1d6c0b9e52")
VERSION = 2
MOST_TRACKS = 256
"""The surest; more would be kilobytes a picture."""

_SEI, _USER_DATA_UNREGISTERED, _TRAILING_BITS = 6, 5, 0x80
_EMULATES_START_CODE = re.compile(rb"\0\0(?=[\0-\3])")
_LARGEST = 0xFFFF
_TRACK = np.dtype(
    [("id", ">u4"), ("class", ">u2"), ("score", "u1"), ("flags", "u1"), ("age", ">u2"), ("box", ">f4", (4,))]
)


def tracks_record(tracks: Tracks, width: int, height: int) -> bytes:
    """``tracks`` of a picture of ``width`` x ``height`` pixels as bytes, at most about 7 kB."""
    order = np.argsort(-tracks.scores, kind="stable")[:MOST_TRACKS]
    records = np.zeros(len(order), _TRACK)
    records["id"] = tracks.ids[order]
    records["class"] = np.clip(tracks.classes[order], 0, _LARGEST)
    records["score"] = np.rint(np.clip(tracks.scores[order], 0, 1) * 255)
    records["flags"] = tracks.coasting[order]
    records["age"] = np.clip(np.rint(tracks.ages_s[order] * 10), 0, _LARGEST)
    records["box"] = tracks.boxes[order]
    return (
        struct.pack(">BHHIH", VERSION, width, height, names_key(tracks.names), len(order)) + records.tobytes()
    )


def tracks_sei(record: bytes) -> bytes:
    """The NAL unit (without start code) that carries a record."""
    return _message(TRACKS_UUID.bytes + record)


def _message(payload: bytes) -> bytes:
    size = b"\xff" * (len(payload) // 255) + bytes((len(payload) % 255,))
    escaped = _EMULATES_START_CODE.sub(b"\0\0\3", bytes((_USER_DATA_UNREGISTERED,)) + size + payload)
    return bytes((_SEI,)) + escaped + bytes((_TRAILING_BITS,))
