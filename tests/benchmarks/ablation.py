"""What a paper's own idea is worth: average precision of one checkpoint with and without it.

    python -m tests.benchmarks.ablation runs/rcnn/best.pt ANNOTATIONS.json IMAGES [--found DIR] [--processes 2]

Of an R-CNN it is box regression, of an OverFeat the greedy merging of boxes in place of suppression. Every picture
goes through the network once. Proposals are kept in ``--found``, as a training keeps them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from models.augment import letterboxed
from models.checkpoint import load_checkpoint
from models.coco import Example
from models.detector import Detector
from models.evaluate import Prediction, judged
from models.letterbox import Letterbox
from models.lineage.box_coding import clip
from models.lineage.box_head import candidates
from models.lineage.box_merging import merged_detections
from models.lineage.overfeat import Overfeat
from models.lineage.proposal_cache import ProposalCache
from models.lineage.proposals import ProposalRule
from models.lineage.rcnn import Rcnn
from models.postprocess import detections
from models.sample import Sample
from models.validate import load_validation

SCORE_FLOOR = 0.005
SEEN = 0.1
"""A window below says nothing to merging, which adds scores up: hundreds of doubtful ones would make a sure one."""

Found = tuple[Tensor, Tensor, Tensor]


def run(checkpoint: Path, annotations: Path, images: Path, found: Path, processes: int) -> dict[str, Any]:
    """``with`` and ``without`` the idea: COCO's metrics."""
    model, _ = load_checkpoint(checkpoint)
    data = load_validation(annotations, images, model.config.names)
    examples = data.examples
    if isinstance(model, Rcnn):
        rule = ProposalRule.parse(model.config.proposals)
        cache = ProposalCache(found, rule, model.config.input_height, model.config.input_width)
        examples = cache.add_to(examples, processes)
    elif not isinstance(model, Overfeat):
        raise SystemExit(f"{checkpoint}: is a {model.family}; expected an rcnn or an overfeat")
    judging = track(examples, "judging", console=Console(stderr=True), transient=True)
    pairs = [tuple(_predictions(model, example)) for example in judging]
    return {
        name: asdict(judged(data.truth, data.names, those))
        for name, those in zip(("with", "without"), zip(*pairs, strict=True), strict=True)
    }


@torch.no_grad()
def _predictions(model: Detector, example: Example) -> Iterator[Prediction]:
    """A picture's detections with the idea, then those without."""
    height, width = model.config.input_height, model.config.input_width
    placed = letterboxed(example, height, width)
    letterbox = Letterbox.fit(example.width, example.height, width, height)
    both = _regressed(model, placed) if isinstance(model, Rcnn) else _merged(model, placed)
    for boxes, scores, classes in both:
        source = letterbox.to_source(boxes.numpy())
        yield Prediction(example.image_id, source, scores.numpy(), classes.numpy())


def _regressed(model: Rcnn, placed: Sample) -> tuple[Found, Found]:
    image = model.normalise(torch.from_numpy(placed.image)[None])
    proposals = torch.from_numpy(placed.proposals)[None]
    better, likely = model.judged(image, proposals)
    unmoved = proposals[:, :, None].expand(-1, -1, len(model.config.names), -1)

    def found(boxes: Tensor) -> Found:
        best, scores = candidates(clip(boxes, *image.shape[2:]), likely)
        return detections(best[0], scores[0], SCORE_FLOOR, model.nms_threshold)

    return found(better), found(unmoved)


def _merged(model: Detector, placed: Sample) -> tuple[Found, Found]:
    boxes, scores = model.decode(model.normalise(torch.from_numpy(placed.image)[None]))
    merged = merged_detections(boxes[0], scores[0], SEEN)
    return merged, detections(boxes[0], scores[0], SCORE_FLOOR, model.nms_threshold)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    text = "where proposals are kept"
    parser.add_argument("--found", type=Path, default=Path("runs/rcnn/proposals"), help=text)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    figures = run(given.checkpoint, given.annotations, given.images, given.found, given.processes)
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
