"""Boxes as data: the page draws each over its own frame, as the server would have drawn it into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from stream.annotate import Annotator
from stream.bench import boxes as bench
from stream.bench.chromium import wait_for
from stream.encode import Codec
from stream.frames import Tracks
from tests.stream.test_encode import flat, planes_of

Watch = Callable[..., Any]

TOKEN = "a-token-of-the-page"

# The outline of a box on a canvas of a size, as rows of 0 and 1.
OUTLINE = """
async ([width, height, track]) => {
  const { outline } = await import("/web/boxes.js");
  const context = new OffscreenCanvas(width, height).getContext("2d");
  outline(context, track, "#ffffff");
  const { data } = context.getImageData(0, 0, width, height);
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => (data[4 * (y * width + x) + 3] ? 1 : 0)).join(""));
}
"""

# How many values of the canvas over the picture are painted.
DRAWN = """
(() => {
  const canvas = document.querySelector(".stage canvas");
  if (!canvas || canvas.hidden || !canvas.width) return 0;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, at) => at % 4 === 3 && value).length;
})()
""".strip()


@pytest.mark.parametrize(("codec", "transform"), [("h264", True), ("h264", False), ("vp8", True)])
def test_every_box_is_of_the_frame_that_is_shown(codec: Codec, transform: bool) -> None:
    """Inside H.264, and on a WebSocket where the page cannot look into frames or they carry nothing."""
    figures = bench.run(4.0, codec, transform)
    print(figures)
    assert figures["pictures"] >= 80
    assert figures["wrong"] == 0
    in_time = figures["right"] + (0 if codec == "h264" and transform else figures["late"])
    assert in_time >= 0.9 * figures["pictures"]


def test_outlines_are_those_of_the_server(watch: Watch, page: Page) -> None:
    random = np.random.default_rng(0)
    with watch("synthetic:320x180@5") as app:
        page.goto(app.url)
        for width, height in ((640, 360), (1280, 720), (1920, 1080)):
            for coasting in (False, True, False, True):
                x1, y1 = random.uniform(-30, width - 60), random.uniform(80, height - 60)
                x2, y2 = x1 + random.uniform(20, 300), y1 + random.uniform(20, 300)
                drawn, expected = both_outlines(page, width, height, (x1, y1, x2, y2), coasting)
                assert expected.any()
                np.testing.assert_array_equal(drawn, expected)


def both_outlines(
    page: Page, width: int, height: int, box: tuple[float, float, float, float], coasting: bool
) -> tuple[Any, Any]:
    """Which pixels from the box's top on the page paints, and which the server."""
    one, boxes = np.ones(1, np.int64), np.array([box], np.float32)
    tracks = Tracks(boxes, one.astype(np.float32), one * 0, one, one.astype(np.float32), one == coasting)
    track = {"box": boxes[0].tolist(), "coasting": coasting}
    drawn = np.array([list(row) for row in page.evaluate(OUTLINE, [width, height, track])]) == "1"
    luma = planes_of(Annotator().draw(flat(width, height, 30), tracks))[0]
    top = max(0, 2 * round(float(boxes[0, 1]) / 2))  # the label lies above
    return drawn[top:], (luma != 30)[top:]


def test_what_is_wanted_is_chosen_and_kept(watch: Watch, page: Page, bikes: Path, yolox_nano: Path) -> None:
    with watch(str(bikes), "--model", str(yolox_nano)) as app:
        page.goto(app.url)
        expect(page.locator(".state")).to_have_text("Live")
        assert page.evaluate(DRAWN) == 0
        page.select_option(".boxes select", "data")
        wait_for(page, f"{DRAWN} > 500")
        page.reload()
        wait_for(page, f"{DRAWN} > 500")
        page.click(".boxes summary")
        for name in app.get("api/app")["detectors"]["default"]["names"]:
            page.locator(f"fieldset input[name='{name}']").evaluate("box => box.checked && box.click()")
        wait_for(page, f"{DRAWN} === 0")
        page.wait_for_timeout(500)
        assert page.evaluate(DRAWN) == 0
        page.locator("fieldset input[name='person']").check()
        wait_for(page, f"{DRAWN} > 500")
        hidden = json.loads(page.evaluate("localStorage.getItem('lookout.boxes')"))["hidden"]
        assert "person" not in hidden
        assert "car" in hidden
        page.select_option(".boxes select", "none")
        assert page.evaluate(DRAWN) == 0
        assert page.locator(".boxes details").is_hidden()


def test_boxes_come_by_websocket_where_a_token_is_set(
    watch: Watch, page: Page, bikes: Path, yolox_nano: Path, tmp_path: Path
) -> None:
    """The page's cookie opens it. What ends with the session is opened anew with the next."""
    config = tmp_path / "token.yaml"
    config.write_text(f"server: {{token: {TOKEN}}}\ncameras: {{bikes: {{source: {bikes}}}}}\n")
    page.add_init_script("delete window.RTCRtpScriptTransform")
    with watch("--config", str(config), "--model", str(yolox_nano)) as app:
        page.goto(f"{app.url}/?token={TOKEN}")
        for _ in range(2):
            page.select_option(".boxes select", "data")
            wait_for(page, f"{DRAWN} > 500")
            page.select_option(".boxes select", "drawn")
            wait_for(page, f"{DRAWN} === 0")


def test_a_track_says_more_under_the_pointer(watch: Watch, page: Page, bikes: Path, yolox_nano: Path) -> None:
    with watch(str(bikes), "--model", str(yolox_nano)) as app:
        page.goto(app.url)
        page.select_option(".boxes select", "data")
        wait_for(page, "document.querySelector('.stage canvas')?.width > 0")
        title = "document.querySelector('.stage canvas').title"
        bounds = page.locator(".stage canvas").bounding_box()
        assert bounds is not None
        for _ in range(400):
            for share in (0.2, 0.4, 0.5, 0.6, 0.8):
                page.mouse.move(bounds["x"] + share * bounds["width"], bounds["y"] + 0.55 * bounds["height"])
                said = page.evaluate(title)
                if "person" in said:
                    break
            else:
                page.wait_for_timeout(20)
                continue
            break
        print(said)
        assert ": score 0." in said or ": not seen now" in said
        assert said.splitlines()[0].endswith(" s")
