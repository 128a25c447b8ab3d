"""What lower precision buys and costs: int8 and float16 of a model against its float32 file.

The files are made as ``lookout export --precision`` makes them, with its gate, in a temporary folder; then all
are run in turn on frames of the demo clips, as the app runs them, and the ratio is the median over runs side by
side: on a CPU one picture at a time on one thread, on a GPU as many as it takes at once. On a CPU float16 is
only emulated; it is made for GPUs.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from export.accuracy import Annotated
from export.artifact import ModelSpec, Precision, load, read_spec
from export.convert import export_model
from export.parity import placed
from export.pictures import parity_pictures
from export.speed import Feeds, Model, run_seconds, speed_ratio
from stream.device import Device, open_session
from stream.errors import LookoutError, UsageError

PRECISIONS: tuple[Precision, ...] = ("int8", "fp16")


def run(
    model: str,
    seconds: float = 30.0,
    device: Device = "cpu",
    pictures: Path | None = None,
    annotated: Annotated | None = None,
) -> dict[str, Any]:
    """Make the files and measure them.

    Args:
        model: a float32 contract file.
        seconds: how long to measure.
        device: where they run; parity and AP are measured on the CPU.
        pictures: to calibrate on; None takes the packaged clips.
        annotated: to measure AP on; None leaves it out.

    Returns:
        ``fp32_ms`` (of a batch) and, for each precision, ``..._ms``, ``..._speed`` (1 is float32's), the
        ``..._agreeing_share`` and with annotations ``..._AP`` beside ``fp32_AP``; or ``..._refused`` by the
        gate, and why.
    """
    spec = read_spec(load(model), model)
    if spec.proposals is not None:
        raise UsageError(
            f"{model}: a {spec.family} judges proposals, and is float32 alone; give another model"
        )
    files: dict[str, Path] = {"fp32": Path(model)}
    figures: dict[str, Any] = {"model": Path(model).stem, "input": f"{spec.input_width}x{spec.input_height}"}
    with TemporaryDirectory(prefix="lookout-bench-") as folder:
        for precision in PRECISIONS:
            out = Path(folder, f"{precision}.onnx")
            try:
                made = export_model(
                    Path(model),
                    out,
                    precision=precision,
                    pictures=pictures,
                    annotated=annotated,
                    say=lambda line: None,
                )
            except LookoutError as error:
                figures[f"{precision}_refused"] = str(error)
                continue
            files[precision] = out
            figures |= _costs(precision, made)
        figures |= _speeds(files, spec, device, seconds)
    return figures


def _costs(precision: Precision, made: ModelSpec) -> dict[str, Any]:
    figures: dict[str, Any] = {f"{precision}_agreeing_share": round(made.parity["agreeing_share"], 3)}
    if "AP" in made.parity:
        figures["fp32_AP"] = round(made.parity["AP_fp32"], 4)
        figures[f"{precision}_AP"] = round(made.parity["AP"], 4)
    return figures


def _speeds(files: dict[str, Path], spec: ModelSpec, device: Device, seconds: float) -> dict[str, Any]:
    sessions = [open_session(path, spec, device, 1) for path in files.values()]
    pictures = [placed(picture, spec) for picture in parity_pictures(None)]
    batch = sessions[0].most_pictures
    feeds: list[Feeds] = [
        {"images": np.stack(pictures[first : first + batch])}
        for first in range(0, len(pictures) - batch + 1, batch)
    ]
    models: list[Model] = [
        lambda given, session=session: session.run(given["images"])  # type: ignore[misc]
        for session in sessions
    ]
    taken = run_seconds(models, [feeds] * len(files), seconds)
    figures: dict[str, Any] = {"device": sessions[0].device, "batch": batch, "runs_each": len(taken[0])}
    for name, times in zip(files, taken, strict=True):
        figures[f"{name}_ms"] = round(1000 * median(times), 2)
        if name != "fp32":
            figures[f"{name}_speed"] = round(speed_ratio(taken[0], times), 3)
    return figures
