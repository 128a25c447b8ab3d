"""The tracker's array arithmetic against slow references written from the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import expm

from stream.tracking.association import log_likelihood, match
from stream.tracking.motion import MotionModel, MotionParameters

RNG = np.random.default_rng(5)


def boxes_of(count: int) -> np.ndarray:
    corners = RNG.uniform(0, 500, (count, 2))
    return np.concatenate((corners, corners + RNG.uniform(20, 120, (count, 2))), axis=1)


def report(name: str, fast: np.ndarray, slow: np.ndarray) -> None:
    difference = np.abs(fast - slow)
    if difference.size:
        print(f"{name}: max {difference.max():.2e}, mean {difference.mean():.2e}")
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)


def reference_step(
    state: np.ndarray, covariance: np.ndarray, gap_s: float, memory_s: float, speed_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """dx = v dt, dv = -v/memory dt + noise that keeps the speed's deviation at ``speed_px``."""
    drift = np.array([[0.0, 1.0], [0.0, -1.0 / memory_s]])
    intensity = np.diag([0.0, 2.0 * speed_px**2 / memory_s])
    noise, _ = quad_vec(lambda s: expm(drift * s) @ intensity @ expm(drift * s).T, 0.0, gap_s, epsabs=1e-12)
    step = expm(drift * gap_s)
    return step @ state, step @ covariance @ step.T + noise


@pytest.mark.parametrize("gap_s", [0.001, 0.04, 0.143, 1.0, 7.0])
def test_motion_is_the_kalman_filter_of_a_fading_velocity(gap_s: float) -> None:
    parameters = MotionParameters()
    model = MotionModel(parameters)
    first, second, scores = boxes_of(3), boxes_of(3), np.array([0.9, 0.4, 0.05])
    seen = model.correct(model.predict(model.start(first), 0.2), second, scores)
    ahead = model.predict(seen, gap_s)
    again = model.correct(ahead, first, scores)
    memory_s = [parameters.place_memory_s] * 2 + [parameters.size_memory_s] * 2
    speed = [parameters.place_speed] * 2 + [parameters.size_speed] * 2
    noise = [parameters.place_noise] * 2 + [parameters.size_noise] * 2
    for track, axis in itertools.product(range(3), range(4)):
        value, velocity, value_var, cov, velocity_var = seen[track, :, axis]
        covariance = np.array([[value_var, cov], [cov, velocity_var]])
        state, covariance = reference_step(
            np.array([value, velocity]), covariance, gap_s, memory_s[axis], speed[axis] * seen[track, 0, 3]
        )
        slow = [*state, covariance[0, 0], covariance[0, 1], covariance[1, 1]]
        np.testing.assert_allclose(ahead[track, :, axis], slow, rtol=1e-6, atol=1e-7)
        x1, y1, x2, y2 = first[track]
        measured = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1][axis]
        variance = (noise[axis] * ahead[track, 0, 3]) ** 2 / max(scores[track], 0.1)
        look = np.array([[1.0, 0.0]])
        gain = covariance @ look.T / (look @ covariance @ look.T + variance)
        state = state + gain[:, 0] * (measured - state[0])
        covariance = (np.eye(2) - gain @ look) @ covariance
        slow = [*state, covariance[0, 0], covariance[0, 1], covariance[1, 1]]
        np.testing.assert_allclose(again[track, :, axis], slow, rtol=1e-6, atol=1e-7)


def test_two_short_steps_are_one_long_step() -> None:
    """What a track is expected to do does not depend on how often it was looked for."""
    model = MotionModel(MotionParameters())
    motion = model.correct(model.predict(model.start(boxes_of(4)), 0.1), boxes_of(4), np.ones(4))
    once = model.predict(motion, 0.5)
    means = slice(0, 2)
    split = model.predict(model.predict(motion, 0.2), 0.3)
    np.testing.assert_allclose(once[:, means, :2], split[:, means, :2], rtol=1e-9)
    np.testing.assert_allclose(model.boxes_at(motion, 0.5), model.boxes_at(split, 0.0), rtol=1e-9)


@pytest.mark.parametrize(("tracks", "detections"), [(0, 0), (0, 3), (3, 0), (1, 1), (5, 3)])
def test_log_likelihood_is_the_density_of_students_t(tracks: int, detections: int) -> None:
    expected, seen = boxes_of(tracks), boxes_of(detections)
    variances = RNG.uniform(1, 50, (tracks, 4))
    slow = np.zeros((tracks, detections))
    for row, column in itertools.product(range(tracks), range(detections)):
        squares = sum((seen[column, k] - expected[row, k]) ** 2 / variances[row, k] for k in range(4))
        height = expected[row, 3]
        slow[row, column] = -4.0 * math.log(1 + squares / 4.0) + sum(
            math.log(height / math.sqrt(variances[row, k])) for k in range(4)
        )
    report("log likelihood", log_likelihood(expected, variances, seen, 4.0), slow)


@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (1, 1), (3, 5), (5, 3), (4, 4)])
def test_match_is_the_best_of_all_assignments(rows: int, columns: int) -> None:
    for _ in range(20):
        gains = RNG.normal(0, 1, (rows, columns))
        chosen = match(gains)
        best = 0.0
        wide = np.maximum(gains if rows <= columns else gains.T, 0.0)
        for order in itertools.permutations(range(wide.shape[1]), wide.shape[0]):
            best = max(best, sum(wide[row, column] for row, column in enumerate(order)))
        assert gains[chosen].sum() == pytest.approx(best)
        assert (gains[chosen] > 0).all()
        assert len(set(chosen[0].tolist())) == len(set(chosen[1].tolist())) == len(chosen[0])
