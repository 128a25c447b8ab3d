"""Made worlds with known truth, for trackers: people who cross, vanish behind poles, stop and go, or crowd.

The same world can be seen at any frame rate: it moves in steps of its own, and what makes detections wrong
(places that are off, scores that sag, things that are no people) lasts for tenths of a second, as it does in
detectors, not for a frame. Whoever is nearer hides who is behind. Knows nothing of trackers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.frames import Detections, Ints

Array = npt.NDArray[np.float64]
Random = np.random.Generator

WIDTH, HEIGHT = 1280, 720
_STEPS_PER_S = 60
_EDGE_PX = 60.0
_NEAR_Y, _FAR_Y = 690.0, 300.0
_TALL = 0.3  # of a foot's y
_WIDE = 0.4  # of its own height
_POLES = ((330.0, 110.0), (640.0, 150.0), (980.0, 110.0))  # left edge and width in pixels
_CLUTTER = 3
_SPURIOUS_PER_S = 1.0
_LEAST_SCORE = 0.05
_HIDDEN = 0.9
"""Who is hidden by more is not in the truth."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a detector says of one frame, and what is true."""

    time_s: float
    detections: Detections
    ids: Ints  # (M,)
    boxes: Array  # (M, 4) xyxy


@dataclass(frozen=True, slots=True)
class _Kind:
    people: int
    speed: float
    """Heights a second."""
    turns_s: float
    """Mean time between changes of direction; they turn at the edges in any case."""
    stands: float = 0.0
    """Probability that a change is a stop."""
    lanes: int = 0
    """People walk along so many lines, one way or the other; 0: anywhere."""
    poles: bool = False


KINDS = {
    "crossing": _Kind(people=8, speed=0.9, turns_s=1e9, lanes=4),
    "occlusion": _Kind(people=6, speed=0.8, turns_s=1e9, lanes=6, poles=True),
    "stop-and-go": _Kind(people=10, speed=0.9, turns_s=1.5, stands=0.5),
    "crowd": _Kind(people=40, speed=0.6, turns_s=4.0),
}


def world(kind: str, fps: float, seconds: float = 20.0, seed: int = 0) -> Iterator[Moment]:
    """The frames of a world, one of :data:`KINDS`, as a camera of ``fps`` sees it."""
    # What moves and what is seen draw from different streams, so that every rate sees the same walks.
    walking, seeing = (np.random.default_rng((seed, which)) for which in (0, 1))
    people = _People(KINDS[kind], walking)
    detector = _Sight(KINDS[kind], seeing)
    step, due = 0, 0.0
    while (time_s := step / _STEPS_PER_S) < seconds:
        if time_s + 0.5 / _STEPS_PER_S >= due:
            boxes = people.boxes()
            hidden = _hidden(boxes, KINDS[kind].poles)
            there = (hidden < _HIDDEN).nonzero()[0]
            yield Moment(time_s, detector.look(boxes, hidden), there.astype(np.int64) + 1, boxes[there])
            due += 1 / fps
        people.walk()
        detector.drift()
        step += 1


class _People:
    def __init__(self, kind: _Kind, rng: Random) -> None:
        self._kind, self._rng = kind, rng
        count = kind.people
        y = rng.uniform(_FAR_Y, _NEAR_Y, count)
        angle = rng.uniform(0, 2 * np.pi, count)
        if kind.lanes:
            lanes = np.linspace(_FAR_Y + 40, _NEAR_Y, kind.lanes)
            y = lanes[np.arange(count) % kind.lanes] + rng.uniform(-15, 15, count)
            angle = np.where(np.arange(count) < count / 2, 0.0, np.pi)
        self._feet = np.stack([rng.uniform(_EDGE_PX, WIDTH - _EDGE_PX, count), y], 1)
        self._pace = kind.speed * rng.uniform(0.7, 1.3, count)
        self._wanted = np.stack([np.cos(angle), 0.4 * np.sin(angle)], 1) * self._pace[:, None]
        self._velocity = self._wanted.copy()
        self._height = _TALL * rng.uniform(0.9, 1.1, count)

    def boxes(self) -> Array:
        heights = self._height * self._feet[:, 1]
        half = np.stack([_WIDE / 2 * heights, np.zeros_like(heights)], 1)
        top = self._feet - half - np.stack([np.zeros_like(heights), heights], 1)
        return np.concatenate([top, self._feet + half], 1)

    def walk(self) -> None:
        rng, count, dt = self._rng, len(self._feet), 1 / _STEPS_PER_S
        changes = rng.uniform(size=count) < dt / self._kind.turns_s
        angle = rng.uniform(0, 2 * np.pi, count)
        moving = rng.uniform(size=count) >= self._kind.stands
        anew = np.stack([np.cos(angle), 0.4 * np.sin(angle)], 1) * (self._pace * moving)[:, None]
        self._wanted = np.where(changes[:, None], anew, self._wanted)
        low, high = np.array([_EDGE_PX, _FAR_Y]), np.array([WIDTH - _EDGE_PX, _NEAR_Y])
        inward = np.where(self._feet < low, 1.0, np.where(self._feet > high, -1.0, np.sign(self._wanted)))
        self._wanted = np.abs(self._wanted) * inward
        self._velocity += (self._wanted - self._velocity) * (dt / 0.4)
        heights = self._height * self._feet[:, 1]
        self._feet += self._velocity * heights[:, None] * dt


