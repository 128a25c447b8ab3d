"""What a viewer sees when something is down, and what the server sees when a viewer goes."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from stream.bench.chromium import wait_for, watching_page
from tests.browser.live import wait_until
from tests.rtsp_server import RtspServer, missing

Watch = Callable[..., Any]


def test_a_camera_that_is_down_says_why_and_comes_up_by_itself(
    watch: Watch, page: Page, bikes: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later.mp4"
    with watch(str(later), "synthetic:320x180@15") as app:
        page.goto(app.url)
        down = page.locator(".tile", has=page.get_by_role("heading", name="later"))
        other = page.locator(".tile", has=page.get_by_role("heading", name="synthetic"))
        expect(down.locator(".notice")).to_contain_text("not found")
        expect(down.locator(".state")).to_have_text("Reconnecting")
        expect(other.locator(".state")).to_have_text("Live")
        expect(other).to_have_attribute("data-tone", "live")
        shutil.copy(bikes, later)
        expect(down).to_have_attribute("data-tone", "live", timeout=20000)
        expect(down.locator(".notice")).not_to_be_visible()
        assert down.locator("video").evaluate("v => v.videoWidth") == 640


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_camera_that_is_away_shows_its_last_picture_dimmed_and_goes_on_in_the_same_session(
    watch: Watch, page: Page, ready_bikes: Path
) -> None:
    joins: list[str] = []
    page.on("request", lambda request: joins.append(request.url) if request.method == "POST" else None)
    with RtspServer(ready_bikes, as_is=True) as server, watch(server.url) as app:
        (camera,) = app.get("api/cameras")
        page.goto(app.url)
        tile, video = page.locator(".tile"), page.locator(".tile video")
        expect(tile).to_have_attribute("data-tone", "live", timeout=20000)
        expect(video).to_have_css("opacity", "1")
        server.stop()
        expect(tile).to_have_attribute("data-tone", "down")
        expect(video).to_have_css("opacity", "0.35")
        expect(tile.locator(".notice span")).to_contain_text("unreachable")
        expect(tile.locator(".notice small")).to_have_text(re.compile(r"retrying in \d+ s"))
        expect(tile.locator(".state")).to_have_text("Reconnecting")
        assert video.evaluate("v => v.videoWidth") > 0, "its last picture stays"

        late = page.context.new_page()
        late.goto(app.url)
        poster = f"api/cameras/{camera['id']}/snapshot.jpg"
        expect(late.locator(".tile video")).to_have_attribute("poster", poster)
        assert late.evaluate(f"fetch('{poster}').then(answer => answer.ok)")
        late.close()

        server.restart()
        expect(tile).to_have_attribute("data-tone", "live", timeout=20000)
        expect(video).to_have_css("opacity", "1")
        before = page.evaluate("lookout.shown.length")
        wait_for(page, f"lookout.shown.length > {before + 5}", 20)
        assert len(joins) == 1


def test_closing_the_page_ends_its_session(watch: Watch, browser: Browser) -> None:
    with watch("synthetic:320x180@15") as app:
        page = watching_page(browser)
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 3")
        assert app.camera("synthetic")["viewers"] == 1
        page.close(run_before_unload=False)
        wait_until(lambda: app.camera("synthetic")["viewers"] == 0, 3)
        page.context.close()


def test_leaving_for_another_page_ends_its_session(watch: Watch, page: Page) -> None:
    with watch("synthetic:320x180@15") as app:
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 3")
        assert app.camera("synthetic")["viewers"] == 1
        page.goto("about:blank")
        wait_until(lambda: app.camera("synthetic")["viewers"] == 0, 3)
        page.go_back()
        wait_for(page, "lookout.shown.length > 3")
        assert app.camera("synthetic")["viewers"] == 1


@pytest.mark.slow
def test_a_killed_tab_is_noticed(watch: Watch, browser: Browser) -> None:
    with watch("synthetic:320x180@15") as app:
        killed, stays = watching_page(browser), watching_page(browser)
        for page in (killed, stays):
            page.goto(app.url)
            wait_for(page, "lookout.shown.length > 3")
        assert app.camera("synthetic")["viewers"] == 2
        with contextlib.suppress(Error):  # the renderer is gone, which is what was asked for
            killed.goto("chrome://crash", timeout=3000)
        wait_until(lambda: app.camera("synthetic")["viewers"] == 1, 20)
        before = stays.evaluate("lookout.shown.length")
        wait_for(stays, f"lookout.shown.length > {before + 5}")
        killed.context.close()
        stays.context.close()


def test_the_page_comes_back_after_the_server_does(watch: Watch, page: Page) -> None:
    with watch("synthetic:320x180@15") as app:
        port = app.url.rsplit(":", 1)[1]
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 3")
    expect(page.locator(".banner")).to_have_text(re.compile("does not answer"))
    with watch("synthetic:320x180@15", "--port", port):
        expect(page.locator(".banner")).not_to_be_visible()
        before = page.evaluate("lookout.shown.length")
        wait_for(page, f"lookout.shown.length > {before + 5}", 20)
        expect(page.locator(".tile")).to_have_attribute("data-tone", "live")
