"""A viewer that reaches the camera through a TURN server alone: a real coturn, a real Chromium."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from stream.bench.chromium import wait_for
from tests.browser.turn import RELAY_ONLY, SECRET, config, turn_server

pytestmark = pytest.mark.slow

PAIR = """
async () => {
  const report = await peer.getStats();
  const transport = [...report.values()].find((entry) => entry.type === "transport");
  return report.get(report.get(transport.selectedCandidatePairId).localCandidateId).candidateType;
}
"""


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[int]:
    with turn_server(tmp_path) as port:
        yield port


def test_pictures_come_through_a_turn_server(
    watch: Callable[..., Any], page: Page, turn: int, tmp_path: Path
) -> None:
    path = config(tmp_path / "turn.yaml", f"'turn:127.0.0.1:{turn}?transport=udp'")
    with watch("--config", str(path)) as app:
        page.add_init_script(RELAY_ONLY)
        page.goto(app.url)
        wait_for(page, "lookout.shown.length > 20")
        assert page.evaluate(PAIR) == "relay"


def test_viewers_are_told_of_servers_with_credentials_that_expire(
    watch: Callable[..., Any], tmp_path: Path
) -> None:
    path = config(tmp_path / "turn.yaml", "'turn:192.0.2.1:3478', 'turns:turn.example.net:5349'")
    with watch("--config", str(path)) as app:
        request = urllib.request.Request(f"{app.url}/whep/door", method="OPTIONS")
        with urllib.request.urlopen(request, timeout=5) as response:
            links = response.headers.get_all("Link")
    assert [link.partition(";")[0] for link in links] == [
        "<turn:192.0.2.1:3478>",
        "<turns:turn.example.net:5349>",
    ]
    assert all('rel="ice-server"' in link and ':lookout"; credential="' in link for link in links)
    assert SECRET not in "".join(links)


def test_the_page_reads_link_headers(watch: Callable[..., Any], page: Page) -> None:
    header = (
        '<stun:a.example.net>; rel="ice-server", <turn:b.example.net?transport=udp>; rel="ice-server"; '
        'username="1:x, y"; credential="q\\"\\\\;,"; credential-type="password", <https://c>; rel="next"'
    )
    with watch("synthetic:320x180@5") as app:
        page.goto(app.url)
        read = page.evaluate('async (header) => (await import("/web/session.js")).iceServers(header)', header)
    assert read == [
        {"urls": "stun:a.example.net"},
        {"urls": "turn:b.example.net?transport=udp", "username": "1:x, y", "credential": 'q"\\;,'},
    ]
