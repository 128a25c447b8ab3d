"""Proposals of many pictures, found once and kept on disk: finding them takes longer than all else.

They are found in the letterboxed picture, without its padding, because that is where the live app finds them.
Knows nothing of torch or training.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from models.coco import Example
from models.errors import DataError
from models.letterbox import Letterbox
from models.lineage.proposals import Floats, ProposalRule

_CHANGES = 1
"""Counted up whenever other boxes are proposed in the same picture, so that older files are not used."""

_CHUNK = 4


@dataclass(frozen=True, slots=True)
class ProposalCache:
    """What is proposed by one rule in pictures of one input size."""

    folder: Path
    """Gets a file a picture; is made when it is needed."""
    rule: ProposalRule
    input_height: int
    input_width: int

    def add_to(self, examples: Sequence[Example], processes: int = 0) -> list[Example]:
        """The examples with their proposals, found where they are not in the folder yet.

        Args:
            examples: the same picture may be there several times.
            processes: that find them; with 0 or 1 it is this one.

        Raises:
            DataError: a picture cannot be read, or the folder cannot be written.
        """
        distinct = list({example.path: example for example in examples}.values())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            progress = track(
                self._each(distinct, processes),
                "proposals",
                len(distinct),
                console=Console(stderr=True),
                transient=True,
            )
            found = dict(zip([example.path for example in distinct], progress, strict=True))
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot keep proposals there ({error.strerror}); make room, or give another folder"
            ) from error
        except BrokenProcessPool as error:
            raise DataError(
                "a process that finds proposals was ended; lower workers, then continue with the same command"
            ) from error
        return [replace(example, proposals=found[example.path]) for example in examples]

    def _each(self, examples: list[Example], processes: int) -> Iterator[Floats]:
        if processes < 2:
            yield from map(self.of, examples)
            return
        # Spawned, because what was forked from a process in which torch computes may hang.
        with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
            yield from pool.map(self.of, examples, chunksize=_CHUNK)

    def of(self, example: Example) -> Floats:
        """Proposals of one picture, float32 (R, 4), xyxy in source pixels; R is at most the rule's count."""
        file = self.folder / f"{self._key(example.path)}.npz"
        kept = _read(file)
        if kept is None:
            kept = self._find(example)
            unfinished = file.with_suffix(f".{os.getpid()}.partial")
            with unfinished.open("wb") as out:
                np.savez(out, proposals=kept)
            unfinished.replace(file)
        return kept

    def _find(self, example: Example) -> Floats:
        letterbox = Letterbox.fit(example.width, example.height, self.input_width, self.input_height)
        boxes = self.rule.inside(letterbox.apply(example.read()), letterbox)
        return letterbox.to_source(boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)])

    def _key(self, path: Path) -> str:
        """Of everything that proposals depend on."""
        state = path.stat()
        size = f"{self.input_width}x{self.input_height}"
        parts = (path.resolve(), state.st_size, state.st_mtime_ns, self.rule, size, _CHANGES)
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _read(file: Path) -> Floats | None:
    """What a file holds; None where there is none, or a damaged one."""
    try:
        with (
            file.open("rb") as opened,
            np.load(opened) as content,
        ):  # left to itself, it leaves a damaged file open
            return np.asarray(content["proposals"], np.float32).reshape(-1, 4)
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return None


def _one_thread() -> None:
    cv2.setNumThreads(1)  # a worker is one process of many
