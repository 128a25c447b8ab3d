"""The descriptor is OpenCV's, on real pictures."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from export.pictures import demo_pictures
from models.lineage.hog import Hog


def _as_opencv(blocks: torch.Tensor) -> npt.NDArray[np.float32]:
    """(36, rows, columns), orientation by orientation, as OpenCV writes it: block by block in columns,
    cell by cell."""
    _, rows, columns = blocks.shape
    cells = blocks.view(9, 4, rows, columns).permute(3, 2, 1, 0)
    return cells.reshape(-1).numpy()


def _pixels(picture: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float()


def test_windows_are_described_as_opencv_does() -> None:
    theirs, ours = cv2.HOGDescriptor(), Hog()
    worst = 0.0
    for picture in demo_pictures()[:5]:
        for left in (0, 200, 500):
            crop = np.ascontiguousarray(picture[100:228, left : left + 64])
            want, got = theirs.compute(crop).reshape(-1), _as_opencv(ours(_pixels(crop))[0])
            assert want.shape == got.shape == (3780,)
            worst = max(worst, float(np.abs(want - got).max()))
    print(f"max difference {worst:.2e}")
    assert worst < 1e-5


def test_one_map_holds_the_windows_of_a_picture() -> None:
    picture = np.ascontiguousarray(demo_pictures()[0][:200, :300])
    blocks = Hog()(_pixels(picture))[0]
    assert blocks.shape == (36, 24, 36)
    places = [(8, 16), (136, 40), (216, 64)]  # x, y
    want = cv2.HOGDescriptor().compute(picture, winStride=(8, 8), locations=places).reshape(3, -1)
    for (x, y), theirs in zip(places, want, strict=True):
        ours = _as_opencv(blocks[:, y // 8 : y // 8 + 15, x // 8 : x // 8 + 7])
        assert np.abs(ours - theirs).max() < 1e-5


def test_a_single_edge_by_hand() -> None:
    """A vertical edge has but one orientation, 0 degrees, shared by the first and the last bin."""
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., 8:] = 100.0
    blocks = Hog()(picture)[0, :, 0, 0].view(9, 4)
    assert (blocks[1:8] == 0).all()
    assert torch.allclose(blocks[0], blocks[8])
    assert abs(float(blocks.square().sum()) - 1) < 0.01  # the length is 1 but for what keeps it finite


def test_a_grey_picture_has_no_gradients() -> None:
    assert bool((Hog()(torch.full((2, 3, 40, 24), 114.0)) == 0).all())
