"""The benchmarks of what models cost, for a moment each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export import pictures, precision
from export.artifact import load, read_spec
from export.speed import on_one_core, run_seconds, speed_ratio
from stream.bench import run
from stream.errors import UsageError

pytestmark = pytest.mark.slow


def test_lower_precisions_are_measured(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "SPEED_S", 0.0)
    monkeypatch.setattr(pictures, "_MANY", {"bikes.mp4": tuple(range(0, 240, 20))})
    figures = run("precision", str(model), 0.5)
    print(figures)
    assert figures["int8_speed"] > 0
    assert figures["fp16_ms"] > 0
    assert figures["int8_agreeing_share"] > 0.8
    assert "int8_AP" not in figures


def test_the_contract_is_measured(
    yolox_nano: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    figures = run("contract", str(yolox_nano), 0.5)
    print(figures)
    assert figures["bare_ms"] > 0
    assert figures["adapted_ms"] > 0
    with pytest.raises(UsageError, match="give a stranger's file"):
        run("contract", str(model), 0.5)


def test_runs_are_paired(model: Path) -> None:

    spec = read_spec(load(model), "model")
    image = np.zeros((1, spec.input_height, spec.input_width, 3), np.uint8)
    first, second = run_seconds([on_one_core(model)] * 2, [[{"images": image}]] * 2, 0.2)
    assert len(first) == len(second) >= 3
    assert 0.5 < speed_ratio(first, second) < 2
