"""A GPU's way to change colours, computed here on the CPU, against OpenCV's and against the definition."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.augment import Augmentation
from models.coco import load_coco
from models.loader import EpochSamples, epoch_batches
from models.recolour import recoloured

COLOURFUL = Augmentation(hue=0.5, saturation=0.9, brightness=0.9)
PEOPLE = ("person",)


def test_pixels_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 40, 1, 3)).astype(np.uint8)
    pixels[:, :6, 0] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [200, 200, 0], [7, 0, 7]]
    colours = [(0.0, 1.0, 1.0), (0.3, 1.7, 0.6), (-0.45, 0.4, 1.8)]
    made = recoloured(torch.from_numpy(pixels), torch.tensor(colours)).numpy()
    assert np.array_equal(made[0], pixels[0]), "unchanged where nothing is to change"
    for picture, (hue, saturation, brightness), result in zip(pixels, colours, made, strict=True):
        for pixel, found in zip(picture[:, 0] / 255, result[:, 0], strict=True):
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            wanted = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), min(1, v * brightness))
            assert np.abs(255 * np.array(wanted) - found).max() < 0.51


def test_a_batch_to_be_recoloured_becomes_what_workers_make(shared: Path) -> None:
    """Real pictures; OpenCV's hue has steps of two degrees, and its saturation 255."""
    data = shared / "data" / "pedestrians"
    examples = load_coco(data / "instances_val.json", data / "images", PEOPLE)[:8]
    samples = EpochSamples(examples, 192, 256, COLOURFUL, (1.0, 1.0), seed=0, epoch=0)
    [made] = epoch_batches(samples, 8, 0)
    [raw] = epoch_batches(replace(samples, recolour=False), 8, 0)
    assert made.colours is None
    assert raw.colours is not None
    later = recoloured(raw.images, raw.colours)
    untouched = (raw.images.int() - made.images.int()).abs().float()
    apart = (later.int() - made.images.int()).abs().float()
    print(f"mean {apart.mean():.2f}, largest {apart.max():.0f}, before {untouched.mean():.1f}")
    assert untouched.mean() > 20
    assert apart.mean() < 1.5
    assert apart.max() < 16
