"""Draws tracks on a picture's own Y, U and V planes: outlines, and labels like "person 7 0.83".

Geometry is in *cells*, the 2x2 luma pixels that share one chroma sample, so that nothing drawn
bleeds colour into its neighbours and odd sizes need no special case. No RGB picture is ever made.

Knows nothing of time, detectors or encoders.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from PIL import Image, ImageDraw, ImageFont

from stream.errors import DeviceUnavailable
from stream.frames import Tracks, class_name
from stream.planes import FULL_RANGE, Planes, views, writable

Colour = tuple[int, int, int]

# Okabe and Ito's palette for colour-blind readers (jfly.uni-koeln.de/color, 2008), black left out.
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_SHADES = (1.0, 0.6, 1.5)
"""Past the palette's end it comes again darker, then lighter, before a colour repeats."""

_BT709 = 1  # AVCOL_SPC_BT709
_FARTHEST_PX = 1 << 20
_CACHED_PIECES = 1024
_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)


def class_colour(class_index: int) -> Colour:
    """The RGB colour of a class, the same for every model, camera and run."""
    turn, place = divmod(class_index, len(_PALETTE))
    shade = _SHADES[turn % len(_SHADES)]
    red, green, blue = (
        round(value * shade if shade <= 1.0 else 255 - (255 - value) / shade) for value in _PALETTE[place]
    )
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever contrasts more with an RGB background (WCAG 2 relative luminance)."""
    linear = [
        value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _BLACK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else _WHITE


def rgb_to_yuv(colour: Colour, *, bt709: bool, full_range: bool) -> Colour:
    """An RGB colour as 8-bit Y, U, V by BT.709 or BT.601."""
    red_share, blue_share = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    red, green, blue = (value / 255 for value in colour)
    luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    u, v = (blue - luma) / (2 - 2 * blue_share), (red - luma) / (2 - 2 * red_share)
    if full_range:
        return round(255 * luma), min(255, round(128 + 255 * u)), min(255, round(128 + 255 * v))
    return round(16 + 219 * luma), round(128 + 224 * u), round(128 + 224 * v)


@dataclass(frozen=True, slots=True)
class _Look:
    """What follows from the kind of picture alone. Lengths are in cells unless they say pixels."""

    width: int
    height: int
    bt709: bool
    full_range: bool

    @property
    def thickness(self) -> int:
        return max(1, round(min(self.width, self.height) / 480))

    @property
    def font_px(self) -> int:
        return max(12, round(min(self.width, self.height) / 42))

    def yuv(self, colour: Colour) -> Colour:
        return rgb_to_yuv(colour, bt709=self.bt709, full_range=self.full_range)


class Annotator:
    """Draws the tracks of one camera; belongs to one thread. Rendered pieces of text are kept, at most 1024."""

    def __init__(self) -> None:
        self._look: _Look | None = None
        self._font = _font(12)
        self._pieces: OrderedDict[tuple[str, int], Planes] = OrderedDict()
        self._colours: dict[int, Colour] = {}

    def draw(self, picture: VideoFrame, tracks: Tracks) -> VideoFrame:
        """A new yuv420p picture with the tracks drawn on it; ``picture`` is not written to.

        Time and colour metadata stay. A full-range picture stays full range; other pixel formats
        are converted by swscale.
        """
        canvas = writable(picture)
        if not len(tracks):
            return canvas
        look = _Look(
            canvas.width, canvas.height, canvas.colorspace == _BT709, canvas.color_range == FULL_RANGE
        )
        if look != self._look:
            self._adopt(look)
        planes = views(canvas)
        cells = _cells(tracks.boxes)
        classes = tracks.classes.tolist()
        coasting = tracks.coasting.tolist()
        for box, class_index, dashed in zip(cells, classes, coasting, strict=True):
            _outline(planes, box, look.thickness, self._colour(class_index), dashed)
        ids, scores = tracks.ids.tolist(), tracks.scores.tolist()
        for box, class_index, dashed, track_id, score in zip(
            cells, classes, coasting, ids, scores, strict=True
        ):
            name = class_name(tracks.names, class_index)
            self._label(planes, box, name, class_index, track_id, None if dashed else score)
        return canvas

    def _adopt(self, look: _Look) -> None:
        self._look = look
        self._font = _font(look.font_px)
        self._pieces.clear()
        self._colours.clear()

    def _colour(self, class_index: int) -> Colour:
        colour = self._colours.get(class_index)
        if colour is None:
            assert self._look is not None
            colour = self._colours[class_index] = self._look.yuv(class_colour(class_index))
        return colour

    def _label(
        self,
        planes: Planes,
        box: tuple[int, int, int, int],
        name: str,
        class_index: int,
        track_id: int,
        score: float | None,
    ) -> None:
        """Above the box where there is room, else inside it; moved left to stay in the picture."""
        pieces = [self._piece(f" {name} {track_id} " if track_id >= 0 else f" {name} ", class_index)]
        if score is not None:  # a piece of its own: it changes all the time but has only 101 values
            pieces.append(self._piece(f"{score:.2f} ", class_index))
        left, top, right, bottom = box
        rows, columns = planes[1].shape
        if right <= 0 or bottom <= 0 or left >= columns or top >= rows:
            return
        height, width = pieces[0][1].shape[0], sum(piece[1].shape[1] for piece in pieces)
        y = top - height if top >= height else max(top, 0)
        x = max(0, min(left, columns - width))
        for piece in pieces:
            _paste(planes, piece, x, y)
            x += piece[1].shape[1]

    def _piece(self, text: str, class_index: int) -> Planes:
        key = (text, class_index)
        piece = self._pieces.get(key)
        if piece is not None:
            self._pieces.move_to_end(key)
            return piece
        assert self._look is not None
        background = class_colour(class_index)
        piece = _render(text, self._font, self._colour(class_index), self._look.yuv(text_colour(background)))
        self._pieces[key] = piece
        if len(self._pieces) > _CACHED_PIECES:
            self._pieces.popitem(last=False)
        return piece


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Pillow's embedded font."""
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise DeviceUnavailable("this Pillow has no FreeType, which labels need; install Pillow's own wheel")
    return font


