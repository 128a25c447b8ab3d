"""A detector that judges proposals, from its checkpoint to the live detector: both inputs, everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.accuracy import Annotated, Truth, average_precision
from export.adapt import AdaptError, Wishes
from export.artifact import ArtifactError, Letterbox, ModelSpec, load, read_spec
from export.convert import export_model
from export.graph import static_shape
from export.pictures import demo_pictures
from stream.detector import Detector
from stream.errors import DeviceUnavailable
from tests.models.conftest import SHAPES, draw_shapes

torch = pytest.importorskip("torch", reason="needs the train extra")

pytestmark = pytest.mark.slow

HEIGHT, WIDTH, COUNT = 96, 160, 40


@pytest.fixture(scope="module", autouse=True)
def small_backbones() -> Iterator[None]:
    from models.lineage import fast_rcnn, rcnn
    from tests.models.lineage.small import use_small

    with pytest.MonkeyPatch.context() as patch:
        use_small(patch, fast_rcnn)
        use_small(patch, rcnn)
        yield


def random_detector(pooling: str, path: Path) -> Path:
    """A Fast R-CNN whose random predictor tells regions well apart."""
    from models.checkpoint import save_checkpoint
    from models.lineage.fast_rcnn import FastRcnn, FastRcnnConfig

    torch.manual_seed(0)
    rule = f"selective-search:{COUNT}"
    model = FastRcnn(FastRcnnConfig(SHAPES, HEIGHT, WIDTH, rule, pooling=pooling))
    with torch.no_grad():
        model.predictor.cls_score.weight.mul_(30)
        model.predictor.bbox_pred.weight.mul_(100)
    save_checkpoint(path, model.eval(), 0, None)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_detector("max", tmp_path_factory.mktemp("models") / "random.pt")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> tuple[Path, ModelSpec]:
    out = checkpoint.with_suffix(".onnx")
    return out, export_model(checkpoint, out, say=print)


def test_a_checkpoint_equals_its_export(exported: tuple[Path, ModelSpec]) -> None:
    out, spec = exported
    print(spec.parity)
    assert spec.proposals == f"selective-search:{COUNT}"
    assert spec.parity["detections"] > 50
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4
    model = load(out)
    assert read_spec(model, "out") == spec
    shapes = {value.name: static_shape(value) for value in model.graph.input}
    assert shapes == {"images": (-1, HEIGHT, WIDTH, 3), "proposals": (-1, COUNT, 4)}


def test_its_layers_may_be_truncated(
    checkpoint: Path, exported: tuple[Path, ModelSpec], tmp_path: Path
) -> None:
    out = tmp_path / "truncated.onnx"
    spec = export_model(checkpoint, out, wishes=Wishes(ranks=(8, 4)), say=print)
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4
    weights, whole = (
        sum(int(np.prod(each.dims)) for each in load(path).graph.initializer) for path in (out, exported[0])
    )
    assert whole - weights == 288 * 16 + 16 * 12 - 8 * (288 + 16) - 4 * (16 + 12)
    with pytest.raises(AdaptError, match=r"--ranks: .* has 2 fully connected layers, not 1"):
        export_model(checkpoint, out, wishes=Wishes(ranks=(8,)), say=print)
    with pytest.raises(ArtifactError, match=r"already is a lookout model"):
        export_model(out, tmp_path / "again.onnx", wishes=Wishes(ranks=(8, 4)), say=print)


def test_so_does_one_that_aligns_regions(tmp_path: Path) -> None:
    spec = export_model(random_detector("align", tmp_path / "align.pt"), tmp_path / "align.onnx", say=print)
    print(spec.parity)
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4


def test_so_does_an_rcnn(tmp_path: Path) -> None:
    """More proposals than go through the network at once, and crops that do not fit its top."""
    from models.checkpoint import save_checkpoint
    from models.lineage import rcnn

    torch.manual_seed(0)
    model = rcnn.Rcnn(rcnn.RcnnConfig(SHAPES, HEIGHT, WIDTH, "edge-boxes:30", crop=64, context=8))
    model.filters.normal_(std=0.3)
    model.ways.normal_(std=0.01)
    save_checkpoint(tmp_path / "rcnn.pt", model, 0, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rcnn, "_EXPORTED_PIXELS", 20 * 64 * 64)
        spec = export_model(tmp_path / "rcnn.pt", tmp_path / "rcnn.onnx", say=print)
    print(spec.parity)
    assert (spec.family, spec.proposals, spec.nms_threshold) == ("rcnn", "edge-boxes:30", 0.3)
    assert spec.parity["detections"] > 50
    assert spec.parity["max_box_difference_px"] <= 0.05
    assert spec.parity["max_score_difference"] <= 1e-4


def test_the_live_detector_proposes_what_training_did(
    checkpoint: Path, exported: tuple[Path, ModelSpec]
) -> None:
    from models.checkpoint import load_checkpoint
    from models.lineage.proposals import propose
    from models.postprocess import detections

    model, _ = load_checkpoint(checkpoint)
    picture = demo_pictures()[1]
    height, width = picture.shape[:2]
    letterbox = Letterbox.fit(width, height, WIDTH, HEIGHT)
    image = letterbox.apply(picture)
    proposals = propose(image[: letterbox.content_height], "selective-search", COUNT)
    with torch.inference_mode():
        normal = model.normalise(torch.from_numpy(image)[None])
        boxes, scores = model.decode(normal, torch.from_numpy(proposals)[None])
        wanted = detections(boxes[0], scores[0], 0.3, model.nms_threshold)
    twice = Detector(exported[0], "cpu", 1).detect_images([picture, picture], 0.3)
    assert len(wanted[0]) > 3
    for found in twice:
        np.testing.assert_allclose(found.scores, wanted[1].numpy(), atol=1e-4)
        clipped = np.clip(letterbox.to_source(wanted[0].numpy()), 0, [width, height, width, height])
        np.testing.assert_allclose(found.boxes, clipped, atol=0.05 / letterbox.scale_x)


def test_it_is_measured_with_proposals(exported: tuple[Path, ModelSpec], tmp_path: Path) -> None:
    truth = Truth.read(Annotated(draw_shapes(tmp_path / "shapes", 2), tmp_path / "shapes"), SHAPES)
    precision = average_precision(*exported, truth, "it")
    print(precision)
    assert 0 <= precision < 0.5, "it ran, and knows nothing"


def test_what_it_cannot_is_one_line(
    checkpoint: Path, exported: tuple[Path, ModelSpec], tmp_path: Path
) -> None:
    with pytest.raises(DeviceUnavailable, match=r"cuda was asked for, but a fast-rcnn judges .* device: cpu"):
        Detector(exported[0], "cuda")
    assert "judges boxes that the CPU proposes" in Detector(exported[0], "auto", 1).reason
    for what in (checkpoint, exported[0]):
        with pytest.raises(ArtifactError, match="judges proposals, and is exported in float32 alone"):
            export_model(what, tmp_path / "half.onnx", precision="fp16", say=print)


def test_inputs_and_metadata_have_to_agree(exported: tuple[Path, ModelSpec]) -> None:
    model = load(exported[0])
    said = next(prop for prop in model.metadata_props if prop.key == "lookout.proposals")
    said.value = "selective-search:41"
    with pytest.raises(ArtifactError, match=r"takes 40 proposals a picture, but .* selective-search:41"):
        read_spec(model, "it")
    said.value = "objectness:40"
    with pytest.raises(ArtifactError, match=r"damaged lookout metadata .*objectness:40"):
        read_spec(model, "it")
    model.metadata_props.remove(said)
    with pytest.raises(ArtifactError, match=r"inputs are \['images', 'proposals'\], expected \['images'\]"):
        read_spec(model, "it")
    other = onnx.ModelProto()
    other.CopyFrom(load(exported[0]))
    other.graph.input.pop()
    with pytest.raises(ArtifactError, match="tensor 'proposals' is missing"):
        read_spec(other, "it")
