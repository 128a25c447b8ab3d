"""A proven float32 contract file -> float16 or int8, held to its bounds (``export.agreement``), or none at all.

int8 is tried with as little in float32 as calibration allows, and where that breaks a bound with more of the
first layers, which see the finest detail, and of the last, which say boxes and scores, left in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import onnx
from rich.console import Console
from rich.progress import track

from export.accuracy import Annotated
from export.agreement import Agreement, Fp32, check_agreement
from export.artifact import ArtifactError, ModelSpec
from export.batch import loop_body, with_loop_body
from export.drift import find_drift
from export.half import halved
from export.network import network_of, prepared
from export.parity import ParityError
from export.quantize import Calibration, calibrate, quantizable, quantized
from export.reference import Pixels
from export.speed import on_one_core, run_seconds, speed_ratio
from export.stem import with_blocks

Say = Callable[[str], None]
Save = Callable[[onnx.ModelProto, ModelSpec], Path]
Lower = Literal["fp16", "int8"]

ATTEMPTS = ((0.0, 1), (0.1, 5), (0.25, 5))
"""What stays float32 in one attempt at int8 after the other: a share of the layers, from the first on, and so
many layers on every way to the end (5: a decoupled head's branch of two separable convolutions and its last).

YOLOX-nano loses more than 0.01 AP by the first (0.033) and 0.006 by the second; an EfficientNet-Lite0 (ReLU6, family
``lookout-yolox``) passes at once.
"""


SPEED_S = 2.0
"""How long to measure it; ``lookout bench precision`` takes its time."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph of lower precision that passed, with its spec."""

    model: onnx.ModelProto
    spec: ModelSpec
    agreement: Agreement


def lowered(
    path: Path,
    model: onnx.ModelProto,
    spec: ModelSpec,
    precision: Lower,
    pictures: Sequence[Pixels],
    annotated: Annotated | None,
    save: Save,
    say: Say,
) -> Lowered:
    """Convert a float32 contract graph.

    Args:
        path: of its file.
        model: what is in it.
        spec: of it.
        precision: wanted.
        pictures: uint8 (height, width, 3) RGB of any shapes, to calibrate on and to compare.
        annotated: pictures to measure average precision on.
        save: writes a graph to a file for a trial.
        say: told of attempts that failed.

    Raises:
        ArtifactError: the graph cannot be converted.
        ParityError: what came of it breaks a bound; names the tensor that drifts first.
    """
    fp32 = Fp32.of(path, spec, pictures, annotated)
    wanted = replace(spec, precision=precision)
    attempts = _attempts(path, model, precision, fp32, say)
    while True:
        trial = next(attempts)
        file = save(trial.model, wanted)
        try:
            agreement = check_agreement(fp32, file, precision)
        except ParityError as error:
            if not trial.is_last:
                say(f"{precision:<11} {trial.said}; that is too much: {error}; again with more in float32")
                continue
            drift = find_drift(model, trial.model, fp32.images[0], precision)
            raise ParityError(f"{error}; {drift or 'no tensor inside has the same name in both'}") from error
        say(f"{precision:<11} {trial.said}")
        say(f"speed       {_speed(path, file, fp32.images)}")
        return Lowered(trial.model, replace(wanted, parity=agreement.figures()), agreement)


def _speed(fp32: Path, lower: Path, images: Pixels) -> str:
    feeds = [{"images": image[None]} for image in images[:8]]
    before, after = run_seconds([on_one_core(fp32), on_one_core(lower)], [feeds, feeds], SPEED_S)
    times = f"{1000 * median(after):.1f} ms a picture instead of {1000 * median(before):.1f}"
    return f"{speed_ratio(before, after):.2f} times that of float32 on this CPU, one thread ({times})"


@dataclass(frozen=True, slots=True)
class _Trial:
    model: onnx.ModelProto
    said: str
    is_last: bool


def _attempts(path: Path, model: onnx.ModelProto, precision: Lower, fp32: Fp32, say: Say) -> Iterator[_Trial]:
    """Graphs to try, the boldest first."""
    try:
        body = prepared(loop_body(model))
        layers = network_of(body.graph).layers
        if not layers:
            raise ArtifactError(
                f"{path}: has no layer with float32 weights; {precision} has nothing to convert"
            )
        if precision == "fp16":
            said = f"{len(layers)} layers in float16, pixels, boxes and scores in float32"
            yield _Trial(with_loop_body(model, halved(body)), said, is_last=True)
            return
        calibration = _calibrate(with_blocks(body), fp32.images)
        choices = [quantizable(calibration, round(share * len(layers)), last) for share, last in ATTEMPTS]
        choices = [nodes for nodes in choices if set(nodes) & set(layers)]
        if not choices:
            raise ArtifactError(
                f"{path}: none of its {len(layers)} layers can be int8: the last ones stay in float32, and so does "
                "what 8 bits change too much"
            )
        for nodes in choices:
            trial = with_loop_body(model, quantized(calibration, nodes))
            yield _Trial(trial, _said(calibration, nodes), nodes is choices[-1])
    except (ArtifactError, ParityError):
        raise
    except Exception as error:  # converters' errors share no base class
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ArtifactError(f"{path}: cannot be converted to {precision}: {line}") from error


def _calibrate(model: onnx.ModelProto, images: Pixels) -> Calibration:
    pictures = list(images)
    shown = track(pictures, "calibrating", console=Console(stderr=True), transient=True)
    return calibrate(model, pictures, shown)


def _said(calibration: Calibration, nodes: list[str]) -> str:
    layers = calibration.network.layers
    count = len(set(layers) & set(nodes))
    return f"{count} of {len(layers)} layers in int8, the others, pixels, boxes and scores in float32"
