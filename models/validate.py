"""Measuring a detector on annotated pictures, in PyTorch.

``lookout eval`` measures exported files through the live app's own detector instead.
Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from faster_coco_eval import COCO
from torch import Tensor

from models.annotations import read_annotations
from models.augment import letterboxed
from models.coco import Example, examples_of
from models.detector import Detector
from models.evaluate import Metrics, Prediction, ground_truth, judged
from models.letterbox import Letterbox
from models.postprocess import detections
from models.sample import Sample

_SCORE_THRESHOLD = 0.005
_BATCH = 8


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Annotated pictures, read and checked once, to be measured on after many epochs."""

    examples: list[Example]
    truth: COCO
    names: tuple[str, ...]


def load_validation(
    annotations: Path, images: Path, names: tuple[str, ...], renamed: Mapping[str, str] | None = None
) -> ValidationSet:
    """The validation data of ``annotations`` whose pictures are in the folder ``images``.

    ``renamed`` is what its categories are called in ``names``, where that is something else.

    Raises:
        DataError: the annotations are wrong or have no box of ``names``, or a picture is missing.
    """
    file = read_annotations(annotations, images, names, renamed=renamed)
    return ValidationSet(examples_of(file, images), ground_truth(file, names), names)


def validate(model: Detector, data: ValidationSet, device: torch.device) -> tuple[Metrics, list[Prediction]]:
    """COCO metrics of ``model`` (in evaluation mode, on ``device``), whose classes are the data's, and what it found.

    Raises:
        DataError: a picture cannot be read.
    """
    predictions = list(_predictions(model, data.examples, device))
    return judged(data.truth, data.names, predictions), predictions


@torch.no_grad()
def _predictions(model: Detector, examples: list[Example], device: torch.device) -> Iterator[Prediction]:
    height, width = model.config.input_height, model.config.input_width
    for start in range(0, len(examples), _BATCH):
        chunk = examples[start : start + _BATCH]
        samples = [letterboxed(example, height, width) for example in chunk]
        pictures = torch.stack([torch.from_numpy(sample.image) for sample in samples])
        proposals = _padded(samples).to(device) if model.takes_proposals else None
        boxes, scores = model.decode(model.normalise(pictures.to(device)), proposals)
        for example, its_boxes, its_scores in zip(chunk, boxes.cpu(), scores.cpu(), strict=True):
            found = detections(its_boxes, its_scores, _SCORE_THRESHOLD, model.nms_threshold)
            box = Letterbox.fit(example.width, example.height, width, height)
            yield Prediction(
                example.image_id, box.to_source(found[0].numpy()), found[1].numpy(), found[2].numpy()
            )


def _padded(samples: list[Sample]) -> Tensor:
    """Their proposals as one float32 (B, R, 4), filled up with zeros; at least one row."""
    boxes = [torch.from_numpy(sample.proposals) for sample in samples]
    most = max(1, *(len(each) for each in boxes))
    return torch.stack([torch.nn.functional.pad(each, (0, 0, 0, most - len(each))) for each in boxes])
