"""Where the machine, not a training, is at fault: one line with the remedy. Knows nothing of trainings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import LookoutError

_TOO_LITTLE_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "shared memory",
    "No space left",  # workers hand over batches in shared memory, which is a file system
)


class TrainingStopped(LookoutError):
    """The machine ran out of memory, or ended a worker process."""


@contextmanager
def machine_limits() -> Iterator[None]:
    """One line with the remedy where the machine, not the training, is at fault."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        lines = str(error).splitlines() or [""]
        if str(error).startswith("DataLoader worker"):
            what = f"a worker process was ended ({lines[0].strip()})"
        elif isinstance(error, MemoryError) or any(sign in str(error) for sign in _TOO_LITTLE_MEMORY):
            what = f"out of memory ({lines[-1].strip()})"
        else:
            raise
        raise TrainingStopped(
            f"{what}; lower schedule.batch or workers, then continue with the same command"
        ) from error
