"""Whether an exported file finds the same boxes as its unexported model, on real pictures.

The file is run both picture by picture and in batches. Knows nothing of families, torch, or how a
graph is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.artifact import ModelSpec
from export.cpu import cpu_session
from export.feeds import Feeds
from export.reference import Floats, Found, Ints, Pixels, Reference, iou
from models.errors import LookoutError

SCORE_THRESHOLD = 0.01
"""Every detection at or above this score must be found by both."""

SAME_BOX_IOU = 0.99
MOST_BOX_DIFFERENCE_PX = 0.05
MOST_SCORE_DIFFERENCE = 1e-3

FEWEST_DETECTIONS = 10
"""Fewer in real pictures prove little: one weak detection can agree by chance."""

BATCH = 16
FEW = 2
"""In a batch with proposals, each of which may go through much of a network."""

Doubles = npt.NDArray[np.float64]


class ParityError(LookoutError):
    """An exported file that does not do what its model does, or where that could not be shown."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest differences over all compared detections."""

    max_box_difference_px: float
    max_score_difference: float
    detections: int
    pictures: int
    shapes: int = 0
    """Synthetic pictures that were compared besides."""

    def figures(self) -> dict[str, float]:
        """What is stored in the file's metadata."""
        return {
            "max_box_difference_px": self.max_box_difference_px,
            "max_score_difference": self.max_score_difference,
            "detections": self.detections,
            "pictures": self.pictures,
            "shapes": self.shapes,
            "score_threshold": SCORE_THRESHOLD,
        }

    def __str__(self) -> str:
        return (
            f"{self.detections} detections in {self.pictures} pictures (besides {self.shapes} synthetic), "
            f"largest difference "
            f"{self.max_box_difference_px:.2g} px, score {self.max_score_difference:.2g}"
        )


def check_parity(
    path: Path,
    reference: Reference,
    pictures: Sequence[Pixels],
    spec: ModelSpec,
    shapes: Sequence[Pixels] = (),
) -> Parity:
    """Compare an exported file with its unexported model.

    Args:
        path: a file that has the contract's tensors.
        reference: the unexported model.
        pictures: uint8 (height, width, 3) RGB of any shapes.
        spec: of that file.
        shapes: synthetic pictures, compared alike; what is found in them does not count as proof.

    Raises:
        ParityError: it fails to run, a detection of one has no equal in the other, a difference is
            too large, or there was too little to compare.
    """
    feeds = Feeds.of([*pictures, *shapes], spec)
    images, proposals = feeds.images, feeds.proposals
    given = zip(images) if proposals is None else zip(images, proposals, strict=True)
    expected = [reference(*one) for one in given]
    highest = max((int(found.classes.max()) for found in expected if len(found.classes)), default=0)
    if highest >= len(spec.names):
        raise ParityError(
            f"parity check: the model finds its class {highest}, counted from 0, but there are only "
            f"{len(spec.names)} names; give them all with --names"
        )
    differences = [
        [
            _differences(want, got, f"picture {index + 1} of {len(images)}, {how},")
            for index, (want, got) in enumerate(zip(expected, run_file(path, feeds, batch), strict=True))
        ]
        for batch, how in ((1, "alone"), (BATCH if proposals is None else FEW, "in a batch"))
    ]
    compared = sum(len(boxes) for boxes, _ in differences[0][: len(pictures)])
    if compared < FEWEST_DETECTIONS:
        raise ParityError(
            f"parity check: {compared or 'no'} detections of score {SCORE_THRESHOLD} or more in "
            f"{len(pictures)} pictures, expected {FEWEST_DETECTIONS} or more to compare; give pictures that "
            "show what the model knows: lookout export ... --pictures FOLDER"
        )
    boxes = np.concatenate([boxes for run in differences for boxes, _ in run])
    scores = np.concatenate([scores for run in differences for _, scores in run])
    parity = Parity(float(boxes.max()), float(scores.max()), compared, len(pictures), len(shapes))
    if parity.max_box_difference_px > MOST_BOX_DIFFERENCE_PX:
        raise ParityError(f"parity check: boxes differ by more than {MOST_BOX_DIFFERENCE_PX} px ({parity})")
    if parity.max_score_difference > MOST_SCORE_DIFFERENCE:
        raise ParityError(f"parity check: scores differ by more than {MOST_SCORE_DIFFERENCE} ({parity})")
    return parity


def placed(picture: Pixels, spec: ModelSpec) -> Pixels:
    """A picture as the model's input has it."""
    height, width = picture.shape[:2]
    return spec.place(width, height).apply(picture)


def run_file(path: Path, given: Feeds | Pixels, batch: int) -> list[Found]:
    """What the file finds in pictures, given ``batch`` of them at a time (the last time, the rest)."""
    feeds = given if isinstance(given, Feeds) else Feeds(given)
    doing = "does not load"
    outputs: list[Found] = []
    try:
        session = cpu_session(str(path))
        for first in range(0, len(feeds.images), batch):
            part = feeds.part(first, batch)
            doing = f"does not run on a batch of {len(part['images'])}"
            tensors = session.run(["boxes", "scores", "classes"], part)
            outputs += [_real_rows(*rows) for rows in zip(*tensors, strict=True)]
    except Exception as error:  # onnxruntime's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ParityError(f"the exported graph {doing}: {lines[0][:300]}") from error
    return outputs


def _real_rows(boxes: Floats, scores: Floats, classes: Ints) -> Found:
    real = scores > 0
    return Found(boxes[real], scores[real], classes[real])


def _differences(expected: Found, exported: Found, where: str) -> tuple[Doubles, Doubles]:
    """Box (M,) and score (M,) differences of the detections that must be in both.

    Raises:
        ParityError: one of them is missing in the other.
    """
    same = iou(expected.boxes, exported.boxes) >= SAME_BOX_IOU
    apart = np.abs(expected.boxes[:, None] - exported.boxes[None]).max(axis=2).astype(np.float64)
    same |= apart <= MOST_BOX_DIFFERENCE_PX  # a box without area has no IoU
    same &= expected.classes[:, None] == exported.classes[None]
    threshold = max(SCORE_THRESHOLD, expected.cut + MOST_SCORE_DIFFERENCE)
    for found, partner, who, other in (
        (expected, same.any(axis=1), "model", "exported file"),
        (exported, same.any(axis=0), "exported file", "model"),
    ):
        lonely = np.flatnonzero((found.scores >= threshold) & ~partner)
        if len(lonely):
            row = lonely[0]
            raise ParityError(
                f"parity check: in {where} the {who} finds class {found.classes[row]} at "
                f"{found.boxes[row].round(1).tolist()}, score {found.scores[row]:.3f}; the {other} does not"
            )
    score_apart = np.abs(expected.scores[:, None].astype(np.float64) - exported.scores[None])
    rows = np.flatnonzero(expected.scores >= threshold)
    # Boxes that were cut at the picture's edge may be equal: then the score tells which is which.
    columns = np.where(same, apart + score_apart, np.inf)[rows].argmin(axis=1) if len(rows) else rows
    return apart[rows, columns], score_apart[rows, columns]
