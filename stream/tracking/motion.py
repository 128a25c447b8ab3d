"""How boxes move: a Kalman filter over centre and size, for all tracks at once, in seconds.

Each of the four coordinates (centre x, centre y, width, height) has a filter of its own with two
states, value and velocity, so that a track is five rows of four numbers and a step is a handful of
array operations whatever the number of tracks. Velocity fades (an Ornstein-Uhlenbeck process, R. A.
Singer 1970): a box that is not seen goes on as it went, then comes to rest, and its size does so
sooner than its place. Noise is in box heights, so that near and far objects are treated alike.

Knows nothing of identities, classes or frame rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

VALUE, VELOCITY, VALUE_VARIANCE, COVARIANCE, VELOCITY_VARIANCE = range(5)
ROWS = 5
"""A track's motion is float64 (5, 4): the rows above by (centre x, centre y, width, height)."""

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
    """The filter's arithmetic. Holds constants only: every method takes and gives motion (N, 5, 4)."""

    def __init__(self, parameters: MotionParameters) -> None:
        p = parameters
        self._memory_s = np.array([p.place_memory_s] * 2 + [p.size_memory_s] * 2)
        self._speed_variance = np.array([p.place_speed] * 2 + [p.size_speed] * 2) ** 2  # heights² / s²
        self._noise = np.array([p.place_noise] * 2 + [p.size_noise] * 2) ** 2  # heights²

    def start(self, boxes: Array) -> Array:
        """Motion (N, 5, 4) of boxes xyxy (N, 4) seen for the first time, at rest."""
        motion = np.zeros((len(boxes), ROWS, 4))
        measured = to_centre_size(boxes)
        scale = measured[:, 3:] ** 2
        motion[:, VALUE] = measured
        motion[:, VALUE_VARIANCE] = self._noise * scale
        motion[:, VELOCITY_VARIANCE] = self._speed_variance * scale
        return motion

    def predict(self, motion: Array, gap_s: float) -> Array:
        """Motion (N, 5, 4) ``gap_s`` seconds on, with the uncertainty that the gap brings."""
        gap_s = min(max(gap_s, 0.0), _LONGEST_STEP_S)
        memory_s = self._memory_s
        decay = np.exp(-gap_s / memory_s)
        reach_s = memory_s * (1.0 - decay)  # how far one unit of velocity carries
        velocity_gain = self._speed_variance * (1.0 - decay**2)
        cross_gain = self._speed_variance * reach_s**2 / memory_s
        value_gain = self._speed_variance * (
            memory_s * (2.0 * gap_s - 3.0 * memory_s + memory_s * decay * (4.0 - decay))
        )
        value, velocity, value_var, cov, velocity_var = (motion[:, row] for row in range(ROWS))
        scale = np.maximum(value[:, 3:], _SMALLEST_PX) ** 2
        ahead = np.empty_like(motion)
        ahead[:, VALUE] = value + reach_s * velocity
        ahead[:, VELOCITY] = decay * velocity
        ahead[:, VALUE_VARIANCE] = (
            value_var + (2.0 * reach_s) * cov + reach_s**2 * velocity_var + value_gain * scale
        )
        ahead[:, COVARIANCE] = decay * (cov + reach_s * velocity_var) + cross_gain * scale
        ahead[:, VELOCITY_VARIANCE] = decay**2 * velocity_var + velocity_gain * scale
        return ahead

    def correct(self, motion: Array, boxes: Array, scores: Array) -> Array:
        """Motion (N, 5, 4) after seeing boxes xyxy (N, 4); an unsure detection counts for less."""
        measured = to_centre_size(boxes)
        value, velocity, value_var, cov, velocity_var = (motion[:, row] for row in range(ROWS))
        doubt = (1.0 / np.maximum(scores, 0.1))[:, None]
        noise = self._noise * (np.maximum(value[:, 3:], _SMALLEST_PX) ** 2 * doubt)
        innovation = measured - value
        total = value_var + noise
        gain = value_var / total
        velocity_gain = cov / total
        seen = np.empty_like(motion)
        seen[:, VALUE] = value + gain * innovation
        seen[:, VELOCITY] = velocity + velocity_gain * innovation
        seen[:, VALUE_VARIANCE] = gain * noise
        seen[:, COVARIANCE] = velocity_gain * noise
        seen[:, VELOCITY_VARIANCE] = velocity_var - velocity_gain * cov
        return seen

    def expected(self, motion: Array) -> tuple[Array, Array]:
        """Centre and size (N, 4) of what a detection would show now, and their variances (N, 4)."""
        value = motion[:, VALUE]
        scale = np.maximum(value[:, 3:], _SMALLEST_PX) ** 2
        return value, motion[:, VALUE_VARIANCE] + self._noise * scale

    def boxes_at(self, motion: Array, gap_s: float) -> Array:
        """Boxes xyxy (N, 4) ``gap_s`` seconds on (before, when negative), without their uncertainty."""
        gap_s = min(max(gap_s, -_LONGEST_STEP_S), _LONGEST_STEP_S)
        reach_s = self._memory_s * -np.expm1(-gap_s / self._memory_s) if gap_s > 0.0 else gap_s
        return to_corners(motion[:, VALUE] + reach_s * motion[:, VELOCITY])


def to_centre_size(boxes: Array) -> Array:
    """xyxy (N, 4) to centre x, centre y, width, height."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate(((low + high) * 0.5, high - low), axis=1)


def to_corners(boxes_cxcywh: Array) -> Array:
    """Centre x, centre y, width, height (N, 4) to xyxy; no side is shorter than a pixel."""
    centre = boxes_cxcywh[:, :2]
    half = np.maximum(boxes_cxcywh[:, 2:], _SMALLEST_PX) * 0.5
    return np.concatenate((centre - half, centre + half), axis=1)
