"""The camera's own picture in a real browser: it plays, with its boxes, and where it cannot the page says why."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from stream.bench.chromium import wait_for
from tests.browser.live import wait_until
from tests.stream.clips import clip, with_barcodes

Watch = Callable[..., Any]

TILE = "[...document.querySelectorAll('.tile')].find(tile => tile.checkVisibility())"
DRAWN = f"""(() => {{ const canvas = {TILE}?.querySelector("canvas");
    if (!canvas || canvas.hidden || !canvas.width) return 0;
    const {{ data }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, at) => at % 4 === 3 && value).length; }})()"""


def test_the_cameras_own_picture_plays_and_where_it_cannot_the_page_says_why(
    watch: Watch, page: Page, bikes: Path, tmp_path: Path
) -> None:
    high = {"profile": "High", "options": {"bf": "0", "preset": "fast"}}
    own = clip(tmp_path / "own.mp4", with_barcodes(bikes, 200), **high)
    with watch(str(own), str(bikes)) as app:
        page.goto(app.url + "/#/own")
        expect(page.locator(".tile:visible .state")).to_have_text("Live")
        page.select_option(".boxes select", "source")
        wait_until(lambda: app.camera("own")["forwarded"] > 10, 10)
        encoded = app.camera("own")["encoded"]
        page.evaluate("lookout.shown.length = 0")
        wait_for(page, "lookout.shown.length > 45")
        wait_for(page, f"{DRAWN} > 500")
        shown = page.evaluate("lookout.shown.map(([index]) => index)")
        status = app.camera("own")
        assert page.evaluate(f"{TILE}?.querySelector('video').videoHeight") == 272
        page.evaluate("location.hash = '#/bikes'")  # which has B-frames
        expect(page.locator(".tile:visible .detail")).to_contain_text(
            "has B-frames, which no browser shows over WebRTC:"
        )
        wait_for(page, f"{DRAWN} > 500")
        other = app.camera("bikes")
    assert status["encoded"] == encoded, "no picture was encoded meanwhile"
    assert (status["viewers"], status["objects"] > 0) == (1, True)
    assert (other["forwarded"], other["viewers"]) == (0, 1)
    read = [index for index in shown if index is not None]
    assert len(read) > 0.9 * len(shown), "the barcode must be legible in what is shown"
    steps = [(later - earlier) % 200 for earlier, later in pairwise(read)]
    assert max(steps) < 20, "pictures come in order"
    assert sum(step == 1 for step in steps) > 0.5 * len(steps)
