"""What a run over a file has done, kept beside its rows, so that after any end another run goes on from there.

The file says what the run was of, how far its rows are, and the tracker's state, as JSON. Knows nothing of
how frames are read or rows are written.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stream.config import CameraConfig, DetectorConfig
from stream.detector import Detector
from stream.errors import UsageError
from stream.sources.images import is_pictures, picture_files
from stream.writers import Saved, annotations_path, partial_path, written

SAVE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: frames read and boxes seen, and what rows, tracker and video need to go on."""

    frames: int
    boxes: int
    rows: Saved
    tracker: Mapping[str, Any]
    video: Mapping[str, Any] | None


def state_path(out: Path) -> Path:
    """Where the progress of the run that writes ``out`` is kept until it is complete."""
    return out.with_name(f"{out.name}.partial.state")


def damaged(out: Path) -> UsageError:
    """The fault of a state from which nothing can go on."""
    return UsageError(f"{state_path(out)}: is not the state of a run; run without --resume to begin anew")


class Checkpoint:
    """Writes the progress of a run every ``SAVE_EVERY_S`` seconds.

    Args:
        out: the file of rows.
        identity: what the run is of (``identity``).
        progress: what to write, asked for when it is time; None while it cannot be said.
    """

    def __init__(
        self, out: Path, identity: Mapping[str, str], progress: Callable[[int, int], Progress | None]
    ) -> None:
        self._path, self._identity, self._progress = state_path(out), identity, progress
        self._due = time.monotonic()

    def done(self, frames: int, boxes: int) -> None:
        """So many frames are done: keep that, if it is time.

        Raises:
            LookoutError: the disk does not take it.
        """
        if time.monotonic() < self._due:
            return
        progress = self._progress(frames, boxes)
        if progress is not None:
            self._write({"run": self._identity, **asdict(progress)})
            self._due = time.monotonic() + SAVE_EVERY_S

    def remove(self) -> None:
        """The run is complete."""
        self._path.unlink(missing_ok=True)

    def _write(self, state: Mapping[str, Any]) -> None:
        """At once or not at all: a kill at any moment leaves this state or the one before."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        with written(str(self._path)):
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)


def load(out: Path, identity: Mapping[str, str]) -> Progress | None:
    """The progress of the run that was cut short; None where there was none.

    Raises:
        UsageError: it was a run of something else, which is named, or its files are no longer whole.
    """
    path = state_path(out)
    if not path.exists():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        before = dict(state.pop("run"))
        progress = Progress(**state)
        sizes = {partial_path(out): progress.rows["bytes"]}
        if "annotation_bytes" in progress.rows:
            sizes[annotations_path(out)] = progress.rows["annotation_bytes"]
        short = [
            file for file, size in sizes.items() if size > (file.stat().st_size if file.is_file() else 0)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise damaged(out) from None
    for name in sorted(before.keys() | identity.keys()):
        was, now = before.get(name, "not given"), identity.get(name, "not given")
        if was != now:
            raise UsageError(
                f"{out}: cannot be resumed: the {name} was {was} and is {now} now; "
                "run as it was begun, or without --resume to begin anew"
            )
    if short:
        raise UsageError(
            f"{short[0]}: is shorter than {path} says, or gone; run without --resume to begin anew"
        )
    return progress


def identity(
    source: Path,
    camera: CameraConfig,
    detector: Detector,
    settings: DetectorConfig,
    choices: Mapping[str, object],
) -> dict[str, str]:
    """All that the rows of a run depend on, by name, in words.

    ``choices`` are those of the command line that are in none of the others.
    """
    return {
        "source": _source_identity(source),
        "model": hashlib.sha256(detector.path.read_bytes()).hexdigest()[:16],
        "device": f"{detector.device} with {detector.threads} threads",
        "score threshold": f"{settings.score_threshold:g}",
        "start": f"{camera.start_s:g} s",
        "version of lookout": version("lookout"),
        **{name: str(value) for name, value in choices.items()},
    }


def _source_identity(source: Path) -> str:
    """Its path, and what tells whether it was changed: sizes and times, not contents."""
    root, files = picture_files(source) if is_pictures(source) else (source.parent, [source])
    facts = []
    for file in files:
        status = file.stat()
        facts.append(f"{file.relative_to(root)} {status.st_size} {status.st_mtime_ns}")
    changes = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return f"{source.resolve()} ({len(files)} files, {changes})"
