"""A stranger's ONNX file, recognised by its inputs and outputs and turned into a body.

Nothing is guessed: a signature that no adapter recognises is an error that shows it. One family
is known so far; the next one is a file like ``yolox_grid`` and one more ``if`` in ``adapt``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from export import yolox_grid
from export.artifact import ArtifactError
from export.coco import COCO_NAMES
from export.reference import Found, Pixels, Reference, find, suppress


class AdaptError(ArtifactError):
    """A stranger's model that no adapter recognises, or that cannot be adapted as asked."""


@dataclass(frozen=True, slots=True)
class Body:
    """A model on its way into the contract: see ``graph`` for the surface of ``model``."""

    model: onnx.ModelProto
    family: str
    names: tuple[str, ...]
    input_height: int
    input_width: int
    reference: Reference
    """The unexported model."""
    said: str
    """What was recognised, for the user."""


def adapt(path: Path, model: onnx.ModelProto, names: tuple[str, ...] | None, nms_threshold: float) -> Body:
    """Recognise a stranger's model and graft its preprocessing and decoding onto it.

    Args:
        path: named in errors.
        model: what is in it.
        names: class names; None takes COCO's where the model has 80 classes.
        nms_threshold: used by the reference.

    Raises:
        AdaptError: no adapter recognises it, or the names do not fit its classes.
    """
    model = _without_weights_as_inputs(model)
    if yolox_grid.recognises(model):
        return _yolox_grid(path, model, names, nms_threshold)
    raise AdaptError(
        f"{path}: no adapter recognises this model. Its inputs: {_signature(model.graph.input)}; its outputs: "
        f"{_signature(model.graph.output)}. Needed: {yolox_grid.NEEDED}; or a graph that already is lookout's "
        "(README, 'The one graph contract')"
    )


def _yolox_grid(
    path: Path, model: onnx.ModelProto, names: tuple[str, ...] | None, nms_threshold: float
) -> Body:
    height, width = yolox_grid.input_size(model)
    try:
        body = yolox_grid.body(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnx and onnxruntime errors share no base class
        first_line = str(error).strip().splitlines()[0][:200]
        raise AdaptError(
            f"{path}: looks like {yolox_grid.SAID}, but its graph does not load: {first_line}"
        ) from error

    def reference(picture: Pixels) -> Found:
        bgr = np.ascontiguousarray(picture[:, :, ::-1].transpose(2, 0, 1)[None], np.float32)
        rows = session.run(None, {model.graph.input[0].name: bgr})[0][0]
        boxes, class_scores = yolox_grid.decode(rows, height, width)
        return find(boxes, class_scores, nms_threshold, suppress)

    return Body(
        model=body,
        family=yolox_grid.FAMILY,
        names=class_names(path, names, yolox_grid.class_count(model)),
        input_height=height,
        input_width=width,
        reference=reference,
        said=yolox_grid.SAID,
    )


def class_names(path: Path, names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """The names of a model's ``count`` classes: those given, or COCO's for 80.

    Raises:
        AdaptError: another number of names than of classes, or none and not 80 classes.
    """
    if names is None and count == len(COCO_NAMES):
        return COCO_NAMES
    if names is None:
        raise AdaptError(
            f"{path}: the model has {count} classes and no names; export it first: "
            f"lookout export {path} --names a,b,c --out {path.stem}-lookout.onnx"
        )
    if len(names) != count:
        raise AdaptError(f"{path}: --names gives {len(names)} names, the model has {count} classes")
    return names


def _without_weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Files of IR version 3 list every weight as an input; this drops those."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _signature(values: Iterable[onnx.ValueInfoProto]) -> str:
    return ", ".join(_describe(value) for value in values) or "none"


def _describe(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return f"{value.name} (not a tensor)"
    tensor = value.type.tensor_type
    element = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "untyped"
    shape = (
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
    )
    return f"{value.name} {element} ({', '.join(shape)})"
