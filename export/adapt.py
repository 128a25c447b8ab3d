"""A stranger's ONNX file: recognised by what it shows, and turned into a contract graph.

Nothing is guessed. A signature that no family reads is an error that shows it, one that several
families read is a question, and what the file cannot say (how its pixels are to be prepared) is the
family's custom, said aloud and open to change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.anchors import read_anchors
from export.artifact import Resize
from export.batch import looped, takes_batches, with_dynamic_batch
from export.contract import complete
from export.families import FAMILIES
from export.graph import IR_VERSION, join, modernised, opset_of, prefixed
from export.names import class_names, names_in
from export.pixels import Color, PixelRule, Triple, plain, preprocess
from export.reading import Finished, Reading
from export.reference import Found, Pixels, Reference, find, rank, suppress
from export.signature import AdaptError, Signature, Size, describe, read_signature, side_values
from models.thresholds import NMS_THRESHOLD

PLAIN = "/plain"
"""Ends the name of an output of the stranger brought to float32 or int64."""

__all__ = ["AdaptError", "Body", "Wishes", "adapt"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user says of a model that the file does not. None: as the file or its family has it.

    Attributes:
        names: of the classes.
        family: how to read the file, where it could be read in several ways.
        color, mean, std, resize: of its pixels (``PixelRule``).
        input_size: height and width, for a file that takes any.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped; a checkpoint
            has its own.
        anchors: file of a model's anchors, .npy or lines of four numbers, for a file that lacks them.
        weights: a Darknet network's, whose ``.cfg`` file holds none.
        ranks: of a Fast R-CNN checkpoint's fully connected layers, how many singular values are kept.
    """

    names: tuple[str, ...] | None = None
    family: str | None = None
    color: Color | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resize: Resize | None = None
    input_size: Size | None = None
    nms_threshold: float | None = None
    anchors: Path | None = None
    weights: Path | None = None
    ranks: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A model in the contract's form, not yet proven."""

    model: onnx.ModelProto
    family: str
    names: tuple[str, ...]
    input_height: int
    input_width: int
    reference: Reference
    """The unexported model."""
    said: str
    """What was recognised, for the user."""
    resize: Resize = "letterbox"
    nms_threshold: float | None = None
    proposals: str | None = None
    """As of ``ModelSpec``."""


def adapt(path: Path, model: onnx.ModelProto, wishes: Wishes) -> Body:
    """Recognise a stranger's model and graft onto it what it lacks.

    Args:
        path: of the file, named in errors.
        model: what is in it.
        wishes: what the user says of it.

    Raises:
        AdaptError: no family reads it, several do, it does not run, or the names do not fit its classes.
    """
    anchors = None if wishes.anchors is None else read_anchors(wishes.anchors)
    signature = read_signature(path, model, wishes.input_size, anchors)
    reading = choose(signature, wishes.family)
    if anchors is not None and not reading.anchored:
        raise AdaptError(
            f"{path}: was recognised as {reading.said}, which takes no --anchors; leave them out"
        )
    rule = reading.pixels.changed(color=wishes.color, mean=wishes.mean, std=wishes.std, resize=wishes.resize)
    threshold = (wishes.nms_threshold or NMS_THRESHOLD) if reading.nms else None
    contract, batching = _contract(signature, reading, rule, threshold)
    return Body(
        model=contract,
        family=reading.family,
        names=class_names(
            path,
            wishes.names or reading.names or _names_of_its_own(signature, reading.classes),
            reading.classes,
            background_first=reading.background_first,
            naming=reading.naming,
        ),
        input_height=signature.height,
        input_width=signature.width,
        reference=_reference(signature, reading, rule, threshold),
        said=f"{reading.said}; pixels taken as {rule}; input {_size(signature)}; {batching}",
        resize=rule.resize,
        nms_threshold=threshold,
    )


def _names_of_its_own(signature: Signature, count: int) -> tuple[str, ...] | None:
    """The names in the file's metadata, if they are of as many classes as the model has."""
    names = names_in(signature.metadata)
    return names if names is not None and count in (0, len(names)) else None


