"""A YOLO of random weights becomes a contract file that equals it."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.convert import export_model

torch = pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow


def test_a_checkpoint_equals_its_export(tmp_path: Path) -> None:
    from models.checkpoint import save_checkpoint
    from models.lineage.yolo_v1 import YoloV1, YoloV1Config

    torch.manual_seed(0)
    config = YoloV1Config(("person", "car"), 96, 160, rows=3, columns=5, width=32, hidden=64)
    model = YoloV1(config)
    model.start_from_imagenet()  # features of random weights vanish with depth
    last = model.head[4]
    with torch.no_grad():
        last.weight.mul_(3)
        last.bias.fill_(0.6)
    save_checkpoint(tmp_path / "random.pt", model.eval(), 0, None)
    spec = export_model(tmp_path / "random.pt", tmp_path / "out.onnx", say=print)
    assert spec.family == "yolo-v1"
    assert spec.parity["detections"] > 50
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4
