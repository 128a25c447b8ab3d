"""``Latest``: the only hand-off between threads. One slot; the newest wins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A slot that holds the newest item.

    By default ``put`` never waits: what it overwrites is lost and counted in ``overwritten``.
    With ``lossless=True`` it waits until the slot is free instead, which makes offline runs
    complete and repeatable.

    ``on_put`` is called after each item, outside the lock; it lets one thread wait for many slots.
    """

    def __init__(self, *, lossless: bool = False, on_put: Callable[[], None] | None = None) -> None:
        self.overwritten = 0
        self._lossless = lossless
        self._on_put = on_put
        self._item: T | None = None
        self._closed = False
        self._changed = threading.Condition()

    @property
    def item(self) -> T | None:
        """What waits in the slot, which it stays in; None if it is empty."""
        return self._item

    @property
    def closed(self) -> bool:
        """Closed *and* empty: nothing will ever come again."""
        with self._changed:
            return self._closed and self._item is None

    def put(self, item: T) -> bool:
        """Offer an item. Returns False if the slot is closed (the item is dropped)."""
        with self._changed:
            while self._lossless and self._item is not None and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if self._item is not None:
                self.overwritten += 1
            self._item = item
            self._changed.notify_all()
        if self._on_put is not None:
            self._on_put()
        return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """Take the newest item, waiting up to ``timeout_s`` (None: for ever). None: closed or timed out."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._item is None and not self._closed:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                self._changed.wait(remaining)
            item, self._item = self._item, None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Accept nothing more; an item already in the slot can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._on_put is not None:
            self._on_put()
