"""Whether a file of lower precision still finds what its float32 file finds: a gate with stated bounds.

Lower precision changes every box and score a little, and where two overlapping boxes are nearly equal it
changes which of them survives suppression. So shares and means are bounded, not single detections: of all
*sure* detections, which the app would show, so many must have an equal in the other file, and their scores
must be alike on average. Where there are annotations, average precision is bounded too: that is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from export.accuracy import Annotated, Truth, average_precision
from export.artifact import ModelSpec
from export.parity import BATCH, Doubles, ParityError, placed, run_file
from export.reference import Found, Pixels, iou

SURE = 0.3
"""Score from which a detection is shown by default."""

FEWEST_SURE = 10
"""Fewer, counted in both files, prove little."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a precision may change."""

    same_iou: float
    least_share: float
    """Of sure detections of either file, those to which the other has one of their class at ``same_iou``."""
    most_score_difference: float
    """Mean over those pairs."""
    most_lost_ap: float
    """0 to 1; a gain is as suspicious as a loss."""


BOUNDS: dict[Literal["fp16", "int8"], Bounds] = {
    "fp16": Bounds(same_iou=0.9, least_share=0.97, most_score_difference=0.01, most_lost_ap=0.002),
    "int8": Bounds(same_iou=0.75, least_share=0.85, most_score_difference=0.06, most_lost_ap=0.01),
}
"""Measured on 450 to 870 pictures of ``coco-mini`` and ``pedestrians``: in float16 shares of 0.991 to 0.997 and
0.002; in int8 a ``lookout-yolox`` 0.95 to 0.99 and 0.01 to 0.04, YOLOX-nano 0.97 to 0.99 and 0.02 to 0.04. Broken
ones (YOLOX-nano with its first convolution in int8, at half its AP) 0.55 to 0.60 and 0.17 to 0.30."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much of what one file finds the other finds too."""

    share: float
    mean_score_difference: float
    max_score_difference: float
    mean_iou: float
    detections: int
    """Sure ones, of both files."""
    pictures: int
    ap: float | None = None
    ap_fp32: float | None = None

    def figures(self) -> dict[str, float]:
        """What is stored in the file's metadata."""
        figures = {
            "agreeing_share": round(self.share, 4),
            "mean_score_difference": self.mean_score_difference,
            "max_score_difference": self.max_score_difference,
            "mean_iou": self.mean_iou,
            "detections": self.detections,
            "pictures": self.pictures,
            "score_threshold": SURE,
        }
        if self.ap is not None and self.ap_fp32 is not None:
            figures |= {"AP": self.ap, "AP_fp32": self.ap_fp32}
        return figures

    def __str__(self) -> str:
        text = (
            f"{100 * self.share:.1f}% of {self.detections} detections of score {SURE} or more in "
            f"{self.pictures} pictures agree, mean IoU {self.mean_iou:.3f}, scores differ by "
            f"{self.mean_score_difference:.3f} on average"
        )
        if self.ap is None or self.ap_fp32 is None:
            return text
        return f"{text}; AP {self.ap:.4f}, float32 {self.ap_fp32:.4f}"


@dataclass(frozen=True, slots=True)
class Fp32:
    """A float32 file and what it found, to hold others against."""

    spec: ModelSpec
    images: Pixels  # (N, H, W, 3), letterboxed
    found: Sequence[Found]
    truth: Truth | None
    ap: float | None

    @classmethod
    def of(cls, path: Path, spec: ModelSpec, pictures: Sequence[Pixels], annotated: Annotated | None) -> Fp32:
        """Run a proven contract file.

        Args:
            path: of the file.
            spec: of the file.
            pictures: uint8 (height, width, 3) RGB of any shapes.
            annotated: pictures to measure average precision on.
        """
        images = np.stack([placed(picture, spec) for picture in pictures])
        truth = Truth.read(annotated, spec.names) if annotated else None
        ap = average_precision(path, spec, truth, "fp32") if truth else None
        return cls(spec, images, run_file(path, images, 1), truth, ap)


