"""What a lookout model file says of itself.

The contract (README, "The one graph contract"):

    images   in   uint8   (B, H, W, 3)  RGB, letterboxed, pad 114, B dynamic
    proposals in  float32 (B, P, 4)     as boxes; only where ``ModelSpec.proposals`` asks for them
    boxes    out  float32 (B, Q, 4)     x1, y1, x2, y2 in input pixels
    scores   out  float32 (B, Q)        0-1, descending; 0 past the last detection
    classes  out  int64   (B, Q)        index into ``names``

Everything else the host needs is in ONNX ``metadata_props`` under ``lookout.*`` and is read
into :class:`ModelSpec`. Knows nothing of torch, onnxruntime, or how graphs are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx
from onnx import TensorProto

from models.errors import LookoutError
from models.letterbox import PAD_VALUE, Letterbox
from models.lineage.proposals import ProposalRule, propose

__all__ = [
    "PAD_VALUE",
    "SCHEMA",
    "ArtifactError",
    "Letterbox",
    "LookoutError",
    "ModelSpec",
    "ProposalRule",
    "load",
    "propose",
    "read_spec",
]

SCHEMA = 1
PREFIX = "lookout."
MOST_BYTES = 2**31 - 1
"""What one protobuf message can hold: a graph that is changed has to fit into one."""

Resize = Literal["letterbox", "stretch"]
Precision = Literal["fp32", "fp16", "int8"]

_SURFACE = {
    "images": (TensorProto.UINT8, 4),
    "boxes": (TensorProto.FLOAT, 3),
    "scores": (TensorProto.FLOAT, 2),
    "classes": (TensorProto.INT64, 2),
}


class ArtifactError(LookoutError):
    """A file that is not a model, or not one that lookout can run."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the host must know of a model besides its four tensors."""

    names: tuple[str, ...]
    input_height: int
    input_width: int
    family: str
    resize: Resize = "letterbox"
    nms_threshold: float | None = None
    source_sha256: str = ""
    precision: Precision = "fp32"
    """Of the network; pixels, boxes and scores are float32 in every file."""
    parity: Mapping[str, float] = field(default_factory=dict)
    """Figures measured at export, such as ``max_box_difference_px``; empty where none was made."""
    gate: Mapping[str, float] = field(default_factory=dict)
    """What it had to beat at export: ``AP50``, ``current_AP50``, and on how many ``pictures``; empty without a gate."""
    proposals: str | None = None
    """Boxes that the host proposes and the model judges, such as ``selective-search:300``; None: it finds its own."""

    def place(self, source_width: int, source_height: int) -> Letterbox:
        """How a picture of that size goes into the model's input."""
        rule = Letterbox.fit if self.resize == "letterbox" else Letterbox.stretch
        return rule(source_width, source_height, self.input_width, self.input_height)

    @property
    def proposal_rule(self) -> ProposalRule | None:
        """How the host proposes boxes to it."""
        return None if self.proposals is None else ProposalRule.parse(self.proposals)

    def to_metadata(self) -> dict[str, str]:
        """The ``metadata_props`` that :meth:`from_metadata` reads back."""
        metadata = {
            PREFIX + "schema": str(SCHEMA),
            PREFIX + "names": json.dumps(self.names),
            PREFIX + "input_size": json.dumps([self.input_height, self.input_width]),
            PREFIX + "resize": self.resize,
            PREFIX + "nms_threshold": json.dumps(self.nms_threshold),
            PREFIX + "family": self.family,
            PREFIX + "source_sha256": self.source_sha256,
            PREFIX + "precision": self.precision,
            PREFIX + "parity": json.dumps(dict(self.parity), sort_keys=True),
        }
        if self.gate:
            metadata[PREFIX + "gate"] = json.dumps(dict(self.gate), sort_keys=True)
        return metadata if self.proposals is None else {**metadata, PREFIX + "proposals": self.proposals}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: str) -> ModelSpec:
        """Read the spec of ``path`` from its metadata.

        Raises:
            ArtifactError: a key is missing, malformed, or of another schema.
        """
        schema = metadata.get(PREFIX + "schema")
        if schema is None:
            raise ArtifactError(
                f"{path}: has no lookout metadata; adapt it first: lookout export {path} --out adapted.onnx"
            )
        if schema != str(SCHEMA):
            raise ArtifactError(
                f"{path}: model schema is {schema}, this lookout reads {SCHEMA}; export the model again"
            )
        try:
            input_height, input_width = json.loads(metadata[PREFIX + "input_size"])
            resize = metadata[PREFIX + "resize"]
            if resize not in ("letterbox", "stretch"):
                raise ValueError(f"resize {resize!r}")
            proposals = metadata.get(PREFIX + "proposals")
            return cls(
                names=tuple(str(name) for name in json.loads(metadata[PREFIX + "names"])),
                input_height=int(input_height),
                input_width=int(input_width),
                family=metadata[PREFIX + "family"],
                resize="letterbox" if resize == "letterbox" else "stretch",
                nms_threshold=json.loads(metadata[PREFIX + "nms_threshold"]),
                source_sha256=metadata.get(PREFIX + "source_sha256", ""),
                precision=_precision(metadata.get(PREFIX + "precision", "fp32")),
                parity=json.loads(metadata.get(PREFIX + "parity", "{}")),
                gate=json.loads(metadata.get(PREFIX + "gate", "{}")),
                proposals=None if proposals is None else str(ProposalRule.parse(proposals)),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path}: damaged lookout metadata ({error}); export the model again"
            ) from error


