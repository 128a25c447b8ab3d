"""A viewer on a bad network gets what can be had and recovers; the others see nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, Page

from stream.bench.chromium import wait_for, watching_page
from tests.browser.bad_network import BadNetwork, bad_network
from tests.browser.live import running
from tests.browser.turn import RELAY_ONLY, config, turn_server

pytestmark = pytest.mark.slow

FREEZES = """
async () => [...(await peer.getStats()).values()].find(({ type }) => type === "inbound-rtp").freezeCount
"""


ROUND_TRIP = """
async () => {
  const report = await peer.getStats();
  const transport = [...report.values()].find((entry) => entry.type === "transport");
  return report.get(transport.selectedCandidatePairId).currentRoundTripTime;
}
"""


@dataclass(frozen=True)
class Watched:
    """A viewer behind ``network``, and one beside it on a good path."""

    hit: Page
    other: Page
    network: BadNetwork


@pytest.fixture(scope="module")
def both(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("network")
    with turn_server(folder) as port, bad_network(port) as network:
        ice = f"'turn:127.0.0.1:{network.port}?transport=udp'"
        path = config(folder / "turn.yaml", ice, "synthetic:1280x720@30")
        with running("--config", str(path), log=folder / "watch.log") as app:
            hit, other = watching_page(browser), watching_page(browser)
            hit.add_init_script(RELAY_ONLY)
            for page in (hit, other):
                page.goto(app.url)
                wait_for(page, "lookout.shown.length > 30")
            yield Watched(hit, other, network)
            for page in (hit, other):
                page.context.close()


@pytest.fixture
def watched(both: Watched) -> Watched:
    """Both viewers, on a network that is good at first."""
    network = both.network
    network.loss, network.delay_s, network.kbps, network.cut, network.lost = 0.0, 0.0, None, False, 0
    pause(both.hit, 1.0)
    return both


def pause(page: Page, seconds: float) -> list[float]:
    """Let ``seconds`` pass; when pictures with a new number were shown meanwhile, in seconds."""
    page.evaluate("lookout.shown.length = 0")
    page.wait_for_timeout(1000 * seconds)
    return shown_s(page)


def shown_s(page: Page) -> list[float]:
    """When pictures with a new number were shown since the last ``pause`` began, in seconds."""
    shown = page.evaluate("lookout.shown")
    return [later[1] / 1000 for earlier, later in pairwise(shown) if later[0] != earlier[0]]


def longest_gap_s(times_s: list[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(times_s))


def test_two_percent_of_loss_freezes_nothing(watched: Watched) -> None:
    before = watched.hit.evaluate(FREEZES)
    watched.network.loss = 0.02
    times_s = pause(watched.hit, 5.0)
    print(len(times_s), longest_gap_s(times_s), watched.network.lost)
    assert watched.network.lost > 5
    assert watched.hit.evaluate(FREEZES) == before
    assert longest_gap_s(times_s) < 0.25


def test_ten_percent_of_loss_goes_on(watched: Watched) -> None:
    watched.network.loss = 0.10
    times_s = pause(watched.hit, 5.0)
    print(len(times_s), longest_gap_s(times_s), watched.network.lost)
    assert watched.network.lost > 50
    assert len(times_s) > 5 * 30 * 0.5
    assert longest_gap_s(times_s) < 1.0


def test_an_outage_is_over_within_a_second_of_its_end(watched: Watched) -> None:
    watched.other.evaluate("lookout.shown.length = 0")
    watched.network.cut = True
    assert len(pause(watched.hit, 1.2)) < 15
    watched.network.cut = False
    others_s = shown_s(watched.other)
    assert len(others_s) > 25
    assert longest_gap_s(others_s) < 0.25
    ended_s = watched.hit.evaluate("performance.now()") / 1000
    times_s = pause(watched.hit, 3.0)
    print(times_s[0] - ended_s, longest_gap_s(times_s))
    assert times_s[0] - ended_s < 1.0
    assert len([time_s for time_s in times_s if time_s > ended_s + 1]) > 40


def test_a_long_way_costs_its_time_and_nothing_else(watched: Watched) -> None:
    watched.network.delay_s = 0.1
    pause(watched.hit, 1.5)
    watched.other.evaluate("lookout.shown.length = 0")
    times_s = pause(watched.hit, 3.0)
    others_s = shown_s(watched.other)  # what this machine can show at all
    print(len(times_s), len(others_s), longest_gap_s(times_s))
    assert watched.hit.evaluate(ROUND_TRIP) > 0.15
    assert len(times_s) > len(others_s) * 0.75 > 20
    assert longest_gap_s(times_s) < 0.25


def test_a_narrow_path_gets_a_smaller_picture_and_disturbs_nobody_else(watched: Watched) -> None:
    height = "(document.querySelector('video')?.videoHeight ?? 0)"
    watched.hit.reload()  # the loss before may have left it with a small picture
    wait_for(watched.hit, f"{height} == 720")
    watched.network.kbps = 500
    others_s = pause(watched.other, 2.0)
    assert watched.network.lost > 20
    assert longest_gap_s(others_s) < 0.25
    wait_for(watched.hit, f"0 < {height} && {height} < 720")
    small = watched.hit.evaluate(height)
    pause(watched.hit, 1.0)
    assert len(pause(watched.hit, 2.0)) > 40, "what gets through is watched without a break"
    assert watched.other.evaluate(height) == 720
    watched.network.kbps = None
    wait_for(watched.hit, f"{height} > {small}")
    assert len(pause(watched.hit, 2.0)) > 40