def choose(signature: Signature, family: str | None) -> Reading:
    """The one reading of a model.

    Raises:
        AdaptError: none, or several and no word which; says what there is.
    """
    found = [reading for module in FAMILIES for reading in module.readings(signature)]
    fitting = [
        reading for reading in found if (not reading.doubt if family is None else reading.family == family)
    ]
    if len(fitting) == 1:
        return fitting[0]
    path, shown = signature.path, describe(signature.model)
    known = ", ".join(sorted({reading.family for reading in found}))
    if not found:
        needed = "\n  ".join(module.NEEDED for module in FAMILIES)
        raise AdaptError(
            f"{path}: no adapter recognises this model. {shown}. Needed: a graph that already is lookout's "
            f"(README, 'The one graph contract'), or one of\n  {needed}"
        )
    if family is not None:
        raise AdaptError(f"{path}: --family {family} does not fit this model; what fits: {known}. {shown}")
    if len(found) == 1:
        (only,) = found
        raise AdaptError(
            f"{path}: looks like {only.said}, but {only.doubt}; to take it for that all the same: "
            f"--family {only.family}. {shown}"
        )
    why = "; ".join(f"{reading.family}: {reading.doubt or reading.said}" for reading in found)
    raise AdaptError(
        f"{path}: could be one of several families; say which with --family: lookout export {path} "
        f"--family {found[0].family} --out {path.stem}-lookout.onnx ({why}). {shown}"
    )


def _size(signature: Signature) -> str:
    note = " (the file takes any; change it with --input-size)" if signature.size_was_open else ""
    return f"{signature.width}x{signature.height}{note}"


def _contract(
    signature: Signature, reading: Reading, rule: PixelRule, nms_threshold: float | None
) -> tuple[onnx.ModelProto, str]:
    """The contract graph for any batch, and how it takes one."""
    try:
        if signature.layout != "chw":
            body = _tried(lambda: _body(signature, reading, rule, with_dynamic_batch))
            if body is not None and takes_batches(body):
                return complete(body, nms_threshold), "any batch at once"
        body = _body(signature, reading, rule, _with_batch_of_one)
        return looped(
            complete(body, nms_threshold)
        ), "made for one picture at a time, so a batch is looped over"
    except AdaptError:
        raise
    except Exception as error:  # onnx's errors share no base class
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise AdaptError(
            f"{signature.path}: was recognised as {reading.said}, but its graph cannot be completed: {line}"
        ) from error


def _tried(make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto | None:
    try:
        return make()
    except Exception:  # onnx's errors share no base class; the model is then looped over
        return None


def _body(
    signature: Signature,
    reading: Reading,
    rule: PixelRule,
    batched: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> onnx.ModelProto:
    """Preprocessing, the stranger, decoding: a body as in ``export.contract``."""
    stranger = prefixed(
        _plain_types(_with_constants(batched(modernised(signature.model)), signature, reading)), "model/"
    )
    opset = opset_of(stranger)
    before = preprocess(
        rule, signature.height, signature.width, signature.layout, signature.picture.kind, opset
    )
    with_pixels = join(before, stranger, {"pixels": f"model/{signature.picture.name}"})
    wires = {f"model/{output}{PLAIN}": f"decode/{wanted}" for output, wanted in reading.wires.items()}
    return join(with_pixels, prefixed(reading.decoder(opset), "decode/"), wires)


def _with_constants(model: onnx.ModelProto, signature: Signature, reading: Reading) -> onnx.ModelProto:
    """The model with its inputs besides the picture as constants."""
    values = {**side_values(signature.others, signature.height, signature.width), **reading.constants}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    inputs = [value for value in model.graph.input if value.name not in values]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _plain_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every output float32 or int64, under its name with ``PLAIN`` after it.

    The old names stay for what reads them, loops and branches in the graph included.
    """
    for value in model.graph.output:
        kind = value.type.tensor_type.elem_type
        is_whole = kind in (TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8)
        wide = TensorProto.INT64 if is_whole else TensorProto.FLOAT
        name = value.name + PLAIN
        model.graph.node.append(helper.make_node("Cast", [value.name], [name], to=wide))
        value.name, value.type.tensor_type.elem_type = name, wide
    return model


def _with_batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    copy.ir_version = IR_VERSION
    for value in copy.graph.input:
        shape = value.type.tensor_type.shape
        if len(shape.dim) == 4:
            shape.dim[0].dim_value = 1
    return copy


def _reference(
    signature: Signature, reading: Reading, rule: PixelRule, nms_threshold: float | None
) -> Reference:
    def reference(picture: Pixels) -> Found:
        pixels = plain(rule, picture, signature.layout, signature.picture.kind)
        found = reading.decode(signature.run(pixels, reading.constants))
        if isinstance(found, Finished):
            return rank(found.boxes, found.scores, found.classes)
        if nms_threshold is None:
            rows, classes = np.indices(found.class_scores.shape).reshape(2, -1)
            return rank(found.boxes[rows], found.class_scores.ravel(), classes)
        return find(found.boxes, found.class_scores, nms_threshold, suppress)

    return reference
