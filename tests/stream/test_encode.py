"""Encoded units: decodable, bounded, right colours; packetised so that another implementation agrees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from av.video.frame import PictureType

from stream.encode import (
    CLOCK_HZ,
    LARGEST_SIDE,
    RATE_BUFFER_S,
    Codec,
    EncodedUnit,
    H264Name,
    check_h264,
    encodable,
    make_encoder,
)
from stream.errors import DeviceUnavailable
from stream.h264 import split_annex_b
from stream.planes import writable
from stream.webrtc.payload import MAX_PAYLOAD, packetise_h264

Plane = npt.NDArray[np.uint8]
CODECS: tuple[Codec, ...] = ("h264", "vp8")
both_codecs = pytest.mark.parametrize("codec", CODECS)


def planes_of(picture: av.VideoFrame) -> list[Plane]:
    """Writable views of Y, U and V without padding."""
    return [
        np.frombuffer(cast(memoryview, plane), np.uint8).reshape(plane.height, plane.line_size)[
            :, : plane.width
        ]
        for plane in picture.planes
    ]


def flat(width: int, height: int, luma: int, format: str = "yuv420p") -> av.VideoFrame:
    picture = av.VideoFrame(width, height, format)
    for plane, value in zip(planes_of(picture), (luma, 128, 128), strict=True):
        plane[:] = value
    return picture


def moving(count: int, width: int = 320, height: int = 240) -> Iterator[av.VideoFrame]:
    """A bright square that moves over a gradient: something for prediction to do."""
    for index in range(count):
        picture = flat(width, height, 0)
        luma = planes_of(picture)[0]
        luma[:] = np.linspace(40, 180, width).astype(np.uint8)
        luma[60:100, 4 * index % (width - 40) :][:, :40] = 230
        yield picture


def grain(count: int, width: int, height: int, blur: float) -> Iterator[av.VideoFrame]:
    """Pictures of random grain, none like the one before: nothing can be predicted."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        picture = flat(width, height, 0)
        for plane in planes_of(picture):
            random = rng.integers(0, 256, plane.shape, np.uint8)
            plane[:] = cv2.GaussianBlur(random, (0, 0), blur) if blur else random
        yield picture


def reassembled(codec: Codec, unit: EncodedUnit) -> bytes:
    """The bitstream of a unit, by aiortc's depacketisers."""
    depayload = h264_depayload if codec == "h264" else vp8_depayload
    return b"".join(depayload(payload) for payload in unit.payloads)


class Decoder:
    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._context = av.CodecContext.create(codec, "r")

    def decode(self, unit: EncodedUnit) -> av.VideoFrame:
        (picture,) = self._context.decode(av.Packet(reassembled(self.codec, unit)))
        return cast(av.VideoFrame, picture)


def encode_all(codec: Codec, pictures: Iterator[av.VideoFrame], rate: int = 30) -> list[EncodedUnit]:
    encoder = make_encoder(codec, 1_000_000, rate)
    step = CLOCK_HZ // rate
    return [encoder.encode(picture, index * step, False, 0.0) for index, picture in enumerate(pictures)]


@both_codecs
def test_every_unit_decodes_to_its_picture(codec: Codec) -> None:
    sent = list(moving(40))
    units = encode_all(codec, (writable(picture) for picture in sent))
    decoder = Decoder(codec)
    differences = []
    for picture, unit in zip(sent, units, strict=True):
        got, expected = planes_of(decoder.decode(unit))[0], planes_of(picture)[0]
        differences.append(np.abs(got.astype(int) - expected).mean())
    print(f"{codec}: mean luma difference {np.mean(differences):.2f}, worst picture {max(differences):.2f}")
    assert max(differences) < 3
    assert [unit.keyframe for unit in units] == [True] + [False] * 39
    assert all(unit.size == sum(map(len, unit.payloads)) for unit in units)
    assert max(len(payload) for unit in units for payload in unit.payloads) <= MAX_PAYLOAD


@both_codecs
def test_forced_keyframe_decodes_without_what_was_before(codec: Codec) -> None:
    encoder = make_encoder(codec, 1_000_000)
    pictures = list(moving(20))
    units = [
        encoder.encode(picture, index * 3000, index == 12, 0.0) for index, picture in enumerate(pictures)
    ]
    assert [index for index, unit in enumerate(units) if unit.keyframe] == [0, 12]
    decoder = Decoder(codec)
    for picture, unit in zip(pictures[12:], units[12:], strict=True):
        assert np.abs(planes_of(decoder.decode(unit))[0].astype(int) - planes_of(picture)[0]).mean() < 3


