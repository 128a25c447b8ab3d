"""A checkpoint becomes a contract file that equals it (random weights, a small input)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.artifact import load, read_spec
from export.convert import export_model
from export.graph import static_shape
from export.parity import ParityError
from export.pictures import demo_pictures

torch = pytest.importorskip("torch", reason="needs the train extra")

HEIGHT, WIDTH = 96, 160


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A detector of random weights whose scores lie around 0.25.

    Batch norm is fitted to real pictures first; with its initial statistics the features of an
    untrained network vanish with depth and all scores are equal.
    """
    from models.checkpoint import save_checkpoint
    from models.letterbox import Letterbox
    from models.yolox import Yolox, YoloxConfig

    torch.manual_seed(0)
    config = YoloxConfig(names=("person", "car"), input_height=HEIGHT, input_width=WIDTH, width=32)
    model = Yolox(config)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    pictures = [
        Letterbox.fit(image.shape[1], image.shape[0], WIDTH, HEIGHT).apply(image) for image in demo_pictures()
    ]
    with torch.no_grad():
        model(model.normalise(torch.from_numpy(np.stack(pictures))))
        for head in model.heads:
            head.class_logits.bias.zero_()
            head.box_and_objectness.bias.zero_()
    path = tmp_path / "random.pt"
    save_checkpoint(path, model.eval(), 0, None)
    return path


def test_a_checkpoint_equals_its_export(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "out.onnx"
    spec = export_model(checkpoint, out, say=said.append)
    print(spec.parity)
    assert "lookout checkpoint" in said[0]
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.01
    assert spec.parity["max_score_difference"] <= 1e-4
    model = load(out)
    assert read_spec(model, "out").names == ("person", "car")
    assert static_shape(model.graph.input[0]) == (-1, HEIGHT, WIDTH, 3)
    operators = [node.op_type for node in model.graph.node]
    assert operators.index("Transpose") < operators.index("Cast"), "bytes are moved before they are widened"
    assert str(Path(torch.__file__).parent).encode() not in out.read_bytes(), "a stack trace was left in"


def test_a_wrong_export_makes_no_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export import torch_export

    exporter = torch_export._to_onnx

    def with_another_normalisation(whole: object, height: int, width: int) -> object:
        monkeypatch.setattr(whole.model, "normalise", lambda images: images.permute(0, 3, 1, 2) / 255.0)  # type: ignore[attr-defined]
        try:
            return exporter(whole, height, width)  # type: ignore[arg-type]
        finally:
            monkeypatch.undo()

    monkeypatch.setattr(torch_export, "_to_onnx", with_another_normalisation)
    with pytest.raises(ParityError):
        export_model(checkpoint, tmp_path / "out.onnx", say=print)
    assert [file.name for file in tmp_path.iterdir()] == ["random.pt"]
