"""The box that a browser shows belongs to the very frame that it is drawn on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from stream.bench.chromium import wait_for
from tests.browser.walking import LEG, MEASURE, RATE, boxed_pictures, check_on_own_frame

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("overlay", "boxes"), [("exact", "drawn"), ("smooth", "data")])
def test_a_box_is_drawn_on_its_own_frame(
    watch: Callable[..., Any],
    page: Page,
    walk: Path,
    person: np.ndarray,
    overlay: str,
    boxes: str,
    yolox_nano: Path,
) -> None:
    # A stranger's model, so that this is about overlays alone, whatever the embedded model can do.
    with watch(str(walk), "--overlay", overlay, "--score", "0.6", "--model", str(yolox_nano)) as app:
        page.goto(app.url)
        page.select_option(".boxes select", boxes)
        page.wait_for_timeout(1000)  # the page joins again
        page.evaluate("lookout.shown.length = 0")
        wait_for(page, "lookout.shown.length > 10")
        page.evaluate(MEASURE)
        page.wait_for_timeout(2 * LEG / RATE * 1000 + 1000)
        measured = page.evaluate("measured")
    check_on_own_frame(boxed_pictures(measured), person.shape[1], f"{overlay}, {boxes}")
