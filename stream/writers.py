"""Tracks as files: ``jsonl``, MOTChallenge rows, COCO JSON. Knows nothing of video or models.

Files appear under their own name only when they are complete; until then, and when the work was
cut short, they are called ``NAME.partial.EXT``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import numpy as np

from stream.errors import LookoutError, UsageError
from stream.frames import Frame, Tracks, class_name

log = logging.getLogger(__name__)

Format = Literal["jsonl", "mot", "coco"]


Saved = Mapping[str, int]
"""What a writer needs to go on where it was: sizes of files in bytes, counts."""


class Writer(Protocol):
    """Takes the frames in order, then ``finish`` once, also when the work was cut short.

    ``saved`` sees to it that all of it is on the disk, and says what to go on from.
    """

    def write(self, frame: Frame, tracks: Tracks) -> None: ...

    def saved(self) -> Saved: ...

    def finish(self) -> None: ...


def make_writer(
    kind: Format,
    file: TextIO,
    names: Sequence[str],
    saved: Saved | None = None,
    annotations: Path | None = None,
) -> Writer:
    """The writer of ``kind`` to an open file; ``names`` are the model's classes.

    Args:
        kind: of the rows.
        file: where to; it ends where the run that ``saved`` is of had come to.
        names: the model's classes.
        saved: what the writer of that run said; None to begin.
        annotations: where COCO's wait for the end; None is a temporary file.
    """
    if kind == "jsonl":
        return JsonLines(file, names)
    if kind == "mot":
        return MotRows(file, names)
    return CocoJson(file, names, saved, annotations)


def annotations_path(path: Path) -> Path:
    """Where the annotations of a COCO file wait until it is complete."""
    return path.with_name(f"{path.name}.partial.annotations")


def partial_path(path: Path) -> Path:
    """What ``path`` is called until it is complete."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


@contextmanager
def completed(path: Path, keep: bool = True) -> Iterator[Path]:
    """``partial_path(path)`` to write to, which is renamed to ``path`` when the block ends well.

    When it does not, what was written stays under the name that was given, beside ``path``; without ``keep`` it goes.

    Raises:
        UsageError: the folder is not there, or ``path`` is a folder.
        LookoutError: the file cannot be renamed.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; expected the name of a file")
    partial = partial_path(path)
    try:
        yield partial
    except BaseException:
        if not keep:
            partial.unlink(missing_ok=True)
        elif partial.exists():
            log.warning("stopped early: what was done is in %s", partial)
        raise
    if partial.exists():
        with written(str(path)):
            partial.replace(path)


@contextmanager
def written(where: str) -> Iterator[None]:
    """A block that only writes, so that every ``OSError`` in it is a fault of ``where``.

    Raises:
        LookoutError: such as a full disk, in one line.
        BrokenPipeError: whoever read our output went away, which is no fault.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:  # FFmpeg's errors are OSErrors too where the system knows them
        raise LookoutError(
            f"{where}: cannot be written ({error.strerror or error}); make room there, or write elsewhere"
        ) from error


@contextmanager
def opened(
    kind: Format,
    path: Path | None,
    names: Sequence[str],
    saved: Saved | None = None,
    annotations: Path | None = None,
) -> Iterator[Writer]:
    """A writer of rows that appear as ``path`` once they are complete; None is standard output.

    With ``saved`` it goes on with the rows of a run that was cut short. For ``annotations`` see ``make_writer``;
    they stay if this run is cut short.

    Raises:
        UsageError: ``path`` cannot be written to, or standard output is closed.
        LookoutError: it could be written to no longer.
    """
    with ExitStack() as stack:
        if path is None:
            file, where = _standard_output(), "standard output"
        else:
            partial, where = stack.enter_context(completed(path)), str(path)
            try:
                file = _at_end(partial, saved["bytes"]) if saved else partial.open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"{path}: cannot be written ({error.strerror}); choose another --out"
                ) from error
        rows = _Rows(kind, file, names, where, saved, annotations)
        try:
            yield rows
        finally:
            rows.finish()
            if annotations is not None and not annotations.stat().st_size:
                annotations.unlink()
    if annotations is not None:
        annotations.unlink(missing_ok=True)


def _at_end(path: Path, size: int) -> TextIO:
    """A file opened to go on after its first ``size`` bytes; what comes after them is cut off."""
    file = path.open("a+", encoding="utf-8")
    file.truncate(size)
    return file


def _on_disk(file: TextIO) -> int:
    """Have all that was written to a file on the disk, power cut or not; its size in bytes."""
    file.flush()
    os.fsync(file.fileno())
    return os.fstat(file.fileno()).st_size


def _standard_output() -> TextIO:
    """A file of its own: what ``sys.stdout`` could not write it would try again when Python ends."""
    if sys.stdout is None:  # so it is where the shell closed it
        raise UsageError("standard output is closed; name a file with --out")
    return os.fdopen(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False)


