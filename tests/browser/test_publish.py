"""A browser's own camera, published from the page: it becomes a camera like any other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from stream.bench.chromium import chromium, wait_for, watching_page
from stream.errors import DeviceUnavailable
from tests.browser.live import wait_until

pytestmark = pytest.mark.slow

Watch = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One that has a made-up camera, and lets every page use it."""
    try:
        with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as opened:
            yield opened
    except DeviceUnavailable as error:
        pytest.skip(str(error))


def test_the_page_publishes_this_devices_camera_and_plays_it(watch: Watch, page: Page) -> None:
    with watch("whip", "synthetic:320x180@15") as app:
        page.goto(app.url)
        tile = page.locator(".tile").first
        expect(tile.locator(".notice")).to_contain_text("nobody publishes yet; publish to /whip/whip")
        page.get_by_role("button", name="Use this device's camera").click()
        status = page.locator(".device [role=status]")
        expect(status).to_have_text("Publishing to whip")
        expect(tile.locator(".state")).to_have_text("Live")
        wait_for(page, "document.querySelector('.tile video').videoWidth > 0")
        wait_for(page, "parseFloat(document.querySelector('.tile .fps').textContent) > 5")
        camera = app.camera("whip")
        print(camera)
        assert (camera["state"], camera["backend"], camera["source"]) == ("live", "whip", "whip")
        assert camera["width"] > camera["height"] > 0
        assert camera["detected"] > 0

        late = watching_page(page.context.browser)
        late.goto(app.url)
        late.get_by_role("button", name="Use this device's camera").click()
        expect(late.locator(".device [role=status]")).to_contain_text(
            "Not published: 409 somebody else publishes to camera 'whip'"
        )
        expect(late.get_by_role("button", name="Use this device's camera")).to_be_visible()
        late.context.close()
        assert app.camera("whip")["state"] == "live", "who is refused disturbs nobody"

        page.get_by_role("button", name="Stop publishing").click()
        expect(tile.locator(".notice")).to_contain_text("the publisher left; publish to /whip/whip")
        wait_until(lambda: app.camera("synthetic")["state"] == "live", 5)
        page.get_by_role("button", name="Use this device's camera").click()
        expect(tile.locator(".state")).to_have_text("Live")
        assert app.camera("whip")["reconnects"] == 1
        page.goto("about:blank")  # a closed tab says good-bye
        wait_until(lambda: "the publisher left" in (app.camera("whip")["reason"] or ""), 5)


def test_what_stands_in_the_way_is_said_and_one_may_choose_the_camera(watch: Watch, page: Page) -> None:
    page.add_init_script(
        "const use = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = async (wanted) => {"
        "  if (window.trouble) throw new DOMException('', window.trouble);"
        "  return use(wanted); };"
    )
    with watch("whip", "whip", "synthetic:320x180@15") as app:
        page.goto(app.url)
        button, status = page.locator(".device button"), page.locator(".device [role=status]")
        for name, words in (
            ("NotAllowedError", "Allow it for this page"),
            ("NotFoundError", "no camera"),
            ("AbortError", "cannot be used"),
        ):
            page.evaluate(f"window.trouble = '{name}'")
            button.click()
            expect(status).to_contain_text(words)
            expect(button).to_have_text("Use this device's camera")
        page.evaluate("window.trouble = null")
        expect(page.locator(".device option")).to_have_text(["whip", "whip-2"])
        page.locator(".device select").select_option("whip-2")
        button.click()
        expect(status).to_have_text(re.compile("Publishing to whip-2$"))
        wait_until(lambda: app.camera("whip-2")["state"] == "live", 8)
        assert app.camera("whip")["state"] == "waiting"

        only = [app.camera("synthetic")]
        page.route("**/api/cameras", lambda route: route.fulfill(json=only))
        expect(page.locator(".tile")).to_have_count(1)
        page.get_by_role("button", name="Stop publishing").click()
        expect(page.locator(".device")).to_be_hidden()
