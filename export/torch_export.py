"""A checkpoint of lookout's own detector -> a body (see ``graph``), by torch's exporter.

Knows nothing of NMS or metadata; the only file here that imports torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from export.adapt import Body
from export.contract import complete
from export.graph import OPSET, modernised
from export.names import class_names
from export.reference import Floats, Found, Ints, Pixels, find
from models.boxes import nms
from models.checkpoint import load_checkpoint
from models.detector import Detector


class _FromPictures(nn.Module):
    """The whole detector as one function of the contract's input."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        boxes, class_scores = self.model.decode(self.model.normalise(images))
        return boxes, class_scores


def checkpoint_body(path: Path, names: tuple[str, ...] | None, nms_threshold: float | None) -> Body:
    """The body of a checkpoint.

    Args:
        path: a checkpoint of ``lookout train``.
        names: in place of the checkpoint's own.
        nms_threshold: in place of its family's own.

    Raises:
        CheckpointError: not a checkpoint.
        AdaptError: the names do not fit its classes.
    """
    model, meta = load_checkpoint(path)
    threshold = model.nms_threshold if nms_threshold is None else nms_threshold
    height, width = meta.input_height, meta.input_width
    whole = _FromPictures(model).eval()

    def reference(picture: Pixels) -> Found:
        with torch.inference_mode():
            boxes, class_scores = whole(torch.from_numpy(picture)[None])
        return find(boxes[0].numpy(), class_scores[0].numpy(), threshold, _suppress)

    return Body(
        model=complete(_to_onnx(whole, height, width), threshold),
        family=meta.family,
        names=class_names(path, names or meta.names, len(meta.names)),
        input_height=height,
        input_width=width,
        reference=reference,
        said=f"lookout checkpoint, {meta.family} after {meta.epoch} epochs",
        nms_threshold=threshold,
    )


def _suppress(boxes: Floats, scores: Floats, classes: Ints, iou_threshold: float) -> Ints:
    """``models.boxes.nms`` on arrays."""
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), iou_threshold)
    return kept.numpy()


def _to_onnx(whole: nn.Module, input_height: int, input_width: int) -> onnx.ModelProto:
    example = torch.zeros((2, input_height, input_width, 3), dtype=torch.uint8)  # a batch of 1 is specialised
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            whole,
            (example,),
            input_names=["images"],
            output_names=["boxes", "class_scores"],
            dynamic_shapes={"images": {0: torch.export.Dim("B", min=1, max=1024)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _without_traces(modernised(program.model_proto))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not used here, and on its own deprecations."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            yield
    finally:
        registration.setLevel(level)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drops what the exporter notes of each node: stack traces, with the paths of this machine."""
    graph = model.graph
    for part in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del model.metadata_props[:]
    return model
