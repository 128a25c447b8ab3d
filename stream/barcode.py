"""A frame number drawn into the picture, so that any receiver can tell which frame it got.

The code lies in the top left corner: 2 rows of 16 cells, each cell 1/32 of the picture's width wide
and 1/18 of its height high (so it fills the left half of the top ninth). Cell ``i`` (0-31) is in row
``i // 16`` and column ``i % 16`` and has its centre at

    x = (i % 16 + 0.5) * width / 32        y = (i // 16 + 0.5) * height / 18

White is 1, black is 0; cell 0 is the most significant bit of a 32-bit word. The upper 24 bits are the
value, the lower 8 its CRC-8 (polynomial 0x07, initial value 0x5A, over the three bytes, most
significant first). A cell counts as white above 155 and black below 100 (of 255), averaged over its
middle; anything between, or a wrong check, means there is no code. All of it scales with the picture,
so the same arithmetic works on a decoded plane and on a browser's canvas of any size.

It knows nothing of video: it draws into and reads from arrays of luma.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS, COLUMNS = 2, 16
CELLS_WIDE, CELLS_HIGH = 32, 18  # of the whole picture
MAX_VALUE = (1 << 24) - 1
MIN_WIDTH, MIN_HEIGHT = 4 * CELLS_WIDE, 4 * CELLS_HIGH  # a cell of 4 pixels survives a codec

_BLACK, _WHITE = 16, 235  # limited range luma
_BLACK_BELOW, _WHITE_ABOVE = 100, 155

Luma = npt.NDArray[np.uint8]


def draw(y_plane: Luma, value: int) -> None:
    """Draw ``value`` modulo 2**24 into a writable luma plane (height, width) uint8."""
    height, width = y_plane.shape
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        raise ValueError(
            f"a {width}x{height} picture is too small for a barcode: expected {MIN_WIDTH}x{MIN_HEIGHT}"
        )
    value &= MAX_VALUE
    word = value << 8 | _crc8(value)
    bits = (word >> np.arange(31, -1, -1)) & 1
    cells = np.where(bits, _WHITE, _BLACK).astype(np.uint8).reshape(ROWS, COLUMNS)
    x_edges = np.arange(COLUMNS + 1) * width // CELLS_WIDE
    y_edges = np.arange(ROWS + 1) * height // CELLS_HIGH
    rows = cells.repeat(np.diff(x_edges), axis=1)
    y_plane[: y_edges[-1], : x_edges[-1]] = rows.repeat(np.diff(y_edges), axis=0)


def read(gray: Luma) -> int | None:
    """The value drawn into a gray picture (height, width) uint8, or None if there is none."""
    height, width = gray.shape
    if width < CELLS_WIDE or height < CELLS_HIGH:
        return None
    word = 0
    for cell in range(ROWS * COLUMNS):
        row, column = divmod(cell, COLUMNS)
        mean = _middle(gray, row, column).mean()
        if _BLACK_BELOW <= mean <= _WHITE_ABOVE:
            return None
        word = word << 1 | int(mean > _WHITE_ABOVE)
    value, check = word >> 8, word & 0xFF
    return value if check == _crc8(value) else None


def _middle(gray: Luma, row: int, column: int) -> Luma:
    """The middle half of a cell in both directions, at least one pixel: its edges blur."""
    height, width = gray.shape
    left, right = ((column + part) * width / CELLS_WIDE for part in (0.25, 0.75))
    top, bottom = ((row + part) * height / CELLS_HIGH for part in (0.25, 0.75))
    return gray[int(top) : max(int(bottom), int(top) + 1), int(left) : max(int(right), int(left) + 1)]


def _crc8(value: int) -> int:
    crc = 0x5A
    for byte in value.to_bytes(3, "big"):
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
