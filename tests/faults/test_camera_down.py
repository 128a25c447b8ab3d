"""A camera that is down at start, comes up, dies and comes back; its neighbour sees nothing of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from stream.config import AppConfig, CameraConfig
from stream.detector import Detector
from stream.pipeline import Pipeline
from tests.rtsp_server import RtspServer


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


@pytest.fixture
def server(ready_bikes: Path) -> Iterator[RtspServer]:
    with RtspServer(ready_bikes, as_is=True) as server:
        yield server


def test_a_camera_comes_up_late_and_comes_back_after_it_died(server: RtspServer, detector: Detector) -> None:
    server.stop()  # its port is now known, and nobody answers
    config = AppConfig(
        cameras={
            "late": CameraConfig(source=server.url, max_backoff_s=1, stall_s=2),
            "good": CameraConfig(source="demo"),
        }
    )
    pipeline = Pipeline(config, detector)
    late, good = pipeline.cameras["late"], pipeline.cameras["good"]
    pipeline.start()
    try:
        wait_until(lambda: late.status().state == "reconnecting", "down at start")
        assert "unreachable" in (late.status().reason or "")
        assert (late.status().last_picture_age_ms, late.status().backend_reason) == (None, None)
        wait_until(lambda: good.status().detected > 5, "the good camera runs meanwhile")

        server.restart()
        wait_until(lambda: late.status().state == "live" and late.status().detected > 5, "up")
        before = late.snapshot()
        assert before is not None

        server.stop()
        wait_until(lambda: late.status().state == "reconnecting", "noticed that it died")
        wait_until(lambda: late.status().retry_in_s is not None, "it says when it tries again")
        wait_until(lambda: late.status().state_since_s > 1, "it says for how long")
        assert (late.status().last_picture_age_ms or 0) > 1000
        server.restart()
        seen = late.status().detected
        wait_until(lambda: late.status().state == "live" and late.status().detected > seen + 5, "up again")
        assert (good.status().reconnects, late.status().stalls) == (0, 0)
        assert late.status().retry_in_s is None
        assert good.status().state == "live"
    finally:
        began = time.monotonic()
        pipeline.stop()
        assert time.monotonic() - began < 2.5
    assert not any(thread.name.startswith(("decode-", "detect")) for thread in threading.enumerate())


def test_time_and_index_go_on_across_a_reconnection(server: RtspServer, detector: Detector) -> None:
    pipeline = Pipeline(
        AppConfig(cameras={"one": CameraConfig(source=server.url, max_backoff_s=1, stall_s=2)}), detector
    )
    camera = pipeline.cameras["one"]
    frames = []
    take = camera.detected

    def keep(frame, detections, tracking):  # type: ignore[no-untyped-def]
        frames.append(frame)
        return take(frame, detections, tracking)

    camera.detected = keep  # type: ignore[method-assign]
    pipeline.start()
    try:
        wait_until(lambda: len(frames) > 5, "frames")
        count = len(frames)
        server.stop()
        wait_until(lambda: camera.status().state == "reconnecting", "noticed")
        server.restart()
        wait_until(lambda: len(frames) > count + 10, "frames again")
    finally:
        pipeline.stop()
    assert all(later.time_s > earlier.time_s for earlier, later in pairwise(frames))
    assert all(later.index > earlier.index for earlier, later in pairwise(frames))
