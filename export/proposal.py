"""Whatever was given to ``lookout export``, as a contract graph that is not yet proven.

The only place where a checkpoint, a Darknet network, a YOLOX of Megvii's, a stranger's ONNX file and a finished
contract file part ways. Loads torch only for the first three.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.adapt import Body, Wishes, adapt
from export.artifact import PREFIX, ArtifactError, ModelSpec, Precision, load, read_spec, weight_files
from export.network import precision_of
from export.reference import Reference

NOTHING_SAID = Wishes()


@dataclass(frozen=True, slots=True)
class Proposal:
    """A contract graph in the precision that its source has."""

    model: onnx.ModelProto
    spec: ModelSpec
    said: str
    reference: Reference | None
    """The unexported model; None for a file that was proven when it was made."""


def propose(what: Path, wishes: Wishes, precision: Precision) -> Proposal:
    """The contract graph of whatever was given.

    Args:
        what: a checkpoint, a Darknet ``.cfg``, a YOLOX ``.pth``, a stranger's ONNX file, or a contract file whose
            precision is to be lowered.
        wishes: what the user says of it.
        precision: that it is to have in the end.

    Raises:
        ArtifactError: it is no model, or it cannot get that precision.
        AdaptError: no adapter recognises it.
        DarknetError, DataError: a file of weights cannot be read, or is of another network.
    """
    model = None if is_torch(what) or is_darknet(what) else load(what)
    if model is not None and is_contract(model):
        return _contract_file(what, model, wishes, precision)
    body = _body(what, model, wishes)
    found = precision_of(body.model)
    if found != "fp32" and precision not in ("fp32", found):
        raise ArtifactError(
            f"{what}: its weights are {found} already, {precision} needs them in float32; export the original "
            "model in float32, or leave --precision out"
        )
    spec = ModelSpec(
        names=body.names,
        input_height=body.input_height,
        input_width=body.input_width,
        family=body.family,
        resize=body.resize,
        nms_threshold=body.nms_threshold,
        source_sha256=sha256(wishes.weights or what),
        precision=found,
        proposals=body.proposals,
    )
    if body.proposals is not None and precision != "fp32":
        raise ArtifactError(
            f"{what}: a {body.family} judges proposals, and is exported in float32 alone; leave --precision out"
        )
    return Proposal(body.model, spec, body.said, body.reference)


def _contract_file(what: Path, model: onnx.ModelProto, wishes: Wishes, precision: Precision) -> Proposal:
    """A finished file, of which only the precision may be lowered."""
    spec = read_spec(model, str(what))
    if precision in ("fp32", spec.precision):
        raise ArtifactError(f"{what}: already is a lookout model ({spec.family}); use it as it is")
    if spec.proposals is not None:
        raise ArtifactError(
            f"{what}: a {spec.family} judges proposals, and is exported in float32 alone; use it as it is"
        )
    if spec.precision != "fp32":
        raise ArtifactError(f"{what}: is {spec.precision}; convert the fp32 file that it was made of")
    if wishes != NOTHING_SAID:
        raise ArtifactError(
            f"{what}: already is a lookout model, of which --precision alone can be changed; leave the other "
            "options out, or export the original anew"
        )
    return Proposal(model, spec, f"lookout model, {spec.family}, proven at its export", None)


def _body(what: Path, model: onnx.ModelProto | None, wishes: Wishes) -> Body:
    if is_darknet(what):
        from export.torch_export import darknet_body

        if wishes.weights is None:
            raise ArtifactError(
                f"{what}: is a Darknet network; give its weights, too: --weights FILE.weights"
            )
        if wishes.ranks is not None:
            raise ArtifactError(f"{what}: is no checkpoint; --ranks goes with one of a Fast R-CNN alone")
        return darknet_body(what, wishes.weights, wishes.names, wishes.nms_threshold)
    if wishes.weights is not None:
        raise ArtifactError(f"{what}: holds its own weights; --weights goes with a Darknet .cfg file alone")
    if model is None:
        return _torch_body(what, wishes)
    if wishes.ranks is not None:
        raise ArtifactError(f"{what}: is no checkpoint; --ranks goes with one of a Fast R-CNN alone")
    return adapt(what, model, wishes)


def _torch_body(what: Path, wishes: Wishes) -> Body:
    from export.torch_export import checkpoint_body, megvii_body
    from models.start import is_megvii

    if not is_megvii(what):
        return checkpoint_body(what, wishes.names, wishes.nms_threshold, wishes.ranks)
    known = Wishes(names=wishes.names, input_size=wishes.input_size, nms_threshold=wishes.nms_threshold)
    if wishes != known:
        raise ArtifactError(
            f"{what}: is a PyTorch file; of such a YOLOX --names and --input-size can be said"
        )
    return megvii_body(what, known.names, known.input_size, known.nms_threshold)


def is_contract(model: onnx.ModelProto) -> bool:
    """Whether a file says that it is lookout's (whether it really is, ``read_spec`` checks)."""
    return any(prop.key == PREFIX + "schema" for prop in model.metadata_props)


def sha256(path: Path) -> str:
    """Of a file's content, in hex; of an ONNX file with weights in files beside it, of all their contents."""
    digest = hashlib.sha256()
    for part in (path, *weight_files(path)):
        with part.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def is_darknet(path: Path) -> bool:
    """Whether a file is the description of a Darknet network, by its name."""
    return path.suffix == ".cfg"


def is_torch(path: Path) -> bool:
    """Whether a file was saved by torch: a zip archive, or by its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".pth" or file.read(4) == b"PK\x03\x04"
