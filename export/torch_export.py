"""A checkpoint of lookout's own, a Darknet network, a YOLOX of Megvii's -> a body (see ``graph``), by torch's exporter.

Knows nothing of NMS or metadata; with `torch_ops`, all that imports torch here.
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

from export.adapt import AdaptError, Body
from export.artifact import ProposalRule
from export.contract import complete
from export.graph import OPSET, modernised
from export.names import class_names
from export.reference import Floats, Found, Ints, Pixels, find
from export.torch_ops import translations
from models.boxes import nms
from models.checkpoint import load_checkpoint
from models.detector import Detector
from models.lineage.darknet import read_darknet
from models.lineage.fast_rcnn import FastRcnn
from models.megvii_weights import class_rows, detector_of, read_megvii
from models.megvii_yolox import SIZES


class _FromPictures(nn.Module):
    """The whole detector as one function of the contract's input."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        boxes, class_scores = self.model.decode(self.model.normalise(images), proposals)
        return boxes, class_scores


def checkpoint_body(
    path: Path,
    names: tuple[str, ...] | None,
    nms_threshold: float | None,
    ranks: tuple[int, ...] | None = None,
) -> Body:
    """The body of a checkpoint.

    Args:
        path: a checkpoint of ``lookout train``.
        names: in place of the checkpoint's own.
        nms_threshold: in place of its family's own.
        ranks: of a Fast R-CNN's fully connected layers, see :meth:`models.lineage.fast_rcnn.FastRcnn.truncated`.

    Raises:
        CheckpointError: not a checkpoint.
        AdaptError: the names do not fit its classes, or the ranks do not fit its layers.
    """
    model, meta = load_checkpoint(path)
    if ranks is not None:
        model = _truncated(path, model, ranks)
    said = f"lookout checkpoint, {meta.family} after {meta.epoch} epochs"
    return _body(model, class_names(path, names or meta.names, len(meta.names)), nms_threshold, said)


def _truncated(path: Path, model: Detector, ranks: tuple[int, ...]) -> Detector:
    if not isinstance(model, FastRcnn):
        raise AdaptError(f"{path}: is a {model.family}; --ranks goes with a Fast R-CNN alone")
    try:
        return model.truncated(ranks)
    except ValueError as error:
        raise AdaptError(f"{path}: --ranks: {error}") from error


def darknet_body(
    cfg: Path, weights: Path, names: tuple[str, ...] | None, nms_threshold: float | None
) -> Body:
    """The body of a Darknet network.

    Args:
        cfg: its ``.cfg`` file.
        weights: its ``.weights`` file.
        names: of its classes; None is enough for COCO's 80.
        nms_threshold: used by the reference; None takes the network's own.

    Raises:
        DarknetError: one of the files cannot be read, or they do not fit each other.
        AdaptError: the names do not fit its classes.
    """
    model = read_darknet(cfg, weights)
    names = class_names(cfg, names, len(model.config.names))
    return _body(model, names, nms_threshold, f"Darknet network with the weights of {weights.name}")


def megvii_body(
    path: Path,
    names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    nms_threshold: float | None,
) -> Body:
    """The body of a YOLOX as Megvii published it.

    Args:
        path: its ``.pth`` file.
        names: of its classes, in its order, or any of COCO's for a file that knows those; None takes all of COCO's.
        input_size: height and width; None takes the published one.
        nms_threshold: in place of the published one.

    Raises:
        DataError: the file is missing, or is not a YOLOX of one of Megvii's sizes.
        AdaptError: the names do not fit its classes, or the network cannot have that input.
    """
    file = read_megvii(path)
    names = class_names(path, None, file.classes) if names is None else names
    rows = class_rows(names, file.classes)
    if None in rows:
        names, rows = class_names(path, names, file.classes), range(file.classes)
    side = SIZES[file.size].input_side
    height, width = input_size or (side, side)
    if height % 32 or width % 32:
        raise AdaptError(f"{path}: --input-size {width}x{height}: expected multiples of 32")
    model = detector_of(file, names, rows, height, width)
    said = f"YOLOX-{file.size} with Megvii's weights, of YOLOX 0.1.1 or later"
    return _body(model, names, nms_threshold, said)


def _body(model: Detector, names: tuple[str, ...], nms_threshold: float | None, said: str) -> Body:
    threshold = model.nms_threshold if nms_threshold is None else nms_threshold
    height, width = model.config.input_height, model.config.input_width
    whole = _FromPictures(model).eval()

    def reference(picture: Pixels, proposals: Floats | None = None) -> Found:
        given = [torch.from_numpy(each)[None] for each in (picture, proposals) if each is not None]
        with torch.inference_mode():
            boxes, class_scores = whole(*given)
        return find(boxes[0].numpy(), class_scores[0].numpy(), threshold, _suppress)

    return Body(
        model=complete(_to_onnx(whole, height, width), threshold),
        family=model.family,
        names=names,
        input_height=height,
        input_width=width,
        reference=reference,
        said=said,
        nms_threshold=threshold,
        proposals=_proposals(model),
    )


def _proposals(model: Detector) -> str | None:
    """The rule by which boxes are to be proposed to it, which is in the configuration of those that take any."""
    return str(model.config.proposals) if model.takes_proposals else None  # type: ignore[attr-defined]


def _suppress(boxes: Floats, scores: Floats, classes: Ints, iou_threshold: float) -> Ints:
    """``models.boxes.nms`` on arrays."""
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), iou_threshold)
    return kept.numpy()


def _to_onnx(whole: _FromPictures, input_height: int, input_width: int) -> onnx.ModelProto:
    batch = torch.export.Dim("B", min=1, max=1024)
    # A batch of 1 is specialised.
    examples = {"images": torch.zeros((2, input_height, input_width, 3), dtype=torch.uint8)}
    rule = _proposals(whole.model)
    if rule is not None:
        corners = torch.tensor([0.0, 0.0, input_width, input_height])
        examples["proposals"] = corners.repeat(2, ProposalRule.parse(rule).count, 1)
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            whole,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=["boxes", "class_scores"],
            dynamic_shapes={name: {0: batch} for name in examples},
            opset_version=OPSET,
            custom_translation_table=translations(),
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
            warnings.filterwarnings(
                "ignore", message="# The axis name: B"
            )  # both inputs share it, as is meant
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
