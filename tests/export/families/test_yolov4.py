"""pytorch-YOLOv4's boxes and confs: equal to the plain decoder, in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.adapt import Wishes
from export.families import yolov4
from tests.export.families.small_yolos import HEIGHT, NAMES, WIDTH, export, spread, torch
from tests.export.families.test_yolo_rows import ThreeACell
from tests.export.proof import proven


class BoxesAndConfs(ThreeACell):
    """The rows as pytorch-YOLOv4 gives them out."""

    def forward(self, pixels: Any) -> Any:
        centre, size, objectness, classes = super().forward(pixels).split([2, 2, 1, self.classes], -1)
        corners = torch.cat([centre - size / 2, centre + size / 2], -1)
        sides = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT], dtype=torch.float32)
        boxes, confs = (corners / sides).unsqueeze(2), classes * objectness
        return (confs, boxes) if self.besides == "confs first" else (boxes, confs)


@pytest.mark.parametrize(("order", "dynamic"), [("", True), ("confs first", False)])
def test_boxes_and_confs_equal_the_plain_decoder(order: str, dynamic: bool, tmp_path: Path) -> None:
    path = export(spread(BoxesAndConfs(besides=order)), tmp_path / "v4.onnx", dynamic=dynamic)
    spec, said = proven(path, Wishes(names=NAMES))
    assert (spec.family, spec.resize) == ("yolov4-decoded", "stretch")
    assert "any batch at once" in said


def test_decode_of_a_known_box() -> None:
    found = yolov4.decode(np.array([[0.1, 0.2, 0.5, 0.9]]), np.array([[0.25, 0.75]]), 100, 200)
    np.testing.assert_allclose(found.boxes, [[20, 20, 100, 90]])
    np.testing.assert_array_equal(found.class_scores, np.array([[0.25, 0.75]], np.float32))
