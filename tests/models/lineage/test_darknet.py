"""Networks of Darknet against OpenCV, which reads the same two files on its own.

Weights are random, and written in the real format; the architectures of the tiny networks are the published.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.boxes import nms
from models.lineage.darknet import Darknet, DarknetConfig, read_darknet
from models.lineage.darknet_cfg import DarknetError
from models.lineage.darknet_layers import Convolutional, MaxPool, Reorg
from tests.models.lineage.darknet_networks import (
    conv,
    net,
    small_v2,
    small_v3,
    write_random_weights,
    yolov2_tiny,
    yolov3_tiny,
)

OPENCV_NMS = 0.4


def _files(folder: Path, cfg: str) -> tuple[Path, Path]:
    (folder / "net.cfg").write_text(cfg)
    write_random_weights(folder / "net.weights", cfg)
    return folder / "net.cfg", folder / "net.weights"


NETWORKS = {
    "small-v2": (small_v2(), 96, 64),
    "small-v3": (small_v3(), 80, 48),
    "yolov2-tiny": (yolov2_tiny(160, 96), 160, 96),
    "yolov3-tiny": (yolov3_tiny(160, 96, 80, 16), 160, 96),
}


def _suppressed(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Scores (N, C) with 0 where a better box of the class overlaps: what OpenCV does to [region] unasked."""
    left = torch.zeros_like(scores)
    for class_ in range(scores.shape[1]):
        kept = nms(boxes, scores[:, class_], torch.zeros(len(boxes), dtype=torch.int64), OPENCV_NMS)
        left[kept, class_] = scores[kept, class_]
    return left


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_network_equals_opencvs(tmp_path: Path, name: str) -> None:
    cfg, width, height = NETWORKS[name]
    paths = _files(tmp_path, cfg)
    model = read_darknet(*paths)
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes, scores = (part[0] for part in model.decode(model.normalise(torch.from_numpy(picture)[None])))

    # OpenCV leaves out scores below a threshold, unless it is told otherwise.
    all_scores = cfg.replace("thresh=.6\n", "thresh=0\n").replace("[yolo]\n", "[yolo]\nthresh=0\n")
    (tmp_path / "opencv.cfg").write_text(all_scores)
    other = cv2.dnn.readNetFromDarknet(str(tmp_path / "opencv.cfg"), str(paths[1]))
    other.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    other.setInput(cv2.dnn.blobFromImage(picture, 1 / 255, (width, height), swapRB=False))
    rows = np.concatenate(
        other.forward(other.getUnconnectedOutLayersNames())
    )  # cx, cy, w, h, object, classes
    size = np.array([width, height], np.float32)
    centre, half = rows[:, :2] * size, rows[:, 2:4] * size / 2
    expected = np.concatenate([centre - half, centre + half], 1)
    apart = np.abs(boxes.numpy() - expected) / size.max()
    scores_apart = np.abs((_suppressed(boxes, scores) if "[region]" in cfg else scores).numpy() - rows[:, 5:])
    print(f"{name}: {len(rows)} boxes, {apart.max():.1e} of the input, scores {scores_apart.max():.1e}")
    assert rows[:, 5:].max() > 0.1
    assert apart.max() <= 1e-4
    assert scores_apart.max() <= 1e-4


def test_reorg_by_hand() -> None:
    """4 channels of 2x2 are gathered from as if they were one of 4x4: 0 1 2 3 / 4 5 6 7 / ..."""
    x = torch.arange(16.0).reshape(1, 4, 2, 2)
    assert Reorg(2)(x).flatten().tolist() == [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]


def test_pools_pad_after_the_picture() -> None:
    x = torch.tensor([[1.0, -2, -3], [-4, -5, -6], [-7, -8, -9]])[None, None]
    assert MaxPool(2, 1, 1)(x)[0, 0].tolist() == [[1, -2, -3], [-4, -5, -6], [-7, -8, -9]]
    assert MaxPool(2, 2, 1)(x)[0, 0].tolist() == [[1, -3], [-7, -9]]
    assert MaxPool(3, 1, 2)(x)[0, 0].tolist() == [[1, 1, -2], [1, 1, -2], [-4, -4, -5]]


