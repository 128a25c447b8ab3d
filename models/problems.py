"""Mistakes in annotations: all of them are looked for, then refused together, or left out and told of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import DataError

log = logging.getLogger(__name__)

MOST_LISTED = 20


class Problems:
    """Of one source. ``skip``: leave out what is wrong."""

    def __init__(self, skip: bool = False) -> None:
        self._skip = skip
        self._found: list[str] = []

    @contextmanager
    def entry(self) -> Iterator[None]:
        """What is raised in here, as a DataError, is one entry's mistake; the others go on."""
        try:
            yield
        except DataError as error:
            self._found.append(str(error))

    def settle(self, path: Path) -> None:
        """To be called once all entries of ``path`` were looked at.

        Raises:
            DataError: there were mistakes, and they are not to be left out.
        """
        found, self._found = self._found, []
        if not found:
            return
        listed = found[:MOST_LISTED]
        if len(found) > MOST_LISTED:
            listed.append(f"... and {len(found) - MOST_LISTED} more")
        if not self._skip:
            raise DataError("\n".join(listed))
        log.warning("%s: leaves out %d entries that are wrong:\n%s", path, len(found), "\n".join(listed))
