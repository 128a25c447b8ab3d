"""The benchmarks that take hours, for a few seconds: a real app, real cameras, real viewers.

What their figures are is theirs to say; here they have to be there, and to add up.
"""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks import flapping, soak
from tests.benchmarks.sampling import observed, quantile
from tests.rtsp_server import missing

SOON = 41  # with which the camera is restarted after a second

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib, of the extra plots")
def test_soak(tmp_path: Path) -> None:
    figures = soak.run(6.0, tmp_path, sample_s=0.5)
    assert figures["ending"] == {"exit_code": 0, "tracebacks": 0}
    print(figures["happened"])
    assert figures["happened"]["camera killed"] >= 1
    assert figures["samples"] >= 3
    assert figures["growth"]["rss_mb"]["last"] > 50
    assert figures["growth"]["age_p99_ms"]["last"] > 0
    assert figures["cameras"]["demo"]["fps"] > 0
    with (tmp_path / "samples.csv").open() as file:
        assert len(list(csv.DictReader(file))) == figures["samples"]
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_flapping(tmp_path: Path) -> None:
    figures = flapping.run(1.0, tmp_path, good=1, flapping=1, seed=SOON)
    assert figures["ending"] == {"exit_code": 0, "tracebacks": 0}
    assert sum(figures["flaps"].values()) >= 1
    for phase in ("baseline", "flapping"):
        counted = figures[phase]["all"]
        assert counted["sent"] >= 15
        assert counted["sent"] == counted["decoded"] + counted["lost"]
        assert counted["lost"] == counted["missed"], "no frame of a held stream is under way"
        assert counted["detected"] > 0


def test_quantiles_of_histograms_that_grow() -> None:
    before = {("a", 0.1): 5.0, ("a", 0.2): 5.0, ("a", float("inf")): 5.0}
    after = {
        **{("a", 0.1): 5.0, ("a", 0.2): 9.0, ("a", float("inf")): 9.0},
        **{("new", 0.1): 4.0, ("new", 0.2): 4.0, ("new", float("inf")): 6.0},
    }
    buckets = observed(before, after)
    assert buckets == {0.1: 4.0, 0.2: 4.0, float("inf"): 2.0}
    assert quantile(buckets, 0.2) == pytest.approx(0.05)
    assert quantile(buckets, 0.6) == pytest.approx(0.15)
    assert quantile(buckets, 0.99) == 0.2, "no more is known of what is above the last bound"
