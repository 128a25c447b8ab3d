"""The barcode: what is drawn is read again, through a real codec and other sizes; noise is no code."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av import VideoFrame

from stream import barcode
from stream.sources import SourceOptions
from stream.sources.synthetic import SyntheticSource

VALUES = (0, 1, 2, 255, 256, 0x555555, 0xAAAAAA, 0x123456, barcode.MAX_VALUE)


def luma(picture: VideoFrame) -> npt.NDArray[np.uint8]:
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # type: ignore[arg-type]
    return rows[: picture.height, : picture.width]


@pytest.mark.parametrize(("width", "height"), [(128, 72), (640, 360), (853, 481), (1280, 720), (720, 1280)])
@pytest.mark.parametrize("value", VALUES)
def test_what_is_drawn_is_read(width: int, height: int, value: int) -> None:
    picture = np.full((height, width), 128, np.uint8)
    barcode.draw(picture, value)
    assert barcode.read(picture) == value


def test_the_documented_geometry_reads_it() -> None:
    """Exactly what the module says and the page's JavaScript does: one pixel in the middle of each cell."""
    width, height, value = 854, 480, 0xBEEF42
    picture = np.full((height, width), 128, np.uint8)
    barcode.draw(picture, value)
    word = 0
    for i in range(32):
        x, y = int((i % 16 + 0.5) * width / 32), int((i // 16 + 0.5) * height / 18)
        word = word << 1 | int(picture[y, x] > 155)
    assert word >> 8 == value


def test_values_wrap_at_24_bits() -> None:
    picture = np.zeros((360, 640), np.uint8)
    barcode.draw(picture, barcode.MAX_VALUE + 1 + 7)
    assert barcode.read(picture) == 7


@pytest.mark.parametrize("level", [0, 16, 90, 128, 160, 235, 255])
def test_a_flat_picture_is_no_code(level: int) -> None:
    assert barcode.read(np.full((360, 640), level, np.uint8)) is None


def test_noise_and_single_flipped_cells_are_no_code() -> None:
    random = np.random.default_rng(0)
    assert all(barcode.read(random.integers(0, 256, (72, 128), np.uint8)) is None for _ in range(300))
    for cell in range(32):
        picture = np.full((360, 640), 128, np.uint8)
        barcode.draw(picture, 4711)
        y, x = cell // 16 * 20, cell % 16 * 20
        picture[y : y + 20, x : x + 20] = 251 - picture[y : y + 20, x : x + 20]
        assert barcode.read(picture) is None, f"cell {cell}"


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too small for a barcode"):
        barcode.draw(np.zeros((71, 128), np.uint8), 1)
    assert barcode.read(np.zeros((4, 4), np.uint8)) is None


def test_reading_scaled_pictures() -> None:
    source = SyntheticSource("synthetic:1280x720@30", SourceOptions())
    for width, height in ((640, 360), (320, 180), (1920, 1080), (853, 481), (300, 400)):
        small = source.picture(123456).reformat(width, height, "gray")
        assert barcode.read(luma(small)) == 123456, f"{width}x{height}"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (640, 360)])
def test_every_frame_is_read_after_h264_at_one_megabit(width: int, height: int) -> None:
    source = SyntheticSource(f"synthetic:{width}x{height}@30", SourceOptions())
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
    encoder.bit_rate = 1_000_000
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "vbv-maxrate=1000:vbv-bufsize=200",
    }
    packets = []
    for index in range(45):
        packets += encoder.encode(source.picture(70_000 + index * 977))
    packets += encoder.encode(None)
    decoder: Any = av.CodecContext.create("h264", "r")
    pictures = [picture for packet in [*packets, None] for picture in decoder.decode(packet)]
    bits = 8 * sum(packet.size for packet in packets)
    assert bits / 1.5 < 1_300_000, "the encoder kept to about 1 Mbit/s"
    assert [barcode.read(luma(picture)) for picture in pictures] == [70_000 + i * 977 for i in range(45)]