def _header(major: int, minor: int, seen: str) -> bytes:
    return struct.pack(f"<iii{seen}", major, minor, 0, 64)


@pytest.mark.parametrize(("major", "minor", "seen"), [(0, 1, "i"), (0, 2, "q"), (1, 0, "q")])
def test_the_header_depends_on_the_version(tmp_path: Path, major: int, minor: int, seen: str) -> None:
    cfg, weights = _files(tmp_path, small_v3())
    numbers = weights.read_bytes()[20:]
    weights.write_bytes(_header(major, minor, seen) + numbers)
    model = read_darknet(cfg, weights)
    first = model.layers[0]
    assert isinstance(first, Convolutional)
    assert first.norm is not None
    assert first.norm.bias.tolist() == np.frombuffer(numbers, "<f4", 8).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-8], r"net\.weights: lacks 2 numbers: it has 758, the \.cfg needs 760"),
        (lambda data: data + bytes(12), r"net\.weights: has left over 3 numbers: it has 763"),
        (lambda data: data[:-3], r"net\.weights: its 3057 bytes are no header and whole numbers"),
        (lambda data: data[:7], r"net\.weights: has 7 bytes, less than a header"),
        (lambda data: b"PK\x03\x04" + data, r"net\.weights: says it is of version 67324752\.0"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    cfg, weights = _files(tmp_path, small_v3())
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(DarknetError, match=message):
        read_darknet(cfg, weights)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[maxpool]", "[gru]", r"line 32, \[gru\]: is not known; expected one of net, convolutional"),
        ("filters=8", "filters=8\ndilation=2", r"line 11, \[convolutional\]: dilation is not known"),
        ("filters=8", "filters=eight", r"\[convolutional\]: filters is 'eight', expected one whole number"),
        ("filters=8", "filters=0", r"filters is 0, expected at least 1"),
        ("filters=8\n", "", r"line 8, \[convolutional\]: has no filters"),
        ("filters=8", "filters=8\nfilters=9", r"line 11, .*: filters comes twice"),
        ("filters=8", "filters 8", r"line 10: 'filters 8' is neither \[section\] nor key=value"),
        ("activation=relu", "activation=mish", r"activation mish is not known; expected one of leaky"),
        ("from=-3", "from=-9", r"\[shortcut\]: from is '-9', expected layers before this one, 3"),
        ("from=-3", "from=-2", r"\[shortcut\]: adds layers of different shapes"),
        ("mask=1,0", "mask=1,3", r"\[yolo\]: mask is '1,3', expected 0 to 2"),
        ("mask=1,0", "mask=1", r"\[yolo\]: gets 16 channels, expected 8: 1 anchors with 5 \+ 3 each"),
        ("anchors=8,9, ", "anchors=8, ", r"\[yolo\]: anchors is .*, expected pairs of numbers above 0"),
        ("channels=3", "channels=1", r"\[net\]: channels is 1, expected 3"),
        ("width=80", "width=0", r"\[net\]: width is 0, expected at least 1"),
        ("[net]", "[convolutional]", r"line 1, \[convolutional\]: expected one \[net\], at the beginning"),
        ("[yolo]", "[net]", r"line 50, \[net\]: expected one \[net\]"),
    ],
)
def test_a_cfg_that_cannot_be_read(tmp_path: Path, before: str, after: str, message: str) -> None:
    cfg, weights = _files(tmp_path, small_v3())
    text = cfg.read_text()
    assert before in text
    cfg.write_text(text.replace(before, after, 1))
    with pytest.raises(DarknetError, match=message) as caught:
        read_darknet(cfg, weights)
    assert str(caught.value).startswith(f"{cfg}: ")


def test_a_network_without_a_head_is_no_detector(tmp_path: Path) -> None:
    with pytest.raises(DarknetError, match=r"has no \[region\] and no \[yolo\]"):
        Darknet(DarknetConfig((), 0, 0, net(32, 32) + conv(8)))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    cfg, weights = _files(tmp_path, small_v3())
    with pytest.raises(DarknetError, match=r"none\.cfg: cannot be read"):
        read_darknet(tmp_path / "none.cfg", weights)
    with pytest.raises(DarknetError, match=r"none\.weights: cannot be read"):
        read_darknet(cfg, tmp_path / "none.weights")
