"""How boxes move: a Kalman filter over centre and size, for all tracks at once, in seconds.

Each of the four coordinates (centre x, centre y, width, height) has a filter of its own with two
states, value and velocity, so that a step is a handful of array operations whatever the number of
tracks. Velocity fades (an Ornstein-Uhlenbeck process, R. A. Singer 1970): a box that is not seen
goes on as it went, then comes to rest, and its size does so sooner than its place. Noise is in box
heights, so that near and far objects are treated alike.

Knows nothing of identities, classes or frame rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

VALUE, VELOCITY, VALUE_VARIANCE, COVARIANCE, VELOCITY_VARIANCE = range(5)
ROWS = 5
"""The motion of N tracks is float64 (4, 5, N): for centre x, centre y, width and height the rows above."""

_SMALLEST_PX = 1.0
_LONGEST_STEP_S = 60.0


@dataclass(frozen=True, slots=True)
class MotionParameters:
    """Noise in box heights, times in seconds."""

    place_noise: float = 0.05
    """Standard deviation of a detected centre, in heights."""
    size_noise: float = 0.10
    """Standard deviation of a detected width or height, in heights."""
    place_speed: float = 0.45
    """Typical speed of a centre, in heights a second."""
    size_speed: float = 0.05
    """Typical speed of a width or height, in heights a second."""
    place_memory_s: float = 8.0
    """Time in which an unseen centre loses 63 % of its velocity."""
    size_memory_s: float = 0.5
    """The same for width and height."""


class MotionModel:
    """The filter's arithmetic. Holds constants only: every method takes and gives motion (4, 5, N)."""

    def __init__(self, parameters: MotionParameters) -> None:
        p = parameters
        self._memory_s = (p.place_memory_s,) * 2 + (p.size_memory_s,) * 2
        self._speed_variance = (
            np.array([p.place_speed] * 2 + [p.size_speed] * 2)[:, None] ** 2
        )  # heights² / s²
        self._noise = np.array([p.place_noise] * 2 + [p.size_noise] * 2)[:, None] ** 2  # heights²
        self._step = lru_cache(64)(self._steps)  # cameras are regular: gaps come again

    def start(self, seen: Array) -> Array:
        """Motion of objects seen for the first time, at rest: centre and size (4, N)."""
        motion = np.zeros((4, ROWS, seen.shape[1]))
        motion[:, VALUE] = seen
        scale = _scale(motion)
        motion[:, VALUE_VARIANCE] = self._noise * scale
        motion[:, VELOCITY_VARIANCE] = self._speed_variance * scale
        return motion

    def predict(self, motion: Array, gap_s: float) -> Array:
        """Motion ``gap_s`` seconds on, with the uncertainty that the gap brings."""
        step, spread = self._step(round(min(max(gap_s, 0.0), _LONGEST_STEP_S), 6))
        ahead: Array = step @ motion
        ahead[:, VALUE_VARIANCE:] += spread * _scale(motion)
        return ahead

    def correct(self, motion: Array, seen: Array, scores: Array) -> Array:
        """Motion after seeing centre and size (4, N); an unsure detection counts for less."""
        noise = self._noise * (_scale(motion) / np.maximum(scores, 0.1))
        # Of value and velocity, as of the covariances of both with the value.
        gains = motion[:, VALUE_VARIANCE:VELOCITY_VARIANCE] / (motion[:, VALUE_VARIANCE] + noise)[:, None]
        off = seen - motion[:, VALUE]
        after = np.empty_like(motion)
        after[:, :VALUE_VARIANCE] = motion[:, :VALUE_VARIANCE] + gains * off[:, None]
        after[:, VALUE_VARIANCE:VELOCITY_VARIANCE] = gains * noise[:, None]
        after[:, VELOCITY_VARIANCE] = motion[:, VELOCITY_VARIANCE] - gains[:, 1] * motion[:, COVARIANCE]
        return after

    def expected(self, motion: Array) -> tuple[Array, Array]:
        """Centre and size (4, N) of what a detection would show now, and their variances (4, N)."""
        return motion[:, VALUE], motion[:, VALUE_VARIANCE] + self._noise * _scale(motion)

    def boxes_at(self, motion: Array, gap_s: float = 0.0) -> Array:
        """Boxes xyxy (N, 4) ``gap_s`` seconds on (before, when negative), without their uncertainty."""
        values = motion[:, VALUE]
        if gap_s:
            gap_s = min(max(gap_s, -_LONGEST_STEP_S), _LONGEST_STEP_S)
            reach_s = [-m * math.expm1(-gap_s / m) if gap_s > 0.0 else gap_s for m in self._memory_s]
            values = values + np.array(reach_s)[:, None] * motion[:, VELOCITY]
        return to_corners(values)

    def moved(self, motion: Array, warp: Array) -> Array:
        """Motion as seen by a camera that has moved: pictures' points are where ``warp`` (2, 3) brings them.

        A similarity: pictures may shift, turn and grow.
        """
        turn, growth = warp[:, :2], math.sqrt(abs(float(np.linalg.det(warp[:, :2]))))
        seen = motion.copy()
        seen[:2, :VALUE_VARIANCE] = np.tensordot(turn, motion[:2, :VALUE_VARIANCE], 1)
        seen[:2, VALUE] += warp[:, 2:]
        seen[2:, :VALUE_VARIANCE] *= growth
        seen[:, VALUE_VARIANCE:] *= growth**2
        return seen

    def _steps(self, gap_s: float) -> tuple[Array, Array]:
        """What a gap makes of the five rows, (4, 5, 5), and adds to the variances of heights, (4, 3, 1)."""
        step, spread = np.zeros((4, ROWS, ROWS)), np.zeros((4, 3, 1))
        for axis, memory_s in enumerate(self._memory_s):
            decay = math.exp(-gap_s / memory_s)
            reach_s = memory_s * (1.0 - decay)  # how far one unit of velocity carries
            step[axis] = [
                [1.0, reach_s, 0.0, 0.0, 0.0],
                [0.0, decay, 0.0, 0.0, 0.0],
                [0.0, 0.0, 1.0, 2.0 * reach_s, reach_s**2],
                [0.0, 0.0, 0.0, decay, decay * reach_s],
                [0.0, 0.0, 0.0, 0.0, decay**2],
            ]
            spread[axis, :, 0] = [
                memory_s * (2.0 * gap_s - 3.0 * memory_s + memory_s * decay * (4.0 - decay)),
                reach_s**2 / memory_s,
                1.0 - decay**2,
            ]
        return step, spread * self._speed_variance[:, :, None]


def _scale(motion: Array) -> Array:
    """Squared heights (N,): what is in heights, times this, is in pixels squared."""
    heights = np.maximum(motion[3, VALUE], _SMALLEST_PX)
    squared: Array = heights * heights
    return squared


def to_centre_size(corners: Array) -> Array:
    """x1, y1, x2, y2 (4, N) to centre x, centre y, width, height (4, N)."""
    low, high = corners[:2], corners[2:]
    return np.concatenate(((low + high) * 0.5, high - low))


def to_corners(centre_size: Array) -> Array:
    """Centre x, centre y, width, height (4, N) to xyxy (N, 4); no side is shorter than a pixel."""
    centre = centre_size[:2]
    half = np.maximum(centre_size[2:], _SMALLEST_PX) * 0.5
    return np.concatenate((centre - half, centre + half)).T
