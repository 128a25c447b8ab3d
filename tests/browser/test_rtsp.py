"""An RTSP camera, from a real server, watched over WHEP in a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from stream.bench.chromium import wait_for
from tests.browser.live import wait_until
from tests.rtsp_server import RtspServer, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

Watch = Callable[..., Any]
RATE = 30


def test_an_rtsp_cameras_frames_are_shown_in_order_and_soon(watch: Watch, page: Page) -> None:
    """The barcode says which frame is shown; the server says when it made that frame."""
    with RtspServer(clip=f"synthetic:640x360@{RATE}") as camera, watch(camera.url) as app:
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 60")
        shown = page.evaluate("lookout.shown")
        newest = page.evaluate("lookout.shown.findLast(entry => entry[0] !== null)[0]")
        age_s = time.monotonic() - (camera.epoch + newest / RATE)
    indices = [entry[0] for entry in shown if entry[0] is not None]
    assert len(indices) >= 0.9 * len(shown), "the barcode must be legible in what is shown"
    assert all(later >= earlier for earlier, later in pairwise(indices))
    assert 0 < age_s < 2, f"the picture shown is {age_s:.1f} s old"


def test_people_of_a_real_clip_over_rtsp_are_tracked(watch: Watch, page: Page, bikes: Path) -> None:
    with RtspServer(clip=bikes, user="admin", password="hunter2hunter2") as camera, watch(camera.url) as app:
        page.goto(app.url)
        wait_for(page, "document.querySelector('video')?.videoWidth == 640")
        (name,) = [each["id"] for each in app.get("api/cameras")]
        wait_until(lambda: app.camera(name)["objects"] > 0, 20)
        status = app.camera(name)
        assert (status["state"], status["codec"], status["viewers"]) == ("live", "h264", 1)
        assert list(status["tracks"]) == ["tentative", "confirmed", "coasting", "lost"]
        wait_for(page, "/tracks: .*1 confirmed/.test(document.querySelector('.detail').textContent)")
        assert "hunter2" not in app.log.read_text()
