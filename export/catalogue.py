"""Which models there are: embedded, downloaded, published by others, adapted earlier, or files by path.

A download counts as there when it has the published size: it gets its name only after its sha256 was
checked (``pull``). Knows nothing of networks, nor of what is inside a stranger's file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from export.artifact import ArtifactError, ModelSpec, load, read_spec
from export.published import PUBLISHED, Published

DEFAULT = "lookout-nano"

EMBEDDED_LICENCE = "Apache-2.0"

State = Literal["embedded", "downloaded", "can be pulled"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that can be named instead of given by path.

    Attributes:
        path: its file; None where it is not here.
        size_bytes: of its file.
        input_height, input_width: pixels; None where the file takes any.
        ap: COCO AP on val2017, 0 to 1; None where none is published.
        spec: what an embedded file says of itself.
        published: where a file of others comes from.
    """

    name: str
    state: State
    path: Path | None
    size_bytes: int
    family: str
    input_height: int | None
    input_width: int | None
    licence: str
    ap: float | None
    spec: ModelSpec | None = None
    published: Published | None = None

    def to_json(self) -> dict[str, object]:
        """Everything, flat; an embedded model's spec and a published one's origin where they apply."""
        shown: dict[str, object] = asdict(self.spec) if self.spec else {}
        if self.published:
            origin = self.published
            shown |= {"publisher": origin.publisher, "address": origin.address, "sha256": origin.sha256}
            shown["surface"] = origin.surface
        return shown | {
            "name": self.name,
            "state": self.state,
            "path": str(self.path) if self.path else None,
            "bytes": self.size_bytes,
            "family": self.family,
            "input_height": self.input_height,
            "input_width": self.input_width,
            "licence": self.licence,
            "AP": self.ap,
        }


def weights_folder() -> Path:
    """Where the embedded models lie."""
    return Path(str(files("models") / "weights"))


def downloads_folder() -> Path:
    """Where pulled models are kept: beside the adapted ones.

    Raises:
        ArtifactError: this user has no home.
    """
    from export.convert import default_cache  # not needed, and not loaded, where nothing is cached

    return default_cache().parent / "downloads"


def downloaded_path(entry: Published, folder: Path) -> Path:
    """Where a published model lies once it is pulled into ``folder``."""
    return folder / f"{entry.name}.onnx"


def catalogue() -> list[Entry]:
    """Every model that has a name: the embedded ones, then the published ones, here or not."""
    embedded = [_embedded(path) for path in sorted(weights_folder().glob("*.onnx"))]
    folder = _downloads_if_any()
    return embedded + [_published(entry, folder) for entry in PUBLISHED]


def adapted() -> list[Path]:
    """The strangers' files that were adapted earlier and are kept, the latest used first."""
    return _cached("models", "*.onnx")


def unfinished() -> list[Path]:
    """What is left of downloads that were cut off, the latest first; pulling again continues them."""
    return _cached("downloads", ".*.partial")


def published(name: str) -> Published | None:
    """The published model of that name."""
    return next((entry for entry in PUBLISHED if entry.name == name), None)


def resolve_model(model: str) -> Path:
    """The file of a model given by name or path.

    Raises:
        ArtifactError: neither a model that is here nor a file; a published one says how to get it.
    """
    if _is_embedded(model) or not Path(model).is_file():
        return named_model(model)
    return Path(model)


def named_model(model: str) -> Path:
    """The file of a model given by name, never by path.

    Raises:
        ArtifactError: none that is here has this name; a published one says how to get it.
    """
    if _is_embedded(model):
        return weights_folder() / f"{model}.onnx"
    if entry := published(model):
        return _downloaded(entry)
    raise ArtifactError(
        f"{model}: no such model; expected a path to an .onnx file or one of: {', '.join(_names_here())} "
        "(lookout models lists those that can be pulled)"
    )


def _is_embedded(model: str) -> bool:
    return "/" not in model and (weights_folder() / f"{model}.onnx").is_file()


def _downloaded(entry: Published) -> Path:
    path = downloaded_path(entry, downloads_folder())
    if _is_whole(entry, path):
        return path
    if path.exists():
        raise ArtifactError(
            f"{path}: is not the published {entry.name} ({entry.size_bytes} bytes); get it again: "
            f"lookout models pull {entry.name}"
        )
    raise ArtifactError(
        f"{entry.name}: is published ({entry.size_bytes / 1e6:.1f} MB, {entry.licence}) but not downloaded; "
        f"get it first: lookout models pull {entry.name}"
    )


def _names_here() -> list[str]:
    return [entry.name for entry in catalogue() if entry.path]


def _embedded(path: Path) -> Entry:
    spec = read_spec(load(path), str(path))
    return Entry(
        name=path.stem,
        state="embedded",
        path=path,
        size_bytes=path.stat().st_size,
        family=spec.family,
        input_height=spec.input_height,
        input_width=spec.input_width,
        licence=EMBEDDED_LICENCE,
        ap=None,
        spec=spec,
    )


def _published(entry: Published, folder: Path | None) -> Entry:
    path = downloaded_path(entry, folder) if folder else None
    here = path if path and _is_whole(entry, path) else None
    return Entry(
        name=entry.name,
        state="downloaded" if here else "can be pulled",
        path=here,
        size_bytes=entry.size_bytes,
        family=entry.family,
        input_height=entry.input_height,
        input_width=entry.input_width,
        licence=entry.licence,
        ap=entry.ap,
        published=entry,
    )


def _is_whole(entry: Published, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == entry.size_bytes


def _cached(folder: str, pattern: str) -> list[Path]:
    downloads = _downloads_if_any()
    found = [] if downloads is None else downloads.parent.joinpath(folder).glob(pattern)
    return sorted(found, key=_used_at, reverse=True)


def _used_at(path: Path) -> float:
    """Another process may remove it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _downloads_if_any() -> Path | None:
    """None for a user without a home: nothing can have been cached."""
    try:
        return downloads_folder()
    except ArtifactError:
        return None
