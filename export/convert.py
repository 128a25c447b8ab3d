"""``lookout export``: whatever was given -> one contract file, or no file at all.

The only place where a checkpoint and a stranger's ONNX file part ways; both come back as a ``Body``
and go the same way from there: NMS grafted on, metadata, parity. Loads torch only for a checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import onnx
from onnx import helper

from export.adapt import Body, Wishes, adapt
from export.artifact import PREFIX, ArtifactError, ModelSpec, load, read_spec, weight_files
from export.parity import check_parity
from export.pictures import parity_pictures, synthetic_shapes

Say = Callable[[str], None]

NOTHING_SAID = Wishes()

MOST_CACHED = 8
"""Adapted files kept for later runs; the least recently used go first."""

STALE_S = 3600.0
"""No adaptation takes that long: an unfinished file of that age was left by a process that was killed."""


def export_model(
    what: Path,
    out: Path,
    *,
    wishes: Wishes = NOTHING_SAID,
    precision: str = "fp32",
    pictures: Path | None = None,
    say: Say = print,
) -> ModelSpec:
    """Turn a checkpoint or a stranger's ONNX file into a contract file, proven equal to the original.

    Args:
        what: a checkpoint of ``lookout train``, or an .onnx file.
        out: the file to write, not ``what`` itself; written whole or not at all.
        wishes: what the user says of the model besides; of a checkpoint, only names and NMS threshold.
        precision: only ``fp32``.
        pictures: folder of pictures for the parity check; None takes the packaged clips.
        say: told what was recognised and measured, a line at a time.

    Returns:
        What the file says of itself.

    Raises:
        ArtifactError: ``what`` is no model, or already is a contract file, or ``out`` cannot be written.
        AdaptError: no adapter recognises it.
        DataError: the pictures cannot be read.
        ParityError: the exported graph differs from the model, or too little could be compared.
    """
    if precision != "fp32":
        raise ArtifactError(f"precision {precision}: only fp32 is there so far; leave --precision out")
    if not 0 < wishes.nms_threshold < 1:
        raise ArtifactError(
            f"NMS threshold {wishes.nms_threshold}: expected an IoU between 0 and 1, such as 0.65"
        )
    _refuse_unwritable(what, out)
    body = _body(what, wishes)
    say(f"recognised  {what.name}: {body.said}; {len(body.names)} classes")
    spec = ModelSpec(
        names=body.names,
        input_height=body.input_height,
        input_width=body.input_width,
        family=body.family,
        resize=body.resize,
        nms_threshold=body.nms_threshold,
        source_sha256=sha256(what),
    )
    return _write_if_equal(spec, body, out, pictures, say)


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
    # Another lookout may adapt otherwise, or write what this one cannot read.
    cached = folder / f"{path.stem}-{sha256(path)[:16]}-{version('lookout')}.onnx"
    try:
        if cached.is_file() and _is_sound(cached, say):
            say(f"adapted     {path.name} earlier: {cached}")
            with suppress(OSError):  # it may be another user's
                os.utime(cached)
            return cached
        folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot keep the adapted model there ({error.strerror}); set XDG_CACHE_HOME, "
            f"or adapt it first: lookout export {path} --out adapted.onnx"
        ) from error
    export_model(path, cached, say=say)
    _prune(folder)
    return cached


def _is_sound(cached: Path, say: Say) -> bool:
    try:
        read_spec(load(cached), str(cached))
    except ArtifactError as error:
        say(f"adapting    anew: {error}")
        return False
    return True


def _prune(folder: Path) -> None:
    """Remove what is beyond ``MOST_CACHED``, and what killed processes left; others may do so too."""
    with suppress(OSError):
        by_age = sorted(folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in by_age[MOST_CACHED:]:
            old.unlink(missing_ok=True)
        for partial in folder.glob(".*.partial"):
            if time.time() - partial.stat().st_mtime > STALE_S:
                partial.unlink(missing_ok=True)


def default_cache() -> Path:
    """Where adapted models are kept.

    Raises:
        ArtifactError: this user has no home.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "lookout" / "models"
    except RuntimeError as error:
        raise ArtifactError(
            "no home folder to keep the adapted model in; set XDG_CACHE_HOME to a folder that can be written"
        ) from error


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


def _refuse_unwritable(what: Path, out: Path) -> None:
    """Say now what would otherwise show only after the export.

    Raises:
        ArtifactError: ``out`` is ``what``, or cannot be written.
    """
    try:
        if out.exists() and what.exists() and out.samefile(what):
            raise ArtifactError(f"{out}: is the model that is exported; give --out another name")
        if out.is_dir():
            raise ArtifactError(f"{out}: cannot be written (a folder); expected the name of a file")
        _try_writing(out.parent)
    except OSError as error:
        raise ArtifactError(
            f"{out}: cannot be written ({error.strerror}); --out must name a file in a folder that is there"
        ) from error


def _try_writing(folder: Path) -> None:
    """Raises OSError where no file can be made; permissions alone do not tell."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def _body(what: Path, wishes: Wishes) -> Body:
    if _is_zip(what):  # torch saves checkpoints as zip archives
        from export.torch_export import checkpoint_body

        return checkpoint_body(what, wishes.names, wishes.nms_threshold)
    model = load(what)
    if is_contract(model):
        spec = read_spec(model, str(what))
        raise ArtifactError(f"{what}: already is a lookout model ({spec.family}); use it as it is")
    return adapt(what, model, wishes)


def _is_zip(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _write_if_equal(spec: ModelSpec, body: Body, out: Path, pictures: Path | None, say: Say) -> ModelSpec:
    """Write to a temporary file beside ``out``, check that one, and only then give it its name."""
    shown = parity_pictures(pictures)
    shapes = synthetic_shapes(shown[0])
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        _save(body.model, spec, partial)
        parity = check_parity(partial, body.reference, shown, spec, shapes)
        proven = replace(spec, parity=parity.figures())
        _save(body.model, proven, partial)
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