class _Rows:
    """A writer and its file, whose faults are told in one line."""

    def __init__(
        self,
        kind: Format,
        file: TextIO,
        names: Sequence[str],
        where: str,
        saved: Saved | None,
        annotations: Path | None,
    ) -> None:
        self._file, self._where = file, where
        with written(where):
            self._writer = make_writer(kind, file, names, saved, annotations)

    def write(self, frame: Frame, tracks: Tracks) -> None:
        with written(self._where):
            self._writer.write(frame, tracks)

    def saved(self) -> Saved:
        with written(self._where):
            return self._writer.saved()

    def finish(self) -> None:
        with written(self._where), closing(self._file):
            self._writer.finish()


class JsonLines:
    """One object a frame: ``index``, ``time_s`` and ``boxes``, each with the corners ``xyxy`` in pixels.

    ``file`` is its picture's, where each has its own. A box that was not seen in this frame but expected
    there has ``coasting`` true.
    """

    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._file, self._names = file, names

    def write(self, frame: Frame, tracks: Tracks) -> None:
        boxes = [
            {
                "id": track_id,
                "name": class_name(self._names, class_index),
                "score": round(score, 4),
                "xyxy": [round(value, 2) for value in box],
                "coasting": coasting,
            }
            for track_id, class_index, score, box, coasting in _rows(tracks)
        ]
        line: dict[str, Any] = {"index": frame.index, "time_s": round(frame.time_s, 6)}
        if frame.name:
            line["file"] = frame.name
        line["boxes"] = boxes
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def saved(self) -> Saved:
        return {"bytes": _on_disk(self._file)}

    def finish(self) -> None:
        """Every line is complete in itself."""


class MotRows:
    """MOTChallenge rows: frame from 1, id, left, top, width, height, score, -1, -1, -1.

    Only what was seen in its frame, and only ``person`` where the model has that class.
    """

    def __init__(self, file: TextIO, names: Sequence[str]) -> None:
        self._file = file
        self._only = names.index("person") if "person" in names else None

    def write(self, frame: Frame, tracks: Tracks) -> None:
        for track_id, class_index, score, (x1, y1, x2, y2), coasting in _rows(tracks):
            if not coasting and self._only in (None, class_index):
                self._file.write(
                    f"{frame.index + 1},{track_id},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},"
                    f"{score:.4f},-1,-1,-1\n"
                )

    def saved(self) -> Saved:
        return {"bytes": _on_disk(self._file)}

    def finish(self) -> None:
        """Every row is complete in itself."""


class CocoJson:
    """A COCO dataset: ``images`` are frames (id from 1), ``annotations`` also have score and track_id.

    Only what was seen in its frame. Annotations wait in a file of their own, not in memory.
    """

    def __init__(
        self, file: TextIO, names: Sequence[str], saved: Saved | None = None, annotations: Path | None = None
    ) -> None:
        self._file = file
        self._images = saved["images"] if saved else 0
        self._count = saved["annotations"] if saved else 0
        if annotations is None:
            self._annotations: TextIO = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115, by finish
        elif saved:
            self._annotations = _at_end(annotations, saved["annotation_bytes"])
            return
        else:
            self._annotations = annotations.open("w+", encoding="utf-8")
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        file.write(f'{{"categories": {json.dumps(categories, ensure_ascii=False)},\n"images": [')

    def write(self, frame: Frame, tracks: Tracks) -> None:
        image = {
            "id": frame.index + 1,
            "file_name": frame.name or f"{frame.index + 1:06d}.jpg",
            "width": frame.picture.width,
            "height": frame.picture.height,
            "time_s": round(frame.time_s, 6),
        }
        self._file.write(_item(image, first=self._images == 0))
        self._images += 1
        for track_id, class_index, score, (x1, y1, x2, y2), coasting in _rows(tracks):
            if coasting:
                continue
            width, height = x2 - x1, y2 - y1
            annotation = {
                "id": self._count + 1,
                "image_id": frame.index + 1,
                "category_id": class_index + 1,
                "bbox": [round(value, 2) for value in (x1, y1, width, height)],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "score": round(score, 4),
                "track_id": track_id,
            }
            self._annotations.write(_item(annotation, first=self._count == 0))
            self._count += 1

    def saved(self) -> Saved:
        return {
            "bytes": _on_disk(self._file),
            "images": self._images,
            "annotations": self._count,
            "annotation_bytes": _on_disk(self._annotations),
        }

    def finish(self) -> None:
        with self._annotations:
            self._file.write('],\n"annotations": [')
            self._annotations.seek(0)
            shutil.copyfileobj(self._annotations, self._file)
            self._file.write("]}\n")


def _item(value: dict[str, Any], *, first: bool) -> str:
    return ("\n" if first else ",\n") + json.dumps(value)


def _rows(tracks: Tracks) -> Iterator[tuple[int, int, float, list[float], bool]]:
    """Id, class, score, box and coasting of each track as Python's own numbers, by id."""
    order = np.argsort(tracks.ids, kind="stable")
    return zip(
        tracks.ids[order].tolist(),
        tracks.classes[order].tolist(),
        tracks.scores[order].tolist(),
        tracks.boxes[order].astype(float).tolist(),
        tracks.coasting[order].tolist(),
        strict=True,
    )
