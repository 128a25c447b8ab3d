"""The page in a real browser: what it shows is what the cameras see, and hidden tiles cost nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from stream.bench.chromium import wait_for
from tests.browser.live import wait_until

Watch = Callable[..., Any]


def test_shown_pictures_are_the_cameras_frames_in_order(watch: Watch, page: Page) -> None:
    with watch("synthetic:1280x720@30") as app:
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 90")
        shown = page.evaluate("lookout.shown")
        indices = [entry[0] for entry in shown if entry[0] is not None]
        assert len(indices) >= 0.95 * len(shown), "the barcode must be legible in what is shown"
        assert all(later >= earlier for earlier, later in pairwise(indices))
        assert indices[-1] - indices[0] >= 60
        # Loopback must not lose most frames on the way.
        assert len(set(indices)) >= 0.5 * (indices[-1] - indices[0])
        newest = page.evaluate("lookout.shown.findLast(entry => entry[0] !== null)[0]")
        assert abs(app.camera("synthetic")["decoded"] - newest) < 30, "the picture shown is an old one"


def test_figures_say_what_is_received(watch: Watch, page: Page) -> None:
    with watch("synthetic:1280x720@30") as app:
        page.goto(app.url)
        tile = page.locator(".tile")
        expect(tile.locator(".state")).to_have_text("Live")
        expect(tile.locator(".codec")).to_have_text("H264")
        expect(tile.locator(".latency")).to_have_text(re.compile(r"≈ \d+ ms"))
        expect(tile.locator(".objects")).to_have_text(re.compile(r"\d+ objects?"))
        wait_for(page, "parseFloat(document.querySelector('.fps').textContent) > 15")
        about = app.get("api/app")["detectors"]["default"]
        expect(page.locator(".about")).to_contain_text(about["model"])
        expect(page.locator(".about")).to_contain_text(about["device"])
        size = page.evaluate("(v => [v.videoWidth, v.videoHeight])(document.querySelector('video'))")
        assert size == [1280, 720]


def test_list_one_and_all(watch: Watch, page: Page, bikes: Path) -> None:
    with watch("synthetic:640x360@15", "synthetic:320x180@15", str(bikes)) as app:
        page.goto(app.url)
        entries = page.locator(".cameras a")
        expect(entries).to_have_text(["All", "synthetic", "synthetic-2", "bikes"])
        playing = "[...document.querySelectorAll('video')].filter(v => v.videoWidth && !v.paused).length"
        wait_for(page, f"{playing} == 3")
        joins = page.evaluate("lookout.joins.length")

        page.locator(".tile .stage").nth(1).click()
        expect(page.locator(".tile:visible h2")).to_have_text(["synthetic-2"])
        expect(page).to_have_url(re.compile("#/synthetic-2$"))
        expect(entries.nth(2)).to_have_attribute("aria-current", "page")
        # The tiles that cannot be seen cost the server nothing, and the one that stays is not joined anew.
        wait_until(lambda: app.camera("synthetic")["viewers"] == 0 == app.camera("bikes")["viewers"], 8)
        assert app.camera("synthetic-2")["viewers"] == 1
        assert page.evaluate("lookout.joins.length") == joins

        page.keyboard.press("ArrowRight")
        expect(page.locator(".tile:visible h2")).to_have_text(["bikes"])
        wait_until(lambda: app.camera("bikes")["viewers"] == 1, 8)
        page.keyboard.press("Escape")
        expect(page.locator(".tile:visible")).to_have_count(3)
        page.go_back()
        expect(page.locator(".tile:visible h2")).to_have_text(["bikes"])
        entries.first.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".tile:visible")).to_have_count(3)
        wait_until(lambda: all(camera["viewers"] == 1 for camera in app.get("api/cameras")), 8)


def test_tiles_below_the_fold_do_not_stream(watch: Watch, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 420})
    with watch(*["synthetic:320x180@10"] * 4) as app:
        page.goto(app.url)
        expect(page.locator(".tile")).to_have_count(4)
        wait_for(page, "lookout.shown.length > 5")
        assert app.camera("synthetic-4")["viewers"] == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, (
            "a phone must not scroll sideways"
        )
        page.locator(".tile").last.scroll_into_view_if_needed()
        wait_until(lambda: app.camera("synthetic-4")["viewers"] == 1, 8)
        wait_until(lambda: app.camera("synthetic")["viewers"] == 0, 8)


SIZES = "[...document.querySelectorAll('video')].map(video => video.videoHeight).join()"


def test_each_tile_gets_the_picture_that_it_can_show(watch: Watch, page: Page) -> None:
    page.set_viewport_size({"width": 900, "height": 800})
    with watch("synthetic:1280x720@30", "synthetic:1280x720@15") as app:
        page.goto(app.url)
        wait_for(page, f"{SIZES} == '360,360'")
        joins = page.evaluate("lookout.joins.length")
        page.locator(".tile .stage").first.click()
        wait_for(page, f"{SIZES}.startsWith('720')")
        page.evaluate("lookout.shown.length = 0")
        wait_for(page, "lookout.shown.length > 20")
        shown = [index for index, *_ in page.evaluate("lookout.shown") if index is not None]
        assert len(shown) > 10, "the barcode must be legible in what is shown"
        page.locator(".tile:visible .stage").click()
        wait_for(page, f"{SIZES} == '360,360'")
        assert page.evaluate("lookout.joins.length") == joins, "it goes on without joining anew"
        page.set_viewport_size({"width": 500, "height": 400})
        page.evaluate("document.querySelector('main').style.width = '260px'")
        wait_for(page, f"{SIZES} == '180,180'")
