"""Pictures as a source: one file, a folder of them, or those that a pattern such as ``shots/*.jpg`` names.

Each is decoded by OpenCV, turned as its EXIF says, and made into the YUV of a video frame. Knows nothing
of detection, or of video.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from av import VideoFrame

from stream.errors import NoVideo, SourceBroken
from stream.frames import Frame
from stream.sources.base import Listener, SourceInfo, SourceOptions
from stream.sources.clock import Ending, Pacer

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

RATE = 1.0
"""Pictures a second where they are played like a camera, and in an annotated video."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_EXPECTED = f"pictures ({' '.join(SUFFIXES)})"
_START_OF_SCAN, _END_OF_IMAGE, _STANDALONE = 0xDA, b"\xff\xd9", range(0xD0, 0xD9)


def is_pictures(path: Path) -> bool:
    """Whether a path means pictures: a folder, a pattern, or a file with a picture's suffix."""
    return path.is_dir() or is_pattern(path) or path.suffix.lower() in SUFFIXES


def is_pattern(path: Path) -> bool:
    """Whether it is a pattern for file names, as the shell has them; a file may be called like one."""
    return glob.has_magic(str(path)) and not os.path.exists(path)


def picture_files(path: Path) -> tuple[Path, list[Path]]:
    """The folder in which the pictures are, and their files in natural order: ``img2`` before ``img10``.

    A folder's own files count, not those of folders in it; the pattern ``folder/**`` names those too.

    Raises:
        NoVideo: there are none.
    """
    if is_pattern(path):
        root = Path(*_before_pattern(path))
        found = [Path(name) for name in glob.iglob(str(path), recursive=True)]
    else:
        root = path if path.is_dir() else path.parent
        found = list(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in found if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        raise NoVideo(
            f"{path}: there are no pictures; expected a folder or pattern of {_EXPECTED}, or a video"
        )
    return root, sorted(files, key=_natural)


def _before_pattern(path: Path) -> Iterator[str]:
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Digits count as numbers, letters in either case are the same; names alike in that go by themselves."""
    pieces = re.findall(r"\d+|\D+", str(path).lower())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], str(path)


class ImagesSource:
    """One frame a picture, ``RATE`` a second, or with ``pace`` ``lossless`` or ``fastest`` as they are read.

    The list is made once. A picture that cannot be decoded is warned of once, counted and skipped: its
    index is missing. With ``loop`` they come again and again, so that one picture is a camera that stands still.

    Raises:
        NoVideo: there are no pictures, or none from ``start_s`` on.
    """

    forwards = "these are pictures, not a stream that could be passed on"

    def __init__(self, path: Path, options: SourceOptions, stop: threading.Event | None = None) -> None:
        self.bad_packets = 0
        self.listener: Listener | None = None
        self._name, self._loop = str(path), options.loop
        self._root, files = picture_files(path)
        self._files = files[round(options.start_s * RATE) :]
        if not self._files:
            raise NoVideo(
                f"{path}: its {len(files)} pictures, {RATE:g} a second, end before {options.start_s:g} s; begin earlier"
            )
        self._broken: set[Path] = set()
        self._ending = Ending(stop)
        realtime = options.pace == "realtime"
        self._pacer = Pacer(self._ending) if realtime else None
        self._frames = self._play()
        self._first: Frame | None = next(self._frames)
        width, height = self._first.picture.width, self._first.picture.height
        self.info = SourceInfo(
            width, height, "pictures", RATE, live=options.loop and realtime, backend="opencv"
        )

    def read(self) -> Frame | None:
        frame, self._first = self._first or next(self._frames, None), None
        if frame is None or self._ending.is_set():
            return None
        if self._pacer is not None and not self._pacer.wait(frame.time_s):
            return None
        return replace(frame, captured_at=time.monotonic())

    def close(self) -> None:
        self._ending.set()

    def _play(self) -> Iterator[Frame]:
        index = 0
        while True:
            good = 0
            for file in self._files:
                picture = self._decoded(file)
                if picture is not None:
                    good += 1
                    name = file.relative_to(self._root).as_posix()
                    yield Frame(picture, index, index / RATE, 0.0, name)
                index += 1
            if not good:
                raise NoVideo(
                    f"{self._name}: none of {len(self._files)} pictures can be decoded; expected {_EXPECTED}"
                )
            if not self._loop:
                return

    def _decoded(self, file: Path) -> VideoFrame | None:
        if file in self._broken:
            return None
        try:
            return read_picture(file)
        except SourceBroken as error:
            self._broken.add(file)
            self.bad_packets += 1
            log.warning("%s; skipped", error)
            return None


def read_picture(file: Path) -> VideoFrame:
    """A picture file as yuv420p, BT.601 and limited range, upright; what was transparent is as it is underneath.

    Raises:
        SourceBroken: it cannot be read or decoded, or a part of it is missing.
    """
    # Not bgr24, which swscale rounds down in all three planes: two levels darker on average.
    picture = VideoFrame.from_ndarray(read_rgb(file), format="rgb24").reformat(format="yuv420p")
    picture.pts = None
    return picture


def read_rgb(file: Path) -> Pixels:
    """As :func:`read_picture`, as uint8 RGB (height, width, 3)."""
    fault = "expected a whole picture file"
    try:
        data = file.read_bytes()
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if _is_whole(data) else None
    except OSError as error:
        rgb, fault = None, error.strerror or fault
    except cv2.error:
        rgb = None
    if rgb is None:
        raise SourceBroken(f"{file}: this picture cannot be decoded ({fault})")
    return np.asarray(rgb, np.uint8)


def _is_whole(data: bytes) -> bool:
    """False for nothing, and for a JPEG that was cut off, which OpenCV would fill up with grey.

    After the header's segments, each with its length (ITU-T T.81, B.1.1.4), which may hold a whole small
    picture, the marker of the end must come.
    """
    if not data.startswith(b"\xff\xd8"):
        return bool(data)
    at = 2
    while (
        at + 3 < len(data)
        and data[at : at + 1] == b"\xff"
        and data[at + 1 : at + 2] != bytes([_START_OF_SCAN])
    ):
        filling = data[at + 1 : at + 2] == b"\xff" or data[at + 1] in _STANDALONE
        at += (
            (1 if data[at + 1] == 0xFF else 2)
            if filling
            else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        )
    return data.find(_END_OF_IMAGE, at) >= 0