class _Sight:
    """A detector's errors."""

    def __init__(self, kind: _Kind, rng: Random) -> None:
        self._rng = rng
        self._off = _Wander(rng, (kind.people, 4), 0.03, 0.4)  # of a height
        self._mood = _Wander(rng, (kind.people,), 0.10, 0.3)
        self._double_off = _Wander(rng, (kind.people, 4), 0.15, 0.3)
        self._double_mood = _Wander(rng, (kind.people,), 0.12, 0.3)
        self._clutter = rng.uniform((0, 100), (WIDTH - 60, HEIGHT - 200), (_CLUTTER, 2))
        self._clutter_mood = _Wander(rng, (_CLUTTER,), 0.15, 0.5)
        self._spurious: list[tuple[Array, float, int]] = []

    def drift(self) -> None:
        for each in (self._off, self._mood, self._double_off, self._double_mood, self._clutter_mood):
            each.step()
        self._spurious = [(box, score, left - 1) for box, score, left in self._spurious if left > 1]
        if self._rng.uniform() < _SPURIOUS_PER_S / _STEPS_PER_S:
            corner = self._rng.uniform((0, 0), (WIDTH - 80, HEIGHT - 160))
            size = self._rng.uniform(0.5, 1.0) * np.array([60, 150])
            box = np.concatenate([corner, corner + size])
            self._spurious.append((box, self._rng.uniform(0.1, 0.6), 6))

    def look(self, boxes: Array, hidden: Array) -> Detections:
        rng = self._rng
        heights = (boxes[:, 3] - boxes[:, 1])[:, None]
        own = self._off.value * (1 + 4 * hidden[:, None]) + rng.normal(0, 0.015, boxes.shape)
        scores = 0.88 - 0.75 * hidden + self._mood.value + rng.normal(0, 0.04, len(boxes))
        seen = (scores > _LEAST_SCORE) & (rng.uniform(size=len(boxes)) > 0.02)
        found = [(boxes + own * heights)[seen], boxes + self._double_off.value * heights]
        sure = [scores[seen], np.minimum(np.abs(self._double_mood.value), 0.6 * scores)]
        clutter = np.concatenate([self._clutter, self._clutter + np.array([50, 130])], 1)
        found.append(clutter + rng.normal(0, 2, clutter.shape))
        sure.append(0.25 + self._clutter_mood.value)
        found += [box[None] + rng.normal(0, 2, (1, 4)) for box, _, _ in self._spurious]
        sure += [np.array([score]) for _, score, _ in self._spurious]
        all_boxes, all_scores = np.concatenate(found), np.concatenate(sure)
        rows = (all_scores > _LEAST_SCORE).nonzero()[0]
        rows = rows[np.argsort(-all_scores[rows], kind="stable")]
        return Detections(
            all_boxes[rows].astype(np.float32),
            np.clip(all_scores[rows], 0, 0.99).astype(np.float32),
            np.zeros(len(rows), np.int64),
        )


class _Wander:
    """Numbers that are off for a while (Ornstein-Uhlenbeck), by ``spread`` on average and ``memory_s`` long."""

    def __init__(self, rng: Random, shape: tuple[int, ...], spread: float, memory_s: float) -> None:
        self._rng, self._keep = rng, np.exp(-1 / (_STEPS_PER_S * memory_s))
        self._push = spread * np.sqrt(1 - self._keep**2)
        self.value: Array = rng.normal(0, spread, shape)

    def step(self) -> None:
        self.value = self._keep * self.value + self._rng.normal(0, self._push, self.value.shape)


def _hidden(boxes: Array, poles: bool) -> Array:
    """How much of each person (N, 4) who is nearer, or a pole, hides: (N,), by whichever hides most."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    size = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    shared = np.clip(high - low, 0, None).prod(2) / size[:, None]
    shared[boxes[None, :, 3] <= boxes[:, None, 3]] = 0.0  # who is farther hides nobody
    hidden: Array = shared.max(1)
    if poles:
        for left, width in _POLES:
            across = np.minimum(boxes[:, 2], left + width) - np.maximum(boxes[:, 0], left)
            hidden = np.maximum(hidden, np.clip(across, 0, None) / (boxes[:, 2] - boxes[:, 0]))
    return hidden
