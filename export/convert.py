"""``lookout export``: whatever was given -> one contract file, or no file at all.

The only place where a checkpoint and a stranger's ONNX file part ways; both come back as a ``Body``
and go the same way from there: NMS grafted on, metadata, parity. Loads torch only for a checkpoint.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import helper

from export.adapt import Body, adapt
from export.artifact import PREFIX, SCHEMA, ArtifactError, ModelSpec, load, read_spec
from export.graph import NMS_THRESHOLD, with_nms
from export.parity import check_parity
from export.pictures import parity_pictures

Say = Callable[[str], None]

MOST_CACHED = 8
"""Adapted files kept for later runs; the least recently used go first."""


def export_model(
    what: Path,
    out: Path,
    *,
    names: tuple[str, ...] | None = None,
    nms_threshold: float = NMS_THRESHOLD,
    precision: str = "fp32",
    pictures: Path | None = None,
    say: Say = print,
) -> ModelSpec:
    """Turn a checkpoint or a stranger's ONNX file into a contract file, proven equal to the original.

    Args:
        what: a checkpoint of ``lookout train``, or an .onnx file.
        out: the file to write; written whole or not at all.
        names: class names; None takes the model's own.
        nms_threshold: IoU above which the lower-scoring box of the same class is dropped, 0 to 1.
        precision: only ``fp32``.
        pictures: folder of pictures for the parity check; None takes the packaged clips.
        say: told what was recognised and measured, a line at a time.

    Returns:
        What the file says of itself.

    Raises:
        ArtifactError: ``what`` is no model, or already is a contract file, or ``out`` cannot be written.
        AdaptError: no adapter recognises it.
        DataError: the pictures cannot be read.
        ParityError: the exported graph differs from the model, or nothing could be compared.
    """
    if precision != "fp32":
        raise ArtifactError(f"precision {precision}: only fp32 is there so far; leave --precision out")
    if not 0 < nms_threshold < 1:
        raise ArtifactError(f"NMS threshold {nms_threshold}: expected an IoU between 0 and 1, such as 0.65")
    body = _body(what, names, nms_threshold)
    say(f"recognised  {what.name}: {body.said}; {len(body.names)} classes")
    model = with_nms(body.model, nms_threshold)
    spec = ModelSpec(
        names=body.names,
        input_height=body.input_height,
        input_width=body.input_width,
        family=body.family,
        nms_threshold=nms_threshold,
        source_sha256=sha256(what),
    )
    return _write_if_equal(model, spec, body, out, pictures, say)


def ensure_contract(path: Path, say: Say, cache_dir: Path | None = None) -> Path:
    """A contract file for any model: the file itself, or its adaptation from a bounded cache.

    Args:
        path: an .onnx file.
        say: told what was recognised.
        cache_dir: None takes ``$XDG_CACHE_HOME/lookout/models``.

    Raises:
        ArtifactError: as :func:`export_model`.
    """
    if _is_zip(path):
        raise ArtifactError(
            f"{path}: is a checkpoint; export it first: lookout export {path} --out model.onnx"
        )
    if is_contract(load(path)):
        return path
    folder = cache_dir or default_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot keep the adapted model there ({error.strerror}); set XDG_CACHE_HOME, "
            f"or adapt it first: lookout export {path} --out adapted.onnx"
        ) from error
    cached = folder / f"{path.stem}-{sha256(path)[:16]}-{SCHEMA}.onnx"
    if cached.is_file():
        say(f"adapted     {path.name} earlier: {cached}")
        os.utime(cached)
        return cached
    export_model(path, cached, say=say)
    by_age = sorted(folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in by_age[MOST_CACHED:]:
        old.unlink(missing_ok=True)
    return cached


def default_cache() -> Path:
    """Where adapted models are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lookout" / "models"


def is_contract(model: onnx.ModelProto) -> bool:
    """Whether a file says that it is lookout's (whether it really is, ``read_spec`` checks)."""
    return any(prop.key == PREFIX + "schema" for prop in model.metadata_props)


def sha256(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _body(what: Path, names: tuple[str, ...] | None, nms_threshold: float) -> Body:
    if _is_zip(what):  # torch saves checkpoints as zip archives
        from export.torch_export import checkpoint_body

        return checkpoint_body(what, names, nms_threshold)
    model = load(what)
    if is_contract(model):
        spec = read_spec(model, str(what))
        raise ArtifactError(f"{what}: already is a lookout model ({spec.family}); use it as it is")
    return adapt(what, model, names, nms_threshold)


def _is_zip(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _write_if_equal(
    model: onnx.ModelProto, spec: ModelSpec, body: Body, out: Path, pictures: Path | None, say: Say
) -> ModelSpec:
    """Write to a temporary file beside ``out``, check that one, and only then give it its name."""
    shown = parity_pictures(pictures)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        _save(model, spec, partial)
        parity = check_parity(partial, body.reference, shown, spec.input_height, spec.input_width)
        proven = replace(spec, parity=parity.figures())
        _save(model, proven, partial)
        partial.replace(out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    say(f"parity      {parity}")
    say(f"written     {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return proven


def _save(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    del model.metadata_props[:]
    helper.set_model_props(model, spec.to_metadata())
    onnx.save(model, str(path))
