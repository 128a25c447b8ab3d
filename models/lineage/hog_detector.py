"""Sliding windows of HOG under a linear SVM (Dalal and Triggs, CVPR 2005).

The picture is looked at in many sizes; in each, the score of every window is one convolution of the
map of blocks with the SVM's weights. It is fitted as in the paper: to the annotated objects and their
mirror images, each brought to the window's size with a margin around it, against random windows
without objects, and again with the windows that it mistook. Scores become probabilities by Platt's
sigmoid, of whether a detection is right.

Knows nothing of files; suppression of overlapping boxes is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.coco import Example
from models.errors import DataError
from models.lineage.cutting import CONTEXT, cut_objects
from models.lineage.hog import CELL, CHANNELS
from models.lineage.mining import Cache, Scene, chosen, negatives
from models.lineage.pyramid import Pyramid, Windows, levels_of
from models.lineage.sliding import CALIBRATED, SlidingDetector

SMALLEST = 2 / 3
"""Objects below this part of the smallest that is found are too blurred to learn from."""

_VIOLATED = -1.0
"""A negative that scores above this costs the SVM something."""
_TOLERANCE = 0.01
"""How much more than the least, as a part of it, the SVM's loss may be."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class HogConfig:
    """All that is needed to build the detector again, and how it is fitted."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    window_height: int = 128
    """The paper's window, in pixels of a level."""
    window_width: int = 64
    margin: int = 16
    """Pixels in the window above and below its object."""
    largest_scale: float = 2.0
    """The picture is enlarged by this, to find objects smaller than the window's."""
    scales_per_octave: int = 5
    cost: float = 0.01
    """Of an example that is on the wrong side by one, in the SVM: the paper's C."""
    pictures: int = 400
    """At most so many training pictures are searched for negatives in each round."""
    negatives: int = 10
    """At most so many windows a picture and round become negatives."""
    rounds: int = 2
    """Of mining; the paper's one is followed by another."""

    @property
    def rows(self) -> int:
        """Of blocks in a window."""
        return self.window_height // CELL - 1

    @property
    def columns(self) -> int:
        return self.window_width // CELL - 1


class HogDetector(SlidingDetector):
    """The whole detector."""

    family = "hog-svm"
    filters: Tensor
    biases: Tensor
    config: HogConfig

    def __init__(self, config: HogConfig) -> None:
        window = (config.window_height, config.window_width)
        size = (config.input_height, config.input_width)
        levels = levels_of(*size, config.largest_scale, config.scales_per_octave, *window)
        super().__init__(config, Windows.over(levels, *window, config.margin))
        self.pyramid = Pyramid(levels, *size)
        classes = len(config.names)
        self.register_buffer("filters", torch.zeros(classes, CHANNELS, config.rows, config.columns))
        self.register_buffer("biases", torch.zeros(classes))

    def window_scores(self, images: Tensor) -> Tensor:
        return self.margins(self.pyramid(images))

    def margins(self, maps: list[Tensor]) -> Tensor:
        """The SVM's score of every window of every class: float32 (B, N, C)."""
        scores = [functional.conv2d(blocks, self.filters, self.biases).flatten(2) for blocks in maps]
        return torch.cat(scores, 2).transpose(1, 2)

    @torch.no_grad()
    def fit(self, examples: list[Example], seed: int, say: Callable[[str], None]) -> None:
        """Learn all classes, each against what it mistakes for itself, then what their scores mean.

        Raises:
            DataError: a picture cannot be read, or has no window without a class; or a class has no object.
        """
        config = self.config
        caches = [Cache(positives) for positives in self._positives(examples)]
        pictures = chosen(examples, config.pictures, seed)
        for mining in range(config.rounds + 1):
            for number, example in enumerate(pictures):
                self._mine(number, self.scene(example), caches, seed if mining == 0 else None)
            for class_, (name, cache) in enumerate(zip(config.names, caches, strict=True)):
                if not cache.negatives:
                    raise DataError(f"{name}: no picture has a window without it; give more pictures")
                svm = cache.fit(config.cost, _TOLERANCE, seed)
                self.filters[class_] = svm.weights.view(self.filters.shape[1:])
                self.biases[class_] = svm.bias
                say(
                    f"{name}, {f'mining round {mining}' if mining else 'random negatives'}: "
                    f"{len(cache.positives)} positives, {len(cache.negatives)} negatives, "
                    f"loss {svm.loss:.3f} (gap {svm.gap:.3f})"
                )
        self.calibrate([self.scene(example) for example in pictures[:CALIBRATED]], say)

    def _positives(self, examples: list[Example]) -> list[Tensor]:
        """The windows of all objects and their mirror images, float32 (P, D) of each class; sets ``aspect``."""
        config = self.config
        cutouts = cut_objects(
            map(self.scene, chosen(examples, len(examples), 0)),
            config.names,
            config.window_height,
            config.window_width,
            config.margin,
            SMALLEST * self.axes[:, 3].min().item(),
        )
        self.aspect.copy_(torch.cat([each.aspects for each in cutouts]).log().mean().exp())
        return [
            torch.cat([self._blocks(part) for part in torch.split(each.windows, _BATCH)]) for each in cutouts
        ]

    def _blocks(self, windows: Tensor) -> Tensor:
        """Features float32 (2P, D) of windows with context, uint8 (P, h, w, 3), and of their mirror images."""
        pictures = self.normalise(torch.cat([windows, windows.flip(2)]).to(self.filters.device))
        skipped = CONTEXT // CELL
        blocks = self.pyramid.hog(pictures)[:, :, skipped:, skipped:]
        kept: Tensor = blocks[:, :, : self.config.rows, : self.config.columns].flatten(1).cpu()
        return kept

    def _mine(self, number: int, scene: Scene, caches: list[Cache], seed: int | None) -> None:
        """Take the windows of a picture that are nearest to being mistaken, or, with a seed, any."""
        maps: list[Tensor] = self.pyramid(self.picture(scene))
        boxes, config = self.boxes().cpu(), self.config
        margins = self.margins(maps)[0].cpu()  # (N, C)
        if seed is not None:
            margins = torch.rand(margins.shape, generator=torch.Generator().manual_seed(seed + number))
        for class_, cache in enumerate(caches):
            rows = negatives(scene, class_, boxes, margins[:, class_], _VIOLATED, config.negatives)
            for row in rows.tolist():
                level, top, left = self.windows.place(row)
                blocks = maps[level][0, :, top : top + config.rows, left : left + config.columns]
                cache.add((number, row), blocks.flatten().cpu())
