"""How a camera moved between two pictures, from points of the background that both show.

Corners (Shi and Tomasi 1994) outside of what was detected are followed by sparse optical flow (Lucas and Kanade
1981, Bouguet's pyramid), and a similarity that most of them agree on is found by RANSAC, in a small grey picture.
Where next to nothing changed, as with nearly every camera nearly always, nothing of this is done.

Knows nothing of tracks.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.uint8]
Warp = npt.NDArray[np.float64]

_WIDTH = 240
"""About that of the small picture."""
_CHANGED = 10
"""A pixel that differs by more has changed; noise does not."""
_STILL_SHARE = 0.03
"""Where fewer pixels have changed, no camera moved."""
_POINTS, _QUALITY, _APART_PX = 150, 0.01, 7
_OFF_PX = 1.0
_FEWEST = 12
_AGREE_SHARE = 0.5
_LEAST_PX = 0.2
"""Less is no movement. As all of these, in pixels of the small picture."""


class CameraMotion:
    """Compares each picture of one camera with the one before it."""

    def __init__(self) -> None:
        self._before: Luma | None = None
        self._size = (0, 0)  # of the picture it was made of

    def look(self, luma: Luma, boxes: npt.NDArray[np.floating[Any]]) -> Warp | None:
        """Where points of the last picture are in this one: float64 (2, 3), in pixels.

        None: where they were, as far as can be told; in another size than the last, nothing can.

        Args:
            luma: uint8 (H, W).
            boxes: xyxy (N, 4), what moves of its own accord.
        """
        # Means of two by two of what is left where pixels between are left out: OpenCV is quickest at that.
        step = max(1, round(luma.shape[1] / (2 * _WIDTH)))
        coarse = np.ascontiguousarray(luma[::step, ::step])
        height, width = (side // 2 for side in coarse.shape)
        if not height or not width:
            return None
        coarse = coarse[: 2 * height, : 2 * width]
        small = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        before, same = self._before, self._size == luma.shape
        self._before, self._size = small, luma.shape
        if before is None or not same or not _changed(before, small):
            return None
        warp = _similarity(before, small, boxes / (2 * step))
        if warp is not None:
            warp[:, 2] *= 2 * step
        return warp

    def state(self) -> dict[str, Any] | None:
        """The last picture, as text."""
        if self._before is None:
            return None
        text = base64.b64encode(self._before.tobytes()).decode()
        return {"size": list(self._size), "small": list(self._before.shape), "luma": text}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a ``state``.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        if state is None:
            self._before = None
            return
        self._size = int(state["size"][0]), int(state["size"][1])
        pixels = np.frombuffer(base64.b64decode(state["luma"], validate=True), np.uint8)
        self._before = pixels.reshape(int(state["small"][0]), int(state["small"][1]))


def _changed(before: Luma, now: Luma) -> bool:
    difference = cv2.absdiff(before, now)
    _, changed = cv2.threshold(difference, _CHANGED, 1, cv2.THRESH_BINARY)
    return cv2.countNonZero(changed) > _STILL_SHARE * changed.size


def _similarity(before: Luma, now: Luma, boxes: npt.NDArray[np.floating[Any]]) -> Warp | None:
    background = np.full(before.shape, 255, np.uint8)
    for x1, y1, x2, y2 in np.clip(boxes, 0, max(before.shape)).astype(int).tolist():
        background[y1 : y2 + 1, x1 : x2 + 1] = 0
    corners = cv2.goodFeaturesToTrack(before, _POINTS, _QUALITY, _APART_PX, mask=background)
    if corners is None or len(corners) < _FEWEST:
        return None
    flow = cv2.calcOpticalFlowPyrLK(before, now, corners, None, winSize=(15, 15), maxLevel=3)  # type: ignore[call-overload]
    followed, found, _ = flow
    there = found[:, 0] == 1
    if there.sum() < _FEWEST:
        return None
    warp, agree = cv2.estimateAffinePartial2D(
        corners[there], followed[there], method=cv2.RANSAC, ransacReprojThreshold=_OFF_PX
    )
    if warp is None or agree.sum() < max(_FEWEST, _AGREE_SHARE * len(agree)):
        return None
    height, width = before.shape
    edges = np.array([[0.0, 0, width, width], [0, height, 0, height]])
    moved = warp[:, :2] @ edges + warp[:, 2:] - edges
    return warp if np.abs(moved).max() > _LEAST_PX else None
