"""``lookout export NET.cfg --weights NET.weights``: a Darknet network becomes a contract file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from export.adapt import Wishes
from export.artifact import ArtifactError, load, read_spec
from export.convert import ensure_contract, export_model
from export.graph import static_shape
from stream.cli import main

pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """YOLOv3-tiny, its channels an eighth, of two classes and an input of 160x96."""
    from tests.models.lineage.darknet_networks import small_yolov3_tiny, write_random_weights

    cfg = small_yolov3_tiny(160, 96)
    (tmp_path / "tiny.cfg").write_text(cfg)
    write_random_weights(tmp_path / "tiny.weights", cfg)
    return tmp_path / "tiny.cfg", tmp_path / "tiny.weights"


def test_a_network_equals_its_export(files: tuple[Path, Path], tmp_path: Path, log_kept: None) -> None:
    cfg, weights = files
    names = tmp_path / "two.names"
    names.write_text("person\ncar\n")
    out = tmp_path / "out.onnx"
    assert (
        main(["export", str(cfg), "--weights", str(weights), "--names", str(names), "--out", str(out)]) == 0
    )
    model = load(out)
    spec = read_spec(model, "out")
    print(spec.parity)
    assert (spec.family, spec.names) == ("darknet", ("person", "car"))
    assert spec.source_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert static_shape(model.graph.input[0]) == (-1, 96, 160, 3)
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4


def test_yolov2s_passthrough_is_exported_as_it_is(tmp_path: Path) -> None:
    from tests.models.lineage.darknet_networks import small_v2, write_random_weights

    (tmp_path / "v2.cfg").write_text(small_v2())
    write_random_weights(tmp_path / "v2.weights", small_v2())
    wishes = Wishes(names=("person", "car"), weights=tmp_path / "v2.weights")
    spec = export_model(tmp_path / "v2.cfg", tmp_path / "out.onnx", wishes=wishes, say=print)
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4


def test_what_is_missing_is_said(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], log_kept: None
) -> None:
    cfg, weights = files
    out = str(tmp_path / "out.onnx")
    assert main(["export", str(cfg), "--out", out]) == 1
    assert "give its weights, too: --weights" in capsys.readouterr().err
    assert main(["export", str(cfg), "--weights", str(weights), "--out", out]) == 1
    assert "the model has 2 classes and no names" in capsys.readouterr().err
    assert main(["export", "lookout-nano", "--weights", str(weights), "--out", out]) == 1
    assert "already is a lookout model" in capsys.readouterr().err
    with pytest.raises(
        ArtifactError, match=r"is a Darknet network; export it first: .* --weights .*tiny\.weights"
    ):
        ensure_contract(cfg, print)
