"""What ``lookout models`` prints: the catalogue and the cache, for eyes and for programs."""

from __future__ import annotations

from pathlib import Path

from export.catalogue import Entry, adapted, catalogue, unfinished


def as_json() -> dict[str, object]:
    """``models`` as :meth:`Entry.to_json`; ``adapted`` and ``unfinished`` cache files with path and size."""
    return {
        "models": [entry.to_json() for entry in catalogue()],
        "adapted": [{"path": str(path), "bytes": _size_bytes(path)} for path in adapted()],
        "unfinished": [{"path": str(path), "bytes": _size_bytes(path)} for path in unfinished()],
    }


def as_lines() -> list[str]:
    """A table of all models, then the files in the cache; up to their paths within 100 columns."""
    entries = catalogue()
    downloaded = [entry.path for entry in entries if entry.path and entry.state == "downloaded"]
    kept = {"downloaded": downloaded, "adapted": adapted(), "unfinished": unfinished()}
    return [
        f"{'NAME':<18}{'STATE':<15}{'AP':>6}{'INPUT':>10}{'SIZE':>11}  {'LICENCE':<12}FAMILY",
        *map(_row, entries),
        *(_file_row(what, path) for what, paths in kept.items() for path in paths),
        "AP: COCO val2017, as published. Get one: lookout models pull NAME",
        "A path to an .onnx file works wherever a name does.",
    ]


def _row(entry: Entry) -> str:
    ap = "-" if entry.ap is None else f"{entry.ap:.3f}"
    size = f"{entry.input_width}x{entry.input_height}" if entry.input_width else "any"
    megabytes = f"{entry.size_bytes / 1e6:.1f} MB"
    return f"{entry.name:<18}{entry.state:<15}{ap:>6}{size:>10}{megabytes:>11}  {entry.licence:<12}{entry.family}"


def _file_row(what: str, path: Path) -> str:
    return f"{what:<11}{_size_bytes(path) / 1e6:>8.1f} MB  {path}"


def _size_bytes(path: Path) -> int:
    """Another process may have removed it meanwhile."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
