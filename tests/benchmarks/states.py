"""When cameras changed their states, read from ``/api/cameras`` every 20 ms by a thread of its own.

Knows nothing of why they did.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from types import TracebackType
from typing import Self

import httpx2 as httpx

PERIOD_S = 0.02  # between an answer and the next question, which stays below the app's 50 requests a second
MOST_KEPT = 1000  # changes of a camera


class States:
    """Reads while the ``with`` block runs. Times are ``time.monotonic()`` when the answer was there.

    ``polls`` counts answers, ``refused`` questions without one, by why.
    """

    def __init__(self, url: str) -> None:
        self.polls = 0
        self.refused: Counter[str] = Counter()
        self._url = url
        self._changes: dict[str, deque[tuple[float, str]]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="states", daemon=True)

    def left_live(self, camera: str, since: float, timeout_s: float) -> float | None:
        """When it was seen in another state than live, from ``since`` on; None: not within the timeout."""
        return self._await(camera, since, timeout_s, is_live=False)

    def live_again(self, camera: str, since: float, timeout_s: float) -> float | None:
        return self._await(camera, since, timeout_s, is_live=True)

    def sleep(self, seconds: float) -> None:
        """As ``time.sleep``, but ends when this is closed."""
        self._closed.wait(seconds)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        self._closed.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._thread.join(15)

    def _await(self, camera: str, since: float, timeout_s: float, *, is_live: bool) -> float | None:
        deadline = time.monotonic() + timeout_s
        while not self._closed.is_set():
            for at, state in list(self._changes.get(camera, ())):
                if at > since and (state == "live") == is_live:
                    return at
            if time.monotonic() > deadline:
                return None
            self._closed.wait(PERIOD_S)
        return None

    def _poll(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10, trust_env=False) as http:
            while not self._closed.wait(PERIOD_S):
                try:
                    answer = http.get("/api/cameras").raise_for_status().json()
                except httpx.HTTPError as error:
                    self.refused[type(error).__name__] += 1
                    continue
                now = time.monotonic()
                self.polls += 1
                for camera in answer:
                    changes = self._changes.setdefault(camera["id"], deque(maxlen=MOST_KEPT))
                    if not changes or changes[-1][1] != camera["state"]:
                        changes.append((now, camera["state"]))
