"""From annotated pictures to training samples of the model's input size.

Every resize goes through :class:`models.letterbox.Letterbox`, the one the live app uses: a sample is
one letterboxed picture, or a mosaic of four (arXiv 2004.10934), cropped, flipped and recoloured at
random. All randomness comes from the generator that is passed in. Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from models.coco import Example
from models.letterbox import PAD_VALUE, Letterbox
from models.mixing import Objects, mixed, pasted
from models.sample import AS_THEY_ARE, Colours, FloatBoxes, Picture, Sample

_MIN_SIDE_PX = 3.0
_MIN_VISIBLE = 0.3
_MIXED = 0.4, 0.6
"""Each picture's share, where two are seen through each other."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far samples may be changed; the defaults change nothing."""

    flip: float = 0.0
    """Probability of a left-right mirror image."""
    mosaic: float = 0.0
    """Probability of composing four pictures."""
    mixup: float = 0.0
    """Probability of seeing another sample through this one."""
    paste: float = 0.0
    """Probability of an object of another picture in it."""
    crop: float = 0.0
    """How much of each side may be cut off, beyond what fits the input's shape."""
    shrink: float = 0.0
    """A single picture is scaled down to at least ``1 - shrink`` of the input."""
    hue: float = 0.0
    """Largest shift, as a part of the full circle."""
    saturation: float = 0.0
    """Largest relative change."""
    brightness: float = 0.0
    """Largest relative change."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Whole pixels: left and top are inside, right and bottom just outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


def letterboxed(example: Example, input_height: int, input_width: int) -> Sample:
    """The sample that the live app would see: no randomness."""
    whole = Rectangle(0, 0, example.width, example.height)
    canvas = Rectangle(0, 0, input_width, input_height)
    return _place(example, example.read(), whole, canvas, flip=False)


def augmented(
    examples: Sequence[Example],
    index: int,
    input_height: int,
    input_width: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
    objects: Objects | None = None,
    *,
    recolour: bool = True,
) -> Sample:
    """A random sample around ``examples[index]``; a mosaic draws three more pictures.

    Args:
        objects: those that may be pasted; by default found anew, which takes a look at all examples.
        recolour: False leaves the picture's colours to :func:`models.recolour.recoloured`.
    """
    canvas = Rectangle(0, 0, input_width, input_height)
    sample = _composed(examples, index, canvas, augmentation, rng)
    if rng.random() < augmentation.mixup:
        other = _composed(examples, int(rng.integers(len(examples))), canvas, augmentation, rng)
        sample = mixed(sample, other, float(rng.uniform(*_MIXED)))
    if rng.random() < augmentation.paste:
        sample = pasted(sample, objects or Objects.of(examples), rng)
    colours = _colours(augmentation, rng)
    return (
        replace(sample, image=_recoloured(sample.image, colours))
        if recolour
        else replace(sample, colours=colours)
    )


def _composed(
    examples: Sequence[Example],
    index: int,
    canvas: Rectangle,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """One picture, or four."""
    if rng.random() < augmentation.mosaic:
        others = rng.integers(0, len(examples), 3).tolist()
        tiles = _quarters(canvas, rng)
    else:
        others = []
        tiles = [_shrunk(canvas, augmentation.shrink, rng)]
    parts = []
    for position, tile in zip([index, *others], tiles, strict=True):
        example = examples[position]
        crop = _crop(example.width, example.height, tile, augmentation.crop, rng)
        parts.append(_place(example, example.read(), crop, tile, bool(rng.random() < augmentation.flip)))
    return _compose(parts, tiles, canvas)


def _crop(width: int, height: int, tile: Rectangle, strength: float, rng: np.random.Generator) -> Rectangle:
    """A random part of a picture, in shape between the picture and the tile it is to fill.

    Of the shape that was drawn it keeps at least ``1 - strength``.
    """
    if strength == 0:
        return Rectangle(0, 0, width, height)
    largest = min(width / tile.width, height / tile.height)
    likeness, scale = rng.random(), rng.uniform(1 - strength, 1)
    crop_width = max(1, round(scale * (width + likeness * (largest * tile.width - width))))
    crop_height = max(1, round(scale * (height + likeness * (largest * tile.height - height))))
    left = int(rng.integers(0, width - crop_width + 1))
    top = int(rng.integers(0, height - crop_height + 1))
    return Rectangle(left, top, left + crop_width, top + crop_height)


def _shrunk(canvas: Rectangle, strength: float, rng: np.random.Generator) -> Rectangle:
    """A smaller canvas of the same shape, somewhere inside ``canvas``."""
    scale = rng.uniform(1 - strength, 1)
    width, height = round(canvas.width * scale), round(canvas.height * scale)
    left = int(rng.integers(0, canvas.width - width + 1))
    top = int(rng.integers(0, canvas.height - height + 1))
    return Rectangle(left, top, left + width, top + height)


def _quarters(canvas: Rectangle, rng: np.random.Generator) -> list[Rectangle]:
    x = round(canvas.width * rng.uniform(0.35, 0.65))
    y = round(canvas.height * rng.uniform(0.35, 0.65))
    columns, rows = ((0, x), (x, canvas.width)), ((0, y), (y, canvas.height))
    return [Rectangle(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _place(example: Example, picture: Picture, crop: Rectangle, tile: Rectangle, flip: bool) -> Sample:
    """``crop`` of a picture letterboxed to the size of ``tile``; boxes are relative to the tile."""
    box = Letterbox.fit(crop.width, crop.height, tile.width, tile.height)
    part = picture[crop.top : crop.bottom, crop.left : crop.right]
    image = box.apply(np.asarray(cv2.flip(part, 1), np.uint8) if flip else part)
    boxes, visible = _cropped(example.boxes, crop, flip)
    boxes = box.to_input(boxes)
    sides = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    kept = (visible >= _MIN_VISIBLE) & (sides >= _MIN_SIDE_PX)
    crowds, crowd_visible = _cropped(example.crowds, crop, flip)
    proposals, proposal_visible = _cropped(example.proposals, crop, flip)
    content = np.array([[0, 0, box.content_width, box.content_height]], np.float32)
    return Sample(
        image=image,
        boxes=boxes[kept],
        classes=example.classes[kept],
        ignored=np.concatenate([boxes[~kept & (visible > 0)], box.to_input(crowds)[crowd_visible > 0]]),
        partial=content if example.partial else np.zeros((0, 4), np.float32),
        proposals=box.to_input(proposals)[proposal_visible >= _MIN_VISIBLE],
    )


def _cropped(boxes: FloatBoxes, crop: Rectangle, flip: bool) -> tuple[FloatBoxes, FloatBoxes]:
    """Boxes relative to ``crop``, clipped and mirrored, and the visible part (N,) of each, 0 to 1."""
    limits = np.array([crop.width, crop.height, crop.width, crop.height], np.float32)
    offset = np.array([crop.left, crop.top, crop.left, crop.top], np.float32)
    clipped = np.clip(boxes - offset, 0, limits)
    visible = np.prod(clipped[:, 2:] - clipped[:, :2], 1) / np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    if flip:
        clipped[:, [0, 2]] = crop.width - clipped[:, [2, 0]]
    return clipped, visible


def _compose(parts: Sequence[Sample], tiles: Sequence[Rectangle], canvas: Rectangle) -> Sample:
    image = np.full((canvas.height, canvas.width, 3), PAD_VALUE, np.uint8)
    moved = []
    for part, tile in zip(parts, tiles, strict=True):
        image[tile.top : tile.bottom, tile.left : tile.right] = part.image
        offset = np.array([tile.left, tile.top, tile.left, tile.top], np.float32)
        moved.append([kind + offset for kind in (part.boxes, part.ignored, part.partial, part.proposals)])
    boxes, ignored, partial, proposals = (np.concatenate(kind) for kind in zip(*moved, strict=True))
    classes = np.concatenate([part.classes for part in parts])
    return Sample(image, boxes, classes, ignored, partial, proposals)


def _colours(augmentation: Augmentation, rng: np.random.Generator) -> Colours:
    """The same for the whole picture."""
    hue = rng.uniform(-augmentation.hue, augmentation.hue)
    saturation = rng.uniform(1 - augmentation.saturation, 1 + augmentation.saturation)
    brightness = rng.uniform(1 - augmentation.brightness, 1 + augmentation.brightness)
    return hue, saturation, brightness


def _recoloured(image: Picture, colours: Colours) -> Picture:
    if colours == AS_THEY_ARE:
        return image
    hue, saturation, brightness = colours
    levels = np.arange(256)
    tables = np.empty((1, 256, 3), np.uint8)
    tables[0, :, 0] = (levels + round(hue * 180)) % 180  # OpenCV keeps hue as 0 to 179
    tables[0, :, 1] = np.clip(levels * saturation, 0, 255)
    tables[0, :, 2] = np.clip(levels * brightness, 0, 255)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
