"""Small pictures with boxes drawn on them, side by side on a page. Knows nothing of where the boxes come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

GREEN, ORANGE, GREY = (60, 200, 60), (20, 120, 255), (190, 190, 190)  # BGR
_WHITE = (255, 255, 255)
_CAPTION, _LETTER = 18, 7
"""Pixels of a line of text, and about those of a letter in it."""
_DASH = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """One box to draw, xyxy in pixels of the picture, float32 (4,)."""

    box: npt.NDArray[np.float32]
    colour: Colour
    text: str = ""
    dashed: bool = False


def tile(rgb: Pixels, marks: Sequence[Mark], width: int, height: int, caption: str = "") -> Pixels:
    """A picture that fits into ``width`` by ``height`` pixels, with ``caption`` below: uint8 BGR, ``width`` wide."""
    scale = min(width / rgb.shape[1], height / rgb.shape[0])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    small = np.ascontiguousarray(resized[:, :, ::-1], np.uint8)
    for mark in marks:
        _draw(small, mark, scale)
    below = _CAPTION if caption else 0
    drawn = np.pad(small, ((0, below), (0, width - size[0]), (0, 0)))
    most = width // _LETTER
    shown = caption if len(caption) <= most else f"..{caption[2 - most :]}"
    _write(drawn, shown, (2, drawn.shape[0] - 5), _WHITE)
    return drawn


def page(tiles: Sequence[Pixels], columns: int) -> Pixels:
    """Tiles of one width in rows of ``columns``, each row as high as its highest: uint8 BGR."""
    blank = np.zeros_like(tiles[0][:1])
    rows = []
    for start in range(0, len(tiles), columns):
        row = [*tiles[start : start + columns]]
        row += [blank] * (columns - len(row))
        height = max(len(each) for each in row)
        rows.append(
            np.concatenate([np.pad(each, ((0, height - len(each)), (0, 0), (0, 0))) for each in row], 1)
        )
    return np.concatenate(rows)


def _draw(picture: Pixels, mark: Mark, scale: float) -> None:
    left, top, right, bottom = (mark.box * scale).round().astype(int).tolist()
    if mark.dashed:
        _dashed(picture, (left, top), (right, bottom), mark.colour)
    else:
        cv2.rectangle(picture, (left, top), (right, bottom), mark.colour, 1, cv2.LINE_AA)
    _write(picture, mark.text, (left, max(10, top - 3)), mark.colour)


def _dashed(picture: Pixels, first: tuple[int, int], last: tuple[int, int], colour: Colour) -> None:
    (left, top), (right, bottom) = first, last
    for x in range(left, right, 2 * _DASH):
        for y in (top, bottom):
            cv2.line(picture, (x, y), (min(x + _DASH, right), y), colour)
    for y in range(top, bottom, 2 * _DASH):
        for x in (left, right):
            cv2.line(picture, (x, y), (x, min(y + _DASH, bottom)), colour)


def _write(picture: Pixels, text: str, where: tuple[int, int], colour: Colour) -> None:
    cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
