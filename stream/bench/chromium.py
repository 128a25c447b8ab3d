"""A real headless Chromium that watches the page, and the script that tells which frame it shows.

For benchmarks and browser tests; needs playwright (``lookout[browser]``) and an installed Chromium.
It knows nothing of the server: it opens an address.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from stream.errors import DeviceUnavailable, LookoutError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# For add_init_script: notes every picture that the page presents, without touching the page's code.
#   lookout.joins    performance.now() of each ``new RTCPeerConnection``
#   lookout.shown    of each presented picture [index, shown, now, received, rtp]; index is the barcode's
#                    (stream/barcode.py) or null, times are performance.now() milliseconds
#   lookout.read(picture, width, height)  the barcode in a video or canvas, or null
WATCH_SCRIPT = r"""
window.lookout = { joins: [], shown: [] };
(() => {
  const canvas = document.createElement("canvas");
  canvas.width = 128;
  canvas.height = 16;
  const context = canvas.getContext("2d", { willReadFrequently: true });

  function read(picture, width, height) {
    if (!width) return null;
    context.drawImage(picture, 0, 0, width / 2, height / 9, 0, 0, 128, 16);
    const pixels = context.getImageData(0, 0, 128, 16).data;
    let value = 0, check = 0;
    for (let cell = 0; cell < 32; cell++) {
      const left = (cell % 16) * 8 + 3, top = (cell >> 4) * 8 + 3;
      let sum = 0;
      for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) sum += pixels[((top + y) * 128 + left + x) * 4 + 1];
      const mean = sum / 4;
      if (mean > 100 && mean < 155) return null;
      const bit = mean >= 155 ? 1 : 0;
      if (cell < 24) value = value * 2 + bit;
      else check = check * 2 + bit;
    }
    return crc8(value) === check ? value : null;
  }

  function crc8(value) {
    let crc = 0x5a;
    for (const byte of [value >> 16, (value >> 8) & 255, value & 255]) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 255 : crc << 1;
    }
    return crc;
  }

  function follow(video) {
    video.requestVideoFrameCallback((now, frame) => {
      follow(video);
      const index = read(video, video.videoWidth, video.videoHeight);
      const shown = Math.max(frame.expectedDisplayTime, frame.presentationTime);
      lookout.shown.push([index, shown, now, frame.receiveTime ?? null, frame.rtpTimestamp ?? null]);
      if (lookout.shown.length > 10000) lookout.shown.splice(0, 5000);
    });
  }

  lookout.read = read;
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...given) {
      lookout.joins.push(performance.now());
      super(...given);
    }
  };
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes)
        if (node.querySelectorAll) node.querySelectorAll("video").forEach(follow);
  }).observe(document, { childList: true, subtree: true });
})();
"""


def find_chromium() -> str:
    """The path of an installed Chromium or Chrome.

    Raises:
        DeviceUnavailable: there is none; says what to install.
    """
    for name in _NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    raise DeviceUnavailable(
        f"no browser found (looked for {', '.join(_NAMES)}); install Chromium, e.g. apt-get install chromium"
    )


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A headless Chromium, started with further arguments, closed at the end.

    Raises:
        DeviceUnavailable: playwright or Chromium is not installed.
    """
    executable = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise DeviceUnavailable("playwright is not installed: make setup") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def watching_page(browser: Browser, width: int = 1280, height: int = 800) -> Page:
    """A page of its own context, in which ``WATCH_SCRIPT`` runs before anything else."""
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.add_init_script(WATCH_SCRIPT)
    return page


def wait_for(page: Page, expression: str, timeout_s: float = 15.0) -> None:
    """Until a JavaScript expression holds. (``page.wait_for_function`` needs ``eval``, which our policy forbids.)

    Raises:
        LookoutError: it does not within ``timeout_s``.
    """
    deadline = monotonic() + timeout_s
    while not page.evaluate(expression):
        if monotonic() > deadline:
            raise LookoutError(f"{page.url}: not within {timeout_s:g} s: {expression}")
        page.wait_for_timeout(20)
