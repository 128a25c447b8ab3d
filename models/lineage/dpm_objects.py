"""The annotated objects that a deformable part model learns from, as its roots and its parts see them.

Each is brought to the root's window, as in Dalal and Triggs' training data, and once more at twice the
size; around it is as much of the picture as a level of the pyramid has border, so that the model looks at it
as at a small level of its own. Knows nothing of placing parts or of the SVM.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.boxes import pairwise_iou
from models.coco import Example
from models.errors import DataError
from models.lineage.cutting import CONTEXT, cut_objects
from models.lineage.dpm import ROOTS_STEP, Dpm
from models.lineage.hog import CELL
from models.lineage.mining import chosen

MIDDLE = CONTEXT // ROOTS_STEP
"""Row and column of the window, on the small level, that the annotation says."""
PLACED = 0.7
"""A positive's window overlaps its object by so much (section 5.1 of the paper)."""
_SMALLEST = 2 / 3
"""Objects below this part of the smallest that is found are too blurred to learn from."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects of one class, and then their mirror images."""

    coarse: Tensor
    """float32 (P, 36, ...): a level with one object in its middle; see :meth:`models.lineage.dpm.Dpm.on_level`."""
    blocks: Tensor
    """float32 (P, 36, ...): the level an octave above."""
    near: Tensor
    """bool (P, h, w): the windows that are on the object."""
    components: Tensor
    """int64 (P,): which one the object's shape belongs to."""


def objects_of(model: Dpm, examples: list[Example]) -> list[Objects]:
    """The objects of every class in different pictures; sets ``aspect``."""
    config = model.config
    coarse, fine = (
        cut_objects(
            map(model.scene, chosen(examples, len(examples), 0)),
            config.names,
            times * config.window_height,
            times * config.window_width,
            times * config.margin,
            _SMALLEST * model.axes[:, 3].min().item(),
        )
        for times in (1, 2)
    )
    model.aspect.copy_(torch.cat([each.aspects for each in coarse]).log().mean().exp())
    found = []
    for name, once, twice in zip(config.names, coarse, fine, strict=True):
        count = len(once.aspects)
        if count < config.components:
            raise DataError(f"{name}: {count} objects are too few for {config.components} components")
        components = once.aspects.argsort().argsort() * config.components // count  # narrow to wide
        found.append(
            Objects(
                _blocks(model, once.windows, ROOTS_STEP),
                _blocks(model, twice.windows, CELL),
                _near(model, once.aspects).repeat(2, 1, 1),
                components.repeat(2),
            )
        )
    return found


def _blocks(model: Dpm, windows: Tensor, step: int) -> Tensor:
    """The blocks of pictures, uint8 (P, h, w, 3), and of their mirror images: float32 (2P, 36, ...)."""
    pictures = torch.cat([windows, windows.flip(2)])
    return torch.cat(
        [
            model.pyramid.hog(model.normalise(some.to(model.axes.device)), step).cpu()
            for some in torch.split(pictures, _BATCH)
        ]
    )


def _near(model: Dpm, aspects: Tensor) -> Tensor:
    """Which windows around objects, by their shapes (P,), overlap them enough: bool (P, h, w).

    The one in the middle does, however wide an object is.
    """
    places = 2 * MIDDLE + 1
    height = model.config.window_height - 2 * model.config.margin
    y, x = torch.meshgrid(*[(torch.arange(places) - MIDDLE).float() * ROOTS_STEP] * 2, indexing="ij")
    moves = torch.stack([x, y, x, y], -1).view(-1, 4)
    half = height * model.aspect.cpu() / 2
    windows = moves + torch.tensor([-half, -height / 2, half, height / 2])
    halves = height * aspects / 2
    level = torch.full_like(halves, height / 2)
    objects = torch.stack([-halves, -level, halves, level], 1)
    near = (pairwise_iou(objects, windows) >= PLACED).view(-1, places, places)
    near[:, MIDDLE, MIDDLE] = True
    return near
