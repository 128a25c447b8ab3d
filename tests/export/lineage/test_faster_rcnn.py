"""Checkpoints of both Faster R-CNNs become contract files that equal them (a small input)."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.artifact import load, read_spec
from export.convert import export_model

torch = pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 96, 160


def checkpoint(family: str, folder: Path) -> Path:
    """A network whose scores are spread: the backbone is trained where it can be, all else is random."""
    from models.checkpoint import save_checkpoint
    from models.lineage.faster_rcnn import FasterRcnn, FasterRcnnConfig
    from models.lineage.faster_rcnn_fpn import FasterRcnnFpn, FasterRcnnFpnConfig

    torch.manual_seed(0)
    names = ("person", "car")
    if family == "faster-rcnn":
        model = FasterRcnn(
            FasterRcnnConfig(names, HEIGHT, WIDTH, anchor_sizes=(16, 32, 64), rpn_width=32, proposals=60)
        )
        model.start_from_imagenet()
        predictor = model.predictor
    else:
        model = FasterRcnnFpn(
            FasterRcnnFpnConfig(names, HEIGHT, WIDTH, backbone="resnet18", proposals=60, head_width=64)
        )
        predictor = model.roi_heads["box_predictor"]
    for layer in (predictor.cls_score, predictor.bbox_pred, model.rpn.head.cls_logits):
        torch.nn.init.normal_(layer.weight, std=0.1)
    path = folder / "random.pt"
    save_checkpoint(path, model.eval(), 0, None)
    return path


@pytest.mark.timeout(300)  # torch exports hundreds of nodes, slowly where other tests run beside this
@pytest.mark.parametrize(("family", "aligned"), [("faster-rcnn", 1), ("faster-rcnn-fpn", 4)])
def test_a_checkpoint_equals_its_export(family: str, aligned: int, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    spec = export_model(checkpoint(family, tmp_path), out, say=lambda line: None)
    print(spec.parity)
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4
    model = load(out)
    assert read_spec(model, "out").family == family
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("RoiAlign") == aligned
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
