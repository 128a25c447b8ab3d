"""Tracks inside their own access unit: FFmpeg finds the very bytes, and pictures decode as before."""

from __future__ import annotations

import struct
import zlib

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import h264_depayload
from hypothesis import given
from hypothesis import strategies as st

from stream.encode import H264Encoder, VP8Encoder
from stream.frames import Tracks
from stream.h264 import split_annex_b
from stream.webrtc import sei
from stream.webrtc.payload import MAX_PAYLOAD
from stream.webrtc.sei import MOST_TRACKS, TRACKS_UUID, tracks_record, tracks_sei
from tests.stream.test_encode import moving


def some(count: int, seed: int = 0) -> Tracks:
    random = np.random.default_rng(seed)
    return Tracks(
        boxes=random.uniform(-50, 2000, (count, 4)).astype(np.float32),
        scores=random.uniform(0, 1, count).astype(np.float32),
        classes=random.integers(0, 80, count),
        ids=random.integers(1, 1 << 31, count),
        ages_s=random.uniform(0, 1e4, count).astype(np.float32),
        coasting=random.integers(0, 2, count).astype(bool),
        names=("person", "bus"),
    )


def read(data: bytes) -> tuple[tuple[int, int], list[tuple[float, ...]]]:
    """Size and tracks of what follows the UUID, number by number."""
    version, width, height, classes, count = struct.unpack_from(">BHHIH", data)
    assert version == 2
    assert classes == zlib.crc32(b"person\nbus")
    assert len(data) == 11 + 26 * count
    return (width, height), [struct.unpack_from(">IHBBH4f", data, 11 + 26 * row) for row in range(count)]


def test_ffmpeg_finds_the_tracks_of_each_picture() -> None:
    encoder, decoder = H264Encoder(500_000), av.CodecContext.create("h264", "r")
    for index, picture in enumerate(moving(12)):
        tracks = some(index)
        nal = tracks_sei(tracks_record(tracks, picture.width, picture.height))
        unit = encoder.encode(picture, 3000 * index, index == 0, 0.0, nal)
        assert max(map(len, unit.payloads)) <= MAX_PAYLOAD
        (shown,) = decoder.decode(av.Packet(b"".join(map(h264_depayload, unit.payloads))))
        carried = [bytes(data) for data in shown.side_data if data.type.name == "SEI_UNREGISTERED"]
        ours = [data[16:] for data in carried if data[:16] == TRACKS_UUID.bytes]
        assert len(ours) == 1
        size, rows = read(ours[0])
        assert size == (picture.width, picture.height)
        order = np.argsort(-tracks.scores, kind="stable")
        assert [row[0] for row in rows] == tracks.ids[order].tolist()
        assert [row[1] for row in rows] == tracks.classes[order].tolist()
        np.testing.assert_allclose([row[2] / 255 for row in rows], tracks.scores[order], atol=0.002)
        assert [row[3] for row in rows] == tracks.coasting[order].tolist()
        np.testing.assert_allclose(
            [row[4] / 10 for row in rows], np.minimum(tracks.ages_s[order], 6553.5), atol=0.06
        )
        boxes = np.array([row[5:] for row in rows], np.float32).reshape(-1, 4)
        np.testing.assert_array_equal(boxes, tracks.boxes[order])


def test_it_stands_before_the_first_slice() -> None:
    encoder = H264Encoder(500_000)
    nal = tracks_sei(tracks_record(some(60), 320, 240))  # larger than one packet
    for index, picture in enumerate(moving(3)):
        unit = encoder.encode(picture, 3000 * index, index == 0, 0.0, nal)
        kinds = [nal[0] & 31 for nal in split_annex_b(b"".join(map(h264_depayload, unit.payloads)))]
        assert kinds.count(6) >= 1
        first_slice = next(place for place, kind in enumerate(kinds) if kind in (1, 5))
        assert 6 in kinds[:first_slice]
        assert 6 not in kinds[first_slice:]


def test_only_the_surest_go_along() -> None:
    tracks = some(MOST_TRACKS + 50)
    ids = np.frombuffer(tracks_record(tracks, 1280, 720)[11:], sei._TRACK)["id"]
    surest = tracks.ids[np.argsort(-tracks.scores, kind="stable")[:MOST_TRACKS]]
    np.testing.assert_array_equal(ids, surest)


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, 255]), max_size=600))
def test_no_data_looks_like_a_start_code(numbers: list[int]) -> None:
    nal = sei._message(bytes(numbers))
    assert not any(bytes((0, 0, last)) in nal for last in (0, 1, 2))
    plain, zeros = bytearray(), 0
    for byte in nal[1:-1]:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if byte == 0 else 0
        plain.append(byte)
    assert plain.endswith(bytes(numbers))
    assert len(plain) == 2 + len(numbers) // 255 + len(numbers)


def test_vp8_has_no_place_for_it() -> None:
    with pytest.raises(ValueError, match="no place"):
        VP8Encoder(500_000).encode(next(iter(moving(1))), 0, True, 0.0, b"\6")
