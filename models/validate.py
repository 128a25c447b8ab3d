"""Measuring a detector on annotated pictures, in PyTorch.

``lookout eval`` measures exported files through the live app's own detector instead.
Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from models.augment import letterboxed
from models.coco import load_coco
from models.evaluate import Metrics, Prediction, coco_metrics
from models.letterbox import Letterbox
from models.postprocess import detections
from models.yolox import Yolox

_SCORE_THRESHOLD = 0.005
_BATCH = 8


def validate(model: Yolox, annotations: Path, images: Path, device: torch.device) -> Metrics:
    """COCO metrics of ``model`` (in evaluation mode, on ``device``) on a COCO JSON file.

    Raises:
        DataError: the annotations or a picture are wrong.
    """
    names = model.config.names
    return coco_metrics(annotations, names, _predictions(model, annotations, images, device))


@torch.no_grad()
def _predictions(model: Yolox, annotations: Path, images: Path, device: torch.device) -> Iterator[Prediction]:
    height, width = model.config.input_height, model.config.input_width
    examples = load_coco(annotations, images, model.config.names)
    for start in range(0, len(examples), _BATCH):
        chunk = examples[start : start + _BATCH]
        pictures = [torch.from_numpy(letterboxed(example, height, width).image) for example in chunk]
        boxes, scores = model.decode(model.normalise(torch.stack(pictures).to(device)))
        for example, its_boxes, its_scores in zip(chunk, boxes.cpu(), scores.cpu(), strict=True):
            found = detections(its_boxes, its_scores, _SCORE_THRESHOLD)
            box = Letterbox.fit(example.width, example.height, width, height)
            yield Prediction(
                example.image_id, box.to_source(found[0].numpy()), found[1].numpy(), found[2].numpy()
            )