def _precision(said: str) -> Precision:
    known: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
    if said not in known:
        raise ValueError(f"precision {said!r}")
    return known[said]


def load(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        ArtifactError: the file is missing, unreadable, too large, or not ONNX.
    """
    if not Path(path).is_file():
        raise ArtifactError(
            f"{path}: no such model file; expected a path to an .onnx file (see: lookout models)"
        )
    size = sum(part.stat().st_size for part in (Path(path), *weight_files(path)) if part.is_file())
    if size > MOST_BYTES:
        raise ArtifactError(
            f"{path}: {size / 1e9:.1f} GB with its weights; expected at most {MOST_BYTES / 1e9:.1f} GB, which is "
            "all that one ONNX graph can hold in memory; give a smaller detector, or this one in half precision"
        )
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf, onnx and OS errors share no base class
        missing = [part.name for part in weight_files(path) if not part.is_file()]
        if missing:
            raise ArtifactError(
                f"{path}: keeps weights in {', '.join(missing)}, which is not there; put it beside {path}"
            ) from error
        raise ArtifactError(
            f"{path}: not an ONNX file ({type(error).__name__}); expected a detector in ONNX"
        ) from error
    if not model.graph.output:
        raise ArtifactError(f"{path}: not an ONNX detector (its graph has no outputs)")
    return model


def weight_files(path: str | Path) -> list[Path]:
    """The files in which an ONNX file keeps weights (ONNX's external data); none where it is no ONNX file."""
    try:
        tensors = onnx.load(str(path), load_external_data=False).graph.initializer
    except Exception:  # protobuf, onnx and OS errors share no base class
        return []
    entries = (entry for tensor in tensors for entry in tensor.external_data)
    return [Path(path).parent / name for name in sorted({e.value for e in entries if e.key == "location"})]


def read_spec(model: onnx.ModelProto, path: str) -> ModelSpec:
    """The spec of a loaded model, after its tensors are checked against the contract.

    Raises:
        ArtifactError: no metadata, or a tensor of another name, type or rank.
    """
    spec = ModelSpec.from_metadata({prop.key: prop.value for prop in model.metadata_props}, path)
    tensors = {value.name: value.type.tensor_type for value in [*model.graph.input, *model.graph.output]}
    rule = spec.proposal_rule
    surface = _SURFACE if rule is None else {**_SURFACE, "proposals": (TensorProto.FLOAT, 3)}
    for name, (element_type, rank) in surface.items():
        if name not in tensors:
            raise ArtifactError(
                f"{path}: tensor {name!r} is missing (it has {sorted(tensors)}); export it again"
            )
        found = tensors[name]
        if found.elem_type != element_type or len(found.shape.dim) != rank:
            raise ArtifactError(
                f"{path}: tensor {name!r} is {TensorProto.DataType.Name(found.elem_type)} of rank "
                f"{len(found.shape.dim)}, expected {TensorProto.DataType.Name(element_type)} of rank {rank}"
            )
    _check_inputs(model, rule, path)
    return spec


def _check_inputs(model: onnx.ModelProto, rule: ProposalRule | None, path: str) -> None:
    """Raises ArtifactError: the graph is to be given something else than its metadata says."""
    inputs = {value.name: value.type.tensor_type.shape for value in model.graph.input}
    wanted = ["images"] if rule is None else ["images", "proposals"]
    if sorted(inputs) != wanted:
        raise ArtifactError(f"{path}: its inputs are {sorted(inputs)}, expected {wanted}; export it again")
    if rule is not None and inputs["proposals"].dim[1].dim_value != rule.count:
        raise ArtifactError(
            f"{path}: takes {inputs['proposals'].dim[1].dim_value} proposals a picture, but its metadata says "
            f"{rule}; export it again"
        )