def _cells(boxes: npt.NDArray[np.float32]) -> list[tuple[int, int, int, int]]:
    """Boxes xyxy in pixels (N, 4) as left, top, right, bottom in cells."""
    finite = np.nan_to_num(boxes, nan=0.0).clip(-_FARTHEST_PX, _FARTHEST_PX)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in np.rint(finite * 0.5).astype(np.int64).tolist()]


def _outline(
    planes: Planes, box: tuple[int, int, int, int], thickness: int, colour: Colour, dashed: bool
) -> None:
    """The frame just inside ``box``, ``thickness`` cells wide; where it leaves the picture it is cut."""
    left, top, right, bottom = box
    rows, columns = planes[1].shape
    x1, x2 = max(left, 0), min(right, columns)
    y1, y2 = max(top, 0), min(bottom, rows)
    dash = 4 * thickness if dashed else 0
    for first in {top, max(bottom - thickness, top)}:
        _fill(planes, (x1, max(first, 0), x2, min(first + thickness, y2)), colour, dash)
    for first in {left, max(right - thickness, left)}:
        _fill(planes, (max(first, 0), y1, min(first + thickness, x2), y2), colour, dash)


def _fill(planes: Planes, area: tuple[int, int, int, int], colour: Colour, dash: int) -> None:
    """Fill an area of cells that lies in the picture; with ``dash``, that much of it and as much not."""
    x1, y1, x2, y2 = area
    if x2 <= x1 or y2 <= y1:
        return
    if not dash:
        planes[0][2 * y1 : 2 * y2, 2 * x1 : 2 * x2] = colour[0]
        planes[1][y1:y2, x1:x2] = colour[1]
        planes[2][y1:y2, x1:x2] = colour[2]
    elif x2 - x1 > y2 - y1:
        for x in range(x1, x2, 2 * dash):
            _fill(planes, (x, y1, min(x + dash, x2), y2), colour, 0)
    else:
        for y in range(y1, y2, 2 * dash):
            _fill(planes, (x1, y, x2, min(y + dash, y2)), colour, 0)


def _paste(planes: Planes, piece: Planes, x: int, y: int) -> None:
    """Copy a piece to cell (x, y), both at least 0; what leaves the picture is cut."""
    for plane, patch, step in zip(planes, piece, (2, 1, 1), strict=True):
        target = plane[y * step : y * step + patch.shape[0], x * step : x * step + patch.shape[1]]
        target[...] = patch[: target.shape[0], : target.shape[1]]


def _render(text: str, font: ImageFont.FreeTypeFont, background: Colour, ink: Colour) -> Planes:
    """Text on a filled ground, as patches of the three planes with even luma sides."""
    ascent, descent = font.getmetrics()
    height = 2 * math.ceil((ascent + descent + 2) / 2)
    width = 2 * max(1, math.ceil(font.getlength(text) / 2))
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).text((0, (height - ascent - descent) // 2), text, fill=255, font=font)
    alpha = np.asarray(image, np.float32) / 255
    alpha_chroma = alpha.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    y, u, v = (
        np.rint(ground + (pen - ground) * share).astype(np.uint8)
        for ground, pen, share in zip(background, ink, (alpha, alpha_chroma, alpha_chroma), strict=True)
    )
    return y, u, v
