"""The grafted subgraphs against the plain reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from export.contract import CANDIDATES, KEPT, SCORE_FLOOR, postprocess
from export.pixels import PixelRule, preprocess
from export.reference import Found, find, suppress

Floats = npt.NDArray[np.float32]
NMS = 0.6


def crowd(pictures: int, count: int, classes: int, seed: int) -> tuple[Floats, Floats]:
    """Overlapping boxes (pictures, count, 4) around a few centres, and scores, most of them small."""
    random = np.random.default_rng(seed)
    centres = random.uniform(50, 350, (pictures, 12, 2))[:, random.integers(0, 12, count)]
    centres += random.normal(0, 6, (pictures, count, 2))
    halves = random.uniform(15, 60, (pictures, count, 2))
    scores = random.uniform(0, 1, (pictures, count, classes)) ** 8
    return np.concatenate([centres - halves, centres + halves], -1).astype(np.float32), scores.astype(
        np.float32
    )


def run(boxes: Floats, scores: Floats) -> list[tuple[Floats, Floats, npt.NDArray[np.int64]]]:
    model = postprocess(boxes.shape[1], scores.shape[2], NMS)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tensors = session.run(["boxes", "scores", "classes"], {"raw_boxes": boxes, "class_scores": scores})
    return list(zip(*tensors, strict=True))


def assert_same(got: tuple[Floats, Floats, npt.NDArray[np.int64]], want: Found) -> None:
    boxes, scores, classes = got
    count = len(want.scores)
    np.testing.assert_array_equal(scores[:count], want.scores)
    np.testing.assert_array_equal(boxes[:count], want.boxes)
    np.testing.assert_array_equal(classes[:count], want.classes)
    assert not scores[count:].any()
    assert not boxes[count:].any()
    assert not classes[count:].any()


@pytest.mark.parametrize("pictures", [1, 2, 5])
@pytest.mark.parametrize(("count", "classes"), [(2000, 7), (40, 80), (500, 1)])
def test_postprocess_is_the_reference(pictures: int, count: int, classes: int) -> None:
    boxes, scores = crowd(pictures, count, classes, seed=count + pictures)
    for picture, got in enumerate(run(boxes, scores)):
        want = find(boxes[picture], scores[picture], NMS, suppress)
        assert len(want.scores) > 10
        assert_same(got, want)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    boxes, scores = crowd(5, 800, 4, seed=3)
    together = run(boxes, scores)
    for picture in range(5):
        alone = run(boxes[picture : picture + 1], scores[picture : picture + 1])[0]
        for one, other in zip(alone, together[picture], strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_found_is_all_zeros_beside_a_full_picture() -> None:
    boxes, scores = crowd(2, 400, 3, seed=5)
    scores[0] = SCORE_FLOOR / 2
    empty, full = run(boxes, scores)
    assert_same(empty, Found(*(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))))
    assert (full[1] > 0).sum() > 10


def test_suppression_is_by_class() -> None:
    boxes = np.array([[[10, 10, 50, 50], [11, 10, 50, 50], [11, 11, 50, 50]]], np.float32)
    scores = np.array([[[0.9, 0.0], [0.8, 0.0], [0.0, 0.7]]], np.float32)
    _, kept, classes = run(boxes, scores)[0]
    assert kept.tolist() == pytest.approx([0.9, 0.7, 0.0, 0.0, 0.0, 0.0])
    assert classes.tolist() == [0, 1, 0, 0, 0, 0]


def test_limits_are_reported_as_a_cut() -> None:
    boxes, scores = crowd(1, CANDIDATES + 50, 3, seed=7)
    found = find(boxes[0], scores[0], 0.99, suppress)
    best = np.sort(scores[0].max(axis=1))[::-1]
    assert len(found.scores) == KEPT
    assert found.cut >= best[CANDIDATES]
    assert find(boxes[0, :9], scores[0, :9], 0.99, suppress).cut == 0


@pytest.mark.parametrize("bgr", [False, True])
def test_preprocess_moves_pixels_and_changes_none(bgr: bool) -> None:
    model = preprocess(PixelRule(color="bgr" if bgr else "rgb"), 32, 64)
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = session.run(None, {"images": images})[0]
    order = [2, 1, 0] if bgr else [0, 1, 2]
    np.testing.assert_array_equal(pixels, images[..., order].transpose(0, 3, 1, 2).astype(np.float32))