def test_h264_keyframe_carries_its_parameter_sets_and_is_constrained_baseline() -> None:
    encoder = make_encoder("h264", 1_000_000)
    for index, picture in enumerate(moving(3)):
        unit = encoder.encode(picture, index * 3000, True, 0.0)
        nal_units = list(split_annex_b(reassembled("h264", unit)))
        assert {nal[0] & 31 for nal in nal_units} >= {7, 8, 5}
        sps = next(nal for nal in nal_units if nal[0] & 31 == 7)
        assert sps[1] == 66, "profile_idc: baseline"
        assert sps[2] & 0x40, "constraint_set1_flag: constrained"


def test_a_decoders_picture_type_is_not_obeyed() -> None:
    encoder = make_encoder("h264", 1_000_000)
    for index, picture in enumerate(moving(5)):
        picture.pict_type = PictureType.I
        assert encoder.encode(picture, index * 3000, False, 0.0).keyframe == (index == 0)


# VP8's coarsest quantiser still spends 5 bits a pixel on white noise, which no camera sends.
@pytest.mark.parametrize(("codec", "blur"), [("h264", 0.0), ("h264", 1.0), ("vp8", 1.0)])
def test_a_keyframe_of_the_worst_picture_is_bounded(codec: Codec, blur: float) -> None:
    bitrate = 2_000_000
    encoder = make_encoder(codec, bitrate)
    units = [
        encoder.encode(picture, index * 3000, index % 10 == 0, 0.0)
        for index, picture in enumerate(grain(31, 640, 360, blur))
    ]
    largest = max(unit.size for unit in units[10:] if unit.keyframe)
    limit = bitrate / 8 * RATE_BUFFER_S
    print(f"{codec}: largest keyframe of grain {largest} bytes, limit {limit:.0f}")
    assert largest <= 1.1 * limit


@both_codecs
@pytest.mark.parametrize(("width", "height"), [(853, 481), (852, 481), (853, 480), (17, 33)])
def test_odd_sizes_are_cropped_not_scaled(codec: Codec, width: int, height: int) -> None:
    picture = next(moving(1, width + 60, height + 120)) if width < 60 else next(moving(1, width, height))
    if width < 60:
        picture = flat(width, height, 90)
    expected = planes_of(picture)[0][: height & ~1, : width & ~1].copy()
    unit = make_encoder(codec, 3_000_000).encode(picture, 0, False, 0.0)
    decoded = Decoder(codec).decode(unit)
    assert (decoded.width, decoded.height) == (width & ~1, height & ~1)
    assert np.abs(planes_of(decoded)[0].astype(int) - expected).mean() < 3


@both_codecs
@pytest.mark.parametrize("tagged", ["format", "range"])
def test_full_range_pictures_keep_their_colours(codec: Codec, tagged: str) -> None:
    """Levels 0-255 come out as 16-235, whichever way the decoder tagged them, as swscale has it."""
    picture = flat(256, 64, 0, "yuvj420p" if tagged == "format" else "yuv420p")
    picture.color_range = 2 if tagged == "range" else 0
    luma, u, v = planes_of(picture)
    luma[:] = np.arange(256)
    u[:], v[:] = 40, 220
    reference = flat(256, 64, 0, "yuvj420p")
    for source, target in zip((luma, u, v), planes_of(reference), strict=True):
        target[:] = source
    swscaled = reference.reformat(format="yuv420p", src_color_range="JPEG", dst_color_range="MPEG")
    ours = encodable(picture)
    for got, expected in zip(planes_of(ours), planes_of(swscaled), strict=True):
        difference = np.abs(got.astype(int) - expected)
        print(f"difference to swscale: max {difference.max()}, mean {difference.mean():.3f}")
        assert difference.max() <= 1
    decoded = planes_of(Decoder(codec).decode(make_encoder(codec, 4_000_000).encode(picture, 0, False, 0.0)))
    assert abs(int(decoded[0][:, :4].mean()) - 16) <= 3
    assert abs(int(decoded[0][:, -4:].mean()) - 235) <= 3
    assert abs(int(decoded[1].mean()) - (128 + (40 - 128) * 224 / 255)) <= 3


def test_a_limited_range_picture_is_not_copied() -> None:
    picture = flat(64, 48, 90)
    assert encodable(picture) is picture


def test_a_copy_keeps_the_colour_description() -> None:
    picture = flat(65, 49, 90, "yuvj420p")
    picture.colorspace, picture.color_trc, picture.color_primaries = 1, 1, 1
    copy = writable(picture)
    assert (copy.width, copy.height, copy.color_range) == (65, 49, 2)
    assert (copy.colorspace, copy.color_trc, copy.color_primaries) == (1, 1, 1)
    for got, expected in zip(planes_of(copy), planes_of(picture), strict=True):
        assert (got == expected).all()


