"""Files that begin in the middle: at the very picture, by its barcode, in every kind of container."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from stream import barcode
from stream.errors import NoVideo, SourceBroken, UsageError
from stream.planes import views
from stream.sources import SourceOptions, open_source
from stream.sources.seek import position
from tests.stream.clips import RATE, clip

FRAMES = 90
B_PICTURES = {"preset": "veryfast", "bf": "3", "x264-params": "scenecut=0"}


def lossless(start_s: float, loop: bool = False) -> SourceOptions:
    return SourceOptions(pace="lossless", start_s=start_s, loop=loop)


def numbers(path: Path, options: SourceOptions, count: int | None = None) -> list[int | None]:
    """The barcodes of the pictures."""
    with closing(open_source(str(path), options)) as source:
        return [barcode.read(views(frame.picture)[0]) for frame in islice(iter(source.read, None), count)]


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 with B-pictures, whose MP4 has an edit list, as FFmpeg writes it for the delay that they bring."""
    path = tmp_path_factory.mktemp("seek") / "clip.mp4"
    return clip(path, frames=FRAMES, profile="High", options=B_PICTURES)


@pytest.fixture(scope="module")
def every(mp4: Path) -> dict[str, Path]:
    """The same pictures in other containers; ``trimmed`` has an edit list that hides its first 10 pictures."""
    files = {
        "mp4": mp4,
        "mjpeg": clip(mp4.with_name("mjpeg.avi"), codec="mjpeg", profile=None, pixels="yuvj420p", options={}),
    }
    for suffix in ("mkv", "ts", "flv"):
        files[suffix] = mp4.with_suffix(f".{suffix}")
        with av.open(str(mp4)) as source, av.open(str(files[suffix]), "w") as out:
            video = source.streams.video[0]
            copy = out.add_stream_from_template(video)
            for packet in source.demux(video):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
    return files


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "flv", "mjpeg"])
def test_it_begins_at_the_very_picture(every: dict[str, Path], kind: str) -> None:
    for first in (1, 14, 15, 16, 44, 89):
        got = numbers(every[kind], lossless(first / RATE))
        assert got == list(range(first, FRAMES)), (kind, first)
    assert numbers(every[kind], lossless(14.4 / RATE), 1) == [14], "nearer to 14"
    assert numbers(every[kind], lossless(14.6 / RATE), 1) == [15], "nearer to 15"


def test_an_edit_list_that_hides_pictures(mp4: Path, tmp_path: Path) -> None:
    trimmed = trim(mp4, tmp_path / "trimmed.mp4", hidden=10)
    whole = numbers(trimmed, lossless(0))
    assert whole == list(range(10, FRAMES)), "the file hides them"
    assert numbers(trimmed, lossless(20 / RATE)) == whole[20:]
    with closing(open_source(str(trimmed), lossless(20 / RATE))) as source:
        frame = source.read()
    assert frame is not None
    assert frame.picture.pts is not None
    assert position(trimmed, frame.picture.pts) == (20, pytest.approx(20 / RATE))


def trim(source: Path, path: Path, hidden: int) -> Path:
    """A copy whose edit list begins ``hidden`` pictures later (ISO/IEC 14496-12, 8.6.6)."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 4
    assert data[at] == 0, "version 0: 32 bits each"
    with av.open(str(source)) as container:
        base = container.streams.video[0].time_base
    assert base is not None
    later = int(hidden * Fraction(1, RATE) / base)
    media_time = int.from_bytes(data[at + 12 : at + 16], "big")
    data[at + 12 : at + 16] = (media_time + later).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "mjpeg"])
def test_where_a_picture_is_in_its_file(every: dict[str, Path], kind: str) -> None:
    with closing(open_source(str(every[kind]), lossless(31 / RATE))) as source:
        frame = source.read()
    assert frame is not None
    assert (frame.index, frame.time_s) == (0, 0.0), "what is played counts from 0"
    assert frame.picture.pts is not None
    index, time_s = position(every[kind], frame.picture.pts)
    assert (index, time_s) == (31, pytest.approx(31 / RATE, abs=1e-3))


def test_each_round_of_a_loop_begins_there(mp4: Path) -> None:
    got = numbers(mp4, lossless(80 / RATE, loop=True), 25)
    assert got == [*range(80, 90), *range(80, 90), *range(80, 85)]
    with closing(open_source(str(mp4), lossless(80 / RATE, loop=True))) as source:
        times = [frame.time_s for frame in islice(iter(source.read, None), 25)]
    np.testing.assert_allclose(times, np.arange(25) / RATE, atol=1e-3)


def test_a_real_avi(shared: Path) -> None:
    path = shared / "data" / "clips" / "vtest.avi"
    with closing(open_source(str(path), lossless(70.0))) as source:
        frames = list(islice(iter(source.read, None), 100))
    assert len(frames) == 95, "it has 795 pictures, 10 a second"
    assert position(path, frames[0].picture.pts or 0) == (700, 70.0)


def test_starts_that_cannot_be(mp4: Path, tmp_path: Path) -> None:
    with pytest.raises(NoVideo, match=r"no picture at 3\.5 s or later; begin before its end"):
        open_source(str(mp4), lossless(3.5))
    with pytest.raises(UsageError, match="only a file can begin at 2 s"):
        open_source("synthetic:320x240@30", lossless(2))
    naked = clip(tmp_path / "naked.h264", frames=20)
    with pytest.raises(SourceBroken, match=r"cannot begin at 0\.5 s .*MP4 or MKV"):
        open_source(str(naked), lossless(0.5))


def test_fastest_leaves_nothing_out_where_it_is_read(mp4: Path) -> None:
    with closing(open_source(str(mp4), SourceOptions(pace="fastest"))) as source:
        assert not source.info.live
        assert sum(1 for _ in iter(source.read, None)) == FRAMES
