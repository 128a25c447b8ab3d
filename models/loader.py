"""Batches of training samples, prepared by worker processes.

Every sample depends on the seed, the epoch and its place in the data alone, so that a resumed training
sees what an uninterrupted one would have seen, with any number of workers.
Knows nothing of models or optimisers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.augment import Augmentation, augmented
from models.coco import Example
from models.errors import DataError
from models.ranks import Ranks
from models.sample import Sample
from models.target import Target


@dataclass(frozen=True, slots=True)
class Batch:
    images: Tensor
    """uint8 RGB (B, H, W, 3)."""
    targets: list[Target]


@dataclass(frozen=True)
class EpochSamples(Dataset[Sample | DataError]):
    """The random samples of one epoch; the i-th comes from the i-th picture."""

    examples: Sequence[Example]
    input_height: int
    input_width: int
    augmentation: Augmentation
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Sample | DataError:
        """A sample, or why there is none: raised in a worker, it would arrive buried in a traceback."""
        rng = np.random.default_rng((self.seed, self.epoch, index))
        try:
            return augmented(
                self.examples, index, self.input_height, self.input_width, self.augmentation, rng
            )
        except DataError as error:
            return error


def steps_per_epoch(examples: int, batch: int) -> int:
    """Whole batches in the data; data smaller than a batch makes one."""
    return max(1, examples // batch)


def epoch_batches(
    samples: EpochSamples, batch: int, workers: int, ranks: Ranks | None = None
) -> Iterator[Batch]:
    """The batches of an epoch in random order, this process's part of each; what does not fill a batch is left out.

    Raises:
        DataError: a picture cannot be read.
    """
    order = np.random.default_rng((samples.seed, samples.epoch)).permutation(len(samples)).tolist()
    first, count = (0, 1) if ranks is None else (ranks.index, ranks.count)
    mine = slice(first * batch // count, (first + 1) * batch // count)
    chunks = [
        order[step * batch : (step + 1) * batch][mine] for step in range(steps_per_epoch(len(order), batch))
    ]
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=chunks,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # leave the training's own random state alone
    )
    for ready in loader:
        if isinstance(ready, DataError):
            raise ready
        yield ready


def _collate(samples: list[Sample | DataError]) -> Batch | DataError:
    good = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    targets = [_target(sample) for sample in good]
    return Batch(torch.from_numpy(np.stack([sample.image for sample in good])), targets)


def _target(sample: Sample) -> Target:
    parts = (sample.boxes, sample.classes, sample.ignored, sample.partial, sample.proposals)
    return Target(*map(torch.from_numpy, parts))


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # a worker is one process of many; its own threads would only compete