@both_codecs
def test_a_new_size_midway_begins_with_a_keyframe(codec: Codec) -> None:
    encoder, decoder = make_encoder(codec, 1_000_000), Decoder(codec)
    timestamp, sizes, keyframes = 0, [], []
    for width, height in ((320, 240), (640, 360), (320, 240)):
        for picture in moving(4, width, height):
            unit = encoder.encode(picture, timestamp, False, 0.0)
            timestamp += 3000
            keyframes.append(unit.keyframe)
            decoded = decoder.decode(unit)
            sizes.append((decoded.width, decoded.height))
    assert keyframes == [True, False, False, False] * 3
    assert sizes == [(320, 240)] * 4 + [(640, 360)] * 4 + [(320, 240)] * 4


@both_codecs
def test_the_bit_rate_holds_at_another_frame_rate(codec: Codec) -> None:
    """Rate control is told the rate it measures: 10 pictures a second may use what 30 would."""
    bitrate = 400_000
    encoder = make_encoder(codec, bitrate)
    units = [
        encoder.encode(picture, index * 9000, False, 0.0)
        for index, picture in enumerate(grain(110, 320, 240, 1.0))
    ]
    used = sum(unit.size for unit in units[50:]) * 8 / 6
    print(
        f"{codec}: {used / 1000:.0f} of {bitrate / 1000:.0f} kbit/s at 10 pictures a second, {encoder.frame_rate:.1f}"
    )
    assert encoder.frame_rate == pytest.approx(10)
    assert 0.6 * bitrate < used < 1.3 * bitrate
    assert sum(unit.keyframe for unit in units) <= 3


@both_codecs
def test_irregular_time_is_carried_through(codec: Codec) -> None:
    encoder = make_encoder(codec, 500_000)
    times = np.cumsum(np.random.default_rng(1).integers(1, 20_000, 60)).tolist()
    units = [
        encoder.encode(picture, time, False, 7.5) for time, picture in zip(times, moving(60), strict=True)
    ]
    assert [unit.timestamp for unit in units] == times
    assert {unit.captured_at for unit in units} == {7.5}


@both_codecs
@pytest.mark.parametrize(("width", "height"), [(20000, 4), (4, LARGEST_SIDE + 4), (1, 40), (40, 1)])
def test_an_impossible_size_is_one_clear_error(codec: Codec, width: int, height: int) -> None:
    expected = rf"cannot encode {width}x{height} .* expected sides from 2 to {LARGEST_SIDE} pixels"
    with pytest.raises(DeviceUnavailable, match=expected):
        make_encoder(codec, 1_000_000).encode(av.VideoFrame(width, height, "yuv420p"), 0, False, 0.0)


@both_codecs
@pytest.mark.parametrize(("width", "height"), [(2, 2), (LARGEST_SIDE, 2), (2, LARGEST_SIDE)])
def test_the_sizes_that_the_error_names_encode(codec: Codec, width: int, height: int) -> None:
    unit = make_encoder(codec, 1_000_000).encode(flat(width, height, 90), 0, False, 0.0)
    assert (unit.keyframe, unit.size > 0) == (True, True)


@pytest.mark.parametrize(
    "sizes", [(5, 8, 1300), (1200,), (1201,), (1196, 2), (1198, 3), (700, 700), (30_000, 4)]
)
def test_h264_packets_reassemble_to_the_same_nal_units(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes))
    units = [bytes((0x65,)) + rng.integers(1, 256, size - 1, np.uint8).tobytes() for size in sizes]
    payloads = packetise_h264(b"".join(b"\0\0\0\1" + unit for unit in units))
    assert max(map(len, payloads)) <= MAX_PAYLOAD
    assert list(split_annex_b(b"".join(map(h264_depayload, payloads)))) == units


def test_nothing_encoded_is_no_packets() -> None:
    assert packetise_h264(b"") == ()


def _refusal(name: H264Name) -> str | None:
    try:
        check_h264(name)
    except DeviceUnavailable as error:
        return str(error)
    return None


def test_x264_is_always_there() -> None:
    assert _refusal("libx264") is None


@pytest.mark.parametrize("name", ["h264_nvenc", "h264_v4l2m2m"])
def test_a_hardware_encoder_works_or_is_refused_with_the_remedy(name: H264Name) -> None:
    refusal = _refusal(name)
    if refusal is not None:
        assert re.fullmatch(rf"encoder\.h264: {name} was asked for, but .+; .+, or use libx264", refusal)
        return
    encoder, decoder = make_encoder("h264", 1_000_000, h264=name), Decoder("h264")
    for index, picture in enumerate(moving(30, 640, 480)):
        unit = encoder.encode(picture, 3000 * index, index == 15, 0.0)
        assert unit.keyframe == (index in (0, 15))
        assert decoder.decode(unit).width == 640
