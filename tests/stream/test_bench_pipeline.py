"""The benchmark of the whole path, for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.bench import pipeline, run
from stream.cores import usable_cores

pytestmark = pytest.mark.slow


def test_the_whole_path_is_held_against_its_bare_parts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ROUNDS", 1)
    monkeypatch.setattr(pipeline, "FRAMES", 30)
    figures = run("pipeline", str(model), 1.0)
    print(figures)
    parts_ms = figures["decode_ms"] + figures["run_ms"] + figures["encode_ms"]
    assert figures["allowed_fps"] == pytest.approx(1000 * usable_cores() / parts_ms, rel=0.02)
    assert figures["efficiency"] == pytest.approx(figures["fps"] / figures["allowed_fps"], rel=0.02)
    assert figures["share_of_bare_loop"] == pytest.approx(
        figures["efficiency"] / figures["bare_loop_efficiency"], rel=0.02
    )
    assert figures["host_ms_per_frame"] == pytest.approx(figures["cpu_ms_per_frame"] - parts_ms, abs=0.05)
