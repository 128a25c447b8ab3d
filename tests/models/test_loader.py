from __future__ import annotations

from pathlib import Path

from models.augment import Augmentation
from models.coco import load_coco
from models.loader import EpochSamples, epoch_batches
from tests.models.conftest import SHAPES


def test_batches_are_of_many_sizes(shapes: Path) -> None:
    examples = load_coco(shapes, shapes.parent, SHAPES) * 8
    samples = EpochSamples(examples, 96, 128, Augmentation(flip=0.5), (0.5, 1.5), seed=0, epoch=3)
    seen = set()
    for batch in epoch_batches(samples, 4, 0):
        height, width = batch.images.shape[1:3]
        seen.add((height, width))
        for target in batch.targets:
            assert len(target.boxes) == 1
            left, top, right, bottom = target.boxes[0].tolist()
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert max(right - left, bottom - top) > 0.15 * min(height, width), "boxes follow"
    assert seen <= {(height, width) for height in (64, 96, 128, 160) for width in (64, 96, 128, 160, 192)}
    assert len(seen) >= 3
    assert samples.batches(4) == samples.batches(4)
    assert len({index for batch in samples.batches(4) for index, _, _ in batch}) == 64
