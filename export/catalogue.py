"""Which models this installation has: the embedded default, and files by path.

Knows nothing of what is inside a model file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from export.artifact import ArtifactError, ModelSpec, load, read_spec

DEFAULT = "lookout-nano"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that can be named instead of given by path."""

    name: str
    path: Path
    spec: ModelSpec
    size_bytes: int


def weights_folder() -> Path:
    """Where the embedded models lie."""
    return Path(str(files("models") / "weights"))


def catalogue() -> list[Entry]:
    """Every embedded model, by name."""
    entries = []
    for path in sorted(weights_folder().glob("*.onnx")):
        spec = read_spec(load(path), str(path))
        entries.append(Entry(path.stem, path, spec, path.stat().st_size))
    return entries


def resolve_model(model: str) -> Path:
    """The file of a model given by name or path.

    Raises:
        ArtifactError: neither an embedded model nor a file.
    """
    embedded = weights_folder() / f"{model}.onnx"
    if "/" not in model and embedded.is_file():
        return embedded
    if Path(model).is_file():
        return Path(model)
    names = ", ".join(path.stem for path in sorted(weights_folder().glob("*.onnx"))) or "none"
    raise ArtifactError(f"{model}: no such model; expected a path to an .onnx file or one of: {names}")
