"""A pyramid of HOG and the filters on it are one graph that equals them."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.artifact import load
from export.convert import export_model

torch = pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow


def test_hog(tmp_path: Path) -> None:
    from models.checkpoint import save_checkpoint
    from models.lineage.hog_detector import HogConfig, HogDetector

    torch.manual_seed(0)
    size = {"input_height": 96, "input_width": 160, "window_height": 64, "window_width": 48, "margin": 8}
    model = HogDetector(HogConfig(("person", "car"), **size, scales_per_octave=2))
    model.filters.normal_().mul_(0.3)
    model.aspect.fill_(0.5)
    save_checkpoint(tmp_path / "random.pt", model, 0, None)
    out = tmp_path / "out.onnx"
    spec = export_model(tmp_path / "random.pt", out, say=lambda line: None)
    print(spec.parity)
    assert (spec.family, spec.nms_threshold) == ("hog-svm", 0.3)
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4
    operators = {node.op_type for node in load(out).graph.node}
    assert "ScatterElements" not in operators
