"""Parts that move, as a graph that equals the network they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.artifact import load
from export.convert import export_model

torch = pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow


def test_dpm(tmp_path: Path) -> None:
    from models.checkpoint import save_checkpoint
    from models.lineage.dpm import Dpm, DpmConfig
    from models.lineage.dpm_fitting import place_parts

    torch.manual_seed(0)
    model = Dpm(DpmConfig(("person",), 96, 160, parts=2, reach=2, scales_per_octave=1))
    model.roots.normal_().mul_(0.5)
    for group in range(2):
        place_parts(model, group)
    model.biases.fill_(-7.0)  # or they all score about 1
    model.costs.copy_(torch.tensor([[0.02, -0.01, 0.05, 0.03]]).expand(4, -1))
    save_checkpoint(tmp_path / "random.pt", model, 0, None)
    out = tmp_path / "out.onnx"
    spec = export_model(tmp_path / "random.pt", out, say=lambda line: None)
    print(spec.parity)
    assert (spec.family, spec.nms_threshold) == ("dpm", 0.3)
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4
    operators = {node.op_type for node in load(out).graph.node}
    assert "ScatterElements" not in operators
