"""A real ``Connection`` whose pictures are kept, and waiting for what it says of itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stream.config import CameraConfig
from stream.connection import Condition, Connection
from stream.frames import AccessUnit, Frame
from stream.h264 import Profile


class Kept:
    """Keeps the pictures of a connection; wants none of its packets."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)

    def supply(self, forwards: Profile | str | None) -> bool:
        return False

    def forward(self, unit: AccessUnit) -> None:
        raise AssertionError("nobody asked for it")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(frame.picture.width, frame.picture.height) for frame in self.frames]


@contextmanager
def connected(source: object, **settings: object) -> Iterator[tuple[Connection, Kept]]:
    """A connection called ``door`` that runs, and what came of it."""
    kept = Kept()
    connection = Connection("door", CameraConfig(source=str(source), **settings), kept, None, lambda: None)
    connection.start()
    try:
        yield connection, kept
    finally:
        connection.request_stop()
        connection.join(5)


def until(
    connection: Connection, holds: Callable[[Condition], object], what: str, timeout_s: float = 15
) -> Condition:
    """Wait for a condition; it is returned as it was then."""
    deadline = time.monotonic() + timeout_s
    while not holds(condition := connection.condition):
        assert time.monotonic() < deadline, f"never happened: {what}; now {condition}"
        time.sleep(0.01)
    return condition


def is_live(condition: Condition) -> bool:
    return condition.state == "live"


def wait_for(holds: Callable[[], object], what: str, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def decoders() -> list[threading.Thread]:
    """The threads of ``connected`` that open and read."""
    return [thread for thread in threading.enumerate() if thread.name == "decode-door"]
