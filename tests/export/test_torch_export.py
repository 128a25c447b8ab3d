"""A checkpoint becomes a contract file that equals it (random weights, a small input)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.artifact import ModelSpec, load, read_spec
from export.convert import export_model
from export.graph import static_shape
from export.parity import ParityError
from export.pictures import demo_pictures

torch = pytest.importorskip("torch", reason="needs the train extra")

HEIGHT, WIDTH = 96, 160


def checkpoint(path: Path) -> Path:
    """A detector of random weights whose scores lie around 0.25; returns ``path``.

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
    save_checkpoint(path, model.eval(), 0, None)
    return path


@dataclass(frozen=True)
class Exported:
    """A checkpoint, its export, what was said of it, and what torch's exporter had made."""

    checkpoint: Path
    out: Path
    spec: ModelSpec
    said: list[str]
    by_torch: onnx.ModelProto


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from export import torch_export

    folder = tmp_path_factory.mktemp("exported")
    path, out = checkpoint(folder / "random.pt"), folder / "out.onnx"
    said: list[str] = []
    made: list[onnx.ModelProto] = []
    exporter = torch_export._to_onnx

    def noted(whole: torch.nn.Module, height: int, width: int) -> onnx.ModelProto:
        model = exporter(whole, height, width)
        made.append(copy.deepcopy(model))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_export, "_to_onnx", noted)
        spec = export_model(path, out, say=said.append)
    return Exported(path, out, spec, said, made[0])


def test_a_checkpoint_equals_its_export(exported: Exported) -> None:
    spec = exported.spec
    print(spec.parity)
    assert "lookout checkpoint" in exported.said[0]
    assert spec.parity["detections"] > 100
    assert spec.parity["max_box_difference_px"] <= 0.01
    assert spec.parity["max_score_difference"] <= 1e-4
    model = load(exported.out)
    assert read_spec(model, "out").names == ("person", "car")
    assert static_shape(model.graph.input[0]) == (-1, HEIGHT, WIDTH, 3)
    operators = [node.op_type for node in model.graph.node]
    assert operators.index("Transpose") < operators.index("Cast"), "bytes are moved before they are widened"
    stack_trace = str(Path(torch.__file__).parent).encode()
    assert stack_trace not in exported.out.read_bytes(), "a stack trace was left in"


def test_a_wrong_export_makes_no_file(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's exporter is taken to have made one kernel a tenth too large."""
    from export import torch_export

    wrong = copy.deepcopy(exported.by_torch)
    kernel = next(tensor for tensor in wrong.graph.initializer if len(tensor.dims) == 4)
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1.1), kernel.name))
    monkeypatch.setattr(torch_export, "_to_onnx", lambda whole, height, width: wrong)
    with pytest.raises(ParityError):
        export_model(exported.checkpoint, tmp_path / "out.onnx", say=print)
    assert list(tmp_path.iterdir()) == []
