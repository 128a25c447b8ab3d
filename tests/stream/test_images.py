"""Pictures as a source: in order, upright, with the colours the detector was trained on; broken ones are told."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.boxes import paired_iou
from stream.detector import Detector
from stream.errors import NoVideo
from stream.frames import Frame
from stream.sources import SourceOptions, open_source
from stream.sources.images import read_picture

Pixels = npt.NDArray[np.uint8]
LOSSLESS = SourceOptions(pace="lossless")
ORIENTATION = 0x0112  # of EXIF


def frames(url: Path | str, options: SourceOptions = LOSSLESS) -> list[Frame]:
    with closing(open_source(str(url), options)) as source:
        return list(iter(source.read, None))


def rgb(path: Path) -> Pixels:
    return np.asarray(read_picture(path).to_ndarray(format="rgb24"))


def scene(width: int = 160, height: int = 120) -> Pixels:
    """Smooth colours, dark at the top left, so that neither 4:2:0 nor JPEG changes much."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack((60 + 150 * x, 60 + 150 * y, 60 + 120 * x * y), axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one that is cut off, and what is no picture."""
    path = tmp_path / "shots"
    (path / "more").mkdir(parents=True)
    for number, name in enumerate(("img1.png", "img2.JPG", "img10.webp")):
        Image.fromarray(scene(160 + 32 * number)).save(path / name)
    whole = (path / "img2.JPG").read_bytes()
    (path / "img3.jpg").write_bytes(whole[: len(whole) // 2])
    (path / "notes.txt").write_text("no picture")
    Image.fromarray(scene()).save(path / "more" / "img7.bmp")
    return path


def test_a_folder_in_natural_order_without_what_is_broken(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), closing(open_source(str(folder), LOSSLESS)) as source:
        got = list(iter(source.read, None))
        assert source.bad_packets == 1
        assert source.info.frame_rate == 1
    assert [(frame.name, frame.index) for frame in got] == [
        ("img1.png", 0),
        ("img2.JPG", 1),
        ("img10.webp", 3),
    ]
    assert [frame.time_s for frame in got] == [0, 1, 3]
    assert [frame.picture.width for frame in got] == [160, 192, 224]
    assert [record.getMessage().count("img3.jpg") for record in caplog.records] == [1]


def test_patterns(folder: Path) -> None:
    assert [frame.name for frame in frames(folder / "img1*")] == ["img1.png", "img10.webp"]
    assert [frame.name for frame in frames(folder.parent / "*" / "more" / "*.bmp")] == ["shots/more/img7.bmp"]
    assert len(frames(folder / "**" / "*")) == 4
    odd = folder / "a[1].png"
    (folder / "img1.png").rename(odd)
    assert [frame.name for frame in frames(odd)] == ["a[1].png"], "a file that looks like a pattern"


def test_no_pictures_is_told(tmp_path: Path) -> None:
    for url in (tmp_path, tmp_path / "*.jpg"):
        with pytest.raises(NoVideo, match=r"no pictures; expected .*\.jpg"):
            open_source(str(url))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    with pytest.raises(NoVideo, match="none of 1 pictures can be decoded"):
        open_source(str(broken), SourceOptions(loop=True))
    Image.fromarray(scene()).save(broken)
    with pytest.raises(NoVideo, match=r"its 1 pictures, 1 a second, end before 5 s"):
        open_source(str(broken), SourceOptions(start_s=5))


def test_a_picture_is_a_camera_that_stands_still(folder: Path) -> None:
    begun = time.monotonic()
    with closing(open_source(str(folder / "img1.png"), SourceOptions(loop=True))) as source:
        assert source.info.live
        got = [source.read() for _ in range(3)]
    assert [frame.index for frame in got if frame is not None] == [0, 1, 2]
    assert time.monotonic() - begun >= 2, "1 a second"


def test_every_kind_of_pixels(tmp_path: Path) -> None:
    expected = scene(161, 121)
    alpha = np.full((*expected.shape[:2], 1), 200, np.uint8)
    kinds = {
        "plain.png": expected,
        "plain.bmp": expected,
        "alpha.png": np.concatenate((expected, alpha), axis=-1),
        "deep.png": expected.astype(np.uint16) * 257,
        "deep.tif": expected.astype(np.uint16) * 257,
    }
    for name, pixels in kinds.items():
        order = [2, 1, 0, 3][: pixels.shape[-1]]
        assert cv2.imwrite(str(tmp_path / name), pixels[..., order])
        difference = np.abs(rgb(tmp_path / name).astype(int) - expected)
        assert (difference.mean(), difference.max()) < (2, 12), name
    grey = scene()[..., 0]
    for name, pixels in (("grey.png", grey), ("grey.tif", grey.astype(np.uint16) * 257)):
        assert cv2.imwrite(str(tmp_path / name), pixels)
        difference = np.abs(rgb(tmp_path / name).astype(int) - grey[..., None])
        assert difference.max() <= 3, name


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    upright = scene()
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned a quarter clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    got = rgb(tmp_path / "turned.jpg")
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).mean() < 3


def test_a_small_picture_in_the_header_hides_no_cut(tmp_path: Path) -> None:
    """A photograph's EXIF holds a small JPEG with an end of its own."""
    Image.fromarray(scene(64, 48)).save(tmp_path / "small.jpg")
    small = (tmp_path / "small.jpg").read_bytes()
    Image.fromarray(scene()).save(tmp_path / "photo.jpg", exif=b"Exif\0\0" + small)
    whole = (tmp_path / "photo.jpg").read_bytes()
    assert small in whole
    assert len(frames(tmp_path / "photo.jpg")) == 1
    for cut in (len(whole) - 2, len(whole) // 2, len(small), 4, 3, 2, 1, 0):
        (tmp_path / "photo.jpg").write_bytes(whole[:cut])
        with pytest.raises(NoVideo, match="none of 1"):
            open_source(str(tmp_path / "photo.jpg"))


def test_the_detector_sees_the_picture_as_lookout_eval_does(
    bikes: Path, detector: Detector, tmp_path: Path
) -> None:
    with closing(open_source(str(bikes), SourceOptions(pace="lossless", start_s=5))) as source:
        frame = source.read()
    assert frame is not None
    path = tmp_path / "bikes.png"
    Image.fromarray(frame.picture.to_ndarray(format="rgb24")).save(path)
    (played,) = frames(path)
    (one,) = detector.detect([played.picture], 0.2)
    (other,) = detector.detect_images([np.asarray(Image.open(path))], 0.2)
    # Two ways of scaling: what is sure in one is in the other.
    for some, all_ in ((one, other), (other, one)):
        sure = some.scores > 0.4
        assert sure.any()
        overlaps = paired_iou(torch.from_numpy(some.boxes[sure])[:, None], torch.from_numpy(all_.boxes))
        best = overlaps.max(1)
        assert bool((best.values > 0.9).all())
        assert all_.classes[best.indices.numpy()].tolist() == some.classes[sure].tolist()
