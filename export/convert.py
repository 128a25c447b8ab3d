"""``lookout export``: whatever was given -> one contract file, or no file at all.

A proposal is written beside its place, proven against its original, lowered in precision and measured against a
current file if that is asked for, and only then given its name.
"""

from __future__ import annotations

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

from export.accuracy import Annotated
from export.adapt import Wishes
from export.artifact import ArtifactError, ModelSpec, Precision, load, read_spec
from export.gate import Gate, pass_gate
from export.parity import check_parity
from export.pictures import parity_pictures, synthetic_shapes
from export.proposal import NOTHING_SAID, Proposal, is_contract, is_darknet, is_torch, propose, sha256

Say = Callable[[str], None]

MOST_CACHED = 8
"""Adapted files kept for later runs; the least recently used go first."""

STALE_S = 3600.0
"""No adaptation takes that long: an unfinished file of that age was left by a process that was killed."""


def export_model(
    what: Path,
    out: Path,
    *,
    wishes: Wishes = NOTHING_SAID,
    precision: Precision = "fp32",
    pictures: Path | None = None,
    annotated: Annotated | None = None,
    gate: Gate | None = None,
    say: Say = print,
) -> ModelSpec:
    """Turn a checkpoint or a stranger's ONNX file into a contract file, proven equal to the original.

    Args:
        what: a checkpoint of ``lookout train``, a Darknet ``.cfg``, a YOLOX ``.pth`` of Megvii's, or an .onnx file;
            for another precision, a contract file too.
        out: the file to write, not ``what`` itself; written whole or not at all.
        wishes: what the user says of the model besides; of a checkpoint, only names and NMS threshold, of a
            ``.pth`` the input size, too.
        precision: of the network. Others than ``fp32`` are held against the proven float32 graph.
        pictures: folder of pictures to compare and calibrate on; None takes the packaged clips.
        annotated: pictures to bound the average precision on that another precision may cost.
        gate: a file that the new one has to be better than.
        say: told what was recognised and measured, a line at a time.

    Returns:
        What the file says of itself.

    Raises:
        ArtifactError: ``what`` is no model, already is what is asked for, or cannot become it; or ``out``
            cannot be written.
        AdaptError: no adapter recognises it.
        DataError: the pictures cannot be read.
        ParityError: the exported graph differs from the model, or too little could be compared.
        GateError: it is no better than the file it has to beat.
    """
    if wishes.nms_threshold is not None and not 0 < wishes.nms_threshold < 1:
        raise ArtifactError(
            f"NMS threshold {wishes.nms_threshold}: expected an IoU between 0 and 1, such as 0.65"
        )
    _refuse_unwritable(what, out)
    proposal = propose(what, wishes, precision)
    say(f"recognised  {what.name}: {proposal.said}; {len(proposal.spec.names)} classes")
    return _write_if_good(proposal, precision, out, pictures, annotated, gate, say)


def ensure_contract(path: Path, say: Say, cache_dir: Path | None = None) -> Path:
    """A contract file for any model: the file itself, or its adaptation from a bounded cache.

    Args:
        path: an .onnx file.
        say: told what was recognised.
        cache_dir: None takes ``$XDG_CACHE_HOME/lookout/models``.

    Raises:
        ArtifactError: as :func:`export_model`.
    """
    if is_torch(path):
        raise ArtifactError(
            f"{path}: is a checkpoint; export it first: lookout export {path} --out model.onnx"
        )
    if is_darknet(path):
        raise ArtifactError(
            f"{path}: is a Darknet network; export it first: lookout export {path} "
            f"--weights {path.with_suffix('.weights')} --out model.onnx"
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


def _write_if_good(
    proposal: Proposal,
    precision: Precision,
    out: Path,
    pictures: Path | None,
    annotated: Annotated | None,
    gate: Gate | None,
    say: Say,
) -> ModelSpec:
    """Write to a temporary file beside ``out``, check that one, and only then give it its name."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    model, spec = proposal.model, proposal.spec
    try:
        _save(model, spec, partial)
        if proposal.reference is not None:
            shown = parity_pictures(pictures)
            parity = check_parity(partial, proposal.reference, shown, spec, synthetic_shapes(shown[0]))
            spec = replace(spec, parity=parity.figures())
            say(f"parity      {parity}")
        if precision not in ("fp32", spec.precision):
            model, spec = _lower(model, spec, precision, partial, pictures, annotated, say)
        if gate is not None:
            _save(model, spec, partial)
            spec = replace(spec, gate=pass_gate(partial, spec, gate, out, say))
        _save(model, spec, partial)
        partial.replace(out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    say(f"written     {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return spec


def _lower(
    model: onnx.ModelProto,
    spec: ModelSpec,
    precision: Precision,
    partial: Path,
    pictures: Path | None,
    annotated: Annotated | None,
    say: Say,
) -> tuple[onnx.ModelProto, ModelSpec]:
    from export.precision import lowered  # its converters take a second to load

    assert precision != "fp32"
    shown = parity_pictures(pictures, many=True)
    whose = (
        "frames of the packaged clips (your own fit better: --pictures)" if pictures is None else "pictures"
    )
    say(f"{precision:<11} compared on {len(shown)} {whose}")
    trial = partial.with_suffix(".trial.partial")

    def save(candidate: onnx.ModelProto, said: ModelSpec) -> Path:
        _save(candidate, said, trial)
        return trial

    try:
        result = lowered(partial, model, spec, precision, shown, annotated, save, say)
    finally:
        trial.unlink(missing_ok=True)
    say(f"agreement   {result.agreement}")
    return result.model, result.spec


def _save(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    del model.metadata_props[:]
    helper.set_model_props(model, spec.to_metadata())
    onnx.save(model, str(path))
