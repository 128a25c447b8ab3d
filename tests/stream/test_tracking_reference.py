"""The tracker's array arithmetic against slow references written from the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import expm

from stream.tracking.association import Pairs, covered, match, overlaps, plausible
from stream.tracking.motion import MotionModel, MotionParameters, to_centre_size

RNG = np.random.default_rng(5)


def boxes_of(count: int) -> np.ndarray:
    corners = RNG.uniform(0, 500, (count, 2))
    return np.concatenate((corners, corners + RNG.uniform(20, 120, (count, 2))), axis=1)


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
    first, second = (to_centre_size(boxes_of(3).T) for _ in range(2))
    scores = np.array([0.9, 0.4, 0.05])
    seen = model.correct(model.predict(model.start(first), 0.2), second, scores)
    ahead = model.predict(seen, gap_s)
    again = model.correct(ahead, first, scores)
    memory_s = [parameters.place_memory_s] * 2 + [parameters.size_memory_s] * 2
    speed = [parameters.place_speed] * 2 + [parameters.size_speed] * 2
    noise = [parameters.place_noise] * 2 + [parameters.size_noise] * 2
    for track, axis in itertools.product(range(3), range(4)):
        value, velocity, value_var, cov, velocity_var = seen[axis, :, track]
        covariance = np.array([[value_var, cov], [cov, velocity_var]])
        state, covariance = reference_step(
            np.array([value, velocity]), covariance, gap_s, memory_s[axis], speed[axis] * seen[3, 0, track]
        )
        slow = [*state, covariance[0, 0], covariance[0, 1], covariance[1, 1]]
        np.testing.assert_allclose(ahead[axis, :, track], slow, rtol=1e-6, atol=1e-7)
        variance = (noise[axis] * ahead[3, 0, track]) ** 2 / max(scores[track], 0.1)
        look = np.array([[1.0, 0.0]])
        gain = covariance @ look.T / (look @ covariance @ look.T + variance)
        state = state + gain[:, 0] * (first[axis, track] - state[0])
        covariance = (np.eye(2) - gain @ look) @ covariance
        slow = [*state, covariance[0, 0], covariance[0, 1], covariance[1, 1]]
        np.testing.assert_allclose(again[axis, :, track], slow, rtol=1e-6, atol=1e-7)


def test_two_short_steps_are_one_long_step() -> None:
    """What a track is expected to do does not depend on how often it was looked for."""
    model = MotionModel(MotionParameters())
    first, second = (to_centre_size(boxes_of(4).T) for _ in range(2))
    motion = model.correct(model.predict(model.start(first), 0.1), second, np.ones(4))
    once = model.predict(motion, 0.5)
    split = model.predict(model.predict(motion, 0.2), 0.3)
    np.testing.assert_allclose(once[:2, :2], split[:2, :2], rtol=1e-9)
    np.testing.assert_allclose(model.boxes_at(motion, 0.5), model.boxes_at(split, 0.0), rtol=1e-9)


def test_a_camera_that_moves_takes_everything_along() -> None:
    """Turned by 90 degrees, twice as large, shifted: as if all had been seen from there from the start."""
    model, gap_s = MotionModel(MotionParameters()), 0.3
    warp = np.array([[0.0, -2.0, 700.0], [2.0, 0.0, -30.0]])
    centres = RNG.uniform(100, 500, (2, 3))
    squares = np.concatenate((centres, np.full((2, 3), 50.0)))
    later = squares + np.array([[10.0], [-20.0], [4.0], [4.0]])

    def seen_from_there(squares: np.ndarray) -> np.ndarray:
        return np.concatenate((warp[:, :2] @ squares[:2] + warp[:, 2:], 2 * squares[2:]))

    here = model.correct(model.predict(model.start(squares), gap_s), later, np.ones(3))
    there = model.start(seen_from_there(squares))
    there = model.correct(model.predict(there, gap_s), seen_from_there(later), np.ones(3))
    np.testing.assert_allclose(model.moved(here, warp), there, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("tracks", "detections"), [(0, 0), (0, 3), (3, 0), (1, 1), (120, 90)])
def test_gains_are_those_of_students_t_and_no_plausible_pair_is_left_out(
    tracks: int, detections: int
) -> None:
    expected, seen = (to_centre_size(boxes_of(count).T) for count in (tracks, detections))
    variances = RNG.uniform(1, 5000, (4, tracks))
    slow = {}
    for row, column in itertools.product(range(tracks), range(detections)):
        squares = sum((seen[k, column] - expected[k, row]) ** 2 / variances[k, row] for k in range(4))
        gain = -4.0 * math.log(1 + squares / 4.0) - 1.5
        gain += sum(math.log(expected[3, row] / math.sqrt(variances[k, row])) for k in range(4))
        if gain > 0:
            slow[row, column] = gain
    fast = plausible(expected, variances, seen, 4.0, 1.5)
    fast = fast.where(fast.gains > 0)
    found = dict(
        zip(zip(fast.tracks.tolist(), fast.detections.tolist(), strict=True), fast.gains, strict=True)
    )
    assert found == pytest.approx(slow)
    assert len(slow) > 10 or tracks < 120


@pytest.mark.parametrize("likely", [0.2, 0.6, 1.0])
@pytest.mark.parametrize(("rows", "columns"), [(0, 4), (1, 1), (3, 5), (5, 3), (4, 4), (6, 6)])
def test_match_is_the_best_of_all_assignments(rows: int, columns: int, likely: float) -> None:
    for _ in range(20):
        gains = np.where(RNG.uniform(size=(rows, columns)) < likely, RNG.normal(0, 1, (rows, columns)), 0)
        some = (gains > 0).nonzero()
        chosen = match(Pairs(*some, gains[some]))
        best = 0.0
        wide = np.maximum(gains if rows <= columns else gains.T, 0.0)
        for order in itertools.permutations(range(wide.shape[1]), wide.shape[0]):
            best = max(best, sum(wide[row, column] for row, column in enumerate(order)))
        assert gains[chosen].sum() == pytest.approx(best)
        assert (gains[chosen] > 0).all()
        assert len(set(chosen[0].tolist())) == len(set(chosen[1].tolist())) == len(chosen[0])


def test_overlaps_by_hand() -> None:
    boxes = np.array([[0.0, 0, 4, 4], [0, 0, 2, 2]])
    others = np.array([[2.0, 2, 6, 6], [0, 0, 2, 2], [8, 8, 9, 9]])
    np.testing.assert_allclose(overlaps(boxes, others), [[4 / 28, 4 / 16, 0], [0, 1, 0]])
    np.testing.assert_allclose(covered(boxes, others), [[4 / 16, 4 / 16, 0], [0, 1, 0]])
