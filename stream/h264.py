"""What must be known of an H.264 byte stream to pass it on. Pure bytes: no decoder, no transport."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

IDR, SPS = 5, 7
"""NAL unit types (ITU-T H.264 table 7-1): a slice that needs nothing before it, and the parameters of a sequence."""


class Profile(IntEnum):
    """The least decoder that a stream needs; each decodes those below as well.

    That order holds for what is passed on: no B-pictures, no interlacing, and none of baseline's slice groups
    (FFmpeg, which decodes every stream here, knows none). So baseline is also constrained baseline, and
    high is also constrained high.
    """

    BASELINE = 0
    MAIN = 1
    HIGH = 2


def split_annex_b(stream: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex-B byte stream, without start codes and trailing zeros."""
    start = stream.find(b"\0\0\1")
    while start >= 0:
        end = stream.find(b"\0\0\1", start + 3)
        unit = stream[start + 3 : end if end >= 0 else len(stream)].rstrip(b"\0")
        if unit:
            yield unit
        start = end


def is_annex_b(data: bytes) -> bool:
    return data.startswith((b"\0\0\1", b"\0\0\0\1"))


def unit_types(stream: bytes) -> set[int]:
    """The types of the NAL units of an Annex-B byte stream."""
    return {unit[0] & 0x1F for unit in split_annex_b(stream)}


def has_b_slices(stream: bytes) -> bool:
    """Whether a slice of an Annex-B byte stream is a B slice (H.264 7.3.3: slice_type 1 or 6)."""
    return any(_slice_type(unit) % 5 == 1 for unit in split_annex_b(stream) if unit[0] & 0x1F in (1, IDR))


def _slice_type(unit: bytes) -> int:
    """The second number of a slice's header, after first_mb_in_slice; both are Exp-Golomb codes (H.264 9.1)."""
    bits = "".join(f"{byte:08b}" for byte in unit[1:9].replace(b"\0\0\3", b"\0\0"))
    for _ in range(2):
        zeros = len(bits) - len(bits.lstrip("0"))
        value, bits = int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1, bits[2 * zeros + 1 :]
    return value