def check_agreement(fp32: Fp32, path: Path, precision: Literal["fp16", "int8"]) -> Agreement:
    """Hold a file of lower precision against its float32 file, picture by picture and in batches.

    Raises:
        ParityError: it fails to run, a bound of ``BOUNDS`` is broken, or there was too little to compare.
    """
    bounds = BOUNDS[precision]
    alone = run_file(path, fp32.images, 1)
    together = run_file(path, fp32.images, BATCH)
    agreement = _compare(fp32.found, alone, bounds.same_iou)
    if agreement.detections < FEWEST_SURE:
        raise ParityError(
            f"{precision}: {agreement.detections} detections of score {SURE} or more in {agreement.pictures} "
            f"pictures, expected {FEWEST_SURE} or more to compare; give pictures that show what the model "
            "knows: lookout export ... --pictures FOLDER"
        )
    if agreement.share < bounds.least_share:
        raise ParityError(
            f"{precision}: only {100 * agreement.share:.1f}% of detections agree, expected "
            f"{100 * bounds.least_share:.0f}% or more at IoU {bounds.same_iou} ({agreement})"
        )
    if agreement.mean_score_difference > bounds.most_score_difference:
        raise ParityError(
            f"{precision}: scores differ by {agreement.mean_score_difference:.3f} on average, expected "
            f"{bounds.most_score_difference} or less ({agreement})"
        )
    if _compare(alone, together, bounds.same_iou).share < bounds.least_share:
        raise ParityError(f"{precision}: pictures give other detections in a batch of {BATCH} than alone")
    return _with_ap(agreement, fp32, path, precision)


def _with_ap(agreement: Agreement, fp32: Fp32, path: Path, precision: Literal["fp16", "int8"]) -> Agreement:
    if fp32.truth is None or fp32.ap is None:
        return agreement
    ap = average_precision(path, fp32.spec, fp32.truth, precision)
    most = BOUNDS[precision].most_lost_ap
    if abs(ap - fp32.ap) > most:
        raise ParityError(
            f"{precision}: AP is {ap:.4f}, that of float32 {fp32.ap:.4f}; they may differ by {most}"
        )
    figures = (agreement.share, agreement.mean_score_difference, agreement.max_score_difference)
    return Agreement(*figures, agreement.mean_iou, agreement.detections, agreement.pictures, ap, fp32.ap)


def _compare(expected: Sequence[Found], got: Sequence[Found], same_iou: float) -> Agreement:
    pairs = [
        _partners(one, other)
        for ours, theirs in zip(expected, got, strict=True)
        for one, other in ((ours, theirs), (theirs, ours))
    ]
    overlaps = np.concatenate([overlap for overlap, _ in pairs])
    same = overlaps >= same_iou
    differences = np.concatenate([difference for _, difference in pairs])[same]
    return Agreement(
        share=float(same.mean()) if len(same) else 0.0,
        mean_score_difference=float(differences.mean()) if len(differences) else 0.0,
        max_score_difference=float(differences.max()) if len(differences) else 0.0,
        mean_iou=float(overlaps[same].mean()) if same.any() else 0.0,
        detections=len(overlaps),
        pictures=len(expected),
    )


def _partners(one: Found, other: Found) -> tuple[Doubles, Doubles]:
    """Of each sure detection of ``one``: IoU (M,) with the nearest of its class in ``other``; score difference."""
    rows = np.flatnonzero(one.scores >= SURE)
    if not len(other.scores):
        return np.zeros(len(rows)), np.zeros(len(rows))
    overlaps = iou(one.boxes[rows], other.boxes)
    overlaps[one.classes[rows][:, None] != other.classes[None]] = 0.0
    nearest = overlaps.argmax(axis=1)
    apart = np.abs(one.scores[rows].astype(np.float64) - other.scores[nearest])
    return overlaps[np.arange(len(rows)), nearest], apart
