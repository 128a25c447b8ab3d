"""Another model while a page draws the boxes: its names come with its boxes, and the picture never stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect

from stream.bench.chromium import wait_for
from tests.stream.test_live_detectors import renamed

pytestmark = pytest.mark.slow

# Every label that the page draws, in order, without ids and scores.
KEEP_LABELS = """
window.labels = [];
const fillText = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
  labels.push(text.replace(/[\\d.\\s]+$/, "").trim());
  fillText.call(this, text, ...where);
};
"""


def test_names_come_with_the_boxes_of_their_model(
    watch: Callable[..., Any], page: Page, bikes: Path, model: Path, tmp_path: Path
) -> None:
    other = renamed(model, tmp_path / "other.onnx", "my ")
    config = tmp_path / "lookout.yaml"
    config.write_text(
        f"server: {{allow_models: [{tmp_path}]}}\ndetector: {{score_threshold: 0.15}}\n"
        f"cameras: {{bikes: {{source: {bikes}, detect_fps: 10}}}}\n"
    )
    page.add_init_script(KEEP_LABELS)
    with watch("--config", str(config)) as app:
        page.goto(app.url)
        page.select_option(".boxes select", "data")
        wait_for(page, "labels.length > 20", 60)
        wait_for(page, "document.querySelector('.detail').textContent.includes('by lookout-nano')")
        joins = page.evaluate("lookout.joins.length")
        wish = {"model": other.name, "score_threshold": 0.15}
        httpx.put(f"{app.url}/api/detector", json=wish, timeout=120, trust_env=False).raise_for_status()
        wait_for(page, "labels.filter((label) => label.startsWith('my ')).length > 20", 60)
        wait_for(page, "document.querySelector('.detail').textContent.includes('by other')")
        expect(page.locator(".state")).to_have_text("Live")
        assert page.evaluate("lookout.joins.length") == joins, "the session went on"
        labels = page.evaluate("labels")
    named = [label for label in labels if label]
    first = next(index for index, label in enumerate(named) if label.startswith("my "))
    assert {label.split()[0] for label in named[first:]} == {"my"}, "no old name once there was a new one"
    print(len(labels) - len(named), "of", len(labels), "labels came before their names")
    assert not [label for label in labels[-10:] if not label]
