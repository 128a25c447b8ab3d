"""Darknet's raw grids in every layout: equal to the plain decoder, told apart by their graphs, or asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.adapt import AdaptError, Wishes
from export.convert import export_model
from export.families import darknet, darknet_kinds
from tests.export.families.small_yolos import (
    CLASSES,
    NAMES,
    ULTRALYTICS,
    export,
    nn,
    spread,
    torch,
)
from tests.export.proof import proven

COLUMNS = 5 + CLASSES


def conv(inputs: int, outputs: int, stride: int, mish: bool) -> Any:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Mish() if mish else nn.LeakyReLU(0.1))


class Darknet(nn.Module):
    """The generations' outlines on few channels: how they go down, whether they go down again, Mish.

    ``layout`` is what leaves: "channels", "last", "cells" or "planes" (see ``darknet.Layout``); with
    ``is_scored`` objectness and classes are past their sigmoid, as in the onnx/models zoo's YOLOv4.
    """

    def __init__(
        self, kind: str, layout: str = "channels", is_scored: bool = False, nhwc: bool = False
    ) -> None:
        super().__init__()
        mish, self.again = kind == "yolov4", kind in ("yolov4", "yolov4-leaky")
        self.layout, self.is_scored, self.nhwc, self.is_tiny = layout, is_scored, nhwc, "tiny" in kind
        pools = {"yolov3-tiny": (0, 1, 2, 3, 4), "yolov4-tiny": (2, 3, 4)}.get(kind, ())
        down = []
        for level in range(5):
            layer = [conv(3 if level == 0 else 12, 12, 1 if level in pools else 2, mish)]
            down.append(nn.Sequential(*layer, *([nn.MaxPool2d(2, 2)] if level in pools else [])))
        self.down, self.up = nn.ModuleList(down), nn.Upsample(scale_factor=2)
        self.lower = nn.ModuleList(conv(12, 12, 2, mish) for _ in range(2))
        self.heads = nn.ModuleList(nn.Conv2d(12, 3 * COLUMNS, 1) for _ in range(2 if self.is_tiny else 3))

    def forward(self, pixels: Any) -> Any:
        feature, features = (pixels.permute(0, 3, 1, 2) if self.nhwc else pixels), []
        for layer in self.down:
            feature = layer(feature)
            features.append(feature)
        coarse = features[4]
        middle = features[3] + self.up(coarse)
        fine = features[2] + self.up(middle)
        if self.again:
            middle = middle + self.lower[0](fine)
            coarse = coarse + self.lower[1](middle)
        levels = (coarse, middle) if self.is_tiny else (coarse, middle, fine)
        return tuple(self.laid(head(each)) for head, each in zip(self.heads, levels, strict=True))

    def laid(self, raw: Any) -> Any:
        batch, _, height, width = raw.shape
        if self.is_scored:
            boxes, scores = raw.reshape(batch, 3, COLUMNS, height, width).split([4, COLUMNS - 4], 2)
            raw = torch.cat([boxes, scores.sigmoid()], 2).flatten(1, 2)
        if self.layout == "channels":
            return raw
        if self.layout == "planes":
            return raw.reshape(batch, 3, COLUMNS, height, width).permute(0, 1, 3, 4, 2)
        last = raw.permute(0, 2, 3, 1)
        return last if self.layout == "last" else last.reshape(batch, height, width, 3, COLUMNS)


def drawn(*args: Any, **options: Any) -> Any:
    """A network whose sizes stay within some times its anchors."""
    module = spread(Darknet(*args, **options), gain=2.0)
    for head in module.heads:
        head.weight.data /= 8
    return module


@pytest.mark.parametrize(
    ("kind", "options", "opset", "dynamic"),
    [
        ("yolov3", {}, 11, False),
        ("yolov3", {"layout": "cells"}, 13, True),
        ("yolov4", {}, 12, True),
        ("yolov4", {"layout": "cells", "is_scored": True, "nhwc": True}, 11, False),
        ("yolov4", {"layout": "last", "nhwc": True}, 18, False),
        ("yolov4-tiny", {}, 12, False),
    ],
)
def test_the_graph_tells_the_generation(
    kind: str, options: dict[str, Any], opset: int, dynamic: bool, tmp_path: Path
) -> None:
    layout = "nhwc" if options.get("nhwc") else "nchw"
    path = export(drawn(kind, **options), tmp_path / "d.onnx", dynamic=dynamic, opset=opset, layout=layout)
    spec, said = proven(path, Wishes(names=NAMES))
    assert spec.family == kind
    assert ("past their sigmoid" in said) == bool(options.get("is_scored"))


def test_tiny_yolov3_has_two_sets_of_anchors(tmp_path: Path) -> None:
    path = export(drawn("yolov3-tiny"), tmp_path / "tiny.onnx")
    with pytest.raises(AdaptError, match=r"yolov3-tiny: .*1,2,3.*yolov3-tiny-012: .*0,1,2"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    assert proven(path, Wishes(names=NAMES, family="yolov3-tiny-012"))[0].family == "yolov3-tiny-012"


def test_torchs_grids_could_be_any_without_metadata(tmp_path: Path) -> None:
    path = export(drawn("yolov3", layout="planes"), tmp_path / "raw.onnx")
    with pytest.raises(AdaptError, match=r"yolov5: .*yolov7: .*yolov3: "):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)
    assert proven(path, Wishes(names=NAMES, family="yolov7"))[0].family == "yolov7"
    path = export(drawn("yolov3", layout="planes"), tmp_path / "raw.onnx", metadata=ULTRALYTICS)
    assert proven(path, Wishes(names=NAMES))[0].family == "yolov5"


def test_a_way_down_again_without_mish_is_asked_about(tmp_path: Path) -> None:
    path = export(drawn("yolov4-leaky"), tmp_path / "leaky.onnx")
    with pytest.raises(AdaptError, match=r"yolov3: .*way down after up.*yolov4: without Mish"):
        export_model(path, tmp_path / "out.onnx", wishes=Wishes(names=NAMES), say=print)


def grids(kind: darknet_kinds.Kind, rows: int, is_scored: bool) -> darknet.Grids:
    levels = [
        darknet.Grid(f"g{stride}", stride, rows * 32 // stride, rows * 32 // stride, "cells", 1)
        for stride in (8, 16, 32)
    ]
    return darknet.Grids(tuple(levels), kind, is_scored)


@pytest.mark.parametrize(
    ("kind", "box", "score"),
    [
        # cell (2, 1) of stride 16, second anchor, all columns 0 but tx = log 3, which is 0.75 past the sigmoid
        (darknet_kinds.V3, (44 - 31, 24 - 22.5, 44 + 31, 24 + 22.5), 0.25),
        (darknet_kinds.V4, (44.4 - 38, 24 - 27.5, 44.4 + 38, 24 + 27.5), 0.25),
        (darknet_kinds.V5, (48 - 31, 24 - 22.5, 48 + 31, 24 + 22.5), 0.25),
    ],
    ids=["yolov3", "yolov4", "yolov5"],
)
def test_decode_of_a_known_cell(kind: darknet_kinds.Kind, box: tuple[float, ...], score: float) -> None:
    read = grids(kind, 2, is_scored=False)
    outputs = {grid.name: np.zeros((1, grid.rows, grid.columns, 3, 6), np.float32) for grid in read.grids}
    outputs["g16"][0, 1, 2, 1, 0] = np.log(3)
    found = darknet.decode(outputs, read)
    here = np.flatnonzero(np.abs(found.boxes - box).max(axis=1) < 1e-4)
    assert len(here) == 1
    assert found.class_scores[here[0], 0] == pytest.approx(score)
