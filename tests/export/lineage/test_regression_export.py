"""Heads of random weights become contract files that equal them.

On OverFeat's small network without padding: the exporter takes a quarter of a minute for each EfficientNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from export.convert import export_model

torch = pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow

SIZE: dict[str, Any] = {"input_height": 192, "input_width": 256, "hidden": 32}


@pytest.fixture
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.lineage import localization, pose
    from models.lineage.overfeat_net import OverfeatFast

    for module in (localization, pose):
        monkeypatch.setattr(module, "build_backbone", lambda name, frozen_norm=False: OverfeatFast(1 / 16))


def _export(model: Any, tmp_path: Path, fewest: int) -> None:
    """Export the model and look at the proof."""
    from models.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "random.pt", model.eval(), 0, None)
    spec = export_model(tmp_path / "random.pt", tmp_path / "out.onnx", say=lambda line: None)
    print(model.family, spec.parity)
    assert spec.family == model.family
    assert spec.parity["detections"] > fewest
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4


@pytest.mark.usefixtures("small_backbone")
def test_localization(tmp_path: Path) -> None:
    from models.lineage.localization import Localization, LocalizationConfig

    torch.manual_seed(0)
    model = Localization(LocalizationConfig(("person", "car"), **SIZE, class_specific=True))
    with torch.no_grad():
        model.shared[1].weight.mul_(100)  # an untrained trunk says next to nothing
        model.box_head[-1].weight.mul_(100)  # it starts with the same boxes for every picture
    _export(model, tmp_path, 20)


def test_overfeat(tmp_path: Path) -> None:
    from models.lineage.overfeat import Overfeat, OverfeatConfig

    torch.manual_seed(0)
    config = OverfeatConfig(
        ("person", "car"),
        **SIZE,
        backbone="overfeat_fast",
        backbone_width=1 / 16,
        scales=(0.9, 1.3),
        window_height=1,
        window_width=1,
    )
    model = Overfeat(config)
    with torch.no_grad():
        model.classifier[0].weight.mul_(100)
        model.regressor[0].weight.mul_(1000)  # it starts with the same box in every window
        # Without padding, all windows of an even picture score the same, and rounding would tell which of
        # them suppresses which: so the boxes are small, and apart.
        model.regressor[-1].bias.copy_(torch.tensor([0.47, 0.47, 0.53, 0.53]))
    _export(model, tmp_path, 50)


@pytest.mark.usefixtures("small_backbone")
def test_pose(tmp_path: Path) -> None:
    from models.lineage.pose import Pose, PoseConfig

    torch.manual_seed(0)
    model = Pose(PoseConfig(tuple("abcdef"), **SIZE, stages=2, crop=192))
    with torch.no_grad():
        for stage in model.heads:
            stage[-1].weight.mul_(100)
    _export(model, tmp_path, 20)
