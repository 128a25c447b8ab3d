"""Batches of training samples, prepared by worker processes.

Every sample depends on the seed, the epoch and its place in the data alone, so that a resumed training
sees what an uninterrupted one would have seen, with any number of workers.
Knows nothing of models or optimisers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.augment import Augmentation, augmented
from models.coco import Example
from models.errors import DataError
from models.mixing import Objects
from models.ranks import Ranks
from models.sample import Sample
from models.target import Target


@dataclass(frozen=True, slots=True)
class Batch:
    images: Tensor
    """uint8 RGB (B, H, W, 3)."""
    targets: list[Target]
    colours: Tensor | None = None
    """float32 (B, 3): what is still to be done to the pictures' colours (:attr:`models.sample.Sample.colours`)."""


_CELL_PX = 32
"""Sides of samples are multiples of it."""

Place = tuple[int, int, int]
"""Of a sample: its picture's index, its height and its width."""
Truth = tuple[npt.NDArray[Any], ...]
"""Of a sample: the parts of its :class:`models.target.Target`, in their order."""


@dataclass(frozen=True)
class EpochSamples(Dataset[Sample | DataError]):
    """The random samples of one epoch; the i-th comes from the i-th picture."""

    examples: Sequence[Example]
    input_height: int
    input_width: int
    augmentation: Augmentation
    sizes: tuple[float, float]
    """Of what sizes batches are, as parts of the input's."""
    seed: int
    epoch: int
    recolour: bool = True
    """False leaves colours to the device that trains (:mod:`models.recolour`)."""

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, batch: int) -> list[list[Place]]:
        """All of the epoch, in random order and of random sizes; what does not fill a batch is left out."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self)).tolist()
        steps = steps_per_epoch(len(self), batch)
        parts = rng.uniform(*self.sizes, steps).tolist()
        return [
            [(index, *self._size(part)) for index in order[step * batch : (step + 1) * batch]]
            for step, part in enumerate(parts)
        ]

    @cached_property
    def _objects(self) -> Objects:
        return Objects.of(self.examples)

    def _size(self, part: float) -> tuple[int, int]:
        height, width = (
            max(1, round(part * side / _CELL_PX)) for side in (self.input_height, self.input_width)
        )
        return height * _CELL_PX, width * _CELL_PX

    def __getitem__(self, place: Place) -> Sample | DataError:
        """A sample, or why there is none: raised in a worker, it would arrive buried in a traceback."""
        index, height, width = place
        rng = np.random.default_rng((self.seed, self.epoch, index))
        try:
            objects = self._objects if self.augmentation.paste else None
            return augmented(
                self.examples, index, height, width, self.augmentation, rng, objects, recolour=self.recolour
            )
        except DataError as error:
            return error


def steps_per_epoch(examples: int, batch: int) -> int:
    """Whole batches in the data; data smaller than a batch makes one."""
    return max(1, examples // batch)


def epoch_batches(
    samples: EpochSamples, batch: int, workers: int, ranks: Ranks | None = None
) -> Iterator[Batch]:
    """The batches of an epoch, this process's part of each.

    Raises:
        DataError: a picture cannot be read.
    """
    index, count = (0, 1) if ranks is None else (ranks.index, ranks.count)
    places = [
        whole[index * len(whole) // count : (index + 1) * len(whole) // count]
        for whole in samples.batches(batch)
    ]
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=places,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # leave the training's own random state alone
    )
    for ready in loader:
        if isinstance(ready, DataError):
            raise ready
        images, truth, colours = ready
        targets = [Target(*map(torch.from_numpy, parts)) for parts in truth]
        yield Batch(images, targets, None if samples.recolour else torch.from_numpy(colours))


def _collate(
    samples: list[Sample | DataError],
) -> tuple[Tensor, list[Truth], npt.NDArray[np.float32]] | DataError:
    """Pictures, targets and colours; of targets the arrays, as tensors would cross in a file each."""
    good = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    truth: list[Truth] = [
        (each.boxes, each.classes, each.ignored, each.partial, each.proposals) for each in good
    ]
    colours = np.array([sample.colours for sample in good], np.float32)
    return torch.from_numpy(np.stack([sample.image for sample in good])), truth, colours


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # a worker is one process of many; its own threads would only compete
