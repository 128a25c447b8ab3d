"""The real app in a process of its own, and a real headless Chromium that watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from stream.bench.chromium import chromium, watching_page
from stream.errors import DeviceUnavailable
from tests.browser.live import running
from tests.browser.walking import cut_out, film


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Any]:
    """``with watch("synthetic:…") as app`` starts the real app."""

    def start(*arguments: str) -> Any:
        return running(*arguments, log=tmp_path / f"watch{time.monotonic_ns()}.log")

    return start


@pytest.fixture(scope="session")
def person(bikes: Path) -> np.ndarray:
    """Who walks in ``walk``: gray, (height, width) uint8."""
    return cut_out(bikes)


@pytest.fixture(scope="session")
def walk(person: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip of ``tests/browser/walking.py``."""
    return film(person, tmp_path_factory.mktemp("walk") / "walk.mp4")


# Of the module, not of the session: playwright keeps an event loop running, which asyncio tests in
# other modules would trip over.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        opened = chromium()
        with opened as running_browser:
            yield running_browser
    except DeviceUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test if its own scripts or its security policy complain."""
    opened = watching_page(browser)
    opened.set_default_timeout(15000)
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if _is_ours(message.text) else None)
    yield opened
    opened.context.close()
    assert not faults, faults


def _is_ours(text: str) -> bool:
    """A complaint of a script or the policy, not the browser's remark that a server is away."""
    return "Content Security Policy" in text or "Uncaught" in text
