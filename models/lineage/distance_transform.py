"""The generalised distance transform of sampled functions (Felzenszwalb and Huttenlocher 2012).

For scores ``f`` and a quadratic cost of moving, the best of ``f(q) - cost(q - p)`` over all ``q``, for
every ``p`` at once: the upper envelope of as many parabolas as there are places, in time linear in
their number. Each axis on its own; the rows of an array go through the same steps side by side.

Knows nothing of parts or pictures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def transform(scores: Doubles, costs: Doubles) -> tuple[Doubles, Places, Places]:
    """The best placement of each map from every place.

    Args:
        scores: (P, h, w) of each part at every place.
        costs: (P, 4): of a displacement ``(dx, dy)``, the factors of ``dx, dy, dx^2, dy^2``; those of the
            squares are above 0.

    Returns:
        (P, h, w): the most of ``scores[p, y + dy, x + dx] - cost``; and the ``x + dx`` and ``y + dy`` of
        the most, int64 (P, h, w).
    """
    parts, height, width = scores.shape
    along_x, best_x = envelope(
        scores.reshape(-1, width), np.repeat(costs[:, 2], height), np.repeat(costs[:, 0], height)
    )
    columns = along_x.reshape(parts, height, width).transpose(0, 2, 1)
    along_y, best_y = envelope(
        columns.reshape(-1, height), np.repeat(costs[:, 3], width), np.repeat(costs[:, 1], width)
    )
    y = best_y.reshape(parts, width, height).transpose(0, 2, 1)
    x = np.take_along_axis(best_x.reshape(parts, height, width), y, axis=1)
    return along_y.reshape(parts, width, height).transpose(0, 2, 1), x, y


def envelope(scores: Doubles, square: Doubles, linear: Doubles) -> tuple[Doubles, Places]:
    """``max over q of scores[r, q] - square[r] (q - p)^2 - linear[r] (q - p)`` and the ``q`` of it.

    Args:
        scores: (R, n).
        square: (R,), above 0.
        linear: (R,).

    Returns:
        (R, n) and int64 (R, n).
    """
    rows, length = scores.shape
    every = np.arange(rows)
    places = np.zeros((rows, length), np.int64)  # of the parabolas in the envelope, from the left
    starts = np.full((rows, length + 1), np.inf)  # from where on each of them is the highest
    starts[:, 0] = -np.inf
    last = np.zeros(rows, np.int64)
    for q in range(1, length):
        crossing = _crossing(scores, square, linear, every, places[every, last], q)
        hidden = np.flatnonzero(crossing <= starts[every, last])
        while len(hidden):  # the last parabola is below the new one wherever it was the highest
            last[hidden] -= 1
            before = places[hidden, last[hidden]]
            crossing[hidden] = _crossing(scores, square, linear, hidden, before, q)
            hidden = hidden[crossing[hidden] <= starts[hidden, last[hidden]]]
        last += 1
        places[every, last], starts[every, last] = q, crossing
        starts[every, last + 1] = np.inf
    best, current = np.empty_like(places), np.zeros(rows, np.int64)
    for p in range(length):
        while (passed := starts[every, current + 1] < p).any():
            current += passed
        best[:, p] = places[every, current]
    apart = best - np.arange(length)
    values = np.take_along_axis(scores, best, axis=1) - square[:, None] * apart**2 - linear[:, None] * apart
    return values, best


def _crossing(
    scores: Doubles, square: Doubles, linear: Doubles, rows: Places, left: Places, right: int
) -> Doubles:
    """From which ``p`` on the parabola of ``right`` is above that of ``left``, in each of the rows."""
    a, b = square[rows], linear[rows]
    # scores[q] - a (q - p)^2 - b (q - p) = (scores[q] - a q^2 - b q) + 2 a q p + (what q does not change)
    heights_left = scores[rows, left] - a * left**2 - b * left
    heights_right = scores[rows, right] - a * right**2 - b * right
    crossing: Doubles = (heights_left - heights_right) / (2 * a * (right - left))
    return crossing
