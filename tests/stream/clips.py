"""Video files as cameras make them, with a barcode in every picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from hashlib import sha256
from itertools import islice
from pathlib import Path

import av
from av import VideoFrame
from av.bitstream import BitStreamFilterContext
from av.video.frame import PictureType

from stream import barcode
from stream.h264 import SPS, split_annex_b
from stream.planes import views, writable
from stream.sources import SourceOptions, open_source
from stream.sources.synthetic import SyntheticSource

RATE = 30
WIDTH, HEIGHT = 320, 180
SLICES, PPS = (1, 5), 8

LIVE = {"tune": "zerolatency", "preset": "ultrafast", "x264-params": "scenecut=0"}


def pattern(count: int) -> Iterator[VideoFrame]:
    """The synthetic camera's pictures."""
    source = SyntheticSource(f"synthetic:{WIDTH}x{HEIGHT}@{RATE}", SourceOptions(pace="lossless"))
    return (source.picture(index) for index in range(count))


def with_barcodes(path: Path, count: int) -> Iterator[VideoFrame]:
    """The first pictures of a real clip, each with its number."""
    source = open_source(str(path), SourceOptions(pace="lossless"))
    for index, frame in enumerate(islice(iter(source.read, None), count)):
        picture = writable(frame.picture)
        barcode.draw(views(picture)[0], index)
        yield picture
    source.close()


def people(path: Path, bikes: Path, frames: int, preset: str) -> Path:
    """Pictures from number 115 of the clip on, people on bicycles, as a file of their own: 640x272, 25 fps."""
    with av.open(str(bikes)) as container, av.open(str(path), "w") as copy:
        stream = copy.add_stream("libx264", rate=25, options={"preset": preset, "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 640, 272, "yuv420p"
        for index, picture in enumerate(islice(container.decode(video=0), 115, 115 + frames)):
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, 25), 0
            copy.mux(stream.encode(picture))
        copy.mux(stream.encode(None))
    return path


def clip(
    path: Path,
    pictures: Iterable[VideoFrame] | None = None,
    *,
    frames: int = 90,
    profile: str | None = "Baseline",
    keyframe_every: int = 15,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """A file of ``pictures``, or of ``frames`` of the pattern. The container is what the name ends in."""
    stream = None
    with av.open(str(path), "w") as out:
        for index, shown in enumerate(pictures or pattern(frames)):
            if stream is None:
                stream = out.add_stream(codec, rate=RATE)
                stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, pixels
                stream.gop_size = keyframe_every
                stream.options = LIVE if options is None else options
                if profile is not None:
                    stream.profile = profile
            picture = shown.reformat(format=pixels)
            picture.pts, picture.time_base, picture.pict_type = index, Fraction(1, RATE), PictureType.NONE
            out.mux(stream.encode(picture))
        assert stream is not None
        out.mux(stream.encode(None))
    return path


def bare(path: Path, clipped: Path) -> Path:
    """The pictures of an MP4 file of main profile as a naked byte stream: the parameter sets at its start alone,
    and no word in them on how far pictures are out of order."""
    with av.open(str(clipped)) as container:
        video = container.streams.video[0]
        to_annex_b = BitStreamFilterContext("h264_mp4toannexb", video)
        units = [
            unit
            for packet in container.demux(video)
            for filtered in (to_annex_b.filter(packet) if packet.size else ())
            for unit in split_annex_b(bytes(filtered))
        ]
    first = {unit[0] & 0x1F: unit for unit in reversed(units)}
    head = [_without_vui(first[SPS]), first[PPS]]
    rest = [unit for unit in units if unit[0] & 0x1F in SLICES]
    path.write_bytes(b"".join(b"\0\0\0\1" + unit for unit in [*head, *rest]))
    return path


def _without_vui(sps: bytes) -> bytes:
    """A sequence parameter set of main profile that ends where its optional part would begin (H.264 7.3.2.1.1)."""
    bits = "".join(f"{byte:08b}" for byte in sps[4:])
    at = 0

    def skip(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at] or "0", 2)

    def golomb() -> int:
        zeros = bits.index("1", at) - at
        return skip(2 * zeros + 1) - 1

    golomb(), golomb()
    if golomb() == 0:  # pic_order_cnt_type
        golomb()
    golomb(), skip(1), golomb(), golomb()
    if not skip(1):  # frame_mbs_only_flag
        skip(1)
    skip(1)
    if skip(1):  # frame_cropping_flag
        golomb(), golomb(), golomb(), golomb()
    kept = bits[:at] + "01"
    kept += "0" * (-len(kept) % 8)
    return sps[:4] + int(kept, 2).to_bytes(len(kept) // 8, "big")


def slices(access_unit: bytes) -> str:
    """Hash of the NAL units, of an access unit in Annex-B form, that hold the picture."""
    return _hash(split_annex_b(access_unit))


def recorded(path: Path) -> list[str]:
    """The same of each picture in an MP4 file, by its own length prefixes (ISO/IEC 14496-15), without FFmpeg's filter."""
    pictures = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data, units = bytes(packet), []
            while data:
                size = int.from_bytes(data[:4], "big")
                units.append(data[4 : 4 + size])
                data = data[4 + size :]
            if units:
                pictures.append(_hash(units))
    return pictures


def _hash(units: Iterable[bytes]) -> str:
    return sha256(b"|".join(unit for unit in units if unit[0] & 0x1F in SLICES)).hexdigest()
