"""FastestDet's map: recognised by its channels, equal to a plain decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.adapt import AdaptError, Wishes, adapt
from export.artifact import load
from export.families import single_map
from export.pixels import PixelRule
from tests.export.families.small_heads import FastestDet, chosen, export, torch
from tests.export.proof import proven

NAMES = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize("dynamic", [False, True])
def test_equals_the_plain_decoder(dynamic: bool, tmp_path: Path) -> None:
    path = export(FastestDet(), tmp_path / "model.onnx", dynamic=dynamic)
    assert chosen(path).pixels == PixelRule("bgr", std=(255.0,) * 3, resize="stretch")
    spec, _ = proven(path, Wishes(names=NAMES))
    assert spec.family == "fastestdet"


def test_decode_of_a_known_cell() -> None:
    cells = np.zeros((5 + 2, 4, 6), np.float32)  # of an input of 64x96
    cells[:, 1, 2] = [0.5, np.arctanh(0.25), np.arctanh(-0.5), 0, np.log(3), 0.2, 0.8]
    found = single_map.decode(cells, 64, 96)
    row = 6 + 2
    x, y = (2 + 0.25) * 16, (1 - 0.5) * 16
    np.testing.assert_allclose(found.boxes[row], [x - 24, y - 24, x + 24, y + 24], atol=1e-4)
    np.testing.assert_allclose(found.class_scores[row], [0, 0.5**0.6 * 0.8**0.4], atol=1e-6)


class Unlike(FastestDet):
    """The same shape, its classes past a sigmoid."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        ((objectness, box, classes),) = self.maps(pixels)
        return torch.cat([objectness.sigmoid(), box, classes.sigmoid()], dim=1)


def test_classes_that_do_not_sum_to_one_are_not_read(tmp_path: Path) -> None:
    path = export(Unlike(), tmp_path / "model.onnx")
    with pytest.raises(AdaptError, match="no adapter recognises"):
        adapt(path, load(path), Wishes(names=NAMES))
