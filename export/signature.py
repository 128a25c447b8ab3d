"""What a stranger's model shows of itself: its picture, its other inputs, its outputs as they really come.

Files say little and not always the truth of their outputs' shapes, so the model is run once. Knows
nothing of families.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from export.artifact import ArtifactError
from export.cpu import cpu_session
from export.graph import static_shape
from export.pixels import Array, Layout

DEFAULT_SIDE = 640
"""Height and width of a model that takes any size, unless told otherwise."""

Size = tuple[int, int]  # height, width in pixels

_WEIGHTS_NEED_NO_INPUTS = 4  # ONNX's IR version from which on that is so
_PICTURE_KINDS = ("float32", "float16", "float64", "uint8")


class AdaptError(ArtifactError):
    """A stranger's model that no adapter recognises, or that cannot be adapted as asked."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. -1 stands for a dimension that the file leaves open."""

    name: str
    kind: str  # NumPy's name of the element type
    shape: tuple[int, ...]

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> Tensor:
        element = value.type.tensor_type.elem_type
        kind = helper.tensor_dtype_to_np_dtype(element).name if element else "untyped"
        return cls(value.name, kind, static_shape(value))


@dataclass(frozen=True, slots=True)
class Signature:
    """A stranger's model, its size settled and run once.

    ``outputs`` are as measured on a picture of noise, in the file's order: the same shapes come for
    every picture, except where ``declared`` has -1 (a batch, or as many rows as were found).
    """

    path: Path
    model: onnx.ModelProto  # its picture input has a fixed height and width
    picture: Tensor
    layout: Layout
    height: int
    width: int
    size_was_open: bool
    others: tuple[Tensor, ...]  # inputs besides the picture
    outputs: tuple[Tensor, ...]
    declared: tuple[Tensor, ...]
    sample: Mapping[str, Array]  # the outputs of that run by name
    metadata: Mapping[str, str]
    operators: frozenset[str]
    session: Any
    anchors: npt.NDArray[np.float32] | None = None  # (N, 4), given by the user

    def output(self, name: str) -> Tensor | None:
        """The output of that name, if there is one."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)

    def noise(self) -> Array:
        """The picture that it was run on."""
        return _noise(self.picture.kind, self.layout, self.height, self.width)

    def run(self, pixels: Array, constants: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """The model's own outputs by name for one picture, half precision widened to float32.

        Args:
            pixels: as the model wants them.
            constants: for other inputs, in place of ``side_values``.
        """
        sides = {**side_values(self.others, self.height, self.width), **(constants or {})}
        return _run(self.session, {self.picture.name: pixels, **sides})


def read_signature(
    path: Path,
    model: onnx.ModelProto,
    input_size: Size | None,
    anchors: npt.NDArray[np.float32] | None = None,
) -> Signature:
    """Settle the size of a model's input and run it once.

    Args:
        path: of the file: external data lies beside it; named in errors.
        model: what is in it; not changed.
        input_size: height and width for a model that takes any; None takes 640x640 there.
        anchors: float32 (N, 4) that the user gives, in a layout that their reader makes out.

    Raises:
        AdaptError: no input that is a picture, another size than the file's, or a graph that does not run.
    """
    model = _with_channels(_without_weights_as_inputs(model))
    picture = _picture(path, model)
    layout: Layout = "chw" if len(picture.shape) == 3 else "nchw" if picture.shape[1] == 3 else "nhwc"
    axis = {"chw": 1, "nchw": 2, "nhwc": 1}[layout]
    height, width = _size(path, picture.shape[axis : axis + 2], input_size)
    for value in model.graph.input:
        if value.name == picture.name:
            value.type.tensor_type.shape.dim[axis].dim_value = height
            value.type.tensor_type.shape.dim[axis + 1].dim_value = width
    others = tuple(Tensor.of(value) for value in model.graph.input if value.name != picture.name)
    session, sample = _try(path, model, picture, layout, others, height, width)
    return Signature(
        path=path,
        model=model,
        picture=picture,
        layout=layout,
        height=height,
        width=width,
        size_was_open=min(picture.shape[axis : axis + 2]) < 1,
        others=others,
        outputs=tuple(Tensor(name, str(value.dtype), value.shape) for name, value in sample.items()),
        declared=tuple(Tensor.of(value) for value in model.graph.output),
        sample=sample,
        metadata={prop.key: prop.value for prop in model.metadata_props},
        operators=frozenset(_operators(model.graph)),
        session=session,
        anchors=anchors,
    )


def side_values(others: Iterable[Tensor], height: int, width: int) -> dict[str, Array]:
    """Values for inputs besides the picture: for the letterboxed picture itself as if it were the source.

    An input of two numbers a picture is its size, height first, or for ``scale_factor`` how it was
    scaled; those that want the width first are told apart by their family, by measuring. A mask says
    which pixels are of the picture and not padding: all.
    """
    values: dict[str, Array] = {}
    for tensor in others:
        if _is_mask(tensor):
            _, rows, columns = tensor.shape
            sides = (rows if rows > 0 else height, columns if columns > 0 else width)
            values[tensor.name] = np.ones((1, *sides), tensor.kind)
            continue
        pair = (1, 1) if "scale" in tensor.name else (height, width)
        values[tensor.name] = np.array([pair], tensor.kind)
    return values


def describe(model: onnx.ModelProto) -> str:
    """All inputs and outputs on one line, for errors."""
    inputs, outputs = (
        ", ".join(map(_shown, values)) or "none" for values in (model.graph.input, model.graph.output)
    )
    return f"Its inputs: {inputs}; its outputs: {outputs}"


def _picture(path: Path, model: onnx.ModelProto) -> Tensor:
    inputs = [Tensor.of(value) for value in model.graph.input if value.type.HasField("tensor_type")]
    pictures = [tensor for tensor in inputs if _is_picture(tensor)]
    sides = [tensor for tensor in inputs if tensor not in pictures]
    if len(pictures) == 1 and len(inputs) == len(model.graph.input) and all(map(_is_side, sides)):
        return pictures[0]
    raise AdaptError(
        f"{path}: no adapter recognises this model. {describe(model)}. Needed: one picture as input, of shape "
        "(1, 3, H, W), (1, H, W, 3) or (3, H, W), and besides it nothing but the picture's size as two numbers"
    )


def _is_picture(tensor: Tensor) -> bool:
    if tensor.kind not in _PICTURE_KINDS:
        return False
    if len(tensor.shape) == 3:
        return tensor.shape[0] == 3
    return len(tensor.shape) == 4 and tensor.shape[0] in (1, -1) and 3 in (tensor.shape[1], tensor.shape[3])


def _is_side(tensor: Tensor) -> bool:
    if _is_mask(tensor):
        return True
    return len(tensor.shape) == 2 and tensor.shape[0] in (1, -1) and tensor.shape[1] in (2, -1)


def _is_mask(tensor: Tensor) -> bool:
    return len(tensor.shape) == 3 and tensor.shape[0] in (1, -1) and "mask" in tensor.name.lower()


def _size(path: Path, shape: tuple[int, ...], wanted: Size | None) -> Size:
    height, width = wanted or (DEFAULT_SIDE, DEFAULT_SIDE)
    fixed = tuple(side if side > 0 else chosen for side, chosen in zip(shape, (height, width), strict=True))
    if wanted is not None and fixed != wanted:
        raise AdaptError(
            f"{path}: input size {width}x{height} was asked for, but the file is made for "
            f"{fixed[1]}x{fixed[0]}; leave it out, or export the model with another size"
        )
    return fixed[0], fixed[1]


def _try(
    path: Path,
    model: onnx.ModelProto,
    picture: Tensor,
    layout: Layout,
    others: tuple[Tensor, ...],
    height: int,
    width: int,
) -> tuple[Any, dict[str, Array]]:
    """A session on the CPU, and what it gives for noise."""
    pixels = _noise(picture.kind, layout, height, width)
    try:
        session = cpu_session(model)
        return session, _run(session, {picture.name: pixels, **side_values(others, height, width)})
    except Exception as error:  # onnxruntime's errors share no base class
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise AdaptError(f"{path}: does not run with a picture of {width}x{height}: {line}") from error


def _noise(kind: str, layout: Layout, height: int, width: int) -> Array:
    shape = {"chw": (3, height, width), "nchw": (1, 3, height, width), "nhwc": (1, height, width, 3)}[layout]
    noise = np.random.default_rng(0).random(shape)
    return (noise * 255 if kind == "uint8" else noise).astype(kind)


def _run(session: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    values = session.run(None, feeds)
    return {
        output.name: value.astype(np.float32) if value.dtype in (np.float16, np.float64) else value
        for output, value in zip(session.get_outputs(), values, strict=True)
        if isinstance(value, np.ndarray)
    }


def _operators(graph: onnx.GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _operators(attribute.g)


def _without_weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy; files of IR version 3 list every weight as an input, and those are dropped."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, _WEIGHTS_NEED_NO_INPUTS)
    weights = {tensor.name for tensor in copy.graph.initializer}
    inputs = [value for value in copy.graph.input if value.name not in weights]
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def _with_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with 3 where a picture's dimension is open but called its channels, as Optimum does."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim in dims if len(dims) == 4 else ():
            if dim.dim_param in ("num_channels", "channels"):
                dim.dim_value = 3
    return model


def _shown(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return f"{value.name} (not a tensor)"
    tensor = value.type.tensor_type
    element = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "untyped"
    shape = (
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
    )
    return f"{value.name} {element} ({', '.join(shape)})"
